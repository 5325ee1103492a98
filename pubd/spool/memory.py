"""A spool in memory: for the example's short way in, for tests, and for what may be lost with the process."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from pubd.errors import SpoolFull
from pubd.outcome import Settlement, State
from pubd.spool.base import Books

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pubd.entry import Entry

DEFAULT_MAX_BYTES = 1 << 30


@attrs.define(eq=False)
class _Shelf:
    """The open messages of one exchange."""

    fresh: deque[Entry] = attrs.Factory(deque)
    """Never claimed, in order of acceptance."""
    again: list[tuple[int, Entry]] = attrs.Factory(list)
    """Heap by seq: released or due again; older than most of ``fresh``."""
    deferred: list[tuple[float, int, Entry]] = attrs.Factory(list)
    """Heap by due time."""

    def ripen(self, now: float) -> int:
        """Move what is due to ``again``; how many."""
        moved = 0
        while self.deferred and self.deferred[0][0] <= now:
            _, seq, entry = heapq.heappop(self.deferred)
            heapq.heappush(self.again, (seq, entry))
            moved += 1
        return moved

    def peek(self) -> Entry | None:
        """The next message in order."""
        if self.again and (not self.fresh or self.again[0][0] < self.fresh[0].seq):
            return self.again[0][1]
        return self.fresh[0] if self.fresh else None

    def pop(self, entry: Entry) -> None:
        """Remove what ``peek`` showed."""
        if self.fresh and self.fresh[0] is entry:
            self.fresh.popleft()
        else:
            heapq.heappop(self.again)

    @property
    def empty(self) -> bool:
        return not (self.fresh or self.again or self.deferred)


class MemorySpool:
    """Fulfils :class:`pubd.spool.base.Spool` without a disk: what it holds ends with the process.

    ``max_bytes`` bounds everything that is held, in flight and parked included.
    """

    durable = False

    def __init__(self, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._shelves: dict[str, _Shelf] = {}
        self._claimed: set[Entry] = set()
        self._parked: dict[str, Settlement] = {}
        self._seq = 0
        self._bytes = 0
        self._ready = 0
        self._deferred = 0
        self._ended = dict.fromkeys((State.CONFIRMED, State.EXPIRED, State.DISCARDED), 0)

    def open(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)

    def backlog(self) -> Deferred[Collection[str]]:
        return succeed(list(self._shelves))

    def due(self, exchange: str, after: float) -> Deferred[float | None]:
        shelf = self._shelves.get(exchange)
        deferred = shelf.deferred if shelf is not None else []
        return succeed(min((due for due, _, _ in deferred if due > after), default=None))

    def append(self, entries: Sequence[Entry]) -> Deferred[None]:
        size = sum(entry.size for entry in entries)
        if self._bytes + size > self._max_bytes:
            return fail(
                SpoolFull(
                    "max_bytes",
                    f"{self._bytes:,} of {self._max_bytes:,} bytes are held and {size:,} more were submitted; "
                    "wait until messages are confirmed, or raise the limit",
                )
            )
        shelves = self._shelves
        for entry in entries:
            self._seq += 1
            entry.seq = self._seq
            shelf = shelves.get(entry.exchange)
            if shelf is None:
                shelf = shelves[entry.exchange] = _Shelf()
            shelf.fresh.append(entry)
        self._bytes += size
        self._ready += len(entries)
        return succeed(None)

    def claim(self, exchange: str, limit: int, max_bytes: int, now: float) -> Deferred[Sequence[Entry]]:
        shelf = self._shelves.get(exchange)
        if shelf is None:
            return succeed([])
        ripe = shelf.ripen(now)
        self._deferred -= ripe
        self._ready += ripe
        claimed: list[Entry] = []
        size = 0
        while len(claimed) < limit:
            entry = shelf.peek()
            if entry is None:
                break
            size += entry.size
            if claimed and size > max_bytes:
                break
            shelf.pop(entry)
            claimed.append(entry)
        if shelf.empty:
            del self._shelves[exchange]
        self._ready -= len(claimed)
        self._claimed.update(claimed)
        return succeed(claimed)

    def release(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._claimed.remove(entry)
            heapq.heappush(self._shelf(entry).again, (entry.seq, entry))
        self._ready += len(entries)

    def settle(self, confirmed: Sequence[Entry], others: Sequence[Settlement]) -> Deferred[None]:
        self._claimed.difference_update(confirmed)
        self._bytes -= sum(entry.size for entry in confirmed)
        self._ended[State.CONFIRMED] += len(confirmed)
        for settlement in others:
            self._settle(settlement)
        return succeed(None)

    def _settle(self, settlement: Settlement) -> None:
        entry = settlement.entry
        self._claimed.remove(entry)
        entry.attempts = settlement.attempts
        if settlement.state is State.DEFERRED:
            assert settlement.due is not None
            heapq.heappush(self._shelf(entry).deferred, (settlement.due, entry.seq, entry))
            self._deferred += 1
        elif settlement.state is State.READY:
            heapq.heappush(self._shelf(entry).again, (entry.seq, entry))
            self._ready += 1
        elif settlement.state is State.PARKED:
            self._parked[entry.id] = settlement
        else:
            self._ended[settlement.state] += 1
            self._bytes -= entry.size

    def books(self) -> Books:
        ended = self._ended
        return Books(
            accepted=self._seq,
            confirmed=ended[State.CONFIRMED],
            expired=ended[State.EXPIRED],
            discarded=ended[State.DISCARDED],
            ready=self._ready,
            deferred=self._deferred,
            parked=len(self._parked),
            in_flight=len(self._claimed),
            bytes=self._bytes,
        )

    def _shelf(self, entry: Entry) -> _Shelf:
        shelf = self._shelves.get(entry.exchange)
        if shelf is None:
            shelf = self._shelves[entry.exchange] = _Shelf()
        return shelf
