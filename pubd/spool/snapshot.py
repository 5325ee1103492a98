"""A consistent copy of the SQLite spool while it is in use, made in steps by SQLite's own backup on the spool's thread.

What is committed between two steps goes into the copy, too, for it comes through the same connection. The copy has no
name: it ends with the process, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

import apsw

from pubd.errors import SpoolError, SpoolFull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted.internet.defer import Deferred

#: Pages of a step: a mebibyte, a few milliseconds.
STEP = 256


class Copy:
    """Belongs to the spool's thread, but for ``fd``, which is open for reading until :meth:`close`.

    ``reserve``: bytes that the disk has to have free beside the copy. Raises SpoolFull if it has not.
    """

    def __init__(self, source: apsw.Connection, path: Path, *, reserve: int) -> None:
        self._path = path
        self._target: apsw.Connection | None = None
        self._backup: apsw.Backup | None = None
        try:
            self._check_room(source, reserve)
            self.fd, name = tempfile.mkstemp(prefix=f"{path.name}.copy-", dir=path.parent)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._target = apsw.Connection(name)
            # It is whole when it has been read to the end, or thrown away.
            self._target.pragma("journal_mode", "off")
            self._target.pragma("synchronous", 0)
            self._backup = self._target.backup("main", source, "main")
        except BaseException as error:
            self.close()
            os.close(self.fd)
            if isinstance(error, apsw.Error | OSError):
                raise self._failed(error) from error
            raise
        finally:
            os.unlink(name)

    @property
    def open(self) -> bool:
        """Whether it is still being made."""
        return self._backup is not None

    def _check_room(self, source: apsw.Connection, reserve: int) -> None:
        size = source.pragma("page_count") * source.pragma("page_size")
        disk = os.statvfs(self._path.parent)
        free = disk.f_bavail * disk.f_frsize
        if free < size + reserve:
            raise SpoolFull(
                "disk",
                f"a copy of the spool takes {size:,} bytes, and the disk of {self._path} has {free:,} free, of which "
                f"{reserve:,} are kept in reserve; make room on it",
            )

    def step(self) -> bool:
        """Copy a little more; whether all of it is copied. Raises SpoolError: nothing will come of it."""
        if self._backup is None or self._target is None:
            raise SpoolError(f"the copy of {self._path} was given up, because pubd stops")
        try:
            done = self._backup.step(STEP)
            if done:
                self._backup.finish()
                self._target.close()
                self._backup = self._target = None
        except (apsw.Error, OSError) as error:
            self.close()
            raise self._failed(error) from error
        return bool(done)

    def close(self) -> None:
        """Give up what is not done; the spool itself needs this before its end."""
        backup, self._backup = self._backup, None
        target, self._target = self._target, None
        with contextlib.suppress(apsw.Error):
            if backup is not None:
                backup.close(True)
        with contextlib.suppress(apsw.Error):
            if target is not None:
                target.close(True)

    def _failed(self, error: Exception) -> SpoolError:
        if isinstance(error, apsw.FullError):
            return SpoolFull("disk", f"no room is left on the disk of {self._path} for a copy; make room on it")
        return SpoolError(f"{self._path} could not be copied: {type(error).__name__}: {error}")


class SqliteSnapshot:
    """Fulfils :class:`pubd.spool.base.Snapshot`; ``ask`` has something done on the spool's thread."""

    def __init__(self, copy: Copy, ask: Callable[[Callable[[], bool | None]], Deferred[bool]]) -> None:
        self._copy = copy
        self._ask = ask
        self._open = True
        self.fd = copy.fd

    def step(self) -> Deferred[bool]:
        """See :class:`pubd.spool.base.Snapshot`."""
        return self._ask(self._copy.step)

    def close(self) -> None:
        """See :class:`pubd.spool.base.Snapshot`."""
        if self._open:
            self._open = False
            # If the spool is closed, so is the copy.
            self._ask(self._copy.close).addBoth(lambda _: os.close(self.fd))
