"""Why a message is not confirmed yet, as far as the daemon says so to whoever sent it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pubd.cli.failure import Failure
from pubd.findings import findings

if TYPE_CHECKING:
    from pubd.cli.daemon import Daemon

#: Troubles that keep messages from being published, and not from being accepted; ``link-`` and a state is another.
_HOLDS_UP = frozenset(("blocked", "paused", "exchange-refused"))


def held_up(asked: Daemon, exchange: str) -> str:
    """What keeps messages for ``exchange`` from being published; empty: nothing is known, or it is not told to us."""
    try:
        status = asked.get("/status")
        troubles = [
            trouble
            for trouble in status["troubles"]
            if (trouble["type"] in _HOLDS_UP or trouble["type"].startswith("link-"))
            and trouble.get("exchange", exchange) == exchange
        ]
        # Those of the troubles come first.
        found = findings(status | {"troubles": troubles})[: len(troubles)]
    except (Failure, KeyError, TypeError, ValueError, AttributeError):
        return ""
    return "; ".join(finding.text for finding in found)
