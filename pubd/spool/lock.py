"""One process for one spool: a lock file beside the database, with the pid of its holder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from pubd.errors import SpoolInUse
from pubd.hung import hung

if TYPE_CHECKING:
    from pathlib import Path


#: With these a file cannot be made or written, but read.
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})


class SpoolLock:
    """Held from construction to :meth:`release`, or to the end of the process. Raises SpoolInUse, naming the holder.

    For ``reading`` it is enough that nobody else holds it, where it cannot be made.
    """

    def __init__(self, database: Path, *, reading: bool = False) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._fd: int | None = None
        # Not locked by SQLite's own means: these would let a second daemon wait, or write between two commits.
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if not reading or error.errno not in _READ_ONLY:
                raise
            with contextlib.suppress(FileNotFoundError):
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            if self._fd is None:
                # No daemon has ever run here, or it would be there.
                return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise SpoolInUse(database, holder, hung(holder)) from None
        # On a full disk there may be no room for it, and publishing goes on all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Let the next one in. The file stays: removing it would race with who opens it now."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
