"""The pending-delivery ledger of one confirm-mode channel: delivery tag -> delivery, until ack, nack or loss.

Pure: no I/O and no clock of its own. Tags of a channel in confirm mode are consecutive from 1, so deliveries are kept
in the order of their tags and ``multiple`` takes them from the oldest on: O(1) amortised, whatever the window.

RabbitMQ sends ``basic.return`` before the ``basic.ack`` of the same message, but gives no tag with it; the return is
matched by ``message_id``, so the lane never has two deliveries with one ``message_id`` in flight
(https://www.rabbitmq.com/docs/confirms#when-publishes-are-confirmed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pubd.outcome import Outcome

if TYPE_CHECKING:
    from pubd.entry import Entry
    from pubd.outcome import Reason, Via


@attrs.define(eq=False)
class Delivery:
    """One attempt to publish one message on one channel; ``outcome`` is None while it is pending.

    ``sent_at`` is in the seconds of the lane's clock.
    """

    entry: Entry
    tag: int
    sent_at: float
    size: int
    outcome: Outcome | None = None
    reason: Reason | None = None
    via: Via | None = None


class Ledger:
    """What is in flight on one channel. A new channel starts a new ledger, as its tags start at 1 again."""

    def __init__(self, via: Via | None = None) -> None:
        self._via = via
        self._pending: dict[int, Delivery] = {}
        self._by_message_id: dict[str, Delivery] = {}
        self._oldest_tag = 1
        """Of the oldest pending delivery, or of the next one to be added."""
        self._last_tag = 0
        self.bytes = 0
        self.unknown = 0
        """Answers for tags that are not pending: a breach of protocol by the peer, worth a log line."""

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def oldest(self) -> Delivery | None:
        """The pending delivery that was sent first."""
        return self._pending.get(self._oldest_tag)

    def add(self, entry: Entry, now: float) -> int:
        """Note that ``entry`` is the next publish on the channel; its delivery tag.

        0, and nothing is noted, while its ``message_id`` is in flight: it has to wait.
        """
        message_id = entry.message_id
        if message_id in self._by_message_id:
            return 0
        self._last_tag = tag = self._last_tag + 1
        size = entry.size
        delivery = Delivery(entry, tag, now, size, None, None, self._via)
        self._pending[tag] = delivery
        self._by_message_id[message_id] = delivery
        self.bytes += size
        return tag

    def returned(self, message_id: str, reason: Reason) -> bool:
        """Mark a delivery as returned: its coming ack means "unroutable". False if no such delivery is pending."""
        delivery = self._by_message_id.get(message_id)
        if delivery is None:
            self.unknown += 1
            return False
        delivery.outcome = Outcome.RETURNED
        delivery.reason = reason
        return True

    def ack(self, tag: int, multiple: bool) -> list[Delivery]:
        """Deliveries that this ``basic.ack`` settles, in order of their tags: confirmed or returned."""
        return self._answer(tag, multiple, Outcome.CONFIRMED)

    def nack(self, tag: int, multiple: bool) -> list[Delivery]:
        """Deliveries that this ``basic.nack`` settles, in order of their tags: nacked or returned."""
        return self._answer(tag, multiple, Outcome.NACKED)

    def lose(self, reason: Reason) -> list[Delivery]:
        """The channel is gone: everything pending, in order, as lost; what had been returned stays returned."""
        lost = list(self._pending.values())
        self._pending.clear()
        self._oldest_tag = self._last_tag + 1
        self._by_message_id.clear()
        self.bytes = 0
        for delivery in lost:
            if delivery.outcome is None:
                delivery.outcome = Outcome.LOST
                delivery.reason = reason
        return lost

    def _answer(self, tag: int, multiple: bool, outcome: Outcome) -> list[Delivery]:
        pending = self._pending
        oldest, last = self._oldest_tag, self._last_tag
        if multiple:
            # AMQP 0-9-1, basic.ack: "if the multiple field is 1, and the delivery tag is zero, this indicates
            # acknowledgement of all outstanding messages".
            end = (min(tag, last) if tag else last) + 1
            answered = [pending.pop(each) for each in range(oldest, end) if each in pending]
            oldest = max(oldest, end)
        else:
            answered = [pending.pop(tag)] if tag in pending else []
        if not answered:
            self.unknown += 1
        while oldest not in pending and oldest <= last:
            oldest += 1
        self._oldest_tag = oldest
        by_message_id = self._by_message_id
        for delivery in answered:
            del by_message_id[delivery.entry.message_id]
            self.bytes -= delivery.size
            if delivery.outcome is None:
                delivery.outcome = outcome
        return answered
