"""Probation: finding the one message over which RabbitMQ closed a channel. Pure.

A channel error names no message: everything in flight is suspect. The lane replays the suspects one at a time; the one
that was alone in flight when the channel closed again is the culprit. A connection error may have been another lane's
message, so it takes more than one of them (``strikes``) to convict, and over all lanes only one suspect of such an
error is in flight at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pubd.outcome import Cause, Outcome, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pubd.entry import Entry
    from pubd.ledger import Delivery

CHANNEL_STRIKES = 1
CONNECTION_STRIKES = 2

#: Connection errors that a message of ours can cause: frame, syntax, command invalid, unexpected frame, internal.
MESSAGE_KILLS_CONNECTION = frozenset({501, 502, 503, 505, 541})


def about_one_message(reason: Reason) -> bool:
    """Whether RabbitMQ closed a channel because of one message and not because of the exchange.

    406 PRECONDITION_FAILED comes for a bad ``expiration``, a foreign ``user_id``, a body over ``max_message_size``;
    403 for one routing key only with topic authorisation (https://www.rabbitmq.com/docs/access-control#topic-authorisation).
    """
    return reason.code == 406 or (reason.code == 403 and "access to topic" in reason.text)


class Suspects:
    """Messages that have to be cleared one at a time; true while there are any."""

    def __init__(self) -> None:
        self._strikes: dict[str, int] = {}

        self.of_connection = False
        """Whether a suspect may cost the whole connection."""

    def __len__(self) -> int:
        return len(self._strikes)

    def __contains__(self, entry: Entry) -> bool:
        return entry.id in self._strikes

    def acquit(self) -> None:
        """Those that are left do not come any more: they expired, were discarded, or wait for something else."""
        self._strikes.clear()
        self.of_connection = False

    def accuse(self, lost: Sequence[Delivery], reason: Reason, strikes: int) -> Delivery | None:
        """One of ``lost`` made RabbitMQ close; the culprit, now with its outcome POISON, if it is known."""
        self.of_connection |= strikes > CHANNEL_STRIKES and bool(lost)
        if len(lost) != 1:
            for delivery in lost:
                self._strikes.setdefault(delivery.entry.id, 0)
            return None
        (alone,) = lost
        count = self._strikes.get(alone.entry.id, 0) + 1
        if count < strikes:
            self._strikes[alone.entry.id] = count
            return None
        self._strikes.pop(alone.entry.id, None)
        self.of_connection &= bool(self._strikes)
        alone.outcome = Outcome.POISON
        alone.reason = Reason(cause=Cause.POISON, code=reason.code, text=reason.text)
        return alone

    def clear(self, entries: Iterable[Entry]) -> bool:
        """RabbitMQ answered for these, so it was none of them; whether the last suspect was cleared by that."""
        if not self._strikes:
            return False
        for entry in entries:
            self._strikes.pop(entry.id, None)
        self.of_connection &= bool(self._strikes)
        return not self._strikes
