"""Who is held, and why: parked messages by exchange and reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.cli.screen import Column
from pubd.wording import exchange, since

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.cli.screen import Screen

#: Groups that are shown.
MOST = 10


def held_table(screen: Screen, held: Sequence[dict[str, Any]], facts: dict[str, Any], now: float) -> None:
    """The largest groups. ``held`` as :func:`pubd.grouping.groups` has them, not empty, of these ``facts``."""
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
    seen, parked = facts["parked"]["seen"], facts["books"]["parked"]
    if seen < parked:
        screen.line(f"of the first {seen:,}; {parked:,} are parked in all: pubd list --state parked")
    more = len(held) - MOST + facts["parked"]["others"]
    if more > 0:
        screen.line(f"and for {more:,} more reasons: pubd status --json")
