"""What every spool does, sentence by sentence. The next store is one more row in ``SPOOLS``."""

from __future__ import annotations

import itertools
import tempfile
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from pubd.decision import Decision, Verb
from pubd.entry import Entry
from pubd.errors import IdempotencyConflict, SpoolFull
from pubd.ledger import Delivery
from pubd.outcome import Cause, Outcome, Reason, Settlement, State, Via
from pubd.spool import memory, sqlite
from pubd.spool.base import Books, Limits, Returned, Spool, copy_key
from pubd.spool.memory import MemorySpool
from pubd.spool.sqlite import SqliteSpool

LARGE = 1 << 30
VIA = Via("rabbit@a", 3)
NO_ROUTE = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
GONE = Reason(cause=Cause.LOST, text="connection lost")


@attrs.define
class Wall:
    """The time of day."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


Make = Callable[[Path, Limits | None, Wall], Spool]
SPOOLS: dict[str, Make] = {
    "memory": lambda _, limits, wall: MemorySpool(limits=limits, wall=wall),
    "sqlite": lambda path, limits, wall: SqliteSpool(path, reactor=reactor, limits=limits, wall=wall),
}


class Bench:
    """One spool, with the time of day and the names of the messages in it."""

    def __init__(self, make: Make, path: Path, limits: Limits | None = None) -> None:
        self.make, self.path, self.limits = make, path, limits
        self.wall = Wall()
        self.spool = make(path, limits, self.wall)
        self.names: dict[str, str] = {}

    async def open(self, limits: Limits | None = None) -> Spool:
        if limits is not None:
            self.spool = self.make(self.path, limits, self.wall)
        await self.spool.open()
        return self.spool

    async def reopen(self) -> Spool:
        """After a stop, as the next process."""
        await self.spool.close()
        self.spool = self.make(self.path, self.limits, self.wall)
        await self.spool.open()
        return self.spool

    def entry(self, name: str, exchange: str = "e", **given: Any) -> Entry:
        ids = self.spool.ids
        assert ids is not None
        seq = ids.next()
        id = ids.id_of(seq)
        self.names[id] = name
        fields: dict[str, Any] = {"routing_key": "k", "properties": b"p", "body": b"b", **given}
        return Entry(
            id=id,
            exchange=exchange,
            message_id=name,
            mandatory=True,
            accepted_at=self.wall(),
            seq=seq,
            **fields,
        )

    async def append(self, *names: str, **given: Any) -> list[Entry]:
        entries = [self.entry(name, **given) for name in names]
        await self.spool.append(entries)
        return entries

    async def claim(self, limit: int = 100, exchange: str = "e", max_bytes: int = LARGE) -> list[Entry]:
        return list(await self.spool.claim(exchange, limit, max_bytes, self.wall()))

    async def claimed(self, limit: int = 100, exchange: str = "e", max_bytes: int = LARGE) -> list[str]:
        return [self.names[each.id] for each in await self.claim(limit, exchange, max_bytes)]

    async def books(self) -> Books:
        """After everything asked for so far, answered or not."""
        await self.spool.due("nowhere", 0.0)
        return self.spool.books()


@pytest.fixture(params=SPOOLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(SPOOLS[request.param], tmp_path / "spool.db")
    yield bench
    pytest_twisted.blockon(bench.spool.close())


def delivery(entry: Entry, tag: int = 1, outcome: Outcome = Outcome.CONFIRMED) -> Delivery:
    reason = GONE if outcome is Outcome.LOST else None
    return Delivery(entry, tag, 0.0, entry.size, outcome, reason, VIA)


def change(one: Entry, state: State, due: float | None = None, reason: Reason | None = NO_ROUTE) -> Settlement:
    return Settlement(
        entry=one,
        state=state,
        attempts=one.attempts + 1,
        reason=reason,
        due=due,
        outcome=Outcome.RETURNED,
        via=VIA,
        tag=7,
    )


def parked(one: Entry, reason: Reason | None = NO_ROUTE) -> Settlement:
    return change(one, State.PARKED, reason=reason)


# Order


@pytest_twisted.ensureDeferred
async def test_messages_are_claimed_in_order_of_acceptance_for_each_exchange(bench: Bench) -> None:
    spool = await bench.open()
    await spool.append([bench.entry("a1", "a"), bench.entry("b1", "b"), bench.entry("a2", "a")])
    await bench.append("a3", exchange="a")
    assert sorted(await spool.backlog()) == ["a", "b"]
    assert await bench.claimed(2, "a") == ["a1", "a2"]
    assert await bench.claimed(2, "a") == ["a3"]
    assert await bench.claimed(2, "a") == []
    assert await bench.claimed(2, "b") == ["b1"]
    assert await bench.claimed(2, "unknown") == []
    assert await bench.claimed(0, "b") == []


@pytest_twisted.ensureDeferred
async def test_as_far_as_it_knows_it_refuses_nothing(bench: Bench) -> None:
    spool = await bench.open(Limits(max_rows=1))
    assert spool.refusal is None
    await bench.append("a")
    with pytest.raises(SpoolFull):
        await bench.append("b")
    assert spool.refusal is None, "limits are looked at by whoever knows them"


@pytest_twisted.ensureDeferred
async def test_an_entry_comes_back_as_it_was_given(bench: Bench) -> None:
    await bench.open()
    (given_,) = await bench.append("n", exchange="ex\0é", routing_key="k\0ü", ordering_key="o", body=b"\0" * 9)
    (got,) = await bench.claim(exchange="ex\0é")
    for field in ("id", "exchange", "routing_key", "message_id", "mandatory", "properties", "body", "accepted_at"):
        assert getattr(got, field) == getattr(given_, field)
    assert (got.seq, got.attempts, got.ordering_key) == (given_.seq, 0, "o")


@pytest_twisted.ensureDeferred
async def test_a_claim_stops_at_its_bytes_but_always_gives_one(bench: Bench) -> None:
    await bench.open()
    await bench.append("a", "b", "c", body=b"x" * 1000)
    assert await bench.claimed(10, max_bytes=1) == ["a"]
    assert await bench.claimed(10, max_bytes=5000) == ["b", "c"]


@pytest_twisted.ensureDeferred
async def test_released_messages_come_again_in_their_old_place_with_no_attempt_spent(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append(*"abcdef")
    first = await bench.claim(2)
    second = await bench.claim(2)
    spool.release(second)
    spool.release(first)
    again = await bench.claim(3)
    assert [bench.names[each.id] for each in again] == ["a", "b", "c"]
    assert await bench.claimed() == ["d", "e", "f"]
    assert [each.attempts for each in again] == [0, 0, 0]


@pytest_twisted.ensureDeferred
async def test_lost_deliveries_are_released_and_their_loss_is_counted_in_the_record(bench: Bench) -> None:
    spool = await bench.open()
    (a, _) = await bench.append("a", "b")
    for n in range(3):
        bench.wall.now += 1
        spool.lose([delivery(each, n + 1, Outcome.LOST) for each in await bench.claim(1)])
        assert (await bench.books()).in_flight == 0
    record = await spool.record(a.id)
    assert record is not None
    (attempt,) = record.failures
    assert (attempt.number, attempt.times, attempt.outcome, attempt.at) == (0, 3, "lost", bench.wall.now)
    assert (attempt.node, attempt.channel, attempt.tag, attempt.text) == ("rabbit@a", 3, 3, GONE.text)
    assert (record.state, record.attempts, record.in_flight) == (State.READY, 0, False)
    assert await bench.claimed() == ["a", "b"]


# Limits


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("limit", ["max_bytes", "max_rows"])
async def test_a_full_spool_refuses_the_whole_batch_naming_the_limit_and_nothing_else_suffers(
    bench: Bench, limit: str
) -> None:
    size = Entry(id="", exchange="e", routing_key="k", message_id="", mandatory=True, properties=b"p", body=b"b").size
    spool = await bench.open(Limits(**{limit: 2 * size if limit == "max_bytes" else 2}))
    await bench.append("a")
    with pytest.raises(SpoolFull, match=limit) as refused:
        await bench.append("b", "c")
    assert refused.value.limit == limit
    assert (await bench.books()).accepted == 1
    (a,) = await bench.claim()
    await spool.settle([delivery(a)], [])
    await bench.append("d", "e")
    assert await bench.claimed() == ["d", "e"]


@pytest_twisted.ensureDeferred
async def test_a_known_idempotency_key_is_answered_by_a_full_spool_too(bench: Bench) -> None:
    spool = await bench.open(Limits(max_rows=1))
    (a,) = await bench.append("a", idempotency_key="i")
    (answer,) = await spool.append([bench.entry("b", idempotency_key="i")])
    assert (answer.id, answer.new) == (a.id, False)


# Idempotency


@pytest_twisted.ensureDeferred
async def test_the_same_key_with_the_same_content_gives_the_same_message(bench: Bench) -> None:
    spool = await bench.open()
    keyed: dict[str, Any] = {"idempotency_key": "i", "fingerprint": b"f"}
    batch = [bench.entry("a", **keyed), bench.entry("b", **keyed), bench.entry("c")]
    answers = await spool.append(batch)
    assert [(each.id, each.message_id, each.new) for each in answers] == [
        (batch[0].id, "a", True),
        (batch[0].id, "a", False),
        (batch[2].id, "c", True),
    ]
    (later,) = await spool.append([bench.entry("d", **keyed)])
    assert (later.id, later.message_id, later.state, later.new) == (batch[0].id, "a", State.READY, False)
    assert (await bench.books()).accepted == 2
    assert await bench.claimed() == ["a", "c"]


@pytest_twisted.ensureDeferred
async def test_concurrent_submissions_of_one_key_become_one_message(bench: Bench) -> None:
    spool = await bench.open()
    keyed: dict[str, Any] = {"idempotency_key": "i", "fingerprint": b"f"}
    answers = await gatherResults([spool.append([bench.entry(f"m{n}", **keyed)]) for n in range(5)])
    assert [answer.new for (answer,) in answers] == [True, False, False, False, False]
    assert len({answer.id for (answer,) in answers}) == 1
    assert await bench.claimed() == ["m0"]


@pytest_twisted.ensureDeferred
async def test_the_same_key_with_other_content_is_refused_and_its_batch_with_it(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("a", idempotency_key="i", fingerprint=b"f")
    for batch in (
        [bench.entry("b"), bench.entry("c", idempotency_key="i", fingerprint=b"g")],
        [
            bench.entry("d", idempotency_key="j", fingerprint=b"f"),
            bench.entry("e", idempotency_key="j", fingerprint=b"g"),
        ],
    ):
        with pytest.raises(IdempotencyConflict):
            await spool.append(batch)
    assert await bench.claimed() == ["a"]
    await bench.append("f", idempotency_key="j", fingerprint=b"g")


@pytest_twisted.ensureDeferred
async def test_a_known_key_tells_what_became_of_its_message_until_that_is_swept(bench: Bench) -> None:
    spool = await bench.open()
    for name in "abc":
        await bench.append(name, idempotency_key=name, fingerprint=b"f")
    a, b, c = await bench.claim()
    await spool.settle([delivery(a)], [parked(b), change(c, State.DEFERRED, bench.wall() + 9)])

    async def again(key: str) -> tuple[str, State, int, Reason | None, bool]:
        (answer,) = await spool.append([bench.entry("again", idempotency_key=key, fingerprint=b"f")])
        return bench.names[answer.id], answer.state, answer.attempts, answer.reason, answer.new

    assert await again("a") == ("a", State.CONFIRMED, 0, None, False)
    assert await again("b") == ("b", State.PARKED, 1, NO_ROUTE, False)
    assert await again("c") == ("c", State.DEFERRED, 1, NO_ROUTE, False)
    settled = bench.wall()
    await spool.sweep(settled + 10, retain=10)
    assert await again("a") == ("a", State.CONFIRMED, 0, None, False)
    assert (await spool.sweep(settled + 11, retain=10)).purged == 1
    assert await again("a") == ("again", State.READY, 0, None, True)
    assert await spool.record(a.id) is None


# Delay, due, ttl


@pytest_twisted.ensureDeferred
async def test_a_message_with_a_delay_is_deferred_until_then(bench: Bench) -> None:
    spool = await bench.open()
    due = bench.wall() + 10
    (answer,) = await spool.append([bench.entry("a", due=due)])
    await bench.append("b")
    assert answer.state is State.DEFERRED
    assert await spool.backlog() == ["e"]
    assert (await bench.books()).deferred == 1
    assert await bench.claimed() == ["b"]
    assert await spool.due("e", 0.0) == due
    bench.wall.now = due
    assert await bench.claimed() == ["a"]
    assert (await bench.books()).deferred == 0


@pytest_twisted.ensureDeferred
async def test_a_deferred_message_comes_when_it_is_due_with_its_attempts(bench: Bench) -> None:
    spool = await bench.open()
    start = bench.wall()
    await bench.append("a", "b", "c")
    a, b, _ = await bench.claim()
    await spool.settle([], [change(a, State.DEFERRED, start + 20), change(b, State.DEFERRED, start + 10)])
    assert await spool.due("e", start) == start + 10
    assert await spool.due("e", start + 10) == start + 20
    assert await spool.due("e", start + 20) is None
    assert await spool.due("unknown", 0.0) is None
    bench.wall.now = start + 9.9
    assert await bench.claimed() == []
    bench.wall.now = start + 10
    (again,) = await bench.claim()
    assert (bench.names[again.id], again.attempts) == ("b", 1)
    bench.wall.now = start + 20
    assert await bench.claimed() == ["a"]


@pytest_twisted.ensureDeferred
async def test_what_has_expired_is_not_claimed_and_the_sweep_settles_it(bench: Bench) -> None:
    spool = await bench.open()
    at = bench.wall() + 5
    flying, ready, deferred, parked_, later = await bench.append(*"abcd", "e", expires_at=at)
    (later2,) = await bench.append("f", expires_at=at + 99)
    claimed = await bench.claim(4)
    spool.release([claimed[1]])
    await spool.settle([], [change(claimed[2], State.DEFERRED, at + 1), parked(claimed[3])])
    assert (await spool.sweep(at - 1, 100)).expired == ()
    bench.wall.now = at
    assert await bench.claimed() == ["f"]
    swept = await spool.sweep(at, 100)
    assert sorted(bench.names[each.id] for each in swept.expired) == ["b", "c", "e"]
    books = await bench.books()
    assert (books.expired, books.in_flight, books.parked, books.deferred, books.ready) == (3, 2, 1, 0, 0)
    assert books.difference == 0
    record = await spool.record(deferred.id)
    assert record is not None
    assert (record.state, record.settled_at, record.due, record.tag) == (State.EXPIRED, at, None, None)
    assert record.reason is not None
    assert record.reason.cause is Cause.TTL
    assert [each.outcome for each in record.failures] == ["returned"]
    # What was in flight or parked expires when it is free again.
    spool.release([claimed[0]])
    await spool.retry([parked_.id])
    assert await bench.claimed() == []
    assert {each.id for each in (await spool.sweep(at, 100)).expired} == {flying.id, parked_.id}
    assert {ready.id, later.id, later2.id} <= set(bench.names)


# Ordering keys


@pytest_twisted.ensureDeferred
async def test_only_the_head_of_an_ordering_key_is_given_and_its_successor_after_it_is_settled(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("a1", "a2", ordering_key="a")
    await bench.append("b1", "b2", ordering_key="b")
    await bench.append("n")
    a1, b1, n = await bench.claim()
    assert [bench.names[each.id] for each in (a1, b1, n)] == ["a1", "b1", "n"]
    assert await bench.claimed() == []
    assert list(await spool.settle([delivery(a1), delivery(n)], [])) == ["e"]
    assert await bench.claimed() == ["a2"]
    spool.release([b1])
    assert await bench.claimed() == ["b1"]
    assert list(await spool.settle([delivery(b1)], [])) == ["e"]
    assert await bench.claimed() == ["b2"]
    assert await bench.claimed(exchange="other") == []


@pytest_twisted.ensureDeferred
async def test_a_deferred_or_parked_head_blocks_its_key_only(bench: Bench) -> None:
    spool = await bench.open()
    start = bench.wall()
    await bench.append("a1", "a2", ordering_key="a")
    await bench.append("b1", "b2", "b3", ordering_key="b")
    a1, b1 = await bench.claim()
    assert list(await spool.settle([], [change(a1, State.DEFERRED, start + 5), parked(b1)])) == []
    await bench.append("c1", ordering_key="c")
    assert await bench.claimed() == ["c1"]
    assert list(await spool.backlog()) == ["e"]
    bench.wall.now = start + 5
    assert await bench.claimed() == ["a1"]
    assert list(await spool.retry([b1.id])) == ["e"]
    assert await bench.claimed() == ["b1"]


@pytest_twisted.ensureDeferred
async def test_discarding_or_expiring_the_head_of_a_key_frees_the_next(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("a1", ordering_key="a", expires_at=bench.wall() + 5)
    await bench.append("a2", "a3", ordering_key="a")
    (a1,) = await bench.claim()
    await spool.settle([], [change(a1, State.DEFERRED, bench.wall() + 100)])
    bench.wall.now += 5
    assert await bench.claimed() == []
    assert (await spool.sweep(bench.wall(), 100)).wake == ("e",)
    (a2,) = await bench.claim()
    await spool.settle([], [parked(a2)])
    assert await bench.claimed() == []
    assert list(await spool.discard([a2.id], "told to")) == [a2.id]
    assert await bench.claimed() == ["a3"]


@pytest_twisted.ensureDeferred
async def test_what_became_due_is_claimed_once_although_its_place_is_read_anew(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("a")
    assert await bench.claimed(2) == ["a"]
    (_, dropped, _) = await bench.append("due 1", "due 2", "due 3", due=bench.wall.now + 1)
    await bench.append("b", "c")
    bench.wall.now += 1
    assert await bench.claimed(1) == ["due 1"]
    # Rows have changed behind what was kept in memory, and are read again from where lanes were last.
    await spool.discard([dropped.id], "")
    assert await bench.claimed(9) == ["due 3", "b", "c"]


@pytest_twisted.ensureDeferred
async def test_what_became_due_does_not_overtake_what_was_accepted_before_it(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("first")
    assert await bench.claimed(2) == ["first"]
    await bench.append("a", "b")
    await bench.append("due 1", "due 2", due=bench.wall.now + 1)
    (other,) = await bench.append("c")
    bench.wall.now += 1
    assert await bench.claimed(1) == ["a"]
    await spool.discard([other.id], "")
    assert await bench.claimed(9) == ["b", "due 1", "due 2"]


@pytest_twisted.ensureDeferred
async def test_what_became_due_among_others_that_wait_is_not_passed_over(bench: Bench) -> None:
    await bench.open()
    await bench.append("first")
    assert await bench.claimed(2) == ["first"]
    await bench.append("a")
    await bench.append("due", due=bench.wall.now + 1)
    await bench.append("b")
    # Too large to be kept in memory: from here on the store reads.
    await bench.append("large", body=b"x" * 10_000)
    await bench.append("c")
    bench.wall.now += 1
    assert await bench.claimed(1) == ["a"]
    assert await bench.claimed(9) == ["due", "b", "large", "c"]


@pytest_twisted.ensureDeferred
async def test_the_next_of_a_key_that_was_not_looked_at_before_is_claimed_once(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("first")
    assert await bench.claimed(2) == ["first"]
    await bench.append("k1", "k2", ordering_key="k")
    await bench.append("last")
    (head,) = await bench.claim(1)
    await spool.settle([delivery(head)], [])
    assert await bench.claimed(9) == ["k2", "last"]


@pytest_twisted.ensureDeferred
async def test_a_message_that_is_ready_for_two_reasons_is_claimed_once(bench: Bench) -> None:
    spool = await bench.open()
    a1, a2 = await bench.append("a1", "a2", ordering_key="a")
    spool.release(await bench.claim())
    # Discarding a2 looks at the head of the key, a1, which is released already.
    await spool.discard([a2.id], "")
    assert await bench.claimed() == ["a1"]
    assert await bench.claimed() == []
    assert a1.seq


# Settlement, record, operations


@pytest_twisted.ensureDeferred
async def test_the_books_follow_every_message(bench: Bench) -> None:
    spool = await bench.open()
    one, *_ = await bench.append(*"abcdefgh")
    assert spool.books().bytes == 8 * one.size
    a, b, c, d, e, f, _ = await bench.claim(7)
    await spool.settle(
        [delivery(a)],
        [
            parked(b),
            change(c, State.DEFERRED, due=bench.wall() + 1),
            change(d, State.EXPIRED),
            change(e, State.DISCARDED),
            change(f, State.READY),
        ],
    )
    books = spool.books()
    assert (books.accepted, books.confirmed, books.expired, books.discarded) == (8, 1, 1, 1)
    assert (books.ready, books.deferred, books.parked, books.in_flight) == (2, 1, 1, 1)
    assert (books.held, books.difference, books.bytes) == (5, 0, 5 * one.size)


@pytest_twisted.ensureDeferred
async def test_the_record_tells_the_attempts_and_the_end(bench: Bench) -> None:
    spool = await bench.open()
    (entry,) = await bench.append("a", routing_key="r")
    accepted_at = bench.wall()
    (a,) = await bench.claim()
    record = await spool.record(entry.id)
    assert record is not None
    assert (record.state, record.in_flight, record.failures, record.settled_at) == (State.READY, True, (), None)
    bench.wall.now += 1
    await spool.settle([], [change(a, State.DEFERRED, bench.wall() + 1)])
    record = await spool.record(entry.id)
    assert record is not None
    assert (record.state, record.due, record.reason) == (State.DEFERRED, bench.wall() + 1, NO_ROUTE)
    assert (record.attempts, record.in_flight, record.via, record.tag) == (1, False, None, None)
    bench.wall.now += 1
    (a,) = await bench.claim()
    await spool.settle([delivery(a, tag=9)], [])
    record = await spool.record(entry.id)
    assert record is not None
    assert (record.id, record.message_id, record.exchange, record.routing_key) == (entry.id, "a", "e", "r")
    assert (record.state, record.attempts, record.reason, record.due) == (State.CONFIRMED, 1, None, None)
    assert (record.accepted_at, record.settled_at) == (accepted_at, bench.wall())
    assert (record.via, record.tag) == (VIA, 9)
    (attempt,) = record.failures
    assert (attempt.number, attempt.at, attempt.times) == (1, accepted_at + 1, 1)
    assert (attempt.outcome, attempt.node, attempt.channel, attempt.tag) == ("returned", "rabbit@a", 3, 7)
    assert (attempt.code, attempt.text) == (312, "NO_ROUTE")


@pytest_twisted.ensureDeferred
async def test_nothing_is_known_of_ids_that_are_not_its_own(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("a")
    for id in ("", "a", "01234567-89ab-7def-8123-456789abcdef", "é" * 36):
        assert await spool.record(id) is None
        assert list(await spool.retry([id])) == []
        assert list(await spool.discard([id], "")) == []


@pytest_twisted.ensureDeferred
async def test_a_plain_confirmation_has_a_record_where_the_store_says_so(bench: Bench) -> None:
    spool = await bench.open()
    (entry,) = await bench.append("a")
    await spool.settle([delivery(each) for each in await bench.claim()], [])
    assert (await spool.record(entry.id) is not None) is spool.records_confirmed
    assert (await spool.sweep(bench.wall() + 1, 0)).purged == int(spool.records_confirmed)
    assert (await bench.books()).confirmed == 1


@pytest_twisted.ensureDeferred
async def test_the_record_keeps_the_attempts_from_before_a_retry(bench: Bench) -> None:
    spool = await bench.open()
    (entry,) = await bench.append("a")
    for _ in range(3):
        bench.wall.now += 1
        (claimed,) = await bench.claim()
        await spool.settle([], [parked(claimed)])
        await spool.retry([entry.id])
    record = await spool.record(entry.id)
    assert record is not None
    assert [attempt.number for attempt in record.failures] == [1, 2, 3]
    assert len({attempt.at for attempt in record.failures}) == 3


@pytest_twisted.ensureDeferred
async def test_who_is_parked_again_after_a_retry_is_copied_again_but_not_after_a_probe(bench: Bench) -> None:
    """Also when the first copy is forgotten meanwhile: it takes no key with it that is another's by then."""
    spool = await bench.open()
    (a,) = await bench.append("a")

    async def copied() -> bool:
        await spool.settle([], [parked(each) for each in await bench.claim()])
        copy = bench.entry("copy", exchange="copies", idempotency_key=copy_key(a.id), fingerprint=b"f")
        (answer,) = await spool.append([copy])
        return answer.new

    assert await copied()
    await spool.retry([a.id], probing=True)
    assert not await copied()
    for group in await spool.returned(1):
        await spool.heal(group)
    assert not await copied()
    await spool.settle([delivery(each) for each in await bench.claim(exchange="copies")], [])
    await spool.retry([a.id])
    assert await copied()
    bench.wall.now += 10
    assert (await spool.sweep(bench.wall(), 5)).purged == 1
    await spool.retry([a.id], probing=True)
    assert not await copied()


