"""Full disks: files stay in new/ until the spool has room, and are taken to make room on their own disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from pubd.publisher import Publisher
from pubd.spool.base import Limits
from tests.directories import Box, KeyedDoor, PlainDoor, comes, intake_of, stored
from tests.integration.support import pause, reactor
from tests.small_disk import MIB, SmallDisk, mounted
from tests.strictness import Logged


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path / "disk"
    directory.mkdir()
    with mounted(directory, 16 * MIB) as path:
        yield SmallDisk(path)


@pytest_twisted.ensureDeferred
async def test_while_the_disk_of_the_spool_is_full_files_stay_and_afterwards_each_is_accepted_once(
    disk: SmallDisk, tmp_path: Path, logged: Logged
) -> None:
    box = Box(tmp_path / "box").make()
    publisher = Publisher.from_url(
        "amqp://127.0.0.1:1", spool=f"sqlite:///{disk.path / 'spool.db'}", reactor=reactor, limits=Limits(min_free=0)
    )
    publisher.startService()
    intake = intake_of(box, PlainDoor(publisher))
    intake.startService()
    for n in range(20):
        box.put(f"{n:03}", os.urandom(10_000))
    await comes(lambda: not box.waiting)
    disk.stuff()
    for n in range(20, 400):
        box.put(f"{n:03}", os.urandom(10_000))
    await comes(lambda: any("the spool is full" in text for text in logged.texts))
    await pause(0.1)
    accepted = publisher.account().books.accepted
    assert 20 <= accepted < 400
    assert len(box.waiting) == 400 - accepted
    disk.clear()
    await comes(lambda: not box.waiting)
    await intake.stopService()
    await publisher.stopService()
    bodies = [body for _, body in stored(disk.path / "spool.db")]
    assert len(bodies) == len(set(bodies)) == 400
    assert box.refused == []


@pytest_twisted.ensureDeferred
async def test_on_a_full_disk_of_its_own_good_files_are_taken_which_makes_room_for_rejecting_the_others(
    disk: SmallDisk, logged: Logged
) -> None:
    box, door = Box(disk.path / "box").make(), KeyedDoor()
    line = json.dumps({"exchange": "x", "routing_key": "k", "body": "b"}) + "\n"
    intake = intake_of(box, door)
    intake.startService()
    await intake.stopService()
    # The rooms are made; from here on nothing can be written.
    box.put("a-bad.ndjson", "bad\n" + line)
    box.put("b-good", b"x")
    box.put("c-lines.ndjson", line * 1200)
    disk.stuff()
    intake.startService()
    await comes(lambda: not box.waiting)
    await intake.stopService()
    assert any("cannot be moved" in text and "No space left" in text for text in logged.texts)
    assert box.refused == ["a-bad.ndjson", "a-bad.ndjson.reason"]
    assert len(json.loads(box.reason("a-bad.ndjson").splitlines()[0])) > 2
    assert len(door.accepted) == 1 + 1 + 1200
