"""Sweeping: messages whose time to live has passed are settled, those settled long ago are forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from pubd.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.spool.base import Spool, Swept

#: Seconds between looks for what has expired or may be forgotten.
SWEEP = 1.0


class Sweeping:
    """``clock`` is the reactor, ``wall`` gives epoch seconds, ``retain`` how long (s) what is settled stays known.

    ``swept`` is called with what each step did.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        wall: Callable[[], float],
        spool: Spool,
        retain: Callable[[], float],
        swept: Callable[[Swept], None],
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._spool = spool
        self._retain = retain
        self._swept = swept
        self._loop = LoopingCall(self._sweep)
        self._loop.clock = clock

    def start(self) -> None:
        """Sweep every second from now on."""
        self._loop.start(SWEEP, now=False).addErrback(
            lambda failure: self.log.failure("nothing expires or is forgotten any more", failure)
        )

    def stop(self) -> None:
        """A step that is under way is the last one."""
        if self._loop.running:
            self._loop.stop()

    async def _sweep(self) -> None:
        # A step is bounded, and more may be settled within a second than it forgets: again, until nothing is left.
        while self._loop.running:
            try:
                swept = await self._spool.sweep(self._wall(), self._retain())
            except SpoolError as error:
                self.log.error("sweeping the spool failed: {error}", error=str(error))
                return
            self._swept(swept)
            if not (swept.expired or swept.purged):
                return
            await deferLater(self._clock, 0)
