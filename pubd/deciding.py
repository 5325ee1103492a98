"""Deciding: what operators decide about messages is stored with its record, then told, and the lanes are woken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pubd.decision import Decision, Verb
from pubd.outcome import Cause, Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from twisted.internet.defer import Deferred

    from pubd.receipt import Receipts
    from pubd.spool.base import Decided, Spool

#: Who decides where nobody says who it is.
APPLICATION = "application"
_STATE = {
    Verb.RETRY: State.READY,
    Verb.RELEASE: State.READY,
    Verb.HOLD: State.PARKED,
    Verb.DISCARD: State.DISCARDED,
}
_CAUSE = {Verb.HOLD: Cause.HELD, Verb.DISCARD: Cause.DISCARDED}


class Deciding:
    """``wake`` is called with exchanges that have something to publish, ``look`` with one that may have something due.

    ``wall`` gives epoch seconds.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        receipts: Receipts,
        wake: Callable[[Collection[str]], None],
        look: Callable[[str], None],
        wall: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._receipts = receipts
        self._wake = wake
        self._look = look
        self._wall = wall

    def about(self, verb: Verb, ids: Sequence[str], who: str, text: str = "") -> Deferred[Collection[str]]:
        """Fires, once it is stored, with the ids of the messages that it changed."""
        decision = Decision(verb=verb, who=who, at=self._wall(), text=text)
        return self._spool.decide(decision, ids).addCallback(self._decided, decision)

    async def flush(self, who: str) -> int:
        """Make ready what is deferred because RabbitMQ did not take it; how many. Raises SpoolError."""
        decision: Decision | None = Decision(verb=Verb.FLUSH, who=who, at=self._wall())
        # No more than there were: what fails again at once is deferred again.
        count, most = 0, self._spool.books().deferred
        while True:
            flushed = await self._spool.flush(decision)
            decision = None
            count += flushed.count
            self._wake(flushed.wake)
            if not flushed.count or count >= most:
                return count

    def _decided(self, decided: Decided, decision: Decision) -> Collection[str]:
        state, cause = _STATE[decision.verb], _CAUSE.get(decision.verb)
        reason = Reason(cause=cause, text=decision.text) if cause is not None else None
        for id in decided.ids:
            self._receipts.changed(id, state, 0, reason)
        self._wake(decided.wake)
        if decision.verb is Verb.RELEASE:
            for exchange in decided.wake:
                self._look(exchange)
        return decided.ids
