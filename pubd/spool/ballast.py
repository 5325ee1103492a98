"""Ballast: room on the spool's disk that is kept in a file, and given back when others have filled the disk.

What was published is then settled in it, so that publishing goes on; nothing new is accepted until it is taken again.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Ballast:
    """``size`` bytes beside ``database``, in a file of its own with 0600; nothing where that is 0."""

    def __init__(self, database: Path, size: int) -> None:
        self._path = database.with_name(f"{database.name}.ballast")
        self._size = size
        self.given_back = False
        """It was needed, and there was no room to take it again so far."""

    def take(self, free: int) -> bool:
        """Have it, if ``free`` bytes of the disk are twice as much: else it would be needed again at once."""
        if not self._size or self._has():
            self.given_back = False
            return True
        if free < 2 * self._size:
            return False
        try:
            self._make()
        except OSError:
            self._remove()
            return False
        self.given_back = False
        return True

    def give_back(self) -> bool:
        """Whether there was any."""
        if not self._remove():
            return False
        self.given_back = True
        return True

    def leave(self) -> None:
        """The spool is closed: nothing needs the room."""
        self._remove()
        self.given_back = False

    def _has(self) -> bool:
        try:
            return self._path.stat().st_blocks * 512 >= self._size
        except OSError:
            return False

    def _make(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Not only a size: blocks that nobody else gets.
            os.posix_fallocate(fd, 0, self._size)
        finally:
            os.close(fd)

    def _remove(self) -> bool:
        with contextlib.suppress(OSError):
            self._path.unlink()
            return True
        return False
