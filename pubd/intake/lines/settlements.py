"""Settlements that lines wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError

from pubd.errors import PubdError, PublisherStopped
from pubd.intake.lines.answers import confirmed, refused, stored
from pubd.intake.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from pubd.receipt import Confirmed, Receipt


class Settlements:
    """Those of one connection."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waits: dict[Deferred[Confirmed], IDelayedCall] = {}

    def wait(self, receipt: Receipt, seconds: float, say: Callable[[str], None]) -> Deferred[None]:
        """``say`` how the message was settled; when the time is over, that it is stored. Fires after that."""
        waiter = receipt.settled()
        self._waits[waiter] = self._clock.callLater(seconds, waiter.cancel)

        def over(result: Confirmed | Failure) -> None:
            timer = self._waits.pop(waiter)
            if timer.active():
                timer.cancel()
            say(_settled(receipt, result))

        return waiter.addBoth(over)

    def cut(self, seconds: float) -> None:
        """Wait for no more than so many seconds from now."""
        for timer in self._waits.values():
            if timer.active() and timer.getTime() > self._clock.seconds() + seconds:
                timer.reset(seconds)

    def cancel(self) -> None:
        """Nobody wants to know."""
        for waiter in list(self._waits):
            waiter.cancel()


def _settled(receipt: Receipt, result: Confirmed | Failure) -> str:
    error = getattr(result, "value", None)
    if error is None:
        return confirmed(receipt.id)
    if isinstance(error, PubdError) and not isinstance(error, PublisherStopped):
        return refused(problem_of(error))
    # The time is over, or pubd stops: that it is stored remains true.
    assert isinstance(error, CancelledError | PublisherStopped)
    return stored(receipt.id)
