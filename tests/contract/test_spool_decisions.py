"""What every spool does that operators decide: hold, release, retry, discard, flush, pause, and the record of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from pubd.decision import MOST, MOST_OPERATIONS, Decision, Pause, Verb
from pubd.outcome import Cause, Outcome, Reason, Settlement, State
from pubd.spool.base import Query
from tests.contract.test_spool import NO_ROUTE, SPOOLS, VIA, Bench, change, delivery, parked


@pytest.fixture(params=SPOOLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(SPOOLS[request.param], tmp_path / "spool.db")
    yield bench
    pytest_twisted.blockon(bench.spool.close())


def decision(bench: Bench, verb: Verb, text: str = "", who: str = "me") -> Decision:
    return Decision(verb=verb, who=who, at=bench.wall(), text=text)


async def decide(bench: Bench, verb: Verb, *ids: str, text: str = "") -> list[str]:
    """The names of those that were changed."""
    decided = await bench.spool.decide(decision(bench, verb, text), ids)
    return [bench.names[id] for id in decided.ids]


async def verbs(bench: Bench, id: str) -> list[str]:
    """What the record says was decided."""
    record = await bench.spool.record(id)
    assert record is not None
    return [each.verb.value for each in record.decisions]


@pytest_twisted.ensureDeferred
async def test_what_is_held_is_not_claimed_until_it_is_released_and_then_in_its_old_place(bench: Bench) -> None:
    spool = await bench.open()
    a, b, c, d = await bench.append(*"abcd")
    (_,) = await bench.claim(1)
    assert await decide(bench, Verb.HOLD, c.id, b.id, text="wait") == ["c", "b"]
    record = await spool.record(b.id)
    assert record is not None
    assert (record.state, record.attempts) == (State.PARKED, 0)
    assert record.reason == Reason(cause=Cause.HELD, text="wait")
    assert (await bench.books()).parked == 2
    assert await bench.claimed() == ["d"]
    await bench.append("e")
    released = await spool.decide(decision(bench, Verb.RELEASE), [b.id, c.id, d.id])
    assert (released.ids, released.wake) == ((b.id, c.id), ("e",))
    assert await bench.claimed() == ["b", "c", "e"]
    record = await spool.record(b.id)
    assert record is not None
    assert record.reason is None
    books = await bench.books()
    assert (books.parked, books.in_flight, books.difference) == (0, 5, 0)
    assert await decide(bench, Verb.HOLD, a.id) == [], "it is in flight"


@pytest_twisted.ensureDeferred
async def test_what_was_just_written_is_held_too_and_its_neighbours_go_on(bench: Bench) -> None:
    await bench.open()
    assert await bench.claimed() == []
    # A spool may have these at hand, without reading them.
    a, _, c = await bench.append(*"abc")
    assert await decide(bench, Verb.HOLD, a.id, c.id) == ["a", "c"]
    assert await bench.claimed() == ["b"]
    assert await decide(bench, Verb.RELEASE, a.id, c.id) == ["a", "c"]
    assert await bench.claimed() == ["a", "c"]


@pytest_twisted.ensureDeferred
async def test_a_release_keeps_the_attempts_and_the_delay_that_was_asked_for_but_no_backoff(bench: Bench) -> None:
    spool = await bench.open()
    (failed,) = await bench.append("failed")
    (claimed,) = await bench.claim()
    await spool.settle([], [change(claimed, State.DEFERRED, due=bench.wall() + 500)])
    (delayed,) = await bench.append("delayed", due=bench.wall() + 500)
    assert await decide(bench, Verb.HOLD, failed.id, delayed.id) == ["failed", "delayed"]
    bench.wall.now += 10
    released = await spool.decide(decision(bench, Verb.RELEASE), [failed.id, delayed.id])
    assert set(released.wake) == {"e"}
    (again,) = await bench.claim()
    assert (again.id, again.attempts) == (failed.id, 1)
    record = await spool.record(delayed.id)
    assert record is not None
    assert (record.state, record.due) == (State.DEFERRED, delayed.due)
    # Held until after its time, it is ready at once.
    await decide(bench, Verb.HOLD, delayed.id)
    bench.wall.now += 1000
    await decide(bench, Verb.RELEASE, delayed.id)
    assert await bench.claimed() == ["delayed"]
    books = await bench.books()
    assert (books.deferred, books.parked, books.in_flight) == (0, 0, 2)


@pytest_twisted.ensureDeferred
async def test_each_decision_is_for_some_states_only(bench: Bench) -> None:
    spool = await bench.open()
    names = ("ready", "deferred", "parked", "held", "settled", "flying")
    ids = {entry.message_id: entry.id for entry in await bench.append(*names)}
    claimed = {entry.message_id: entry for entry in await bench.claim()}
    due = bench.wall() + 100
    await spool.settle(
        [delivery(claimed["settled"])], [parked(claimed["parked"]), change(claimed["deferred"], State.DEFERRED, due)]
    )
    spool.release([claimed["ready"], claimed["held"]])
    await bench.books()
    assert await decide(bench, Verb.HOLD, ids["held"]) == ["held"]
    everything = list(ids.values())
    assert await decide(bench, Verb.RELEASE, *everything) == ["held"]
    assert await decide(bench, Verb.HOLD, *everything) == ["ready", "deferred", "held"]
    assert await decide(bench, Verb.RETRY, *everything) == ["parked"], "what is held is not retried"
    assert await decide(bench, Verb.DISCARD, *everything) == ["ready", "deferred", "parked", "held"]
    for verb in (Verb.RETRY, Verb.HOLD, Verb.RELEASE, Verb.DISCARD):
        assert await decide(bench, verb, *everything, "no id") == []
        assert await decide(bench, verb) == []
    books = await bench.books()
    assert (books.discarded, books.in_flight, books.held, books.difference) == (4, 1, 1, 0)


@pytest_twisted.ensureDeferred
async def test_a_held_head_blocks_its_ordering_key(bench: Bench) -> None:
    spool = await bench.open()
    a, b, other = [
        *(await bench.append("a", "b", ordering_key="k")),
        *(await bench.append("other", ordering_key="l")),
    ]
    await decide(bench, Verb.HOLD, a.id)
    assert await bench.claimed() == ["other"]
    await decide(bench, Verb.RELEASE, a.id)
    (first,) = await bench.claim()
    assert first.id == a.id
    await spool.settle([delivery(first)], [])
    assert await bench.claimed() == ["b"]
    (c, d) = await bench.append("c", "d", ordering_key="m")
    await decide(bench, Verb.HOLD, c.id)
    assert await bench.claimed() == []
    dropped = await spool.decide(decision(bench, Verb.DISCARD), [c.id])
    assert (dropped.ids, dropped.wake) == ((c.id,), ("e",)), "its successor is the head now"
    assert await bench.claimed() == ["d"]
    assert b.id != d.id != other.id


@pytest_twisted.ensureDeferred
async def test_what_is_held_does_not_expire_until_it_is_released(bench: Bench) -> None:
    spool = await bench.open()
    (a,) = await bench.append("a", expires_at=bench.wall() + 10)
    await decide(bench, Verb.HOLD, a.id)
    bench.wall.now += 20
    assert (await spool.sweep(bench.wall(), 3600)).expired == ()
    await decide(bench, Verb.RELEASE, a.id)
    assert [each.id for each in (await spool.sweep(bench.wall(), 3600)).expired] == [a.id]


@pytest_twisted.ensureDeferred
async def test_who_decided_what_when_and_why_is_in_the_record_until_the_message_is_forgotten(bench: Bench) -> None:
    spool = await bench.open()
    a, b = await bench.append(*"ab")
    began = bench.wall()
    await spool.decide(Decision(verb=Verb.HOLD, who="alice (uid 7)", at=began, text="Grüße"), [a.id])
    bench.wall.now += 1
    await decide(bench, Verb.RELEASE, a.id, b.id)
    assert await verbs(bench, b.id) == [], "what changed nothing is not noted"
    (claimed, _) = await bench.claim()
    await spool.settle([], [parked(claimed)])
    await decide(bench, Verb.RETRY, a.id)
    record = await spool.record(a.id)
    assert record is not None
    assert [(each.verb, each.who, each.at, each.text) for each in record.decisions] == [
        (Verb.HOLD, "alice (uid 7)", began, "Grüße"),
        (Verb.RELEASE, "me", began + 1, ""),
        (Verb.RETRY, "me", began + 1, ""),
    ]
    await decide(bench, Verb.DISCARD, a.id, text="enough")
    assert await verbs(bench, a.id) == ["hold", "release", "retry", "discard"]
    assert (await spool.find(Query(state=State.DISCARDED))).records[0] == await spool.record(a.id)
    assert (await spool.sweep(bench.wall() + 100, 10)).purged == 1
    assert await spool.record(a.id) is None


@pytest_twisted.ensureDeferred
async def test_a_confirmed_message_keeps_what_was_decided_about_it(bench: Bench) -> None:
    spool = await bench.open()
    (a,) = await bench.append("a")
    await decide(bench, Verb.HOLD, a.id)
    await decide(bench, Verb.RELEASE, a.id)
    await spool.settle([delivery(each) for each in await bench.claim()], [])
    assert await verbs(bench, a.id) == ["hold", "release"]


@pytest_twisted.ensureDeferred
async def test_the_latest_decisions_are_kept_and_so_are_those_about_exchanges(bench: Bench) -> None:
    spool = await bench.open()
    (a,) = await bench.append("a")
    for number in range(MOST):
        bench.wall.now += 1
        await decide(bench, Verb.HOLD, a.id, text=str(number))
        await decide(bench, Verb.RELEASE, a.id)
    record = await spool.record(a.id)
    assert record is not None
    assert len(record.decisions) == MOST
    assert record.decisions[-2].text == str(MOST - 1)
    (b,) = await bench.append("b")
    for _ in range(MOST_OPERATIONS):
        assert await spool.pause(decision(bench, Verb.PAUSE), "e")
        assert await spool.resume(decision(bench, Verb.RESUME), "e")
    assert await verbs(bench, b.id) == ["pause", "resume"] * (MOST // 2)


@pytest_twisted.ensureDeferred
async def test_a_flush_makes_ready_what_backs_off_and_not_what_was_to_be_delayed(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("a", "b")
    a, b = await bench.claim()
    late = bench.wall() + 500
    nacked = Reason(cause=Cause.NACKED, text="nacked")
    await spool.settle(
        [],
        [
            Settlement(
                entry=entry,
                state=State.DEFERRED,
                attempts=3,
                reason=nacked,
                due=late,
                outcome=Outcome.NACKED,
                via=VIA,
                tag=1,
            )
            for entry in (a, b)
        ],
    )
    (delayed,) = await bench.append("delayed", due=late)
    (c,) = await bench.append("parked")
    (claimed,) = await bench.claim()
    await spool.settle([], [parked(claimed, NO_ROUTE)])
    flushed = await spool.flush(decision(bench, Verb.FLUSH))
    assert (flushed.count, flushed.wake) == (2, ("e",))
    assert (await spool.flush(None)).count == 0
    again = await bench.claim()
    assert [(bench.names[each.id], each.attempts) for each in again] == [("a", 3), ("b", 3)]
    for each in (a, delayed, c):
        assert await verbs(bench, each.id) == ["flush"]
    books = await bench.books()
    assert (books.deferred, books.parked, books.difference) == (1, 1, 0)


@pytest_twisted.ensureDeferred
async def test_pauses_are_known_until_they_are_resumed_and_concern_those_held_meanwhile(bench: Bench) -> None:
    spool = await bench.open()
    (before,) = await bench.append("before")
    await spool.settle([delivery(each) for each in await bench.claim()], [])
    assert list(await spool.pauses()) == []
    bench.wall.now += 1
    at = bench.wall()
    (a,) = await bench.append("a")
    (other,) = await bench.append("other", exchange="other")
    assert await spool.pause(decision(bench, Verb.PAUSE, "upgrade"), "e")
    assert not await spool.pause(decision(bench, Verb.PAUSE, who="somebody else"), "e")
    assert await spool.pause(decision(bench, Verb.PAUSE), None)
    assert list(await spool.pauses()) == [
        Pause(exchange="e", at=at, who="me", text="upgrade"),
        Pause(exchange=None, at=at, who="me"),
    ]
    assert not await spool.resume(decision(bench, Verb.RESUME), "other")
    assert await spool.resume(decision(bench, Verb.RESUME), None)
    assert not await spool.resume(decision(bench, Verb.RESUME), None)
    assert [each.exchange for each in await spool.pauses()] == ["e"]
    assert await verbs(bench, a.id) == ["pause", "pause", "resume"]
    assert await verbs(bench, other.id) == ["pause", "resume"]
    bench.wall.now += 1
    (after,) = await bench.append("after")
    assert await verbs(bench, after.id) == []
    settled = await spool.record(before.id)
    assert settled is None or settled.decisions == ()


@pytest_twisted.ensureDeferred
async def test_the_decisions_of_a_durable_spool_outlive_the_process(bench: Bench) -> None:
    spool = await bench.open()
    if not spool.durable:
        return
    a, b = await bench.append(*"ab")
    await decide(bench, Verb.HOLD, a.id, text="why")
    await spool.pause(decision(bench, Verb.PAUSE, "upgrade"), None)
    spool = await bench.reopen()
    assert [(each.exchange, each.who, each.text) for each in await spool.pauses()] == [(None, "me", "upgrade")]
    assert await verbs(bench, a.id) == ["hold", "pause"]
    assert await verbs(bench, b.id) == ["pause"]
    assert await bench.claimed() == ["b"]
    assert await decide(bench, Verb.RELEASE, a.id) == ["a"]
    assert await bench.claimed() == ["a"]


@pytest_twisted.ensureDeferred
async def test_many_are_released_and_flushed_in_their_old_places(bench: Bench) -> None:
    spool = await bench.open()
    entries = await bench.append(*map(str, range(300)))
    flying = await bench.claim(2)
    held = [entry.id for entry in entries[2:280]]
    assert len(await decide(bench, Verb.HOLD, *held)) == len(held)
    assert await bench.claimed(5) == [str(number) for number in range(280, 285)]
    await decide(bench, Verb.RELEASE, *reversed(held))
    names = await bench.claimed(1000)
    assert names == [*(str(number) for number in range(2, 280)), *(str(number) for number in range(285, 300))]
    spool.release(entries[2:300])
    await bench.books()
    claimed = await bench.claim(1000)
    nacked = Reason(cause=Cause.NACKED, text="nacked")
    await spool.settle(
        [],
        [change(entry, State.DEFERRED, due=bench.wall() + 9, reason=nacked) for entry in claimed],
    )
    assert (await spool.flush(decision(bench, Verb.FLUSH))).count == 298
    assert await bench.claimed(1000) == [str(number) for number in range(2, 300)]
    await spool.settle([delivery(entry) for entry in flying], [])
    assert (await bench.books()).difference == 0
