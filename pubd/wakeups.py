"""Waking lanes when deferred messages are due: one timer for each exchange, set to the earliest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from pubd.spool.base import Spool


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
        self._stopped = False

    def at(self, exchange: str, due: float) -> None:
        """Wake the lane at ``due``, unless it is to be woken before."""
        if self._stopped:
            return
        delay, call = max(0.0, due - self._wall()), self._calls.get(exchange)
        if call is None:
            self._calls[exchange] = self._clock.callLater(delay, self._due, exchange)
        elif call.getTime() - self._clock.seconds() > delay:
            call.reset(delay)

    def look(self, exchange: str) -> None:
        """Ask the spool when the next deferred message is due, after those that are due now."""
        asked = self._spool.due(exchange, self._wall())
        asked.addCallback(lambda due: None if due is None else self.at(exchange, due))
        asked.addErrback(lambda failure: self.log.error("{error}", error=failure.getErrorMessage()))

    def stop(self) -> None:
        """Forget all timers."""
        self._stopped = True
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()

    def _due(self, exchange: str) -> None:
        del self._calls[exchange]
        self._wake([exchange])
        self.look(exchange)
