"""The SQLite spool of a stopped daemon: is it whole, and what is in it.

Changes nothing: what a killed daemon left in the WAL is read there and stays there. It takes no room on the disk, and
no right to write.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw
import attrs

from pubd.errors import SpoolError, SpoolFull
from pubd.outcome import State
from pubd.spool import faults, schema, traces, wal
from pubd.spool.base import Exported
from pubd.spool.database import Database
from pubd.spool.ids import Ids
from pubd.spool.lock import SpoolLock
from pubd.spool.rows import COLUMNS, STATES, entry_of, size_of, unchecked_entry_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pubd.spool.base import Books

#: integrity_check stops after so many problems.
MAX_PROBLEMS = 100


@attrs.frozen(kw_only=True)
class Report:
    """What :func:`verify` found. ``problems`` are sentences; none means that the spool is whole."""

    books: Books
    schema: int
    problems: tuple[str, ...]


@contextmanager
def _opened(path: Path) -> Iterator[Database]:
    lock = connection = None
    try:
        traces.check(path)
        if not path.is_file():
            raise SpoolError(f"there is no spool {path}: give the path that stands in [spool] url of pubd.toml")
        lock = SpoolLock(path, reading=True)
        connection = _connection(path)
        newest = schema.steps()[-1][0]
        version = connection.pragma("user_version")
        if not 0 < version <= newest:
            raise SpoolError(f"{path} has schema {version}, which this pubd does not know (it knows 1 to {newest})")
        row = connection.execute("SELECT tag, last_seq FROM books").fetchone()
        if row is None:
            raise SpoolError(f"{path} has no books: pubd ended before it was made, and nothing is in it")
        tag, last_seq = row
        yield Database(connection, Ids(tag, last_seq, lambda: 0.0))
    except (apsw.Error, OSError, UnicodeDecodeError) as error:
        problem = faults.translated(error, path)
        if isinstance(problem, SpoolFull):
            problem = SpoolError(
                f"to read {path} takes some room on its disk, and there is none; make room, and try again"
            )
        raise problem from error
    finally:
        if connection is not None:
            connection.close(True)
        if lock is not None:
            lock.release()


def _connection(path: Path) -> apsw.Connection:
    """One that writes nothing. What SQLite would put beside the file to read its WAL is kept in memory."""
    beside = traces.wal_of(path)
    left = beside.exists() and beside.stat().st_size > 0
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    if connection.readonly("main") or not os.access(path.parent, os.W_OK, effective_ids=True):
        connection.close(True)
        if left:
            raise SpoolError(
                f"{path} may only be read, and {beside.name} beside it has to be read with it: "
                "copy both to a directory of your own, and try with the copy"
            )
        # Nobody writes to it: the lock says so, or nobody could.
        uri = f"file:{quote(str(path.absolute()))}?immutable=1"
        return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    connection.pragma("locking_mode", "exclusive")
    connection.pragma("temp_store", 2)
    if left:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def books(path: Path) -> Books:
    """What the books say. Raises SpoolError if the spool cannot be opened."""
    with _opened(path) as base:
        return base.books()


def verify(path: Path) -> Report:
    """Check structure, checksums and books. Raises SpoolError if the file cannot be read at all."""
    with _opened(path) as base:
        problems = [
            f"SQLite: {text}" for (text,) in base.rows(f"PRAGMA integrity_check({MAX_PROBLEMS})") if text != "ok"
        ]
        if (lost := wal.damage_of(traces.wal_of(path))) is not None:
            problems.append(f"{traces.wal_of(path).name} {lost}; copy both files aside before pubd is started")
        damaged, size = _damaged(base)
        problems += damaged
        problems += _imbalance(base, size)
        return Report(books=base.books(), schema=base.db.pragma("user_version"), problems=tuple(problems))


def _damaged(base: Database) -> tuple[list[str], int]:
    """Open messages that cannot be published, in words, and the size of all open ones."""
    problems = []
    size = 0
    for number, *row in base.db.execute(f"SELECT exchange, {COLUMNS} FROM message WHERE state < 3 ORDER BY seq"):
        name = base.names.get(number, "")
        size += size_of(name, row[1], len(row[9]) + len(row[10] or b""))
        if number not in base.names:
            problems.append(f"message {base.ids.id_of(row[0])} belongs to an unknown exchange")
        elif entry_of(row, name, base.ids) is None:
            problems.append(f"message {base.ids.id_of(row[0])} for {name!r} is damaged: its checksum does not match")
    return problems, size


def _imbalance(base: Database, size: int) -> Iterator[str]:
    """The books in their row against the messages counted one by one."""
    books = base.books()
    counted = dict.fromkeys(STATES, 0)
    for state, count in base.db.execute("SELECT state, count(*) FROM message GROUP BY state"):
        counted[STATES[state]] += count
    for state, expected in (
        (State.READY, books.ready),
        (State.DEFERRED, books.deferred),
        (State.PARKED, books.parked),
    ):
        if counted[state] != expected:
            yield f"the books say {expected} {state.value}, there are {counted[state]}"
    if size != books.bytes:
        yield f"the books say {books.bytes} bytes are held, there are {size}"
    if books.difference:
        yield f"the books do not balance: {books.difference} of {books.accepted} accepted messages are unaccounted for"


def export(path: Path) -> Iterator[Exported]:
    """Every open message, in order of acceptance."""
    with _opened(path) as base:
        rows = base.db.execute(
            "SELECT state, due, (SELECT key FROM idempotency WHERE idempotency.seq = message.seq), exchange, "
            f"{COLUMNS} FROM message WHERE state < 3 ORDER BY seq"
        )
        for state, due, key, number, *row in rows:
            name = base.names.get(number, "")
            damaged = entry_of(row, name, base.ids) is None
            entry = unchecked_entry_of(row, name, base.ids)
            entry.due, entry.idempotency_key = due, key
            yield Exported(entry, STATES[state], damaged)