@pytest_twisted.ensureDeferred
async def test_copies_of_what_is_parked_are_refused_by_no_limit(bench: Bench) -> None:
    spool = await bench.open(limits=Limits(max_rows=2))
    await bench.append("a", "b")
    (a, _) = await bench.claim()
    entries = [bench.entry("copy", exchange="copies", idempotency_key=copy_key(a.id), fingerprint=b"f")]
    assert list(await spool.copy(entries, [parked(a)])) == ["copies"]
    await spool.settle([], [parked(a)])
    assert await bench.claimed(exchange="copies") == ["copy"]
    books = await bench.books()
    assert (books.accepted, books.parked, books.held, books.difference) == (3, 1, 3, 0)
    again = [bench.entry("copy", exchange="copies", idempotency_key=copy_key(a.id), fingerprint=b"f")]
    await spool.copy(again, [parked(a)])
    assert (await bench.books()).accepted == 3


@pytest_twisted.ensureDeferred
async def test_retry_takes_what_is_parked_or_deferred_and_counts_attempts_anew(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append(*"abcd")
    a, b, c = await bench.claim(3)
    await spool.settle([], [parked(a), change(b, State.DEFERRED, bench.wall() + 9)])
    assert list(await spool.retry([a.id, b.id, c.id, a.id])) == ["e"]
    again = await bench.claim()
    assert [(bench.names[each.id], each.attempts) for each in again] == [("a", 0), ("b", 0), ("d", 0)]
    assert list(await spool.retry([each.id for each in again])) == []
    record = await spool.record(a.id)
    assert record is not None
    assert (record.reason, len(record.failures)) == (None, 1)
    await spool.settle([delivery(each) for each in (*again, c)], [])
    assert (await bench.books()).confirmed == 4


@pytest_twisted.ensureDeferred
async def test_discard_drops_what_is_not_in_flight_and_says_what_it_dropped(bench: Bench) -> None:
    spool = await bench.open()
    entries = await bench.append(*"abcd", routing_key="k\0é")
    a, b, _ = await bench.claim(3)
    await spool.settle([], [parked(a), change(b, State.DEFERRED, bench.wall() + 9)])
    ids = [each.id for each in entries]
    assert list(await spool.discard([*ids, *ids], "told to")) == [ids[0], ids[1], ids[3]]
    record = await spool.record(ids[0])
    assert record is not None
    assert (record.state, record.settled_at, record.tag) == (State.DISCARDED, bench.wall(), None)
    assert record.reason == Reason(cause=Cause.DISCARDED, text="told to")
    assert list(await spool.retry([ids[0]])) == []
    books = await bench.books()
    assert (books.discarded, books.held, books.bytes, books.difference) == (3, 1, entries[0].size, 0)
    bench.wall.now += 10
    assert await bench.claimed() == []


@pytest_twisted.ensureDeferred
async def test_what_was_returned_is_grouped_by_route_and_healed_in_order(bench: Bench) -> None:
    spool = await bench.open()
    a, b, c, d = await bench.append(*"abcd")
    (x,) = await bench.append("x", routing_key="other")
    claimed = await bench.claim()
    nacked = Reason(cause=Cause.NACKED, text="basic.nack")
    await spool.settle([], [*map(parked, reversed(claimed[1:3])), parked(claimed[4]), parked(claimed[3], nacked)])
    groups = sorted(await spool.returned(10), key=lambda group: group.first)
    assert groups == [Returned("e", "k", b.id), Returned("e", "other", x.id)]
    assert len(await spool.returned(1)) == 1
    await bench.append("y")
    assert list(await spool.returned(10, groups[0])) == groups[1:]
    assert list(await spool.returned(10, groups[1])) == []
    assert list(await spool.heal(groups[0])) == [b.id, c.id]
    assert list(await spool.heal(groups[0])) == []
    healed = await bench.claim()
    assert [(bench.names[each.id], each.attempts) for each in healed] == [("b", 0), ("c", 0), ("y", 0)]
    assert (await bench.books()).parked == 2
    assert [a.id, c.id, d.id]


@pytest_twisted.ensureDeferred
async def test_a_sweep_does_a_bounded_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SWEEP_BATCH", 10)
    monkeypatch.setattr(sqlite, "PURGE_BATCH", 10)
    spool = await bench.open()
    await bench.append(*map(str, range(25)), expires_at=bench.wall() + 1)
    bench.wall.now += 2
    expired = [len((await spool.sweep(bench.wall(), 100)).expired) for _ in range(4)]
    assert expired == [10, 10, 5, 0]
    purged = [(await spool.sweep(bench.wall() + 1, 0)).purged for _ in range(4)]
    assert purged == [10, 10, 5, 0]
    assert (await bench.books()).expired == 25


@pytest_twisted.ensureDeferred
async def test_a_durable_spool_is_the_same_after_a_stop_but_that_nothing_is_in_flight(bench: Bench) -> None:
    spool = await bench.open()
    if not spool.durable:
        return
    start = bench.wall()
    await bench.append(*"abcdefg", idempotency_key=None)
    (key,) = await bench.append("k", idempotency_key="i", fingerprint=b"f")
    claimed = await bench.claim(5)
    await spool.settle([delivery(claimed[0])], [parked(claimed[1]), change(claimed[2], State.DEFERRED, start + 5)])
    before = spool.books()
    last = spool.ids
    spool = await bench.reopen()
    assert last is not None
    assert spool.ids is not None
    assert (spool.ids.tag, spool.ids.last_seq) == (last.tag, last.last_seq)
    assert spool.books() == attrs.evolve(before, ready=before.ready + before.in_flight, in_flight=0)
    assert await bench.claimed() == ["d", "e", "f", "g", "k"]
    (answer,) = await spool.append([bench.entry("k2", idempotency_key="i", fingerprint=b"f")])
    assert (answer.id, answer.new) == (key.id, False)
    bench.wall.now = start + 5
    assert await bench.claimed() == ["c"]
    assert (await spool.returned(9))[0].first == claimed[1].id


@pytest_twisted.ensureDeferred
async def test_a_memory_spool_does_not_grow_with_what_was_confirmed() -> None:
    bench = Bench(SPOOLS["memory"], Path())
    spool = await bench.open()

    async def some() -> None:
        await bench.append(*"abcd")
        await bench.append("e", ordering_key="o", expires_at=bench.wall() + 1)
        await spool.settle([delivery(each) for each in await bench.claim()], [])
        bench.wall.now += 2
        await spool.sweep(bench.wall(), 1)
        bench.names.clear()

    for _ in range(100):
        await some()
    tracemalloc.start()
    try:
        for _ in range(1000):
            await some()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 20_000
    assert spool.books().confirmed == 5500


# Life, against a plain model


@attrs.define
class Modelled:
    """One message in the model."""

    entry: Entry
    state: State = State.READY
    claimed: bool = False
    due: float = 0.0
    attempts: int = 0
    returned: bool = False
    failed: bool = False
    """It is deferred because it failed, not because a delay was asked for."""
    held: bool = False
    delay: float = 0.0
    """Until when it was to be delayed when it was held."""

    @property
    def open(self) -> bool:
        return self.state in (State.READY, State.DEFERRED, State.PARKED)


class Model:
    """What a spool is to hold, said as plainly as it can be."""

    def __init__(self) -> None:
        self.all: list[Modelled] = []

    def claimable(self, exchange: str, now: float) -> Iterator[Modelled]:
        keys: set[str] = set()
        for each in self.all:
            if each.entry.exchange != exchange or not each.open:
                continue
            key = each.entry.ordering_key
            if key in keys:
                continue
            if key is not None:
                keys.add(key)
            if each.state is State.DEFERRED and each.due <= now:
                each.state, each.returned = State.READY, False
            expires = each.entry.expires_at
            if each.state is State.READY and not each.claimed and (expires is None or expires > now):
                yield each

    def ripen(self, exchange: str, now: float) -> None:
        for each in self.all:
            if each.entry.exchange == exchange and each.state is State.DEFERRED and each.due <= now:
                each.state = State.READY

    def books(self) -> dict[str, int]:
        count = {state.value: 0 for state in State}
        for each in self.all:
            count[each.state.value] += 1
        flying = sum(each.claimed for each in self.all)
        count["ready"] -= flying
        return count | {
            "accepted": len(self.all),
            "in_flight": flying,
            "bytes": sum(each.entry.size for each in self.all if each.open),
        }


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("append", "claim", "release", "lose", "settle", "time", "sweep", "heal", "reopen"),
                *("retry", "discard", "hold", "let go", "flush"),
            ]
        ),
        st.integers(1, 4),
        st.lists(st.sampled_from(list(State)), min_size=4, max_size=4),
        st.sampled_from([None, "p", "q"]),
        st.sampled_from([None, None, 1.0, 3.0]),
        st.sampled_from([None, None, 4.0]),
    ),
    max_size=30,
)


