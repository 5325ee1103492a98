"""What every spool does for lists, contents, and submissions answered one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted

from pubd.decision import Decision, Verb
from pubd.errors import IdempotencyConflict, SpoolFull
from pubd.outcome import Cause, Reason, State
from pubd.spool import listing, memory
from pubd.spool.base import Accepted, Limits, Page, Query
from tests.contract.test_spool import SPOOLS, Bench, change, delivery, parked


@pytest.fixture(params=SPOOLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(SPOOLS[request.param], tmp_path / "spool.db")
    yield bench
    pytest_twisted.blockon(bench.spool.close())


# One by one


@pytest_twisted.ensureDeferred
async def test_each_entry_is_accepted_or_refused_on_its_own(bench: Bench) -> None:
    spool = await bench.open()
    await spool.append([bench.entry("k", idempotency_key="k", fingerprint=b"1")])
    entries = [
        bench.entry("a"),
        bench.entry("other", idempotency_key="k", fingerprint=b"2"),
        bench.entry("b"),
        bench.entry("same", idempotency_key="k", fingerprint=b"1"),
        bench.entry("c"),
    ]
    a, other, b, same, c = await spool.append_each(entries)
    assert isinstance(other, IdempotencyConflict)
    assert isinstance(same, Accepted)
    assert (same.new, bench.names[same.id]) == (False, "k")
    assert [each.new for each in (a, b, c) if isinstance(each, Accepted)] == [True] * 3
    assert await bench.claimed() == ["k", "a", "b", "c"]


@pytest_twisted.ensureDeferred
async def test_as_many_as_there_is_room_for_are_accepted(bench: Bench) -> None:
    spool = await bench.open(Limits(max_rows=5))
    answers = await spool.append_each([bench.entry(name) for name in "abcdefgh"])
    assert [isinstance(each, SpoolFull) for each in answers] == [False] * 5 + [True] * 3
    assert (await bench.books()).accepted == 5
    assert await bench.claimed() == list("abcde")


@pytest_twisted.ensureDeferred
async def test_no_entries_are_no_answers(bench: Bench) -> None:
    spool = await bench.open()
    assert list(await spool.append_each([])) == []


# Lists


async def everything(bench: Bench, query: Query) -> list[str]:
    """The names of what ``query`` lists, page by page."""
    found: list[str] = []
    while True:
        page = await bench.spool.find(query)
        found += [bench.names[record.id] for record in page.records]
        if page.next is None:
            return found
        query = attrs.evolve(query, after=page.next)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("step", [2, 5000])
async def test_messages_are_listed_in_order_of_acceptance_by_state_and_exchange(
    bench: Bench, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "STEP", step)
    spool = await bench.open()
    await bench.append("a1", "a2", "a3", exchange="a", idempotency_key=None)
    await bench.append("b1", "b2", exchange="b")
    await bench.append("late", exchange="a", due=bench.wall.now + 60)
    a1, a2 = await bench.claim(2, "a")
    await spool.settle([], [parked(a1)])
    for limit in (1, 2, 100):
        assert await everything(bench, Query(limit=limit)) == ["a1", "a2", "a3", "b1", "b2", "late"]
        assert await everything(bench, Query(limit=limit, exchange="a")) == ["a1", "a2", "a3", "late"]
        assert await everything(bench, Query(limit=limit, state=State.READY)) == ["a2", "a3", "b1", "b2"]
        assert await everything(bench, Query(limit=limit, state=State.READY, exchange="b")) == ["b1", "b2"]
        assert await everything(bench, Query(limit=limit, state=State.PARKED)) == ["a1"]
        assert await everything(bench, Query(limit=limit, state=State.PARKED, exchange="b")) == []
        assert await everything(bench, Query(limit=limit, state=State.DEFERRED, exchange="a")) == ["late"]
        assert await everything(bench, Query(limit=limit, state=State.DISCARDED)) == []
        assert await everything(bench, Query(limit=limit, exchange="never seen")) == []
    await spool.discard([a1.id], "why")
    assert await everything(bench, Query(state=State.DISCARDED)) == ["a1"]
    assert (await spool.find(Query(after="not an id"))) == Page((), None)
    (first,) = (await spool.find(Query(limit=1, after=a1.id))).records
    assert first == await spool.record(a2.id)
    assert first.in_flight


async def searched(bench: Bench, message_id: str) -> list[str]:
    """The ids that a search gives in the end."""
    found: list[str] = []
    before = None
    while True:
        page = await bench.spool.search(message_id, before)
        found += [record.id for record in page.records]
        if page.next is None:
            return found
        before = page.next


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("step", "most"), [(2, 1), (3, 1000), (5000, 2), (5000, 1000)])
async def test_messages_are_found_by_the_message_id_that_the_application_gave(
    bench: Bench, step: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "STEP", step)
    monkeypatch.setattr(listing, "MAX_PAGE", most)
    spool = await bench.open()
    sent = await bench.append("a", "b", "a", "a", "c", "\0", "ä", "b")
    own = bench.entry("own")
    own.message_id = own.id
    await spool.append([own])
    by_name = {name: [entry.id for entry in reversed(sent) if entry.message_id == name] for name in "abc\0ä"}
    for name, ids in by_name.items():
        assert await searched(bench, name) == ids
    (claimed,) = await bench.claim(1)
    await spool.settle([], [parked(claimed)])
    await spool.discard([claimed.id], "why")
    assert await searched(bench, "a") == by_name["a"]
    assert await searched(bench, "nobody's") == []
    assert await searched(bench, own.id) == [], "that is what its id is for"
    assert await spool.search("a", "not an id") == Page((), None)


@pytest_twisted.ensureDeferred
async def test_who_handed_a_message_in_is_recorded(bench: Bench) -> None:
    spool = await bench.open()
    (named,) = await bench.append("named", principal="shop")
    await bench.append("nobody")
    found = [record.principal for record in (await spool.find(Query())).records]
    assert found == ["shop", None]
    (claimed, _) = await bench.claim()
    assert claimed.principal == "shop"
    await spool.settle([], [parked(claimed)])
    await spool.discard([named.id], "why")
    record = await spool.record(named.id)
    assert record is not None
    assert record.principal == "shop"


async def counted(bench: Bench, query: Query) -> int:
    """Piece by piece."""
    count, after = 0, None
    while True:
        found = await bench.spool.count(attrs.evolve(query, after=after))
        count, after = count + found.count, found.next
        if after is None:
            return count


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("step", [3, 5000])
async def test_messages_are_chosen_by_route_ordering_key_age_and_reason(
    bench: Bench, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "STEP", step)
    monkeypatch.setattr(listing, "LEAST", step)
    monkeypatch.setattr(memory, "STEP", step)
    spool = await bench.open()
    began = bench.wall()
    await bench.append("new1", "new2", routing_key="order.new", ordering_key="k")
    await bench.append("other", routing_key="order.new", exchange="other", ordering_key="k")
    bench.wall.now = began + 100
    await bench.append("paid", "gone", "full", routing_key="order.paid.eu")
    bench.wall.now = began + 200
    await bench.append("last", routing_key="invoice")
    flying = {entry.message_id: entry for entry in await bench.claim()}
    nacked = Reason(cause=Cause.ATTEMPTS, text="10 of 10, the last one NACKED")
    await spool.settle(
        [],
        [parked(flying["gone"]), parked(flying["full"], nacked), change(flying["paid"], State.DEFERRED, began + 999)],
    )
    (held, _) = await bench.append("held", "ready")
    await spool.decide(Decision(verb=Verb.HOLD, who="me", at=began, text="Recount"), [held.id])

    async def chosen(**given: Any) -> list[str]:
        query = Query(**given)
        names = await everything(bench, query)
        assert await everything(bench, attrs.evolve(query, limit=1)) == names
        assert await counted(bench, query) == len(names)
        return names

    assert await chosen(routing_key="order.*") == ["new1", "new2", "other"]
    assert await chosen(routing_key="order.#") == ["new1", "new2", "other", "paid", "gone", "full"]
    assert await chosen(routing_key="order.#", state=State.READY) == ["new1", "new2", "other"]
    assert await chosen(routing_key="#.eu", state=State.PARKED) == ["gone", "full"]
    assert await chosen(routing_key="#") == await chosen()
    assert await chosen(ordering_key="k") == ["new1", "new2", "other"]
    assert await chosen(ordering_key="k", state=State.READY) == ["new1", "new2", "other"]
    assert await chosen(ordering_key="k", state=State.READY, exchange="other") == ["other"]
    assert await chosen(ordering_key="k", state=State.PARKED) == []
    assert await chosen(ordering_key="none") == []
    assert await chosen(accepted_before=began + 100) == ["new1", "new2", "other"]
    assert await chosen(accepted_after=began + 100) == ["paid", "gone", "full", "last", "held", "ready"]
    assert await chosen(accepted_after=began + 100, accepted_before=began + 200) == ["paid", "gone", "full"]
    assert await chosen(accepted_after=began + 150, state=State.PARKED) == ["held"]
    assert await chosen(reason="312") == ["paid", "gone"]
    assert await chosen(reason="no_route", state=State.PARKED) == ["gone"]
    assert await chosen(reason="attempts USED") == ["full"]
    assert await chosen(reason="nacked", state=State.PARKED, exchange="e") == ["full"]
    assert await chosen(reason="nacked", state=State.PARKED, exchange="other") == []
    assert await chosen(reason="31") == []
    assert await chosen(held=True) == ["held"]
    assert await chosen(held=False, state=State.PARKED) == ["gone", "full"]
    assert await chosen(held=True, reason="recount", state=State.PARKED, routing_key="k") == ["held"]
    assert await chosen(reason="x", state=State.READY) == await chosen(held=True, state=State.CONFIRMED) == []
    await spool.discard([held.id], "not wanted")
    assert await chosen(reason="not wanted", state=State.DISCARDED) == ["held"]
    assert await chosen(reason="not wanted", routing_key="k") == ["held"]


# Contents


@pytest_twisted.ensureDeferred
async def test_the_content_is_as_submitted_until_it_is_settled_then_it_has_no_body(bench: Bench) -> None:
    spool = await bench.open()
    (entry,) = await bench.append("a", body=b"content", idempotency_key="i", ordering_key="o", principal="shop")
    stored = await spool.content(entry.id)
    assert stored is not None
    for field in ("id", "exchange", "routing_key", "message_id", "properties", "body", "ordering_key", "principal"):
        assert getattr(stored, field) == getattr(entry, field)
    assert stored.idempotency_key == "i"
    (claimed,) = await bench.claim()
    await spool.settle([delivery(claimed)], [])
    ended = await spool.content(entry.id)
    assert ended is not None
    assert (ended.body, ended.properties) == (b"", b"p")
    assert claimed.body == b"content"


@pytest_twisted.ensureDeferred
async def test_of_a_stranger_there_is_no_content(bench: Bench) -> None:
    spool = await bench.open()
    assert await spool.content("x") is None
    assert await spool.content("01234567-0123-7123-8123-0123456789ab") is None
