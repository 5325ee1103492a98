"""Receipt: the answer to a submission, and the way to learn what became of the message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from pubd.errors import MessageDiscarded, MessageExpired, MessageParked, PublisherStopped
from pubd.outcome import State

if TYPE_CHECKING:
    from pubd.errors import PubdError
    from pubd.outcome import Reason


@attrs.frozen(kw_only=True)
class Confirmed:
    """RabbitMQ took the message: what :meth:`Receipt.settled` gives. ``attempts`` before it were nacked or returned."""

    id: str
    message_id: str
    attempts: int


class Receipt:
    """The message is stored. ``id`` is pubd's, ``message_id`` the AMQP property that every delivery of it carries."""

    __slots__ = ("__weakref__", "_answer", "_waiters", "id", "message_id")

    def __init__(self, id: str, message_id: str) -> None:
        self.id = id
        self.message_id = message_id
        self._answer: Confirmed | PubdError | None = None
        self._waiters: list[Deferred[Confirmed]] = []

    def __repr__(self) -> str:
        return f"<Receipt {self.id}>"

    def settled(self) -> Deferred[Confirmed]:
        """Fires when RabbitMQ confirmed the message. Each call gives a Deferred of its own; cancelling it is harmless.

        Errback: :class:`pubd.errors.MessageParked`, :class:`~pubd.errors.MessageExpired`,
        :class:`~pubd.errors.MessageDiscarded`, or :class:`~pubd.errors.PublisherStopped` when the publisher stopped
        before any of these. A parked message that is retried later gives its new settlement to later calls.
        """
        answer = self._answer
        if isinstance(answer, Confirmed):
            return succeed(answer)
        if answer is not None:
            return fail(answer)
        waiter: Deferred[Confirmed] = Deferred(self._waiters_remove)
        self._waiters.append(waiter)
        return waiter

    def _waiters_remove(self, waiter: Deferred[Confirmed]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def settle(self, state: State, attempts: int, reason: Reason | None = None) -> None:
        """For the publisher: the message is now in ``state``; READY and DEFERRED mean that it is open again."""
        if state is State.CONFIRMED:
            self._fire(Confirmed(id=self.id, message_id=self.message_id, attempts=attempts))
        elif state is State.PARKED:
            assert reason is not None
            self._fire(MessageParked(self.id, self.message_id, reason))
        elif state is State.EXPIRED:
            self._fire(MessageExpired(self.id, self.message_id))
        elif state is State.DISCARDED:
            self._fire(MessageDiscarded(self.id, self.message_id, reason))
        else:
            self._answer = None

    def stop(self) -> None:
        """For the publisher: it stops and cannot tell any more."""
        if self._answer is None:
            self._fire(PublisherStopped(f"pubd stopped before message {self.message_id} was settled"))

    def _fire(self, answer: Confirmed | PubdError) -> None:
        self._answer = answer
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if isinstance(answer, Confirmed):
                waiter.callback(answer)
            else:
                waiter.errback(answer)
