"""The messages that the daemon holds, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pubd.cli.daemon import Daemon

#: Messages that are asked for at a time: the most that pubd gives.
PAGE = 1000


def pages(
    daemon: Daemon, query: dict[str, str], *, after: str | None = None, limit: int | None = None
) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Records of what ``query`` chooses (pubd/cli/selection.py) in order of acceptance, and each time what to give as
    ``after`` to go on; None: there are no more.

    ``limit`` messages in all, None: every one. Raises Failure.
    """
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(left, PAGE)
        page = daemon.get("/messages", **query, limit=str(size), after=after)
        found, before, after = page["messages"], after, page["next"]
        yield found, after
        if after is None or after == before:
            return
        if left is not None:
            left -= len(found)
