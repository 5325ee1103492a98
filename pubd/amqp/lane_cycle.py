"""The life cycle of a lane as one table; the diagram in the documentation is drawn from it.

A lane has no channel (IDLE) until there is something to publish and the link is up. OPENING opens the channel, checks
the exchange passively and selects confirm mode; only SelectOk makes it OPEN. When RabbitMQ closes the channel because
of one message, which one it was is not said: the lane opens anew, on PROBATION, and replays the suspects one at a time
until the culprit closes the channel again and is parked. When RabbitMQ refuses the exchange itself (404, 403), the
lane is REFUSED, keeps RabbitMQ's reason and tries again after a backoff; its messages wait in the spool meanwhile.
When none wait any more it is IDLE again, as is a lane that had nothing to do for a while, after CLOSING its channel.

The table says where each input leads; a pair that is not in it changes nothing. What is done on entering a state is
the lane's business: OPENING opens a channel, REFUSED starts the backoff, CLOSING closes the channel.
"""

from __future__ import annotations

import enum


class LaneState(enum.Enum):
    """Where a lane is; the value is what an operator reads."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"
    PROBATION = "probation"
    REFUSED = "refused"
    CLOSING = "closing"


class LaneInput(enum.Enum):
    """What can happen to a lane."""

    WORK = "work and a link"
    OPENED = "SelectOk"
    OPENED_SUSPICIOUS = "SelectOk, suspects left"
    CLEARED = "last suspect settled"
    SUSPECTED = "channel closed over a message"
    REFUSED = "channel closed over the exchange"
    RETRY = "backoff over"
    QUIET = "nothing to do for a while"
    CLOSED = "CloseOk"
    LINK_LOST = "link lost"


S, I = LaneState, LaneInput  # noqa: E741 (the table reads better)

TRANSITIONS: dict[tuple[LaneState, LaneInput], LaneState] = {
    (S.IDLE, I.WORK): S.OPENING,
    (S.OPENING, I.OPENED): S.OPEN,
    (S.OPENING, I.OPENED_SUSPICIOUS): S.PROBATION,
    (S.OPENING, I.SUSPECTED): S.REFUSED,
    (S.OPENING, I.REFUSED): S.REFUSED,
    (S.OPENING, I.LINK_LOST): S.IDLE,
    (S.OPEN, I.SUSPECTED): S.OPENING,
    (S.OPEN, I.REFUSED): S.REFUSED,
    (S.OPEN, I.QUIET): S.CLOSING,
    (S.OPEN, I.LINK_LOST): S.IDLE,
    (S.PROBATION, I.CLEARED): S.OPEN,
    (S.PROBATION, I.SUSPECTED): S.OPENING,
    (S.PROBATION, I.REFUSED): S.REFUSED,
    (S.PROBATION, I.LINK_LOST): S.IDLE,
    (S.REFUSED, I.RETRY): S.OPENING,
    (S.REFUSED, I.QUIET): S.IDLE,
    (S.REFUSED, I.LINK_LOST): S.IDLE,
    (S.CLOSING, I.CLOSED): S.IDLE,
    (S.CLOSING, I.SUSPECTED): S.IDLE,
    (S.CLOSING, I.REFUSED): S.IDLE,
    (S.CLOSING, I.LINK_LOST): S.IDLE,
}

PUBLISHING = frozenset({LaneState.OPEN, LaneState.PROBATION})
"""States in which the pump may write."""


def next_state(state: LaneState, happened: LaneInput) -> LaneState:
    """Where ``happened`` leads from ``state``; the same state where the table has no row."""
    return TRANSITIONS.get((state, happened), state)
