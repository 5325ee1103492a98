"""Parked messages by exchange and reason: what an operator decides about at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.wording import is_held, reason

if TYPE_CHECKING:
    from collections.abc import Iterable


def groups(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """``{"count", "exchange", "reason", "held", "oldest", "id"}`` each, the largest first.

    ``held``: by an operator; ``id`` is the oldest message's.

    ``records`` are objects as ``GET /messages`` has them, in order of acceptance.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        why = reason(record["reason"])
        group = found.setdefault(
            (record["exchange"], why),
            {
                "count": 0,
                "exchange": record["exchange"],
                "reason": why,
                "held": is_held(record),
                "oldest": record["accepted_at"],
                "id": record["id"],
            },
        )
        group["count"] += 1
    return sorted(found.values(), key=lambda group: -group["count"])
