"""What one run took, and how runs are compared: medians of alternating rounds, each run in a process of its own."""

from __future__ import annotations

import gc
import math
import resource
import statistics
import threading
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
    threads: dict[str, float] = attrs.Factory(dict)
    """What of ``cpu`` went to which thread, by its name; of those that lived all the time."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def micros(self) -> float:
        """CPU of the client in microseconds a message."""
        return self.cpu / self.messages * 1e6

    def micros_of(self, thread: str) -> float:
        """CPU of one thread in microseconds a message; 0 where there was none of that name."""
        return self.threads.get(thread, 0.0) / self.messages * 1e6


class Stopwatch:
    """Wall clock and CPU of this process, from its making to ``stop``; garbage of before is collected before."""

    def __init__(self) -> None:
        gc.collect()
        self._threads = _threads()
        self._wall, self._cpu = time.monotonic(), _cpu()

    def stop(self, messages: int) -> Sample:
        """What passed since then, for ``messages`` messages."""
        seconds, cpu = time.monotonic() - self._wall, _cpu() - self._cpu
        threads = {name: then - self._threads[name] for name, then in _threads().items() if name in self._threads}
        return Sample(messages, seconds, cpu, threads)


@attrs.frozen
class Median:
    """The medians of several samples of the same thing, each figure for itself."""

    rate: float
    micros: float
    threads: dict[str, float] = attrs.Factory(dict)
    """Microseconds a message, by name of the thread."""

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Median:
        """Raises statistics.StatisticsError where there is none."""
        names = {name for one in samples for name in one.threads}
        return cls(
            statistics.median(one.rate for one in samples),
            statistics.median(one.micros for one in samples),
            {name: statistics.median(one.micros_of(name) for one in samples) for name in names},
        )

    def of_thread(self, name: str) -> float:
        """Microseconds a message in that thread; 0 where there was none of that name."""
        return self.threads.get(name, 0.0)


@attrs.frozen
class Spread:
    """How long something took, in milliseconds."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Nearest rank: each figure was measured. Raises IndexError where there is none."""
        ordered = sorted(seconds)
        p50, p99 = (ordered[math.ceil(len(ordered) * part) - 1] for part in (0.5, 0.99))
        return cls(p50 * 1e3, p99 * 1e3, ordered[-1] * 1e3)

    @classmethod
    def median(cls, spreads: Sequence[Spread]) -> Spread:
        """Each figure for itself; raises statistics.StatisticsError where there is none."""
        return cls(*(statistics.median(figures) for figures in zip(*map(attrs.astuple, spreads), strict=True)))


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


def _threads() -> dict[str, float]:
    """CPU seconds of each living thread."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
