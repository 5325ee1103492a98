"""Pausing: publishing to an exchange, or to all, stops until an operator resumes it; accepting goes on.

A pause is stored before it is in force, so that it outlives what it was made for; see :mod:`pubd.decision`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from pubd.decision import Decision, Pause, Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pubd.spool.base import Spool


class Pausing:
    """``apply`` is called with all that is paused whenever it changed, ``wake`` with exchanges that may go on.

    ``wall`` gives epoch seconds. Exchanges are names, or None for all of them.
    """

    log = Logger()

    def __init__(
        self,
        *,
        spool: Spool,
        apply: Callable[[Collection[str | None]], None],
        wake: Callable[[Collection[str]], None],
        wall: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._apply = apply
        self._wake = wake
        self._wall = wall
        self.all: tuple[Pause, ...] = ()
        """Those in force, the first one first."""

    @property
    def everything(self) -> bool:
        """Whether nothing is published at all."""
        return any(pause.exchange is None for pause in self.all)

    async def load(self) -> None:
        """Take over what the spool knows. Raises SpoolError."""
        await self._look()
        for pause in self.all:
            self.log.warn(
                "publishing to {exchange} is paused by {who}: {text}; 'pubd resume' ends that",
                exchange="all exchanges" if pause.exchange is None else repr(pause.exchange),
                who=pause.who,
                text=pause.text,
            )

    async def pause(self, exchange: str | None, who: str, text: str) -> bool:
        """False: it was paused before, and stays as it was. Raises SpoolError."""
        decision = Decision(verb=Verb.PAUSE, who=who, at=self._wall(), text=text)
        changed = await self._spool.pause(decision, exchange)
        await self._look()
        return changed

    async def resume(self, exchange: str | None, who: str) -> bool:
        """False: exactly that was not paused. The pause of all and those of single exchanges end by themselves."""
        decision = Decision(verb=Verb.RESUME, who=who, at=self._wall())
        changed = await self._spool.resume(decision, exchange)
        await self._look()
        if changed:
            self._wake([exchange] if exchange is not None else await self._spool.backlog())
        return changed

    async def _look(self) -> None:
        # What is stored decides, in whichever order answers come.
        self.all = tuple(await self._spool.pauses())
        self._apply({pause.exchange for pause in self.all})
