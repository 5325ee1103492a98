"""The SQLite spool of a stopped daemon: is it whole, and what is in it.

Changes nothing: what a killed daemon left in the WAL is read there and stays there. It takes no room on the disk, and
no right to write.
"""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw
import attrs

from pubd.errors import SpoolError, SpoolFailed, SpoolFull
from pubd.outcome import State
from pubd.spool import faults, schema, traces, wal
from pubd.spool.base import Books, Exported
from pubd.spool.ids import Ids
from pubd.spool.lock import SpoolLock
from pubd.spool.rows import COLUMNS, STATES, entry_of, size_of, unchecked_entry_of
from pubd.spool.salvage import Salvage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

#: integrity_check stops after so many problems.
MAX_PROBLEMS = 100
_BOOKS = ("accepted", "confirmed", "expired", "discarded", "ready", "deferred", "parked", "bytes")


@attrs.frozen(kw_only=True)
class Report:
    """What :func:`verify` found. ``problems`` are sentences; none means that the spool is whole."""

    books: Books
    schema: int
    problems: tuple[str, ...]


class PartlyRead(SpoolError):
    """Not all of a damaged spool could be read; ``missing`` is how many messages its books have beside (0: unknown)."""

    def __init__(self, path: Path, missing: int) -> None:
        super().__init__(f"{path} is damaged, and some of it cannot be read: {_recover(path)}")
        self.missing = missing


def _recover(path: Path) -> str:
    return f"keep a copy of it; 'sqlite3 {path} .recover' may find more of what is in it"


@attrs.frozen
class _Base:
    """An open spool, and the little of it that everything else is read with."""

    path: Path
    db: apsw.Connection
    ids: Ids
    names: dict[int, str]
    books: Books


@contextmanager
def _opened(path: Path) -> Iterator[_Base]:
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
        row = connection.execute(f"SELECT tag, last_seq, {', '.join(_BOOKS)} FROM books").fetchone()
        if row is None:
            raise SpoolError(f"{path} has no books: pubd ended before it was made, and nothing is in it")
        tag, last_seq, *counts = row
        books = Books(**dict(zip(_BOOKS, counts, strict=True)))
        yield _Base(path, connection, Ids(tag, last_seq, lambda: 0.0), _names(connection), books)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise SpoolFailed(f"{path} is damaged so that pubd cannot read it ({error}): {_recover(path)}") from error
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


def _names(connection: apsw.Connection) -> dict[int, str]:
    """The exchanges by number. Twice in the file: in their table, and in the index that has each name once."""
    try:
        return dict(connection.execute("SELECT number, name FROM exchange NOT INDEXED"))
    except apsw.CorruptError:
        return dict(connection.execute("SELECT number, name FROM exchange ORDER BY name"))


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
        return base.books


def verify(path: Path) -> Report:
    """Check structure, checksums and books. Raises SpoolError if the file cannot be read at all."""
    with _opened(path) as base:
        problems = [*_structure(base), *_messages(base)]
        return Report(books=base.books, schema=base.db.pragma("user_version"), problems=tuple(problems))


def _structure(base: _Base) -> Iterator[str]:
    try:
        for (text,) in base.db.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})"):
            if text != "ok":
                yield f"SQLite: {text}"
    except apsw.CorruptError as error:
        yield f"SQLite: {error}"
    beside = traces.wal_of(base.path)
    if (lost := wal.damage_of(beside)) is not None:
        yield f"{beside.name} {lost}; copy both files aside before pubd is started"


def _messages(base: _Base) -> Iterator[str]:
    """Open messages that cannot be published, in words; then the books against all of them, counted one by one."""
    size = 0
    counted = dict.fromkeys(STATES, 0)
    rows = _Rows(base)
    for found, row, unknown in rows:
        counted[found.state] += 1
        size += size_of(found.entry.exchange, row[1], len(row[9]) + len(row[10] or b""))
        if unknown:
            yield f"message {found.entry.id} belongs to an unknown exchange"
        elif found.damaged:
            yield f"message {found.entry.id} for {found.entry.exchange!r} is damaged: its checksum does not match"
    if not rows.whole:
        yield "a part of the messages cannot be read"
    books = base.books
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
    """Every open message, in order of acceptance. Raises PartlyRead after the last, if some could not be read."""
    with _opened(path) as base:
        rows = _Rows(base)
        count = 0
        for found, row, _ in rows:
            found.entry.idempotency_key = _key(base.db, row[0])
            count += 1
            yield found
        missing = max(base.books.held - count, 0)
        if missing or not rows.whole:
            raise PartlyRead(path, missing)


def _key(db: apsw.Connection, seq: int) -> str | None:
    """The idempotency key; none where it cannot be read, the message can be handed in without."""
    try:
        found = db.execute("SELECT CAST(key AS BLOB) FROM idempotency WHERE seq = ?", (seq,)).fetchone()
    except apsw.CorruptError:
        return None
    return found[0].decode("utf-8", "replace") if found else None


class _Rows:
    """Each open message that can be read, its row of COLUMNS, and whether its exchange is unknown."""

    def __init__(self, base: _Base) -> None:
        self._base = base
        self._salvage = Salvage(base.db, f"{COLUMNS}, state, due, exchange", last_seq=base.ids.last_seq)

    @property
    def whole(self) -> bool:
        """Everything could be read so far."""
        return self._salvage.whole

    def __iter__(self) -> Iterator[tuple[Exported, list[Any], bool]]:
        names, ids = self._base.names, self._base.ids
        for given in self._salvage.rows():
            *row, state, due, number = map(_as_made, given, _MADE)
            unknown = number not in names
            name = names.get(number, "")
            damaged = unknown or state not in (0, 1, 2) or entry_of(row, name, ids) is None
            entry = unchecked_entry_of(row, name, ids)
            entry.due = due
            shown = STATES[state] if state in (0, 1, 2) else State.PARKED
            # A value of another type than pubd writes is damage that no checksum need show.
            damaged = damaged or any(mended is not value for mended, value in zip(row, given, strict=False))
            yield Exported(entry, shown, damaged), row, unknown


#: What pubd writes into COLUMNS, state, due and exchange: types, and what stands for anything else.
_MADE: tuple[tuple[tuple[type, ...], Any], ...] = (
    ((int,), 0),
    ((bytes,), b""),
    ((bytes, type(None)), None),
    ((int,), 0),
    ((float,), 0.0),
    ((int,), 0),
    ((float, type(None)), None),
    ((bytes, type(None)), None),
    ((bytes, type(None)), None),
    ((bytes,), b""),
    ((bytes, type(None)), None),
    ((int,), 0),
    ((int,), -1),
    ((float, type(None)), None),
    ((int,), -1),
)


def _as_made(value: Any, made: tuple[tuple[type, ...], Any]) -> Any:
    types, instead = made
    sound = type(value) in types and (type(value) is not float or math.isfinite(value))
    return value if sound else instead
