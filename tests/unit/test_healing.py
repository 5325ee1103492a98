"""Healing: one probe a route and a round, released in order; and no route is forgotten because of a probe."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs
import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from pubd import healing
from pubd.entry import Entry
from pubd.errors import SpoolError
from pubd.healing import Healing
from pubd.ledger import Delivery
from pubd.outcome import Cause, Outcome, Reason, Settlement, State
from pubd.policy import Policies, Policy
from pubd.spool.base import Returned
from pubd.spool.memory import MemorySpool
from tests.strictness import Logged

NO_ROUTE = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
HEALS = Policies([Policy(exchange="x*", heal=True, heal_interval=10.0)])


class Spool(MemorySpool):
    """Fails when told to."""

    broken = False

    def returned(self, limit: int, after: Returned | None = None) -> Deferred[Sequence[Returned]]:
        return fail(SpoolError("the disk is gone")) if self.broken else super().returned(limit, after)

    def retry(self, ids: Sequence[str], *, probing: bool = False) -> Deferred[Collection[str]]:
        return fail(SpoolError("no retry")) if self.broken else super().retry(ids, probing=probing)

    def heal(self, group: Returned) -> Deferred[Collection[str]]:
        return fail(SpoolError("no heal")) if self.broken else super().heal(group)


class Bench:
    """A spool whose messages for ``x`` have been returned; what is published is what was claimed."""

    def __init__(self, policies: Policies = HEALS) -> None:
        self.clock = Clock()
        self.now = 0.0
        self.spool = Spool()
        self.spool.open()
        self.woken: list[str] = []
        self.released: list[str] = []
        self.healing = Healing(
            clock=self.clock,
            spool=self.spool,
            policies=policies,
            wake=self.woken.extend,
            released=self.released.extend,
        )
        self.healing.start()

    def parked(self, *bodies: bytes, exchange: str = "x", key: str = "k") -> list[str]:
        """Submit, claim, and be returned; their ids."""
        assert self.spool.ids is not None
        entries = []
        for body in bodies:
            seq = self.spool.ids.next()
            id = self.spool.ids.id_of(seq)
            entries.append(
                Entry(
                    id=id,
                    seq=seq,
                    exchange=exchange,
                    routing_key=key,
                    message_id=id,
                    mandatory=True,
                    properties=b"",
                    body=body,
                )
            )
        self.spool.append(entries)
        self.ends(self.claim(exchange), Outcome.RETURNED)
        return [entry.id for entry in entries]

    def claim(self, exchange: str = "x") -> Sequence[Entry]:
        claimed: list[Entry] = []
        self.spool.claim(exchange, 1000, 1 << 30, self.now).addCallback(claimed.extend)
        return claimed

    def ends(self, entries: Sequence[Entry], outcome: Outcome, due: float | None = None) -> None:
        """What RabbitMQ answers, as the publisher tells it."""
        confirmed, others = [], []
        for entry in entries:
            if outcome is Outcome.CONFIRMED:
                confirmed.append(Delivery(entry, 1, 0.0, entry.size, outcome))
            else:
                state = State.DEFERRED if due is not None else State.PARKED
                others.append(
                    Settlement(entry=entry, state=state, attempts=1, reason=NO_ROUTE, outcome=outcome, due=due)
                )
        self.spool.settle(confirmed, others)
        self.healing.settled(confirmed, others)

    def round(self) -> list[bytes]:
        """One interval later: what lanes would publish of ``x``."""
        self.clock.advance(10)
        return [entry.body for entry in self.claimed()]

    def claimed(self) -> Sequence[Entry]:
        self.last = self.claim()
        return self.last


def test_where_no_policy_heals_nothing_runs() -> None:
    bench = Bench(Policies())
    bench.parked(b"1")
    assert bench.clock.getDelayedCalls() == []
    bench.healing.stop()


def test_the_oldest_of_a_route_is_probed_each_round_and_parked_again_until_it_is_routed() -> None:
    bench = Bench()
    ids = bench.parked(b"1", b"2", b"3")
    for _ in range(3):
        assert bench.round() == [b"1"]
        bench.ends(bench.last, Outcome.RETURNED)
    assert bench.round() == [b"1"]
    bench.ends(bench.last, Outcome.CONFIRMED)
    assert [entry.body for entry in bench.claimed()] == [b"2", b"3"]
    assert bench.woken == ["x"] * 5
    assert bench.released == [ids[0]] * 4 + ids[1:]
    bench.healing.stop()
    assert bench.clock.getDelayedCalls() == []


def test_a_probe_without_an_answer_yet_stands_for_its_route() -> None:
    bench = Bench()
    bench.parked(b"1", b"2")
    bench.parked(b"other", key="l")
    assert sorted(bench.round()) == [b"1", b"other"]
    probes = bench.last
    for _ in range(3):
        assert bench.round() == []
    bench.ends(probes, Outcome.CONFIRMED)
    assert [entry.body for entry in bench.claimed()] == [b"2"]


def test_confirmations_of_other_messages_release_nothing() -> None:
    bench = Bench()
    bench.parked(b"1", b"2")
    assert bench.round() == [b"1"]
    other = attrs.evolve(bench.last[0], id="another one")
    bench.healing.settled([Delivery(other, 1, 0.0, other.size, Outcome.CONFIRMED)], [])
    assert bench.claimed() == []


def test_a_probe_that_waits_after_a_nack_is_a_probe_still() -> None:
    bench = Bench()
    bench.parked(b"1", b"2")
    assert bench.round() == [b"1"]
    bench.ends(bench.last, Outcome.NACKED, due=50.0)
    assert bench.round() == []
    bench.now = 50.0
    (probe,) = bench.claimed()
    bench.ends([probe], Outcome.CONFIRMED)
    assert [entry.body for entry in bench.claimed()] == [b"2"]


def test_a_probe_that_counts_as_a_duplicate_heals_as_well() -> None:
    bench = Bench()
    bench.parked(b"1", b"2")
    assert bench.round() == [b"1"]
    (probe,) = bench.last
    change = Settlement(entry=probe, state=State.CONFIRMED, attempts=1, outcome=Outcome.NACKED)
    bench.spool.settle([], [change])
    bench.healing.settled([], [change])
    assert [entry.body for entry in bench.claimed()] == [b"2"]


def test_a_probe_that_a_person_discarded_gives_way_to_the_next() -> None:
    bench = Bench()
    first, _ = bench.parked(b"1", b"2")
    bench.clock.advance(10)
    bench.spool.discard([first], "not wanted")
    assert bench.round() == [b"2"]


def test_a_message_that_was_decided_about_while_it_was_looked_for_is_no_probe() -> None:
    bench = Bench()
    first, _ = bench.parked(b"1", b"2")
    found = bench.spool.returned

    def returned(limit: int, after: Returned | None = None) -> Deferred[Sequence[Returned]]:
        groups = found(limit, after)
        bench.spool.discard([first], "not wanted")
        return groups

    bench.spool.returned = returned  # type: ignore[method-assign]  # for this once
    assert bench.round() == []
    bench.spool.returned = found  # type: ignore[method-assign]
    assert bench.round() == [b"2"]


def test_a_confirmed_probe_of_which_nothing_was_heard_heals_at_the_next_round() -> None:
    bench = Bench()
    bench.parked(b"1", b"2")
    assert bench.round() == [b"1"]
    bench.spool.settle([Delivery(entry, 1, 0.0, entry.size, Outcome.CONFIRMED) for entry in bench.last], [])
    assert bench.round() == [b"2"]


def test_routes_of_other_policies_and_other_causes_are_left_alone() -> None:
    bench = Bench()
    bench.parked(b"1", exchange="other")
    assert bench.round() == []
    assert [entry.body for entry in bench.claim("other")] == []


def test_the_routes_probed_at_once_are_bounded() -> None:
    bench = Bench()
    for number in range(healing.GROUPS + 5):
        bench.parked(b"%d" % number, key=str(number))
    assert len(bench.round()) == healing.GROUPS
    assert bench.round() == []


def test_routes_that_stay_away_do_not_keep_others_from_being_probed() -> None:
    """Whatever there is before them: all come in turn."""
    bench = Bench()
    keys = [f"{number:03}" for number in range(2 * healing.GROUPS + 5)]
    for key in keys:
        bench.parked(key.encode(), key=key)
    seen: list[list[str]] = []
    for _ in range(4):
        seen.append([body.decode() for body in bench.round()])
        bench.ends(bench.last, Outcome.RETURNED)
    assert [sorted(each) for each in seen] == [
        keys[:100],
        keys[100:200],
        sorted(keys[200:] + keys[:95]),
        keys[95:195],
    ]


def test_routes_of_policies_that_do_not_heal_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "LOOKS", 10)
    bench = Bench(Policies([Policy(routing_key="heals.#", heal=True, heal_interval=10.0)]))
    for number in range(15):
        bench.parked(b"other", key=f"a{number:02}")
    bench.parked(b"1", key="heals.1")
    assert [bench.round() for _ in range(2)] == [[], [b"1"]]


def test_a_failing_spool_is_logged_and_healing_goes_on_when_it_is_well(logged: Logged) -> None:
    bench = Bench()
    bench.parked(b"1", b"2")
    bench.spool.broken = True
    assert bench.round() == []
    bench.spool.broken = False
    assert bench.round() == [b"1"]
    bench.spool.broken = True
    bench.ends(bench.last, Outcome.CONFIRMED)
    assert logged.texts == [
        "looking for messages to heal failed: the disk is gone",
        "releasing parked messages failed: no heal",
    ]
    bench.spool.broken = False
    assert bench.round() == [b"2"], "the next one is the probe then"


def test_a_probe_that_cannot_be_made_ready_is_tried_again(logged: Logged) -> None:
    bench = Bench()
    bench.parked(b"1")
    found = bench.spool.returned

    def returned(limit: int, after: Returned | None = None) -> Deferred[Sequence[Returned]]:
        groups = found(limit, after)
        bench.spool.broken = True
        return groups

    bench.spool.returned = returned  # type: ignore[method-assign]  # for this once
    assert bench.round() == []
    assert logged.texts == ["looking for messages to heal failed: no retry"]
    bench.spool.returned, bench.spool.broken = found, False  # type: ignore[method-assign]
    assert bench.round() == [b"1"]


def test_the_one_that_was_alone_is_healed_without_a_word(logged: Logged) -> None:
    bench = Bench()
    bench.parked(b"1")
    assert bench.round() == [b"1"]
    bench.ends(bench.last, Outcome.CONFIRMED)
    assert logged.texts == []
    assert bench.round() == []
