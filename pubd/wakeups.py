"""Waking lanes when deferred messages are due: one timer for each exchange, set to the earliest.

Due is what the time of day says, and timers run in time that nobody sets. So no timer is longer than :data:`LOOK`, at
whose end the time of day is looked at anew.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from pubd.spool.base import Spool


#: Seconds after which a time of day that was set is noticed.
LOOK = 30.0


class Wakeups:
    """``wake(exchanges)`` is called when something of theirs is due; ``wall`` is epoch seconds."""

    log = Logger()

    def __init__(
        self, *, clock: Any, wall: Callable[[], float], spool: Spool, wake: Callable[[Sequence[str]], None]
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._spool = spool
        self._wake = wake
        self._calls: dict[str, IDelayedCall] = {}
        self._dues: dict[str, float] = {}
        """What the timers are for, in epoch seconds."""
        self._stopped = False

    def at(self, exchange: str, due: float) -> None:
        """Wake the lane at ``due``, unless it is to be woken before."""
        if self._stopped or due >= self._dues.get(exchange, math.inf):
            return
        self._dues[exchange] = due
        delay, call = self._delay(due), self._calls.get(exchange)
        if call is None:
            self._calls[exchange] = self._clock.callLater(delay, self._due, exchange)
        elif call.getTime() - self._clock.seconds() > delay:
            call.reset(delay)

    def _delay(self, due: float) -> float:
        return min(max(0.0, due - self._wall()), LOOK)

    def look(self, exchange: str) -> None:
        """Ask the spool when the next deferred message is due, after those that are due now."""
        asked = self._spool.due(exchange, self._wall())
        asked.addCallback(lambda due: None if due is None else self.at(exchange, due))
        asked.addErrback(lambda failure: self.log.error("{error}", error=failure.getErrorMessage()))

    def within(self, seconds: float) -> bool:
        """Whether something is due in that time."""
        now = self._clock.seconds()
        return any(call.getTime() - now <= seconds for call in self._calls.values())

    def stop(self) -> None:
        """Forget all timers."""
        self._stopped = True
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
        self._dues.clear()

    def _due(self, exchange: str) -> None:
        if delay := self._delay(self._dues[exchange]):
            self._calls[exchange] = self._clock.callLater(delay, self._due, exchange)
            return
        del self._calls[exchange], self._dues[exchange]
        self._wake([exchange])
        self.look(exchange)
