"""One process for one spool: a lock file beside the database, with the pid of its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from pubd.errors import SpoolInUse

if TYPE_CHECKING:
    from pathlib import Path


class SpoolLock:
    """Held from construction to :meth:`release`, or to the end of the process. Raises SpoolInUse, naming the holder."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        # Not locked by SQLite's own means: these would let a second daemon wait, or write between two commits.
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise SpoolInUse(database, holder) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Let the next one in. The file stays: removing it would race with who opens it now."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