@settings(max_examples=120, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=STEPS)
@pytest_twisted.ensureDeferred
async def test_whatever_happens_the_spool_does_as_a_plain_model_does(steps: list[Any]) -> None:
    """Order, keys, due times, expiry and books after every step of a random life."""
    for make in SPOOLS.values():
        await with_bench(make, live, steps)


async def with_bench(make: Make, test: Callable[[Bench, Any], Awaitable[None]], steps: Any) -> None:
    """One example of Hypothesis on a fresh spool. (pytest-twisted cannot parametrize what Hypothesis calls.)"""
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(make, Path(directory) / "spool.db")
        await bench.open()
        try:
            await test(bench, steps)
        finally:
            await bench.spool.close()


async def live(bench: Bench, steps: list[Any]) -> None:
    model = Model()
    numbers = itertools.count()
    for step, number, states, key, delay, ttl in steps:
        spool, now = bench.spool, bench.wall()
        flying = [each for each in model.all if each.claimed]
        if step == "append":
            due, expires = delay and now + delay, ttl and now + ttl
            # Some are too large to be kept in memory after their commit.
            body = b"x" * (5000 if states[0] is State.EXPIRED else 1)
            entries = await bench.append(
                *(f"m{next(numbers)}" for _ in range(number)), ordering_key=key, due=due, expires_at=expires, body=body
            )
            state = State.DEFERRED if due else State.READY
            model.all += [Modelled(entry, state, due=due or 0.0) for entry in entries]
        elif step == "claim":
            model.ripen("e", now)
            expected = list(itertools.islice(model.claimable("e", now), number))
            got = await bench.claim(number)
            assert [each.id for each in got] == [each.entry.id for each in expected]
            assert [each.attempts for each in got] == [each.attempts for each in expected]
            for each, entry in zip(expected, got, strict=True):
                each.claimed, each.entry = True, entry
        elif step in ("release", "lose"):
            some = flying[-number:]
            if step == "release":
                spool.release([each.entry for each in some])
            else:
                spool.lose([delivery(each.entry, outcome=Outcome.LOST) for each in some])
            for each in some:
                each.claimed = False
        elif step == "settle":
            pairs = list(zip(flying[:number], states, strict=False))
            await spool.settle(
                [delivery(each.entry) for each, state in pairs if state is State.CONFIRMED],
                [
                    change(each.entry, state, due=now + 2 if state is State.DEFERRED else None)
                    for each, state in pairs
                    if state is not State.CONFIRMED
                ],
            )
            for each, state in pairs:
                each.claimed, each.state, each.due = False, state, now + 2
                each.attempts += state is not State.CONFIRMED
                each.returned = state is State.PARKED
                each.failed = state is State.DEFERRED
        elif step == "time":
            bench.wall.now += number
        elif step == "sweep":
            swept = await spool.sweep(now, 5.0)
            gone = [
                each
                for each in model.all
                if each.state in (State.READY, State.DEFERRED)
                and not each.claimed
                and each.entry.expires_at is not None
                and each.entry.expires_at <= now
            ]
            assert {each.id for each in swept.expired} == {each.entry.id for each in gone}
            for each in gone:
                each.state = State.EXPIRED
        elif step in ("retry", "discard"):
            some = model.all[::number][:4]
            ids = [each.entry.id for each in some]
            if step == "retry":
                await spool.retry(ids)
                for each in some:
                    if each.state in (State.DEFERRED, State.PARKED) and not each.held:
                        each.state, each.attempts = State.READY, 0
            else:
                dropped = [each for each in some if each.open and not each.claimed]
                assert set(await spool.discard(ids, "")) == {each.entry.id for each in dropped}
                for each in dropped:
                    each.state, each.held = State.DISCARDED, False
        elif step in ("hold", "let go"):
            await _hold_or_let_go(bench, model.all[::number][:4], step)
        elif step == "flush":
            backing_off = [each for each in model.all if each.state is State.DEFERRED and each.failed]
            flushed = await spool.flush(Decision(verb=Verb.FLUSH, who="me", at=now))
            assert flushed.count == len(backing_off)
            for each in backing_off:
                each.state = State.READY
        elif step == "heal":
            groups = await spool.returned(9)
            stuck = [each for each in model.all if each.state is State.PARKED and not each.held]
            assert [group.first for group in groups] == [each.entry.id for each in stuck[:1]]
            for group in groups:
                await spool.heal(group)
            for each in stuck:
                each.state, each.attempts = State.READY, 0
        elif spool.durable:
            await bench.reopen()
            for each in model.all:
                each.claimed = False
        books = await bench.books()
        assert {name: getattr(books, name) for name in model.books()} == model.books()
        assert books.difference == 0
        later = [each.due for each in model.all if each.state is State.DEFERRED and each.due > bench.wall()]
        assert await bench.spool.due("e", bench.wall()) == min(later, default=None)


