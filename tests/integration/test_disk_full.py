"""A small disk runs full: submissions are refused by name, what was accepted goes on, until there is room again."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted

from pubd.amqp.lane import LaneOptions
from pubd.errors import SpoolFull
from pubd.message import Message
from pubd.options import Options
from pubd.publisher import Publisher
from pubd.spool import offline, sqlite
from pubd.spool.base import Limits
from pubd.spool.sqlite import BALLAST, RESERVE, SqliteSpool
from tests.integration.support import Load, in_thread, pause, reactor, route, take, until
from tests.rabbitmq import Node
from tests.small_disk import MIB, SmallDisk, mounted

BATCH = 100
FILLER = {"filler": "x" * 2000}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path / "disk"
    directory.mkdir()
    with mounted(directory, RESERVE + 2 * BALLAST + 40 * MIB) as path:
        yield SmallDisk(path)


@asynccontextmanager
async def on(
    disk: SmallDisk, url: str, limits: Limits | None = None, retain: float = 3600, window: int = 1000
) -> AsyncIterator[Publisher]:
    """A publisher whose spool is on the disk; the books balance, and `pubd verify` has nothing to say afterwards."""
    path = disk.path / "spool.db"
    publisher = Publisher.from_url(
        url,
        spool=SqliteSpool(path, reactor=reactor, limits=limits),
        reactor=reactor,
        options=Options(drain_timeout=5.0, retain=retain, lanes=LaneOptions(window=window)),
    )
    publisher.startService()
    try:
        yield publisher
    finally:
        await publisher.stopService()
    assert publisher.account().books.difference == 0
    assert (await in_thread(offline.verify, path)).problems == ()


async def fill(load: Load) -> SpoolFull:
    """Submit until it is refused."""
    while True:
        try:
            await load.submit(BATCH, headers=FILLER)
        except SpoolFull as full:
            return full


def check_once_in_order(taken: list[int], load: Load) -> None:
    """What was accepted came out, and nothing that was refused."""
    assert taken == [one.number for one in load.messages]


async def numbers(url: str, queue: str) -> list[int]:
    return [one.number for one in await in_thread(take, url, queue)]


@pytest_twisted.ensureDeferred
async def test_a_spool_that_fills_its_disk_keeps_enough_to_settle_what_it_accepted(
    own_node: Node, unique: Callable[..., str], disk: SmallDisk
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, own_node.url, exchange, queue)
    await in_thread(own_node.stop)
    async with on(disk, own_node.url, retain=1.0) as publisher:
        load = Load(publisher, exchange, queue)
        full = await fill(load)
        assert full.limit == "min_free"
        assert f"{RESERVE:,} are kept in reserve" in str(full)
        assert len(load.messages) > 10 * BATCH
        assert disk.free > RESERVE // 2
        assert publisher.account().books.accepted == len(load.messages)
        await in_thread(own_node.start)
        await load.settled()
        assert publisher.account().books.held == 0
        # Forgotten and given back: there is room without anybody's doing.
        await until(lambda: disk.free > RESERVE + 8 * MIB, lambda: f"only {disk.free} bytes came free")
        await load.submit(BATCH, headers=FILLER)
        await load.settled()
    check_once_in_order(await numbers(own_node.url, queue), load)


@pytest_twisted.ensureDeferred
async def test_on_a_disk_that_others_fill_publishing_goes_on_in_the_room_that_was_kept_for_it(
    own_node: Node, unique: Callable[..., str], disk: SmallDisk
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, own_node.url, exchange, queue)
    await in_thread(own_node.stop)
    async with on(disk, own_node.url, Limits(min_free=0), window=300) as publisher:
        load = Load(publisher, exchange, queue)
        await load.submit(10 * BATCH, headers=FILLER)
        later = await publisher.submit(Message(exchange=exchange, routing_key=load.routing_key, body=b"later", delay=1))
        disk.stuff()
        assert (await fill(load)).limit == "disk"
        assert disk.free < MIB
        accepted = len(load.messages)
        await in_thread(own_node.start)
        await load.settled()
        await later.settled()
        assert publisher.account().books.confirmed == accepted + 1
        # What came free is for what was accepted before.
        assert disk.free > 8 * MIB
        assert (await fill(load)).limit == "disk"
        assert not disk.ballast.exists()
        disk.clear()
        await until(disk.ballast.exists, "no ballast")
        await load.submit(BATCH, headers=FILLER)
        await load.settled()
        assert disk.ballast.stat().st_size == BALLAST
    assert not disk.ballast.exists()


@pytest_twisted.ensureDeferred
async def test_a_disk_that_others_fill_for_good_repeats_no_more_than_a_window_and_settles_when_they_make_room(
    own_node: Node, unique: Callable[..., str], disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have taken the room that was kept, too."""
    monkeypatch.setattr(sqlite, "BALLAST", 0)
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, own_node.url, exchange, queue)
    await in_thread(own_node.stop)
    window = 300
    async with on(disk, own_node.url, Limits(min_free=0), window=window) as publisher:
        load = Load(publisher, exchange, queue)
        await load.submit(10 * BATCH, headers=FILLER)
        disk.stuff()
        full = await fill(load)
        assert full.limit == "disk"
        assert str(disk.path) in str(full)
        assert "make room" in str(full)
        accepted = len(load.messages)
        # What was accepted is published, although nothing of it can be written down: as much as a kill may repeat.
        await in_thread(own_node.start)
        await until(
            lambda: publisher.account().acked == window,
            lambda: f"{publisher.account()}",
            lambda: publisher.account().acked,
        )
        await pause()
        assert publisher.account().published == window
        assert publisher.account().books.in_flight == window
        assert publisher.account().books.accepted == accepted
        assert publisher.account().books.difference == 0
        assert (await fill(load)).limit == "disk"
        disk.clear()
        await load.settled()
        await load.submit(BATCH, headers=FILLER)
        await load.settled()
        assert publisher.account().books.confirmed == accepted + BATCH
    check_once_in_order(await numbers(own_node.url, queue), load)


