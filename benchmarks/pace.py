"""Single messages at a fixed rate, each timed from when it was due: a late one does not hide that it was late."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from benchmarks.measure import Spread

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from benchmarks.ways import SingleWay


@attrs.frozen
class Latency:
    """From when a message was due: until it was handed in (the reactor's part), stored (None of pika), confirmed."""

    handed_in: Spread
    stored: Spread | None
    confirmed: Spread

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Latency:
        """What ``attrs.asdict`` made of one."""
        return cls(**{name: spread and Spread(**spread) for name, spread in found.items()})


class _One:
    """Fulfils :class:`benchmarks.ways.Fate`."""

    __slots__ = ("_due", "_pace")

    def __init__(self, pace: Pace, due: float) -> None:
        self._pace = pace
        self._due = due

    def stored(self) -> None:
        self._pace.stored.append(time.monotonic() - self._due)

    def confirmed(self) -> None:
        self._pace.confirm(time.monotonic() - self._due)

    def failed(self, failure: Failure) -> None:
        self._pace.fail(failure)


class Pace:
    """``count`` messages, ``rate`` of them a second; those that came due while the reactor was busy go at once."""

    def __init__(self, way: SingleWay, *, rate: float, count: int) -> None:
        self._way = way
        self._rate = rate
        self._count = count
        self._sent = 0
        self._done: Deferred[None] = Deferred()
        self.handed_in: list[float] = []
        self.stored: list[float] = []
        self._confirmed: list[float] = []

    async def run(self) -> Latency:
        """Returns when the last one is confirmed."""
        self._start = time.monotonic()
        ticks = LoopingCall(self._tick)
        ticking = ticks.start(1 / self._rate)
        ticking.addErrback(self.fail)
        try:
            await self._done
        finally:
            if ticks.running:
                ticks.stop()
        stored = Spread.of(self.stored) if self.stored else None
        return Latency(Spread.of(self.handed_in), stored, Spread.of(self._confirmed))

    def confirm(self, seconds: float) -> None:
        """One more is confirmed."""
        self._confirmed.append(seconds)
        if len(self._confirmed) == self._count:
            self._done.callback(None)

    def fail(self, failure: Failure) -> None:
        """It did not go as it must."""
        if not self._done.called:
            self._done.errback(failure)

    def _tick(self) -> None:
        now = time.monotonic()
        while self._sent < self._count and (due := self._start + self._sent / self._rate) <= now:
            self._sent += 1
            self.handed_in.append(now - due)
            self._way.single(_One(self, due))
            now = time.monotonic()
