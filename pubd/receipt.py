"""Receipt: the answer to a submission, and the way to learn what became of the message."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from pubd.errors import MessageDiscarded, MessageExpired, MessageParked, PublisherStopped
from pubd.outcome import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pubd.errors import PubdError
    from pubd.ledger import Delivery
    from pubd.outcome import Reason
    from pubd.spool.base import Accepted


_ENDS = (State.CONFIRMED, State.EXPIRED, State.DISCARDED)


@attrs.frozen(kw_only=True)
class Confirmed:
    """RabbitMQ took the message: what :meth:`Receipt.settled` gives. ``attempts`` before it were nacked or returned."""

    id: str
    message_id: str
    attempts: int


class Receipt:
    """The message is stored. ``id`` is pubd's, ``message_id`` the AMQP property that every delivery of it carries."""

    # There is one for each message: a single waiter is kept as it is, a list is made only for several.
    __slots__ = ("__weakref__", "_answer", "_receipts", "_waiters", "id", "message_id")

    def __init__(self, id: str, message_id: str, receipts: Receipts | None = None) -> None:
        self.id = id
        self.message_id = message_id
        self._receipts = receipts
        self._answer: Confirmed | PubdError | int | None = None
        """The attempts of a confirmed message stand for the Confirmed that is made when somebody asks."""
        self._waiters: Deferred[Confirmed] | list[Deferred[Confirmed]] | None = None

    def __repr__(self) -> str:
        return f"<Receipt {self.id}>"

    def settled(self) -> Deferred[Confirmed]:
        """Fires when RabbitMQ confirmed the message. Each call gives a Deferred of its own; cancelling it is harmless.

        Errback: :class:`pubd.errors.MessageParked`, :class:`~pubd.errors.MessageExpired`,
        :class:`~pubd.errors.MessageDiscarded`, or :class:`~pubd.errors.PublisherStopped` when the publisher stopped
        before any of these. A parked message that is retried later gives its new settlement to later calls.
        """
        answer = self._answer
        if answer is None:
            return self._wait()
        if isinstance(answer, int):
            answer = self._answer = self._confirmed(answer)
        return succeed(answer) if isinstance(answer, Confirmed) else fail(answer)

    def settle(self, state: State, attempts: int, reason: Reason | None = None) -> None:
        """For the publisher: the message is now in ``state``; READY and DEFERRED mean that it is open again."""
        if state is State.CONFIRMED:
            self._fire(attempts if self._waiters is None else self._confirmed(attempts))
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

    def _leave(self, waiter: Deferred[Confirmed]) -> None:
        """``waiter`` is being cancelled."""
        if self._waiters is waiter:
            self._waiters = None
        elif isinstance(self._waiters, list) and waiter in self._waiters:
            self._waiters.remove(waiter)
        if not self._waiters and self._receipts is not None:
            self._receipts.let_go(self)

    def _confirmed(self, attempts: int) -> Confirmed:
        return Confirmed(id=self.id, message_id=self.message_id, attempts=attempts)

    def _wait(self) -> Deferred[Confirmed]:
        waiter: Deferred[Confirmed] = Deferred(self._leave)
        waiters = self._waiters
        if waiters is None:
            self._waiters = waiter
            if self._receipts is not None:
                self._receipts.hold(self)
        elif isinstance(waiters, list):
            waiters.append(waiter)
        else:
            self._waiters = [waiters, waiter]
        return waiter

    def _fire(self, answer: Confirmed | PubdError | int) -> None:
        self._answer = answer
        waiters, self._waiters = self._waiters, None
        if waiters is None or isinstance(answer, int):
            return
        if self._receipts is not None:
            self._receipts.let_go(self)
        for waiter in waiters if isinstance(waiters, list) else (waiters,):
            if waiter.called:
                # Cancelled by the one before it, as twisted.internet.defer.race does.
                continue
            if isinstance(answer, Confirmed):
                waiter.callback(answer)
            else:
                waiter.errback(answer)


class _Held(ref[Receipt]):
    """A weak reference that knows the id of its receipt, to be found by when the receipt is gone."""

    __slots__ = ("id",)

    id: str


class Receipts:
    """The receipts that somebody still holds, by id of the message; the others are forgotten.

    What a WeakValueDictionary does, at half of its cost: it was a tenth of all that pubd spends on a message. A receipt
    on which somebody waits is held strongly: a coroutine that awaits ``settled()`` may be held by nothing else, and
    would be collected together with it.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held | Receipt] = {}
        self._gone = self._forget

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Receipt]:
        # Copied: a receipt may go, and be forgotten, between two steps.
        for held in self._held.copy().values():
            receipt = held if isinstance(held, Receipt) else held()
            if receipt is not None:
                yield receipt

    def issue(self, accepted: Sequence[Accepted]) -> list[Receipt]:
        """The receipt for each; for a message that was accepted before, the one that is held already, if any is."""
        add = self.add
        return [add(one.id, one.message_id) if one.new else self._again(one) for one in accepted]

    def confirmed(self, deliveries: Sequence[Delivery]) -> None:
        """RabbitMQ took these, and the spool knows."""
        if not self._held:
            return
        for delivery in deliveries:
            entry = delivery.entry
            receipt = self.pop(entry.id)
            if receipt is not None:
                receipt.settle(State.CONFIRMED, entry.attempts)

    def changed(self, id: str, state: State, attempts: int, reason: Reason | None) -> None:
        """The message is in ``state`` now."""
        receipt = self.pop(id) if state in _ENDS else self.get(id)
        if receipt is not None:
            receipt.settle(state, attempts, reason)

    def stop(self) -> None:
        """Whoever waits is told that the publisher stopped."""
        for receipt in self:
            receipt.stop()

    def _again(self, accepted: Accepted) -> Receipt:
        receipt = self.get(accepted.id)
        if receipt is None:
            receipt = self.add(accepted.id, accepted.message_id)
            self.changed(accepted.id, accepted.state, accepted.attempts, accepted.reason)
        return receipt

    def add(self, id: str, message_id: str) -> Receipt:
        """The receipt for this message: a new one, which is kept only as long as the caller, or a waiter, does."""
        receipt = Receipt(id, message_id, self)
        held = _Held(receipt, self._gone)
        held.id = id
        self._held[id] = held
        return receipt

    def get(self, id: str) -> Receipt | None:
        """The receipt, if anybody holds it."""
        held = self._held.get(id)
        return held if held is None or isinstance(held, Receipt) else held()

    def pop(self, id: str) -> Receipt | None:
        """The receipt, if anybody holds it; forgotten from now on."""
        held = self._held.pop(id, None)
        return held if held is None or isinstance(held, Receipt) else held()

    def hold(self, receipt: Receipt) -> None:
        """Somebody waits for it."""
        if receipt.id in self._held:
            self._held[receipt.id] = receipt

    def let_go(self, receipt: Receipt) -> None:
        """Nobody waits for it any more."""
        if self._held.get(receipt.id) is receipt:
            held = self._held[receipt.id] = _Held(receipt, self._gone)
            held.id = receipt.id

    def _forget(self, held: ref[Receipt]) -> None:
        assert isinstance(held, _Held)
        if self._held.get(held.id) is held:
            del self._held[held.id]