@pytest_twisted.ensureDeferred
async def test_what_a_kill_left_on_a_full_disk_can_be_verified_exported_and_published(
    own_node: Node, unique: Callable[..., str], disk: SmallDisk, tmp_path: Path
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, own_node.url, exchange, queue)
    await in_thread(own_node.stop)
    elsewhere = SmallDisk(tmp_path / "elsewhere")
    elsewhere.path.mkdir()
    async with on(elsewhere, own_node.url) as publisher:
        load = Load(publisher, exchange, queue)
        await load.submit(BATCH, headers=FILLER)
        for name in ("spool.db", "spool.db-wal"):
            shutil.copyfile(elsewhere.path / name, disk.path / name)
        waiting = len(load.messages)
    disk.stuff()
    path = disk.path / "spool.db"
    assert (path.with_name("spool.db-wal")).stat().st_size > 0
    report = await in_thread(offline.verify, path)
    assert (report.problems, report.books.ready) == ((), waiting)
    assert len(await in_thread(lambda: list(offline.export(path)))) == waiting
    await in_thread(own_node.start)
    async with on(disk, own_node.url, Limits(min_free=0)) as publisher:
        await until(lambda: publisher.account().acked == waiting, lambda: f"{publisher.account()}")
        assert (await fill(Load(publisher, exchange, queue))).limit == "disk"
        disk.clear()
        await until(lambda: publisher.account().books.confirmed == waiting, lambda: f"{publisher.account()}")
    check_once_in_order(await numbers(own_node.url, queue), load)


@pytest_twisted.ensureDeferred
async def test_below_the_reserve_only_submissions_stop_and_a_restart_finds_everything(
    own_node: Node, unique: Callable[..., str], disk: SmallDisk
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, own_node.url, exchange, queue)
    limits = Limits(min_free=4 * MIB)
    async with on(disk, own_node.url, limits) as publisher:
        load = Load(publisher, exchange, queue)
        await load.submit(BATCH)
        await load.settled()
        await in_thread(own_node.stop)
        await load.submit(BATCH)
        disk.stuff(leave=3 * MIB)
        full = await fill(load)
        assert full.limit == "min_free"
        assert f"{4 * MIB:,} are kept in reserve" in str(full)
        # Of this publisher nothing comes any more: its receipts are told so.
        waiting = len(load.messages) - BATCH
    assert waiting == BATCH
    await in_thread(own_node.start)
    async with on(disk, own_node.url, limits) as publisher:
        await until(lambda: publisher.account().books.confirmed == 2 * BATCH, lambda: f"{publisher.account()}")
        assert publisher.account().books.held == 0
        disk.clear()
        again = Load(publisher, exchange, queue)
        await again.submit(1)
        await again.settled()
        await pause()
    assert (await numbers(own_node.url, queue))[: 2 * BATCH] == [one.number for one in load.messages]
