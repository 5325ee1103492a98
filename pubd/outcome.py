"""What can become of a delivery (outcome) and what that does to its message (settlement)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pubd.entry import Entry


class Cause(enum.Enum):
    """Why a message is parked, or a lane or the link refused; the value is what an operator reads."""

    RETURNED = "returned"
    NACKED = "nacked"
    POISON = "poison"
    ATTEMPTS = "attempts used up"
    LIFETIME = "lifetime passed"
    REFUSED = "refused"
    CORRUPT = "damaged in the spool"
    HELD = "held by an operator"
    DISCARDED = "discarded by an operator"
    TTL = "time to live passed"
    LOST = "lost"


@attrs.frozen(kw_only=True)
class Reason:
    """One answer of the peer, kept in its own words.

    ``code`` is the AMQP reply code (312, 320, 403, 404, 406, 530, ...), or None where the cause is not AMQP's
    (TCP, TLS, a timeout of our own). ``text`` is the reply text or the library's sentence, never a payload.
    """

    cause: Cause
    text: str
    code: int | None = None

    def __str__(self) -> str:
        code = f"{self.code} " if self.code is not None else ""
        return f"{self.cause.value}: {code}{self.text}"


@attrs.frozen
class Via:
    """Where a delivery went: the broker node as it names itself, and the channel's number on that connection."""

    node: str
    channel: int


class Outcome(enum.Enum):
    """The end of one delivery."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"
    NACKED = "nacked"
    LOST = "lost"
    """Channel or connection gone before an answer: RabbitMQ may have the message or not."""
    POISON = "poison"
    """RabbitMQ closed the channel because of this very message."""


class State(enum.Enum):
    """States of a message in the spool; *in flight* is not one of them."""

    READY = "ready"
    DEFERRED = "deferred"
    PARKED = "parked"
    CONFIRMED = "confirmed"
    EXPIRED = "expired"
    DISCARDED = "discarded"


@attrs.frozen(kw_only=True)
class Settlement:
    """What an outcome does to its message: the state it is to be in, and why.

    ``due`` (seconds since the epoch) goes with DEFERRED; ``attempts`` is the count after this outcome.
    """

    entry: Entry
    state: State
    attempts: int
    reason: Reason | None = None
    due: float | None = None
    outcome: Outcome | None = None
    """Of the delivery that led to it; None where there was none (expired, discarded by an operator)."""
    via: Via | None = None
    tag: int | None = None
