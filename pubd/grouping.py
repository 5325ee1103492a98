"""Parked messages by exchange and reason, as an operator reads it: what is decided about at once."""

from __future__ import annotations

from typing import Any

from pubd.wording import is_held, reason


def groups(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """``{"count", "exchange", "reason", "held", "oldest", "id"}`` each, the largest first.

    ``held``: by an operator; ``id`` is the oldest message's. ``facts`` are what ``GET /status`` answers.
    """
    parked = facts["parked"]
    return [
        {
            "count": group["count"],
            "exchange": group["exchange"],
            "reason": reason(group["reason"]),
            "held": is_held({"state": "parked", "reason": group["reason"]}),
            "oldest": group["oldest"],
            "id": group["id"],
        }
        for group in (parked["groups"] if parked is not None else ())
    ]
