"""Decision: what an operator decided, who it was, and when; and pauses, which are decisions that last."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Decisions that are kept for one message, and those about exchanges that a spool keeps: the latest ones.
MOST, MOST_OPERATIONS = 50, 200


class Verb(enum.Enum):
    """What can be decided: the first four about messages, the others about exchanges, or everything."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    DISCARD = "discard"
    FLUSH = "flush"
    PAUSE = "pause"
    RESUME = "resume"


@attrs.frozen(kw_only=True)
class Decision:
    """``at`` is in epoch seconds, ``who`` a name for people to read, ``text`` what they said about why."""

    verb: Verb
    who: str
    at: float
    text: str = ""


@attrs.frozen(kw_only=True)
class Operation:
    """A decision that is not about single messages: about those of ``exchange``, or (None) about all."""

    decision: Decision
    exchange: str | None = None


@attrs.frozen(kw_only=True)
class Pause:
    """Nothing is published to ``exchange`` (None: to any) since ``at`` (epoch seconds), until it is resumed."""

    exchange: str | None
    at: float
    who: str
    text: str = ""


def concerning(
    own: Sequence[Decision],
    operations: Sequence[Operation],
    *,
    exchange: str,
    accepted_at: float,
    settled_at: float | None,
) -> tuple[Decision, ...]:
    """Everything decided that a message was concerned by, in order of time: its ``own``, and those of its lifetime."""
    others = [
        each.decision
        for each in operations
        if each.exchange in (None, exchange)
        and accepted_at <= each.decision.at
        and (settled_at is None or each.decision.at <= settled_at)
    ]
    return tuple(sorted((*own, *others[-MOST:]), key=lambda decision: decision.at)) if others else tuple(own)
