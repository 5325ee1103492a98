"""Distribution: how long things took, counted in buckets; many of the same length at once."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Upper bounds (seconds): from a commit on a good disk to a broker that does not answer.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Distribution:
    """``bounds`` are the upper ends of the buckets, in order; above the last one there is one more."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        """Of all that was observed."""

    def observe(self, value: float, times: int = 1) -> None:
        """``value``, so many times. One below 0, which only a broken clock gives, counts as 0."""
        value = max(value, 0.0)
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self._counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many were in each bucket, the one above the last bound included."""
        return tuple(self._counts)

    def buckets(self) -> list[tuple[float, int]]:
        """Each upper bound, infinity last, with how many were not above it."""
        return list(zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True))


def quantile(counts: Sequence[int], share: float, bounds: Sequence[float] = SECONDS) -> float | None:
    """What ``share`` of all observations were not above, by the counts of their buckets; None if there were none.

    Inside a bucket they count as spread evenly, as in Prometheus; those above the last bound as being at it.
    """
    wanted = share * sum(counts)
    if wanted <= 0:
        return None
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return bounds[-1]
