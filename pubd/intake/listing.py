"""What pubd knows of a message, as JSON: for ``GET /messages``, ``pubd show`` and ``pubd list``."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pubd.decision import Decision, Pause
    from pubd.outcome import Reason
    from pubd.spool.base import Attempt, Record


def record_object(record: Record) -> dict[str, Any]:
    """The object for a record. Every key is always there, null where nothing is known; moments as :func:`moment_text`.

    ``attempts`` counts against ``max_attempts``; ``failures`` are all deliveries that were not confirmed, the first one
    first, lost ones together in one with their number as ``times``; ``decisions`` are those of operators, likewise.
    """
    via = record.via
    return {
        "id": record.id,
        "message_id": record.message_id,
        "exchange": record.exchange,
        "routing_key": record.routing_key,
        "state": record.state.value,
        "in_flight": record.in_flight,
        "attempts": record.attempts,
        "accepted_at": moment_text(record.accepted_at),
        "principal": record.principal,
        "due": moment_text(record.due),
        "settled_at": moment_text(record.settled_at),
        "reason": reason_object(record.reason),
        "node": via.node if via is not None else None,
        "channel": via.channel if via is not None else None,
        "tag": record.tag,
        "failures": [_failure_object(failure) for failure in record.failures],
        "decisions": [_decision_object(decision) for decision in record.decisions],
    }


def moment_text(seconds: float | None) -> str | None:
    """Seconds since 1970 as RFC 3339 in UTC, always with milliseconds: ``2026-11-23T12:00:00.000Z``.

    All are of one length, so that they sort as text. None stays None.
    """
    if seconds is None:
        return None
    second = math.floor(seconds)
    # As datetime rounds.
    more, microseconds = divmod(round((seconds - second) * 1_000_000), 1_000_000)
    return f"{_second_text(second + more)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    # Messages of one list share their seconds.
    return datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")


def reason_object(reason: Reason | None) -> dict[str, Any] | None:
    """Cause, AMQP's reply code if there is one, and text; None stays None."""
    if reason is None:
        return None
    return {"cause": reason.cause.value, "code": reason.code, "text": reason.text}


def _decision_object(decision: Decision) -> dict[str, Any]:
    return {
        "verb": decision.verb.value,
        "at": moment_text(decision.at),
        "who": decision.who,
        "text": decision.text,
    }


def pause_object(pause: Pause) -> dict[str, Any]:
    """``exchange`` is null where all are paused."""
    return {"exchange": pause.exchange, "since": moment_text(pause.at), "who": pause.who, "text": pause.text}


def _failure_object(failure: Attempt) -> dict[str, Any]:
    return {
        "number": failure.number,
        "outcome": failure.outcome,
        "at": moment_text(failure.at),
        "times": failure.times,
        "node": failure.node,
        "channel": failure.channel,
        "tag": failure.tag,
        "code": failure.code,
        "text": failure.text,
    }
