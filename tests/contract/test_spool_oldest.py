"""What every spool says of its oldest message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from pubd.ledger import Delivery
from pubd.outcome import State
from tests.contract.test_spool import SPOOLS, Bench, change, delivery, parked


@pytest.fixture(params=SPOOLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(SPOOLS[request.param], tmp_path / "spool.db")
    yield bench
    pytest_twisted.blockon(bench.spool.close())


@pytest_twisted.ensureDeferred
async def test_an_empty_spool_has_no_oldest_message(bench: Bench) -> None:
    spool = await bench.open()
    assert await spool.oldest() is None


@pytest_twisted.ensureDeferred
async def test_it_is_the_first_of_all_exchanges_that_is_ready_or_in_flight(bench: Bench) -> None:
    spool = await bench.open()
    began = bench.wall()
    for number, exchange in enumerate("abc"):
        bench.wall.now = began + number
        await bench.append(exchange, exchange=exchange)
    assert await spool.oldest() == began
    (a,) = await bench.claim(exchange="a")
    assert await spool.oldest() == began
    await spool.settle([delivery(a)], [])
    assert await spool.oldest() == began + 1
    for exchange in "bc":
        await spool.settle([delivery(each) for each in await bench.claim(exchange=exchange)], [])
    assert await spool.oldest() is None


@pytest_twisted.ensureDeferred
async def test_what_waits_for_something_else_than_its_turn_does_not_count(bench: Bench) -> None:
    spool = await bench.open()
    began = bench.wall()
    await bench.append("parked", "deferred")
    parking, deferring = await bench.claim()
    await spool.settle([], [parked(parking), change(deferring, State.DEFERRED, due=began + 1000)])
    await bench.append("later", due=began + 500)
    assert await spool.oldest() is None
    bench.wall.now = began + 7
    await bench.append("ready")
    assert await spool.oldest() == began + 7
    await spool.retry([parking.id])
    assert await spool.oldest() == began


@pytest_twisted.ensureDeferred
async def test_what_was_lost_counts_again_from_its_acceptance(bench: Bench) -> None:
    spool = await bench.open()
    began = bench.wall()
    await bench.append("a")
    (a,) = await bench.claim()
    bench.wall.now = began + 60
    spool.lose([Delivery(a, 1, 0.0, a.size)])
    assert await spool.oldest() == began
    await bench.reopen()
    if bench.spool.durable:
        assert await bench.spool.oldest() == began
