"""Draining: waiting, at the end, until nothing is under way, or nothing can come of it, but not for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable


#: Seconds between looks where nothing ends: what was hoped for may be hopeless by now.
LOOK = 0.25


class Draining:
    """``clock`` is the reactor. Whoever ends something calls :meth:`look`."""

    log = Logger()

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._quiet: Deferred[None] | None = None
        self._left: Callable[[], int] = int

    async def drained(self, left: Callable[[], int], timeout: float) -> None:
        """Wait for ``left()`` to become 0, at most ``timeout`` seconds."""
        quiet: Deferred[None] = Deferred()
        deadline = self._clock.callLater(timeout, quiet.callback, None)
        self._quiet, self._left = quiet, left
        looks = LoopingCall(self._check)
        looks.clock = self._clock
        looks.start(LOOK).addErrback(lambda failure: self.log.failure("draining is not looked at any more", failure))
        await quiet
        self._quiet = None
        looks.stop()
        if deadline.active():
            deadline.cancel()

    def look(self) -> None:
        """Something has ended: see whether that was the last of it, after the callbacks of what has just ended."""
        if self._quiet is not None:
            self._clock.callLater(0, self._check)

    def _check(self) -> None:
        if self._quiet is not None and not self._quiet.called and not self._left():
            self._quiet.callback(None)
