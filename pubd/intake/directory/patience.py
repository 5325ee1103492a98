"""Files and owners that are to be left alone for a while. Pure: the clock is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pubd.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names remembered; beyond, the oldest is forgotten, and looked at again sooner than it would be.
REMEMBERED = 20_000
BACKOFF = Backoff(first=1.0, factor=2.0, max=300.0, jitter=0.0)


@attrs.define
class _Wait:
    until: float
    times: int


class Patience:
    """Waits that double with each time, from a second to five minutes, by name."""

    def __init__(self, backoff: Backoff = BACKOFF, remembered: int = REMEMBERED) -> None:
        self._backoff = backoff
        self._remembered = remembered
        self._waits: dict[str, _Wait] = {}

    def __len__(self) -> int:
        return len(self._waits)

    def postpone(self, name: str, now: float) -> bool:
        """Leave ``name`` alone for a while, at ``now`` seconds; whether it is the first time."""
        wait = self._waits.pop(name, None)
        times = wait.times + 1 if wait else 0
        if len(self._waits) >= self._remembered:
            del self._waits[next(iter(self._waits))]
        self._waits[name] = _Wait(now + self._backoff.delay(times, lambda: 0.0), times)
        return wait is None

    def waits(self, name: str, now: float) -> bool:
        """Whether it is to be left alone."""
        wait = self._waits.get(name)
        return wait is not None and wait.until > now

    def over(self, name: str) -> None:
        """It was dealt with."""
        self._waits.pop(name, None)

    def forget(self, now: float) -> None:
        """Drop what has been due for longer than the longest wait: those files are gone."""
        for name in list(self._gone(now)):
            del self._waits[name]

    def soonest(self, now: float) -> float | None:
        """Seconds until the first of those that wait; None if nothing does."""
        return min((wait.until - now for wait in self._waits.values() if wait.until > now), default=None)

    def _gone(self, now: float) -> Iterator[str]:
        for name, wait in self._waits.items():
            if wait.until + self._backoff.max < now:
                yield name
