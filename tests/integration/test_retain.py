"""Settled messages are forgotten after ``retain``, as fast as they come, and the file does not grow for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_twisted

from benchmarks.soak import printed, rows, soak
from pubd.options import Options
from pubd.publisher import Publisher
from pubd.spool import offline
from pubd.spool.settlements import KEEP_PAGES
from tests.integration.support import Load, in_thread, pause, reactor, route, until

MESSAGES, BODY, RATE = 30_000, 1000, 6000


@asynccontextmanager
async def retaining(url: str, path: Path, retain: float) -> AsyncIterator[Publisher]:
    publisher = Publisher.from_url(
        url, spool=f"sqlite:///{path}", reactor=reactor, options=Options(retain=retain, drain_timeout=5.0)
    )
    publisher.startService()
    try:
        yield publisher
    finally:
        await publisher.stopService()


async def forgotten(publisher: Publisher, load: Load) -> None:
    """Wait until nothing is known of the last message any more: it is purged after all others."""
    last = load.messages[-1].receipt.id
    known = True

    async def look() -> None:
        nonlocal known
        known = await publisher.record(last) is not None

    while known:
        await look()
        await pause(0.05)


def test_what_goes_through_is_forgotten_meanwhile_and_the_file_stays_smaller_than_what_went_through(
    broker_url: str, tmp_path: Path
) -> None:
    result = soak(
        broker_url,
        tmp_path,
        messages=MESSAGES,
        retain=0.5,
        rate=RATE,
        keyed=10,
        batch=100,
        body=BODY,
        window=1000,
    )
    assert (result.confirmed, result.difference) == (MESSAGES, 0)
    assert result.rows == 0
    assert result.purges > MESSAGES // RATE
    # The WAL included, which alone may have 16 MiB.
    assert result.wal_size < 20 << 20
    assert result.peak_size - result.wal_size < MESSAGES * BODY * 3 // 4
    assert not result.problems
    assert "everything forgotten" in printed(result)


@pytest_twisted.ensureDeferred
async def test_one_wave_after_the_other_uses_the_same_room_again(
    broker_url: str, tmp_path: Path, unique: Callable[..., str]
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, broker_url, exchange, queue)
    path = tmp_path / "spool.db"
    sizes = []
    total = 0
    for _ in range(4):
        async with retaining(broker_url, path, 0.1) as publisher:
            for _ in range(2):
                load = Load(publisher, exchange, queue)
                await load.submit(1500, headers={"filler": "x" * 500})
                await load.settled()
                await forgotten(publisher, load)
                total += 1500
            await until(lambda: publisher.account().books.held == 0, "something is held")
        # Closed: the WAL is in it.
        sizes.append(path.stat().st_size)
        assert await in_thread(rows, path) == 0
        report = await in_thread(offline.verify, path)
        assert report.problems == ()
        assert (report.books.accepted, report.books.confirmed) == (total, total)
    assert max(sizes[1:]) <= sizes[0] * 1.2, sizes


@pytest_twisted.ensureDeferred
async def test_what_a_backlog_took_of_the_disk_is_given_back(
    broker_url: str, tmp_path: Path, unique: Callable[..., str]
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, broker_url, exchange, queue)
    path = tmp_path / "spool.db"
    async with retaining(broker_url, path, 0.1) as publisher:
        load = Load(publisher, exchange, queue)
        await load.submit(5000, headers={"filler": "x" * 5000})
        await load.settled()
        largest = path.stat().st_size
        await until(
            lambda: path.stat().st_size < largest // 2, lambda: f"{path.stat().st_size} of {largest} bytes are left"
        )
    # What was settled while the rest was still being submitted may have been forgotten by then.
    assert largest > 2 * KEEP_PAGES * 4096
    report = await in_thread(offline.verify, path)
    assert report.problems == ()
    assert (report.books.accepted, report.books.confirmed, report.books.difference) == (5000, 5000, 0)
