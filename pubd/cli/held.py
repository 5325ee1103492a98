"""Who is held, and why: the first parked messages, by exchange and reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.cli.pages import PAGE, pages
from pubd.cli.screen import Column
from pubd.grouping import groups
from pubd.wording import exchange, since

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
    return groups(record for found, _ in pages(daemon, {"state": "parked"}, limit=PAGE) for record in found)


def held_table(screen: Screen, held: Sequence[dict[str, Any]], parked: int, now: float) -> None:
    """The largest groups."""
    columns = (
        Column("PARKED", width=9, right=True),
        Column("OLDEST", width=6, right=True),
        Column("EXCHANGE", share=1),
        Column("REASON", share=2),
    )
    rows = [
        (f"{group['count']:,}", since(group["oldest"], now), exchange(group["exchange"]), group["reason"])
        for group in held[:MOST]
    ]
    screen.table(columns, rows)
    seen = sum(group["count"] for group in held)
    if seen < parked:
        screen.line(f"of the first {seen:,}; {parked:,} are parked in all: pubd list --state parked")
    if len(held) > MOST:
        screen.line(f"and for {len(held) - MOST:,} more reasons: pubd status --json")
