"""Power losses, kills and failed syncs at every point of a spool's life, on a disk in memory.

``PUBD_CRASH_POINTS`` is how many points are tried (2000 for the whole run). A point is a number: it decides the
workload, where it stops, and what of the unsynced writes survives. The one that fails is named; ``PUBD_CRASH_POINT``
runs that one alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import apsw
import attrs
import pytest

from pubd.entry import Entry
from pubd.errors import SpoolError, SpoolFailed
from pubd.ledger import Delivery
from pubd.outcome import Cause, Outcome, Reason, Settlement, State, Via
from pubd.spool import sqlite
from pubd.spool.sqlite import SqliteSpool
from tests.crash.turns import Turns
from tests.crash.vfs import Disk, failed, mounted, no_room
from tests.strictness import Logged

POINTS = int(os.environ.get("PUBD_CRASH_POINTS", "300"))
ONE = os.environ.get("PUBD_CRASH_POINT", "")
SYNCS = 300
VIA = Via("rabbit@a", 3)
# apsw shows what the disk raised where SQLite has nobody to tell, such as when it closes a file.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
STUCK = Reason(cause=Cause.NACKED, text="basic.nack")


@pytest.fixture(autouse=True)
def small_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the WAL is moved into the database, and begun anew, many times in a short life."""
    monkeypatch.setattr(sqlite, "CHECKPOINT", 20)


@attrs.define(eq=False)
class Fate:
    """What the application knows of one message."""

    entry: Entry
    accepted: bool = False
    refused: bool = False
    settling: State | None = None
    settled: bool = False


class Life:
    """A workload on one disk until it is over or the disk is."""

    def __init__(self, path: Path, disk: Disk, vfs: str, random: Random) -> None:
        self.path, self.disk, self.random = path, disk, random
        self.turns = Turns()
        self.now = 1_000_000.0
        self.spool = SqliteSpool(path, reactor=self.turns, wall=lambda: self.now, vfs=vfs, failed=self._failed)
        self.fates: dict[str, Fate] = {}
        self.flying: list[Entry] = []
        self.failures: list[SpoolFailed] = []
        self.swept = False
        self.written = 0
        """Writes before the spool was closed."""

    def _failed(self, failed_: SpoolFailed) -> None:
        self.failures.append(failed_)

    def run(self, bursts: int) -> None:
        opened = self.turns.result(self.spool.open())
        if opened is None:
            for _ in range(bursts):
                self.now += 1
                if self.failures:
                    break
                self.burst()
        self.written = self.disk.writes
        self.turns.result(self.spool.close())

    def burst(self) -> None:
        random = self.random
        claimed = self.turns.result(self.spool.claim("e", random.randint(0, 12), 1 << 20, self.now))
        self.flying += [] if isinstance(claimed, Exception) else claimed
        kinds = random.choices(["append", "settle", "sweep"], [5, 4, 1], k=random.randint(1, 4))
        asks, answered = zip(*[getattr(self, kind)() for kind in kinds], strict=True)
        for answer, note in zip(self.turns.group(self.disk, asks), answered, strict=True):
            note(answer)

    def append(self) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        ids = self.spool.ids
        assert ids is not None
        fates = []
        for _ in range(self.random.randint(1, 5)):
            seq = ids.next()
            id = ids.id_of(seq)
            body = id.encode() * self.random.choice((1, 1, 20, 200))
            entry = Entry(
                id=id, exchange="e", routing_key="k", message_id=id, mandatory=True, properties=b"", body=body, seq=seq
            )
            fates.append(Fate(entry))
            self.fates[id] = fates[-1]

        def note(answer: Any) -> None:
            for fate in fates:
                fate.accepted = not isinstance(answer, Exception)
                # A failed disk leaves it open whether the group is in the file.
                fate.refused = isinstance(answer, SpoolError) and not isinstance(answer, SpoolFailed)

        return lambda: self.spool.append([fate.entry for fate in fates]), note

    def settle(self) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        count = self.random.randint(0, 8)
        some, self.flying = self.flying[:count], self.flying[count:]
        confirmed, others = [], []
        for entry in some:
            fate = self.fates[entry.id]
            fate.settling = self.random.choices([State.CONFIRMED, State.PARKED, State.DEFERRED], [8, 1, 1])[0]
            if fate.settling is State.CONFIRMED:
                confirmed.append(Delivery(entry, 1, 0.0, entry.size, Outcome.CONFIRMED, None, VIA))
            else:
                due = self.now + 1e9 if fate.settling is State.DEFERRED else None
                others.append(Settlement(entry=entry, state=fate.settling, attempts=1, reason=STUCK, due=due, tag=1))

        def note(answer: Any) -> None:
            for entry in some:
                self.fates[entry.id].settled = not isinstance(answer, Exception)

        return lambda: self.spool.settle(confirmed, others), note

    def sweep(self) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        self.swept = True
        return lambda: self.spool.sweep(self.now, 5.0), lambda _: None


def judge(life: Life, disk: Disk, path: Path) -> None:
    """Open what is left, and compare it with what the application was told."""
    with mounted(disk) as vfs:
        turns = Turns()
        spool = SqliteSpool(path, reactor=turns, wall=lambda: life.now, vfs=vfs)
        assert turns.result(spool.open()) is None
        try:
            compare(life, spool, turns)
        finally:
            assert turns.result(spool.close()) is None
        assert problems(path, vfs) == []


