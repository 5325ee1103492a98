"""Waiting for settlements with a limit in time: what ``?wait=confirmed`` asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from pubd import duration
from pubd.errors import PubdError, PublisherStopped
from pubd.intake.http.answer import Refusal
from pubd.receipt import Confirmed, Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall

#: What became of a message: confirmed, an error that names its id, or (None) nothing yet; or why it was not accepted.
Settled = Confirmed | PubdError | None

#: Seconds that are waited for unless the request says how many.
USUAL = 30.0


class Waits:
    """All who wait. ``most`` is in seconds: nobody may ask for more."""

    def __init__(self, *, clock: Any, most: float) -> None:
        self._clock = clock
        self.most = most
        self._open: set[_Wait] = set()

    def __len__(self) -> int:
        return len(self._open)

    def outcome(self, receipt: Receipt, seconds: float) -> Deferred[Settled]:
        """What became of one message within ``seconds``. Never fails."""
        return self.outcomes([receipt], seconds).addCallback(_only)

    def outcomes(self, answers: Sequence[Receipt | PubdError], seconds: float) -> Deferred[list[Settled]]:
        """What became of each within ``seconds``, in order; errors stay what they are. Never fails."""
        wait = _Wait(answers)
        if wait.missing:
            wait.timer = self._clock.callLater(seconds, wait.over)
            self._open.add(wait)
            wait.done.addCallback(self._forget, wait)
        else:
            wait.over()
        return wait.done

    def stop(self) -> None:
        """pubd stops: whoever waits is told at once what is known."""
        for wait in list(self._open):
            wait.over()

    def _forget(self, settled: list[Settled], wait: _Wait) -> list[Settled]:
        self._open.discard(wait)
        return settled

    def asked(self, arguments: Mapping[str, str]) -> float | None:
        """Seconds to wait, of ``wait`` and ``timeout`` in a query; None: only until it is stored. Refuses (400)."""
        how, timeout = arguments.get("wait", "stored"), arguments.get("timeout")
        if how not in ("stored", "confirmed"):
            raise Refusal("malformed", "must be stored or confirmed", field="wait")
        if how == "stored":
            if timeout is not None:
                raise Refusal("malformed", "goes with wait=confirmed only", field="timeout")
            return None
        if timeout is None:
            return min(USUAL, self.most)
        try:
            seconds = duration.seconds(timeout)
        except duration.NoDuration as error:
            raise Refusal("malformed", error.sentence, field="timeout") from None
        if seconds > self.most:
            raise Refusal("malformed", f"is more than the {self.most:g}s that pubd waits at most", field="timeout")
        return seconds


def _only(settled: list[Settled]) -> Settled:
    return settled[0]


class _Wait:
    """Some messages, waited for together."""

    def __init__(self, answers: Sequence[Receipt | PubdError]) -> None:
        self.done: Deferred[list[Settled]] = Deferred()
        self.timer: IDelayedCall | None = None
        self._settled: list[Settled] = []
        self._waiters: list[Deferred[Confirmed]] = []
        self.missing = 0
        for place, answer in enumerate(answers):
            if not isinstance(answer, Receipt):
                self._settled.append(answer)
                continue
            self._settled.append(None)
            self.missing += 1
            waiter = answer.settled()
            self._waiters.append(waiter)
            waiter.addCallbacks(self._one, self._failed, callbackArgs=(place,), errbackArgs=(place,))

    def over(self) -> None:
        """Whoever is not settled yet is no more waited for."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        if self.done.called:
            return
        self.missing = -1
        for waiter in self._waiters:
            waiter.cancel()
        self.done.callback(self._settled)

    def _one(self, settled: Settled, place: int) -> None:
        self._settled[place] = settled
        self.missing -= 1
        if self.missing == 0 and self.timer is not None:
            self.over()

    def _failed(self, failure: Failure, place: int) -> None:
        error = failure.value
        if isinstance(error, CancelledError | PublisherStopped):
            # It is stored, and that is all there is to say.
            self._one(None, place)
        elif isinstance(error, PubdError):
            self._one(error, place)
        else:
            self._one(PubdError("pubd made a mistake, see its log"), place)
