"""The supply of the lanes: outcomes become settlements, are committed, and only then told."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pubd.amqp.encode import decode_properties
from pubd.entry import Entry
from pubd.errors import MessageParked, SpoolError, SpoolFull
from pubd.ledger import Delivery
from pubd.message import Message
from pubd.options import Options
from pubd.outcome import Cause, Outcome, Reason, Settlement
from pubd.parked import ParkedLog
from pubd.policy import OnNack, OnReturn, Policies, Policy
from pubd.receipt import Confirmed, Receipt, Receipts
from pubd.settling import Settling
from pubd.spool.memory import MemorySpool
from pubd.submission import entry_of
from pubd.wakeups import Wakeups
from tests.strictness import Logged

REASONS = {
    Outcome.RETURNED: Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE"),
    Outcome.POISON: Reason(cause=Cause.POISON, code=406, text="PRECONDITION_FAILED"),
}


class Slow(MemorySpool):
    """Commits settlements when told to, or fails to."""

    def __init__(self, wall: Any) -> None:
        super().__init__(wall=wall)
        self.slow = False
        self.waiting: list[Deferred[Any]] = []
        self.problem: Exception | None = None

    def settle(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> Deferred[Collection[str]]:
        if self.problem is not None:
            return fail(self.problem)
        if not self.slow:
            return super().settle(confirmed, others)
        gate: Deferred[Any] = Deferred()
        self.waiting.append(gate)
        return gate.addCallback(lambda _: super(Slow, self).settle(confirmed, others))

    def commit(self) -> None:
        waiting, self.waiting = self.waiting, []
        for gate in waiting:
            gate.callback(None)


class Bench:
    def __init__(self, *policies: Policy, count_spool_time: bool = False) -> None:
        self.clock: Any = Clock()
        self.spool = Slow(self.clock.seconds)
        self.spool.open()
        self.receipts = Receipts()
        self.woken: list[str] = []
        self.parked: list[Settlement] = []
        self.copied: Deferred[None] = succeed(None)
        self.told: list[tuple[int, int]] = []
        self.wakeups = Wakeups(clock=self.clock, wall=self.clock.seconds, spool=self.spool, wake=self.woken.extend)
        self.parked_log = ParkedLog(self.clock)
        self.settling = Settling(
            spool=self.spool,
            policies=Policies(policies),
            receipts=self.receipts,
            wakeups=self.wakeups,
            wake=self.woken.extend,
            wall=self.clock.seconds,
            random=lambda: 0.0,
            count_spool_time=count_spool_time,
            parked_log=self.parked_log,
            parked=self.copy,
            done=lambda confirmed, others: self.told.append((len(confirmed), len(others))),
        )

    def copy(self, parked: Sequence[Settlement]) -> Deferred[None]:
        self.parked += parked
        return self.copied

    def submit(self, **given: Any) -> Receipt:
        assert self.spool.ids is not None
        message = Message(**{"exchange": "x", "routing_key": "k"} | given)
        answers: list[Receipt] = []
        stored = self.spool.append([entry_of(message, self.spool.ids, Options(), self.clock.seconds())])
        stored.addCallback(lambda accepted: answers.extend(self.receipts.issue(accepted)))
        return answers[0]

    def claim(self) -> list[Entry]:
        claimed: list[Entry] = []
        self.settling.claim("x", 100, 1 << 20).addCallback(claimed.extend)
        return claimed

    def end(self, *outcomes: Outcome) -> None:
        """Claim, and let these be the outcomes in turn."""
        deliveries = [
            Delivery(entry, tag, 0.0, entry.size, outcome, REASONS.get(outcome))
            for tag, (entry, outcome) in enumerate(zip(self.claim(), outcomes, strict=True), 1)
        ]
        self.settling.outcomes(deliveries)


def answer(receipt: Receipt) -> Any:
    seen: list[Any] = []
    receipt.settled().addCallbacks(seen.append, lambda failure: seen.append(failure.value))
    return seen[0] if seen else "waiting"


def test_nobody_is_told_before_the_commit() -> None:
    bench = Bench()
    confirmed, returned = bench.submit(), bench.submit()
    bench.spool.slow = True
    bench.end(Outcome.CONFIRMED, Outcome.RETURNED)
    assert (answer(confirmed), answer(returned), bench.told, bench.settling.under_way) == ("waiting", "waiting", [], 2)
    bench.spool.commit()
    assert isinstance(answer(confirmed), Confirmed)
    assert isinstance(answer(returned), MessageParked)
    assert (bench.told, bench.settling.under_way) == ([(0, 1), (1, 0)], 0)
    bench.parked_log.stop()


def test_who_is_confirmed_does_not_wait_for_the_copies_of_others() -> None:
    bench = Bench()
    confirmed, returned = bench.submit(), bench.submit()
    bench.copied = Deferred()
    bench.end(Outcome.CONFIRMED, Outcome.RETURNED)
    assert isinstance(answer(confirmed), Confirmed)
    assert (answer(returned), bench.told, bench.settling.under_way) == ("waiting", [(1, 0)], 1)
    bench.copied.callback(None)
    assert isinstance(answer(returned), MessageParked)
    bench.parked_log.stop()


def test_every_outcome_is_counted_as_what_it_was() -> None:
    bench = Bench(Policy(on_nack=OnNack.DUPLICATE))
    receipts = [bench.submit() for _ in Outcome]
    bench.end(*Outcome)
    assert bench.settling.counts == dict.fromkeys(Outcome, 1)
    assert bench.spool.books().difference == 0
    assert len(receipts) == len(Outcome)
    bench.parked_log.stop()


def test_what_was_lost_is_claimable_at_once_and_writes_no_settlement() -> None:
    bench = Bench()
    receipt = bench.submit()
    bench.end(Outcome.LOST)
    assert (answer(receipt), bench.told, bench.settling.under_way) == ("waiting", [], 0)
    (entry,) = bench.claim()
    assert (entry.id, entry.attempts) == (receipt.id, 0)
    bench.settling.release([entry])
    assert [entry.id for entry in bench.claim()] == [receipt.id]


def test_what_is_deferred_wakes_its_lane_when_it_is_due() -> None:
    bench = Bench(Policy(on_return=OnReturn.RETRY))
    receipt = bench.submit()
    bench.end(Outcome.RETURNED)
    assert answer(receipt) == "waiting"
    assert bench.claim() == []
    bench.clock.advance(0.9)
    assert bench.woken == []
    bench.clock.advance(0.1)
    assert bench.woken == ["x"]
    assert [entry.attempts for entry in bench.claim()] == [1]


def test_the_next_of_an_ordering_key_is_woken_after_the_commit() -> None:
    bench = Bench()
    bench.submit(ordering_key="o")
    bench.submit(ordering_key="o")
    bench.spool.slow = True
    bench.end(Outcome.CONFIRMED)
    assert bench.woken == []
    bench.spool.commit()
    assert bench.woken == ["x"]


def test_copies_are_stored_before_their_messages_are_parked() -> None:
    bench = Bench()
    receipt = bench.submit()
    bench.copied = Deferred()
    bench.end(Outcome.RETURNED)
    assert ([change.entry.id for change in bench.parked], bench.told) == ([receipt.id], [])
    assert bench.settling.under_way == 1
    bench.copied.callback(None)
    assert (bench.told, bench.settling.under_way) == ([(0, 1)], 0)
    bench.parked_log.stop()


def test_copies_that_cannot_be_stored_are_logged_and_their_messages_parked_all_the_same(logged: Logged) -> None:
    bench = Bench()
    receipt = bench.submit()
    bench.copied = fail(SpoolFull("max_rows", "no room"))
    bench.end(Outcome.RETURNED)
    assert isinstance(answer(receipt), MessageParked)
    assert logged.texts[0] == "parked messages could not be copied: the spool is full (max_rows): no room"
    assert bench.settling.under_way == 0
    bench.parked_log.stop()


def test_a_copy_that_fails_in_a_way_nobody_thought_of_does_not_keep_its_message_in_flight(logged: Logged) -> None:
    bench = Bench()
    receipt = bench.submit()
    bench.copied = fail(RuntimeError("a bug"))
    bench.end(Outcome.RETURNED)
    assert isinstance(answer(receipt), MessageParked)
    assert (bench.settling.under_way, bench.spool.books().parked) == (0, 1)
    (event,) = logged.flush(RuntimeError)
    assert event["log_failure"].check(RuntimeError)
    bench.parked_log.stop()


def test_settlements_that_cannot_be_stored_are_told_to_nobody_but_the_log(logged: Logged) -> None:
    bench = Bench()
    receipt = bench.submit()
    bench.spool.problem = SpoolError("the disk is gone")
    bench.end(Outcome.CONFIRMED)
    assert (answer(receipt), bench.told, bench.settling.under_way) == ("waiting", [], 0)
    assert logged.texts == ["settlements could not be stored: the disk is gone"]


def test_an_error_while_telling_is_logged_as_the_failure_it_is(logged: Logged) -> None:
    bench = Bench()
    bench.submit()
    bench.spool.problem = RuntimeError("a bug")
    bench.end(Outcome.CONFIRMED)
    (event,) = logged.flush(RuntimeError)
    assert event["log_format"] == "settlements were not told"


def expirations(entries: Sequence[Entry]) -> list[object]:
    return [decode_properties(entry.properties).get("expiration") for entry in entries]


def test_the_time_in_the_spool_is_taken_off_the_expiration_once_however_often_it_is_claimed() -> None:
    bench = Bench(count_spool_time=True)
    bench.submit(expiration="10000", body=b"x")
    bench.submit()
    bench.clock.advance(4)
    claimed = bench.claim()
    assert expirations(claimed) == ["6000", None]
    bench.settling.release(claimed)
    bench.clock.advance(1)
    bench.end(Outcome.LOST, Outcome.LOST)
    claimed = bench.claim()
    assert expirations(claimed) == ["5000", None]
    bench.settling.outcomes([Delivery(entry, 1, 0.0, entry.size, Outcome.NACKED) for entry in claimed])
    bench.clock.advance(2)
    claimed = bench.claim()
    assert expirations(claimed) == ["3000", None]
    assert [entry.attempts for entry in claimed] == [1, 1]
    bench.settling.release(claimed)
    bench.clock.advance(100)
    assert expirations(bench.claim()) == ["0", None], "RabbitMQ drops it, unless a consumer takes it at once"
    assert bench.spool.books().difference == 0


def test_it_stays_as_it_is_when_nobody_asks_for_that() -> None:
    bench = Bench()
    bench.submit(expiration="10000")
    bench.clock.advance(4)
    assert expirations(bench.claim()) == ["10000"]


def test_books_balance_to_the_byte_when_expirations_were_changed() -> None:
    bench = Bench(count_spool_time=True)
    bench.submit(expiration="10000")
    bench.clock.advance(9.5)
    bench.end(Outcome.CONFIRMED)
    assert (bench.spool.books().bytes, bench.spool.books().held) == (0, 0)