def compare(life: Life, spool: SqliteSpool, turns: Turns) -> None:
    books = spool.books()
    assert books.difference == 0
    for id, fate in life.fates.items():
        record = turns.result(spool.record(id))
        if record is None:
            assert not fate.accepted or (fate.settling is State.CONFIRMED and life.swept), f"{id} is lost: {fate}"
            continue
        assert not fate.refused, f"{id} was refused and is there"
        possible = {fate.settling} if fate.settled else {State.READY, fate.settling}
        assert record.state in possible, f"{id} is {record.state}: {fate}"
    ready = turns.result(spool.claim("e", 1 << 20, 1 << 40, life.now))
    assert [each.seq for each in ready] == sorted({each.seq for each in ready})
    for entry in ready:
        assert entry.body == life.fates[entry.id].entry.body
    assert len(ready) == books.ready


def problems(path: Path, vfs: str) -> Sequence[str]:
    connection = sqlite.connect(path, vfs)
    found = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
    counted = dict(connection.execute("SELECT state, count(*) FROM message GROUP BY state"))
    for books in connection.execute("SELECT ready, deferred, parked FROM books"):
        there = tuple(counted.get(state, 0) for state in range(3))
        if there != books:
            found.append(f"the books say {books} are ready, deferred, parked; there are {there}")
    connection.close()
    return found


def whole(path: Path, seed: int, bursts: int) -> Life:
    """The life of this seed with nothing in its way."""
    disk = Disk()
    with mounted(disk) as vfs:
        life = Life(path, disk, vfs, Random(seed))
        life.run(bursts)
    assert life.fates, "the spool was not opened"
    return life


def crashed(path: Path, point: int) -> None:
    random = Random(f"point {point}")
    seed, bursts = point % 10, 25
    if seed not in _lengths:
        _lengths[seed] = whole(path, seed, bursts).disk.operations
    disk = Disk()
    disk.crash_at = random.randint(1, _lengths[seed])
    with mounted(disk) as vfs:
        life = Life(path, disk, vfs, Random(seed))
        life.run(bursts)
    assert disk.crashed
    judge(life, disk.after_power_loss(random), path)


#: Writes and syncs of each seed's life.
_lengths: dict[int, int] = {}


@pytest.fixture
def path(tmp_path: Path, logged: Logged) -> Iterator[Path]:
    yield tmp_path / "spool.db"
    # Each failure of a disk is logged as critical: that is what is being tested.
    logged.events.clear()


def test_a_life_with_nothing_in_its_way_is_the_same_each_time_and_complete(path: Path) -> None:
    one, two = whole(path, 1, 40), whole(path, 1, 40)
    assert one.disk.operations == two.disk.operations
    assert one.disk.files.keys() == two.disk.files.keys()
    assert not one.failures
    assert all(fate.accepted for fate in one.fates.values())
    judge(one, one.disk.after_kill(), path)


def test_after_a_power_loss_at_any_point_every_acknowledged_message_is_there(path: Path) -> None:
    for point in [int(ONE)] if ONE else range(POINTS):
        try:
            crashed(path, point)
        except BaseException as error:
            error.add_note(f"crash point {point}; PUBD_CRASH_POINT={point} runs it again, alone")
            raise


def test_after_a_failed_sync_nothing_is_acknowledged_and_nothing_acknowledged_is_lost(path: Path) -> None:
    total = whole(path, 7, 170).disk.syncs
    assert total >= SYNCS
    step = 1 if POINTS >= 2000 else 3
    for nth in range(1, SYNCS + 1, step):
        try:
            failed_sync(path, nth)
        except BaseException as error:
            error.add_note(f"the sync that failed is number {nth}")
            raise


def failed_sync(path: Path, nth: int) -> None:
    disk = Disk()
    disk.failing["sync", nth] = failed
    with mounted(disk) as vfs:
        life = Life(path, disk, vfs, Random(7))
        life.run(170)
    assert disk.syncs >= nth
    judge(life, disk.after_kill(), path)
    judge(life, disk.after_power_loss(Random(nth)), path)


@pytest.mark.parametrize("error", [failed, no_room], ids=["EIO", "ENOSPC"])
def test_after_a_failed_write_what_was_acknowledged_is_there_and_what_was_refused_is_not(
    path: Path, error: Callable[[], Exception]
) -> None:
    total = whole(path, 3, 25).disk.writes
    for nth in range(1, total, max(1, total // 60)):
        disk = Disk()
        disk.failing["write", nth] = error
        with mounted(disk) as vfs:
            life = Life(path, disk, vfs, Random(3))
            life.run(25)
        # What fails while SQLite moves the WAL into the database at the close is in the WAL still: nobody need be told.
        if life.fates and nth <= life.written:
            assert (error is failed) == bool(life.failures), f"{error.__name__} at write {nth}"
        judge(life, disk.after_kill(), path)
        judge(life, disk.after_power_loss(Random(nth)), path)


def test_the_disk_in_memory_loses_what_it_may_lose() -> None:
    """The fake is one that can do harm: without syncs SQLite does lose and tear on it."""
    disk = Disk()
    with mounted(disk) as vfs:
        connection = apsw.Connection("/x.db", vfs=vfs)
        connection.pragma("locking_mode", "exclusive")
        connection.pragma("synchronous", 0)
        connection.execute("CREATE TABLE t (a)")
        for n in range(50):
            connection.execute("INSERT INTO t VALUES (?)", (f"{n}" * 500,))
        harmed = 0
        for seed in range(20):
            left = disk.after_power_loss(Random(seed))
            with mounted(left) as other:
                try:
                    again = apsw.Connection("/x.db", vfs=other)
                    whole_ = again.execute("SELECT count(*) FROM t").fetchone() == (50,)
                    whole_ = whole_ and again.pragma("integrity_check") == "ok"
                    again.close()
                except apsw.Error:
                    whole_ = False
            harmed += not whole_
        connection.close()
    assert 0 < harmed < 20
