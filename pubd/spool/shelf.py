"""What the memory spool holds of one exchange, in the order in which it is to be claimed."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

import attrs

from pubd.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping


@attrs.define(eq=False)
class Shelf:
    """Queues that may name a message twice, or after it changed: who takes from them asks whether it is so still.

    Every claimable message is in ``fresh`` or ``again``; what is taken and not claimable comes back when it becomes so.
    """

    held: int = 0
    """Messages not settled."""
    parked: int = 0
    """Of these, parked."""
    fresh: deque[Entry] = attrs.Factory(deque)
    """Never taken, in order of acceptance."""
    again: list[tuple[int, int, Entry]] = attrs.Factory(list)
    """Heap by seq: released, due or head of their key; older than most of ``fresh``."""
    deferred: list[tuple[float, int]] = attrs.Factory(list)
    """Heap by due time, with the seq."""
    keys: dict[str, deque[int]] = attrs.Factory(dict)
    """Seqs of each ordering key in order of acceptance, with settled ones in between."""

    def pop(self) -> Entry | None:
        """The next message in order."""
        if self.again and (not self.fresh or self.again[0][0] < self.fresh[0].seq):
            return heapq.heappop(self.again)[2]
        return self.fresh.popleft() if self.fresh else None

    def put_back(self, entry: Entry) -> None:
        """To its place in the order."""
        heapq.heappush(self.again, (entry.seq, id(entry), entry))

    def defer(self, seq: int, due: float) -> None:
        """Not before ``due``."""
        heapq.heappush(self.deferred, (due, seq))

    def ripe(self, now: float, held: Mapping[int, Entry], is_due: Callable[[int, float], bool]) -> list[Entry]:
        """What is due at ``now``, taken out."""
        ripe = []
        while self.deferred and self.deferred[0][0] <= now:
            due, seq = heapq.heappop(self.deferred)
            if is_due(seq, due):
                ripe.append(held[seq])
        return ripe

    def next_due(self, after: float, is_due: Callable[[int, float], bool]) -> float | None:
        """The first due time later than ``after``; looks at what is due until then, not at all of the heap."""
        found: float | None = None
        places = [0]
        while places:
            place = places.pop()
            if place >= len(self.deferred):
                continue
            due, seq = self.deferred[place]
            if found is not None and due >= found:
                continue
            if due > after and is_due(seq, due):
                found = due
            else:
                places += [2 * place + 1, 2 * place + 2]
        return found

    def head(self, key: str, held: Container[int]) -> int | None:
        """The first message of an ordering key that is not settled."""
        seqs = self.keys.get(key)
        if seqs is None:
            return None
        while seqs and seqs[0] not in held:
            seqs.popleft()
        if not seqs:
            del self.keys[key]
            return None
        return seqs[0]
