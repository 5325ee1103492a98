"""The lines of a file or pipe, in batches, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import select
import stat
from typing import NamedTuple

#: A batch has at most so many lines, and no more bytes than this if it has more than one.
BATCH_LINES, BATCH_BYTES = 2000, 1024 * 1024
#: The longest line in bytes: the longest body in base64, and all the rest of a message.
MAX_LINE = 192 * 1024 * 1024
_READ = 512 * 1024


class Line(NamedTuple):
    """``content`` is without the line's end; None: the line was longer than ``MAX_LINE``."""

    number: int
    content: bytes | None


class Feed:
    """Reads lines from ``fd``, which stays the caller's. Empty lines count, but are left out.

    ``end``: the offset in the file at which to stop. The last line needs no line break.
    """

    def __init__(
        self,
        fd: int,
        *,
        end: int | None = None,
        first: int = 1,
        max_line: int = MAX_LINE,
        batch_lines: int = BATCH_LINES,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._fd = fd
        self._left = end
        self._first = first
        self._max_line = max_line
        self._batch_lines = batch_lines
        self._batch_bytes = batch_bytes
        self._lines: list[bytes] = []
        """Whole lines that are not taken yet, the next one last."""
        self._parts: list[bytes] = []
        """The beginning of the line whose end has not been read yet."""
        self._size = 0
        self._over = False
        """That line is too long already; the rest of it is thrown away."""
        self._number = 0
        self._ended = False
        self.taken = 0
        """Bytes of the lines that were taken, and of those that were left out."""

    def take(self) -> list[Line]:
        """The next lines, at least one; none at the end. Waits for them. Raises OSError."""
        while True:
            if batch := self._batch():
                return batch
            if self._ended:
                return []
            self._read()

    def take_ready(self) -> list[Line] | None:
        """The same without waiting: None when nothing is there yet."""
        while True:
            if batch := self._batch():
                return batch
            if self._ended:
                return []
            if not select.select([self._fd], [], [], 0)[0]:
                return None
            self._read()

    def _batch(self) -> list[Line]:
        batch: list[Line] = []
        size = 0
        while self._lines and len(batch) < self._batch_lines:
            raw = self._lines[-1]
            if batch and size + len(raw) > self._batch_bytes:
                break
            self._lines.pop()
            self._number += 1
            self.taken += len(raw) + 1
            if self._number < self._first:
                continue
            if raw == _TOO_LONG:
                batch.append(Line(self._number, None))
            elif content := raw.strip():
                batch.append(Line(self._number, content))
                size += len(raw)
        return batch

    def _read(self) -> None:
        """One read, its whole lines put into ``_lines``, which is empty."""
        want = _READ if self._left is None else min(_READ, self._left)
        chunk = os.read(self._fd, want) if want else b""
        if not chunk:
            self._ended = True
            if self._parts or self._over:
                self._lines = [self._joined(b"")]
            return
        if self._left is not None:
            self._left -= len(chunk)
        first, *rest = chunk.split(b"\n")
        if not rest:
            self._keep(first)
            return
        lines = [self._joined(first), *rest[:-1]]
        self._keep(rest[-1])
        lines.reverse()
        self._lines = lines

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max_line:
            self._over = True
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _joined(self, last: bytes) -> bytes:
        """The line that ends with ``last``."""
        self._keep(last)
        line = _TOO_LONG if self._over else b"".join(self._parts)
        self._parts.clear()
        self._size, self._over = 0, False
        return line


#: Stands for a line that was too long; no line has a line break in it.
_TOO_LONG = b"\n"


def is_file(fd: int) -> bool:
    """Whether it can be read twice."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def digest(fd: int, *seasoning: bytes) -> tuple[str, int]:
    """What tells the rest of a file from others, and its size; ``fd`` is where it was afterwards. Raises OSError."""
    start = os.lseek(fd, 0, os.SEEK_CUR)
    found = hashlib.sha256()
    size = 0
    for extra in seasoning:
        found.update(extra + b"\n")
    while chunk := os.read(fd, 1 << 20):
        found.update(chunk)
        size += len(chunk)
    os.lseek(fd, start, os.SEEK_SET)
    return found.hexdigest()[:32], size
