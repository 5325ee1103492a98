"""The rows of a damaged message table: as many as can be read.

SQLite ends a scan at the first page that makes no sense, and whatever asks for a seq on it. So the seqs behind it are
looked for from the other end, and from points between, by the table's own tree. Indices say where to look, but may be
damaged, too: it goes without.
"""

from __future__ import annotations

import heapq
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LOWEST, _HIGHEST = 0, 2**63 - 1
#: How often it is looked for something between pages that cannot be read: seconds, if there is nothing.
_LOOKS = 100_000


class Salvage:
    """Reads columns of the open messages in the order of their seqs, which have to be the first column.

    ``last_seq`` is about the highest: where to begin to look for what is there.
    """

    def __init__(self, db: apsw.Connection, columns: str, *, last_seq: int) -> None:
        self._db = db
        self._columns = columns
        self._last_seq = last_seq
        self.whole = True
        """Everything could be read so far."""

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Each once, as it is in the file, whatever is in it."""
        last = _LOWEST - 1
        try:
            for row in self._read(_LOWEST, _HIGHEST):
                yield row
                last = row[0]
        except apsw.CorruptError:
            self.whole = False
        else:
            return
        for low, high in self._readable(last + 1):
            # To know that there is no more in the range SQLite may look at the page behind it.
            with suppress(apsw.CorruptError):
                yield from self._read(low, high)

    def _read(self, low: int, high: int, order: str = "ASC") -> Iterator[tuple[Any, ...]]:
        sql = (
            f"SELECT {self._columns} FROM message NOT INDEXED WHERE seq BETWEEN ? AND ? AND state < 3 "
            f"ORDER BY seq {order}"
        )
        return iter(self._db.execute(sql, (low, high)))

    def _readable(self, low: int) -> list[tuple[int, int]]:
        """Ranges of seqs from ``low`` on that can be read, in order."""
        found: list[tuple[int, int]] = []
        start = self._down(low, _HIGHEST)
        if start is not None:
            found.append((start, _HIGHEST))
        high = _HIGHEST if start is None else start - 1
        gaps: list[tuple[int, int, int]] = []
        for seq in self._indexed(low, high):
            if seq >= low and (end := self._up(seq, high)) is not None:
                found.append((seq, end))
                gaps.append((0, low, seq - 1))
                low = end + 1
        middle = min(max(low, self._last_seq), high)
        gaps += [(0, low, middle), (0, middle + 1, high)]
        # What gives nothing is halved, again and again; what was halved least is next, so that each gap has its turn.
        heapq.heapify(gaps)
        looks = 0
        while gaps and looks < _LOOKS:
            halved, low, high = heapq.heappop(gaps)
            for point in _points(low, high):
                looks += 1
                end = self._up(point, high)
                if end is not None:
                    start = self._down(low, point - 1)
                    start = point if start is None else start
                    found.append((start, end))
                    rest = [(halved, low, start - 1), (halved, end + 1, high)]
                    break
            else:
                middle = (low + high) // 2
                rest = [(halved + 1, low, middle), (halved + 1, middle + 1, high)] if low < high else []
            for gap in rest:
                heapq.heappush(gaps, gap)
        return sorted(found)

    def _indexed(self, low: int, high: int) -> Sequence[int]:
        """Seqs that are there, if indices can be believed, in order: the surest way to what is between two gaps."""
        seqs = array("q")
        for index, states in (("message_ready", "state = 0"), ("message_why", "state IN (1, 2)")):
            sql = f"SELECT seq FROM message INDEXED BY {index} WHERE {states}"
            # Also when there is no such index: the schema may be older.
            with suppress(apsw.CorruptError, apsw.SQLError):
                seqs.extend(seq for (seq,) in self._db.execute(sql) if low <= seq <= high)
        return sorted(seqs)

    def _up(self, low: int, high: int) -> int | None:
        """The highest seq up to which everything from ``low`` on can be read; None if nothing can."""
        last = None
        try:
            for row in self._read(low, high):
                last = row[0]
        except apsw.CorruptError:
            return last
        return high

    def _down(self, low: int, high: int) -> int | None:
        """The lowest seq from which everything up to ``high`` can be read; None if nothing can."""
        last = None
        try:
            for row in self._read(low, high, "DESC"):
                last = row[0]
        except apsw.CorruptError:
            return last
        return low


def _points(low: int, high: int) -> Iterator[int]:
    """Where to look in a range: in its middle, and from both ends farther and farther away. None in an empty one."""
    if low > high:
        return
    yield (low + high) // 2
    step = 1
    while step <= high - low:
        yield low + step
        yield high - step
        step *= 2
    yield low
