"""A disk in memory that loses power, for SQLite: what was not synced is dropped, torn or reordered.

What is written lands in a cache; a sync makes it durable. After a power loss any part of what was not synced may be
there, in sectors, whatever the order in which it was written. The nth write or sync can fail, and the disk can be full.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, cast

import apsw
import attrs

SECTOR = 512
_names = itertools.count()


@attrs.define(eq=False)
class File:
    """``cached`` is what a reader sees; ``durable`` (None: never synced) what surely survives."""

    cached: bytearray = attrs.Factory(bytearray)
    durable: bytes | None = None
    pending: list[tuple[int, bytes | None]] = attrs.Factory(list)
    """Since the last sync: (offset, what was written there), or (size, None) for a truncation."""

    def write(self, offset: int, data: bytes) -> None:
        _put(self.cached, offset, data)
        self.pending.append((offset, data))

    def truncate(self, size: int) -> None:
        del self.cached[size:]
        self.pending.append((size, None))

    def sync(self) -> None:
        self.durable = bytes(self.cached)
        self.pending.clear()

    def survivor(self, random: Random) -> File | None:
        """After a power loss; None if there is no such file then."""
        if self.durable is None and random.random() < 0.5:
            return None
        content = bytearray(self.durable or b"")
        # How much of it the disk did by itself: all, nothing, or something in between, in no order.
        share = random.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        for offset, data in self.pending:
            if data is None:
                if random.random() < share:
                    del content[offset:]
                continue
            for start, end in _sectors(offset, len(data)):
                if random.random() < share:
                    _put(content, offset + start, data[start:end])
        return File(content, bytes(content))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _sectors(offset: int, length: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < length:
        end = min(length, start + SECTOR - (offset + start) % SECTOR)
        yield start, end
        start = end


class Disk:
    """Files by path. Counts what is done to it; ``crash_at`` is the number of the write or sync at which it stops."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.writes = self.syncs = 0
        self.crash_at: int | None = None
        self.crashed = False
        self.failing: dict[tuple[str, int], Callable[[], Exception]] = {}
        """("write" or "sync", its number from 1) -> the error that it fails with."""
        self.full = False
        """No file can grow."""
        self.before_sync: Callable[[], None] = lambda: None

    @property
    def operations(self) -> int:
        """Writes and syncs so far."""
        return self.writes + self.syncs

    def write(self, file: File, offset: int, data: bytes) -> None:
        self.writes += 1
        self._step()
        if (error := self.failing.get(("write", self.writes))) is not None:
            raise error()
        if self.full and offset + len(data) > len(file.cached):
            raise no_room()
        file.write(offset, data)

    def sync(self, file: File) -> None:
        self.before_sync()
        self.syncs += 1
        self._step()
        if (error := self.failing.get(("sync", self.syncs))) is not None:
            # The kernel marks the pages clean: a later sync succeeds and does not write them.
            raise error()
        file.sync()

    def _step(self) -> None:
        if self.crash_at is not None and self.operations >= self.crash_at:
            self.crashed = True
        self.check()

    def check(self) -> None:
        """Raise if the power is off."""
        if self.crashed:
            raise failed(apsw.SQLITE_IOERR)

    def after_power_loss(self, random: Random) -> Disk:
        """What the next boot finds."""
        disk = Disk()
        for path, file in sorted(self.files.items()):
            if (left := file.survivor(random)) is not None:
                disk.files[path] = left
        return disk

    def after_kill(self) -> Disk:
        """What the next process finds: the cache is the kernel's, and survives."""
        disk = Disk()
        disk.files = {
            path: File(bytearray(file.cached), file.durable, list(file.pending)) for path, file in self.files.items()
        }
        return disk


def failed(code: int = apsw.SQLITE_IOERR_FSYNC) -> Exception:
    """EIO."""
    error: Any = apsw.IOError("Input/output error")
    error.result, error.extendedresult = code & 0xFF, code
    return cast("Exception", error)


def no_room() -> Exception:
    """ENOSPC."""
    return apsw.FullError("No space left on device")


class _Open:
    """An open file, with the methods that SQLite calls; locks are not kept, there is one connection."""

    def __init__(self, disk: Disk, file: File) -> None:
        self._disk, self._file = disk, file

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.check()
        return bytes(self._file.cached[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.write(self._file, offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        self._disk.check()
        self._file.truncate(size)

    def xSync(self, _flags: int) -> None:
        self._disk.sync(self._file)

    def xFileSize(self) -> int:
        return len(self._file.cached)

    def xClose(self) -> None: ...

    def xLock(self, _level: int) -> None: ...

    def xUnlock(self, _level: int) -> None: ...

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, _op: int, _pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR

    def xDeviceCharacteristics(self) -> int:
        # As SQLite's own for unix: what is beside a write is not harmed by it.
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE


class _CrashVFS(apsw.VFS):
    def __init__(self, name: str, disk: Disk) -> None:
        self._disk = disk
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        self._disk.check()
        flags[1] = flags[0]
        if name is None:
            return _Open(self._disk, File())
        path = name if isinstance(name, str) else name.filename()
        file = self._disk.files.get(path)
        if file is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            file = self._disk.files[path] = File()
        return _Open(self._disk, file)

    def xAccess(self, path: str, _flags: int) -> bool:
        # An empty file counts as none, as in SQLite's own for unix.
        return bool(path in self._disk.files and self._disk.files[path].cached)

    def xDelete(self, path: str, _sync_directory: bool) -> None:
        self._disk.check()
        self._disk.files.pop(path, None)


@contextmanager
def mounted(disk: Disk) -> Iterator[str]:
    """The name under which SQLite knows the disk."""
    name = f"crash-{next(_names)}"
    vfs = _CrashVFS(name, disk)
    try:
        yield name
    finally:
        vfs.unregister()
