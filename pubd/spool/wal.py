"""Reading SQLite's WAL as SQLite does, and on: whether commits follow a frame at which SQLite stops.

SQLite takes the first frame with a wrong checksum for the end. After a crash that is right; after a flipped byte all
later commits vanish. See https://www.sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import sys
from array import array
from typing import IO, TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEADER, _FRAME = struct.Struct(">8I"), struct.Struct(">6I")
_MAGIC = 0x377F0682
"""With checksums of little-endian words; one more: of big-endian ones."""
_WORD = 0xFFFFFFFF

Sum = tuple[int, int]


@attrs.frozen
class Damage:
    """SQLite stops at ``frame`` (from 1; 0 is the header) of ``frames``, and the whole frame ``commit`` comes later.

    Frames that were not synced before power was lost may look so, too.
    """

    frame: int
    frames: int
    commit: int

    def __str__(self) -> str:
        where = f"frame {self.frame} of {self.frames}" if self.frame else f"its header, before {self.frames} frames"
        return f"may be damaged at {where}: what was committed after it cannot be read"


@attrs.frozen
class _Frame:
    number: int
    is_commit: bool
    salts: tuple[int, int]
    sum: Sum
    """As stored: of everything up to here."""
    content: bytes
    """What its own sum goes over."""


def damage(file: IO[bytes]) -> Damage | None:
    """What is wrong with this WAL, opened at its beginning; None: nothing, or what a crash leaves. Raises OSError.

    A third of a second for 16 MiB.
    """
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or not any(head):
        return None
    magic, _, size, _, *rest = _HEADER.unpack(head)
    salts, stored = (rest[0], rest[1]), (rest[2], rest[3])
    big = magic == _MAGIC + 1
    whole = magic in (_MAGIC, _MAGIC + 1) and checksum(head[:24], (0, 0), big=big) == stored
    bad = None if whole else 0
    # A magic number that is wrong says nothing; SQLite writes its machine's own order.
    big = big if whole else sys.byteorder == "big"
    # The last frame's sum, as it is stored and as it should be.
    before = {stored}
    if size not in (1 << power for power in range(9, 17)):
        size = 4096
    frames, commit = 0, None
    for frame in _frames(file, size):
        if bad is None:
            sum_ = checksum(frame.content, next(iter(before)), big=big)
            if frame.salts == salts and frame.sum == sum_:
                before = {sum_}
                frames = frame.number
                continue
            bad, before = frame.number, {frame.sum, sum_}
            continue
        if bad == 0 and frame.number == 1:
            salts = frame.salts
        if frame.salts == salts:
            frames = frame.number
            if commit is None and frame.is_commit and _follows(frame, before, big=big):
                commit = frame.number
        before = {frame.sum}
    return Damage(bad, frames, commit) if bad is not None and commit is not None else None


def damage_of(path: Path) -> Damage | None:
    """That of the WAL ``path``, if there is one. Raises OSError."""
    try:
        with path.open("rb") as file:
            return damage(file)
    except FileNotFoundError:
        return None


def keep_damaged(path: Path) -> tuple[Damage, Path] | None:
    """If the WAL ``path`` is damaged, copy it before SQLite writes over it: what is wrong, and the copy.

    Raises OSError.
    """
    found = damage_of(path)
    if found is None:
        return None
    ends = itertools.chain([".damaged"], (f".damaged-{number}" for number in itertools.count(2)))
    kept = next(copy for end in ends if not (copy := path.with_name(f"{path.name}{end}")).exists())
    fd = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as target, path.open("rb") as file:
        shutil.copyfileobj(file, target)
        target.flush()
        os.fsync(fd)
    return found, kept


def _follows(frame: _Frame, before: set[Sum], *, big: bool) -> bool:
    return any(checksum(frame.content, each, big=big) == frame.sum for each in before)


def _frames(file: IO[bytes], size: int) -> Iterator[_Frame]:
    number = 0
    while len(read := file.read(_FRAME.size + size)) == _FRAME.size + size:
        number += 1
        _, pages, *rest = _FRAME.unpack_from(read)
        content = read[:8] + read[_FRAME.size :]
        yield _Frame(number, pages != 0, (rest[0], rest[1]), (rest[2], rest[3]), content)


def checksum(content: bytes, before: Sum, *, big: bool) -> Sum:
    """SQLite's, of a multiple of 8 bytes, going on from the sum ``before`` it."""
    words = array("I", content)
    if big != (sys.byteorder == "big"):
        words.byteswap()
    first, second = before
    pairs = iter(words)
    for one, other in zip(pairs, pairs, strict=True):
        first = (first + one + second) & _WORD
        second = (second + other + first) & _WORD
    return first, second
