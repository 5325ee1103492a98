"""What one run took, and how runs are compared: medians of alternating rounds, each run in a process of its own."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen
class Sample:
    """One measured run: wall clock and CPU (user and system) in seconds, for this many messages."""

    messages: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def micros(self) -> float:
        """CPU of the client in microseconds a message."""
        return self.cpu / self.messages * 1e6


class Stopwatch:
    """Wall clock and CPU of this process, from its making to ``stop``; garbage of before is collected before."""

    def __init__(self) -> None:
        gc.collect()
        self._wall, self._cpu = time.monotonic(), _cpu()

    def stop(self, messages: int) -> Sample:
        """What passed since then, for ``messages`` messages."""
        return Sample(messages, time.monotonic() - self._wall, _cpu() - self._cpu)


@attrs.frozen
class Median:
    """The medians of several samples of the same thing, each figure for itself."""

    rate: float
    micros: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Median:
        """Raises statistics.StatisticsError where there is none."""
        return cls(statistics.median(one.rate for one in samples), statistics.median(one.micros for one in samples))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, ["-" * width for width in widths], *rows)
    )


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
