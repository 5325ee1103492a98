"""Delayed calls with names: one of each at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall


class Timers:
    """``clock`` is the reactor, or like it."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._calls: dict[str, IDelayedCall] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._calls

    def after(self, name: str, seconds: float, call: Callable[[], None], *, again: bool = True) -> None:
        """``call`` once in so many seconds. Where one of that name is waiting: ``again`` from now, or leave it."""
        if name in self._calls:
            if not again:
                return
            self._calls[name].cancel()

        def run() -> None:
            del self._calls[name]
            call()

        self._calls[name] = self._clock.callLater(seconds, run)

    def cancel(self, *names: str) -> None:
        """Those of them that are waiting."""
        for name in names:
            if name in self._calls:
                self._calls.pop(name).cancel()

    def cancel_all(self) -> None:
        """Whatever is waiting."""
        self.cancel(*list(self._calls))
