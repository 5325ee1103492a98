"""What every spool says of why messages are parked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from pubd.decision import Decision, Verb
from pubd.outcome import Cause, Reason, State
from pubd.spool.groups import Group, Parked
from tests.contract.test_spool import SPOOLS, Bench, change, delivery, parked

RETURNED = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
POISON = Reason(cause=Cause.POISON, code=406, text="PRECONDITION_FAILED")


@pytest.fixture(params=SPOOLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(SPOOLS[request.param], tmp_path / "spool.db")
    yield bench
    pytest_twisted.blockon(bench.spool.close())


@pytest_twisted.ensureDeferred
async def test_where_nothing_is_parked_there_is_nothing_to_say(bench: Bench) -> None:
    spool = await bench.open()
    assert await spool.parked(10, 10) == Parked()
    await bench.append("ready", "deferred", "settled")
    _, deferred, settled = await bench.claim()
    await spool.settle([delivery(settled)], [change(deferred, State.DEFERRED, due=bench.wall() + 9)])
    assert await spool.parked(10, 10) == Parked()


@pytest_twisted.ensureDeferred
async def test_they_are_told_by_exchange_and_reason_the_largest_group_first(bench: Bench) -> None:
    spool = await bench.open()
    began = bench.wall()
    await bench.append("poison")
    bench.wall.now = began + 1
    await bench.append("other", exchange="other")
    bench.wall.now = began + 2
    await bench.append("returned1", "returned2", "ready")
    (other,) = await bench.claim(exchange="other")
    poison, *returned, ready = await bench.claim()
    # In another order than they were accepted.
    await spool.settle([], [parked(returned[1], RETURNED), parked(other, RETURNED)])
    await spool.settle([], [parked(poison, POISON), parked(returned[0], RETURNED)])
    spool.release([ready])
    first = Group(exchange="e", reason=RETURNED, count=2, oldest=began + 2, id=returned[0].id)
    second = Group(exchange="e", reason=POISON, count=1, oldest=began, id=poison.id)
    third = Group(exchange="other", reason=RETURNED, count=1, oldest=began + 1, id=other.id)
    assert await spool.parked(10, 10) == Parked(groups=(first, second, third), others=0, seen=4)
    assert await spool.parked(10, 2) == Parked(groups=(first, second), others=1, seen=4)


@pytest_twisted.ensureDeferred
async def test_of_many_the_first_ones_accepted_are_looked_at(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append(*"abcd")
    a, b, c, d = await bench.claim()
    await spool.settle([], [parked(d, POISON), parked(c, RETURNED), parked(b, RETURNED), parked(a, POISON)])
    found = await spool.parked(3, 10)
    assert [(group.reason, group.count, group.id) for group in found.groups] == [(RETURNED, 2, b.id), (POISON, 1, a.id)]
    assert (found.others, found.seen) == (0, 3)


@pytest_twisted.ensureDeferred
async def test_what_was_decided_about_is_in_no_group_any_more(bench: Bench) -> None:
    spool = await bench.open()
    await bench.append("a", "b")
    a, b = await bench.claim()
    await spool.settle([], [parked(a, RETURNED), parked(b, RETURNED)])
    await spool.retry([a.id])
    ((group),) = (await spool.parked(10, 10)).groups
    assert (group.count, group.id) == (1, b.id)
    await spool.discard([b.id], "no use")
    await spool.decide(Decision(verb=Verb.HOLD, who="me", at=bench.wall(), text="recount"), [a.id])
    ((held),) = (await spool.parked(10, 10)).groups
    assert held.reason == Reason(cause=Cause.HELD, text="recount")
    assert held.id == a.id
