"""Ids of messages: UUIDv7 made of the order of acceptance and the spool's own tag.

RFC 9562, 5.7: 48 bits of milliseconds, 12 bits that here count within the millisecond, 62 bits that here are random
once for each spool. So ids sort in the order of acceptance, differ between spools, and lead back to the row without an
index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

TAG_BITS = 62
_COUNTER_BITS = 12
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1
_VARIANT = 0x2 << 62


class Ids:
    """Gives seqs, each higher than the last, whatever the clock does, and turns them into ids and back."""

    def __init__(self, tag: int, last_seq: int, wall: Callable[[], float]) -> None:
        self.tag = tag
        self.last_seq = last_seq
        self._wall = wall
        self._low = _VARIANT | tag
        low = f"{self._low:016x}"
        self._tail = f"-{low[:4]}-{low[4:]}"
        self._head = (-1, "")
        """Milliseconds, and how their ids begin; one value, because two threads come here."""

    def next(self) -> int:
        """The seq of the next message."""
        return self.take(1)[0]

    def take(self, count: int) -> range:
        """The seqs of the next ``count`` messages."""
        first = max(int(self._wall() * 1000) << _COUNTER_BITS, self.last_seq + 1)
        self.last_seq = first + count - 1
        return range(first, first + count)

    def id_of(self, seq: int) -> str:
        """The id of the message with this seq."""
        milliseconds = seq >> _COUNTER_BITS
        known, head = self._head
        if milliseconds != known:
            digits = f"{milliseconds:012x}"
            head = f"{digits[:8]}-{digits[8:]}-7"
            self._head = (milliseconds, head)
        return f"{head}{seq & _COUNTER_MASK:03x}{self._tail}"

    def seq_of_key(self, key: str) -> int | None:
        """As :meth:`seq_of` for what is hardly ever an id, and looked at for each message."""
        return self.seq_of(key) if key.endswith(self._tail) else None

    def seq_at(self, moment: float) -> int:
        """No message that was accepted at ``moment`` (epoch seconds) has a lower seq."""
        return max(0, int(moment * 1000) << _COUNTER_BITS)

    def seq_of(self, id: str) -> int | None:
        """The seq in an id of this spool; None for anything else."""
        try:
            number = UUID(id).int
        except ValueError:
            return None
        if number & ((1 << 64) - 1) != self._low or (number >> 76) & 0xF != 0x7:
            return None
        return (number >> 80) << 12 | (number >> 64) & 0xFFF