async def _hold_or_let_go(bench: Bench, some: list[Modelled], step: str) -> None:
    now, ids = bench.wall(), [each.entry.id for each in some]
    if step == "hold":
        decided = await bench.spool.decide(Decision(verb=Verb.HOLD, who="me", at=now), ids)
        chosen = [each for each in some if each.state in (State.READY, State.DEFERRED) and not each.claimed]
        for each in chosen:
            delayed = each.state is State.DEFERRED and not each.failed
            each.delay, each.state, each.held = each.due if delayed else 0.0, State.PARKED, True
    else:
        decided = await bench.spool.decide(Decision(verb=Verb.RELEASE, who="me", at=now), ids)
        chosen = [each for each in some if each.held]
        for each in chosen:
            each.held, each.failed, each.due = False, False, each.delay
            each.state = State.DEFERRED if each.delay > now else State.READY
    assert list(decided.ids) == [each.entry.id for each in chosen]


KEYED = st.lists(
    st.tuples(
        st.sampled_from(["append", "claim", "end", "lose", "defer", "park", "wake", "hold", "flush"]), st.integers(0, 5)
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=KEYED)
@pytest_twisted.ensureDeferred
async def test_two_of_one_ordering_key_are_never_out_of_order_or_in_flight_at_once(
    steps: list[tuple[str, int]],
) -> None:
    for make in SPOOLS.values():
        await with_bench(make, keep_order, steps)


async def keep_order(bench: Bench, steps: list[tuple[str, int]]) -> None:
    spool = bench.spool
    flying: list[Entry] = []
    settled: dict[str | None, int] = {}
    numbers = itertools.count()
    # Enough to bring everything to its end.
    for step, number in [*steps, *[("wake", 0), ("claim", 5), ("end", 0)] * 40]:
        some = flying[number % max(1, len(flying)) :][:2] if number else flying
        if step == "append":
            await bench.append(f"m{next(numbers)}", ordering_key=f"k{number % 3}")
        elif step == "claim":
            flying += await bench.claim(1 + number)
            keys = [each.ordering_key for each in flying]
            assert len(set(keys)) == len(keys)
        elif step == "wake":
            if not number and not spool.books().held:
                break
            bench.wall.now += 5
            await spool.retry(list(bench.names))
            await spool.decide(Decision(verb=Verb.RELEASE, who="me", at=bench.wall()), list(bench.names))
        elif step == "hold":
            await spool.decide(Decision(verb=Verb.HOLD, who="me", at=bench.wall()), list(bench.names)[number::3])
        elif step == "flush":
            await spool.flush(None)
        else:
            if step == "end":
                for each in some:
                    assert settled.get(each.ordering_key, 0) < each.seq
                    settled[each.ordering_key] = each.seq
                await spool.settle([delivery(each) for each in some], [])
            elif step == "lose":
                spool.lose([delivery(each, outcome=Outcome.LOST) for each in some])
            else:
                state = State.DEFERRED if step == "defer" else State.PARKED
                due = bench.wall() + 2 if step == "defer" else None
                await spool.settle([], [change(each, state, due) for each in some])
            flying = [each for each in flying if each not in some]
    books = await bench.books()
    assert (books.held, books.confirmed) == (0, next(numbers))
