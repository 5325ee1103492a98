"""Who is held, and why: the first parked messages, by exchange and reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.cli.pages import PAGE, pages
from pubd.cli.screen import Column
from pubd.wording import exchange, reason, since

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.cli.daemon import Daemon
    from pubd.cli.screen import Screen

#: Groups that are shown.
MOST = 10


def held_objects(daemon: Daemon) -> list[dict[str, Any]]:
    """``{"count", "exchange", "reason", "oldest", "id"}`` each, the largest first; ``id`` is the oldest message's.

    Of the first thousand parked messages: more would take as long as there are.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    seen = 0
    for found, _ in pages(daemon, {"state": "parked"}, limit=PAGE):
        for record in found:
            why = reason(record["reason"])
            group = groups.setdefault(
                (record["exchange"], why),
                {
                    "count": 0,
                    "exchange": record["exchange"],
                    "reason": why,
                    "oldest": record["accepted_at"],
                    "id": record["id"],
                },
            )
            group["count"] += 1
            seen += 1
    return sorted(groups.values(), key=lambda group: -group["count"])


def held_table(screen: Screen, groups: Sequence[dict[str, Any]], parked: int, now: float) -> None:
    """The largest groups."""
    columns = (
        Column("PARKED", width=9, right=True),
        Column("OLDEST", width=6, right=True),
        Column("EXCHANGE", share=1),
        Column("REASON", share=2),
    )
    rows = [
        (f"{group['count']:,}", since(group["oldest"], now), exchange(group["exchange"]), group["reason"])
        for group in groups[:MOST]
    ]
    screen.table(columns, rows)
    seen = sum(group["count"] for group in groups)
    if seen < parked:
        screen.line(f"of the first {seen:,}; {parked:,} are parked in all: pubd list --state parked")
    if len(groups) > MOST:
        screen.line(f"and for {len(groups) - MOST:,} more reasons: pubd status --json")
