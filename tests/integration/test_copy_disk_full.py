"""A disk that fills up while the spool is copied: the copy is given up, and nothing else happens to the spool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor

from pubd.errors import SpoolFull
from pubd.message import Message
from pubd.options import Options
from pubd.publisher import Publisher
from pubd.spool import offline
from pubd.spool.base import Limits, Snapshot
from pubd.spool.sqlite import BALLAST, RESERVE, SqliteSpool
from tests.integration.support import in_thread
from tests.small_disk import MIB, SmallDisk, mounted

reactor: Any = installed_reactor


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path / "disk"
    directory.mkdir()
    with mounted(directory, RESERVE + 2 * BALLAST + 60 * MIB) as path:
        yield SmallDisk(path)


async def whole(copy: Snapshot) -> None:
    while not await copy.step():
        pass


@pytest_twisted.ensureDeferred
async def test_the_copy_is_given_up_and_the_spool_goes_on(disk: SmallDisk, nowhere: str) -> None:
    path = disk.path / "spool.db"
    publisher = Publisher.from_url(
        nowhere,
        spool=SqliteSpool(path, reactor=reactor, limits=Limits(min_free=0)),
        reactor=reactor,
        options=Options(drain_timeout=0.0),
    )
    publisher.startService()
    try:
        message = Message(exchange="x", routing_key="k", body=os.urandom(1 << 20))
        for _ in range(20):
            await publisher.submit(message)
        copy = await publisher.snapshot()
        assert not await copy.step()
        disk.stuff()
        with pytest.raises(SpoolFull, match="no room is left on the disk"):
            await whole(copy)
        copy.close()
        disk.clear()
        await publisher.submit(message)
        again = await publisher.snapshot()
        await whole(again)
        again.close()
        assert publisher.account().books.accepted == 21
    finally:
        await publisher.stopService()
    assert (await in_thread(offline.verify, path)).problems == ()


@pytest.fixture
def nowhere() -> str:
    """No broker answers there."""
    return "amqp://guest:guest@127.0.0.1:1/%2F"
