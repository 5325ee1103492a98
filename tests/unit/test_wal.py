"""SQLite's own WAL files, whole, cut off, used again and damaged."""

from __future__ import annotations

import io
import random
from pathlib import Path

import apsw
import pytest

from pubd.spool.sqlite import connect
from pubd.spool.wal import damage

FRAME = 24 + 4096


@pytest.fixture
def wal(tmp_path: Path) -> bytes:
    """Of ten commits, each of one frame or more."""
    return written(tmp_path / "a.db", 10)


def written(path: Path, commits: int, *, again: int = 0) -> bytes:
    """``again`` commits are written into the beginning of the WAL, after all was moved into the database."""
    connection = connect(path)
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    insert(connection, commits)
    if again:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
        insert(connection, again)
    content = path.with_name(f"{path.name}-wal").read_bytes()
    connection.close()
    return content


def insert(connection: apsw.Connection, commits: int) -> None:
    for _ in range(commits):
        connection.execute("INSERT INTO t (b) VALUES (randomblob(3000))")


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def frames(content: bytes) -> int:
    return (len(content) - 32) // FRAME


def said(content: bytes) -> str:
    return str(damage(io.BytesIO(content)))


def test_a_whole_one_is_whole_and_what_a_crash_cuts_off_is_no_damage(wal: bytes) -> None:
    assert frames(wal) > 10
    for end in (0, 10, 32, 40, 32 + FRAME, len(wal) - 1, len(wal) - 5000, len(wal)):
        assert damage(io.BytesIO(wal[:end])) is None
    # Written in part: the size is there, and some of the content is not.
    assert damage(io.BytesIO(wal[:-3000] + bytes(3000))) is None
    assert damage(io.BytesIO(wal[: -FRAME - 100] + bytes(FRAME + 100))) is None


def test_one_that_was_used_again_has_older_frames_at_its_end_and_is_whole(tmp_path: Path) -> None:
    wal = written(tmp_path / "a.db", 30, again=3)
    assert frames(wal) > 30
    assert damage(io.BytesIO(wal)) is None
    assert said(flipped(wal, 32 + 24 + 9)).startswith("may be damaged at frame 1 of ")
    assert f"frame 1 of {frames(wal)}" not in said(flipped(wal, 32 + 24 + 9)), "the older ones do not count"


@pytest.mark.parametrize("at", [0, 5, 8, 12, 16, 20, 23, 24, 1000, FRAME - 1])
def test_a_flipped_bit_before_a_commit_is_found_wherever_it_is(wal: bytes, at: int) -> None:
    for number in (1, 3, frames(wal) - 2):
        changed = flipped(wal, 32 + (number - 1) * FRAME + at)
        assert said(changed) == (
            f"may be damaged at frame {number} of {frames(wal)}: what was committed after it cannot be read"
        )


@pytest.mark.parametrize("at", [0, 3, 5, 9, 13, 16, 23, 24, 31])
def test_so_is_one_in_the_header(wal: bytes, at: int) -> None:
    assert said(flipped(wal, at)).startswith(f"may be damaged at its header, before {frames(wal)} frames")


def test_no_garbage_breaks_it(wal: bytes) -> None:
    chance = random.Random(1)
    for _ in range(50):
        changed = bytearray(wal)
        for _ in range(chance.choice((1, 10, 1000))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        said(bytes(changed[: chance.randrange(len(changed))]))
    said(b"\xff" * 100_000)
