"""Draining: waiting, at the end, until nothing is under way, but not for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable


class Draining:
    """``clock`` is the reactor. Whoever ends something calls :meth:`look`."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._quiet: Deferred[None] | None = None
        self._left: Callable[[], int] = int

    async def drained(self, left: Callable[[], int], timeout: float) -> None:
        """Wait for ``left()`` to become 0, at most ``timeout`` seconds."""
        quiet: Deferred[None] = Deferred()
        deadline = self._clock.callLater(timeout, quiet.callback, None)
        self._quiet, self._left = quiet, left
        self._check()
        await quiet
        self._quiet = None
        if deadline.active():
            deadline.cancel()

    def look(self) -> None:
        """Something has ended: see whether that was the last of it, after the callbacks of what has just ended."""
        if self._quiet is not None:
            self._clock.callLater(0, self._check)

    def _check(self) -> None:
        if self._quiet is not None and not self._quiet.called and not self._left():
            self._quiet.callback(None)
