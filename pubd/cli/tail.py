"""``pubd tail``: what becomes of messages, a line each, while it happens."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import Broken, daemon, daemon_options
from pubd.cli.durations import Duration
from pubd.cli.failure import TRY_LATER, UNREACHABLE, Failure
from pubd.cli.listing import asked_exchange
from pubd.cli.names import complete_exchange
from pubd.cli.screen import STYLES, Screen, fitted, json_line, output
from pubd.wording import exchange as exchange_name
from pubd.wording import plain, short_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pubd.cli.daemon import Daemon

OUTCOMES = ("accepted", "confirmed", "returned", "nacked", "lost", "poison", "parked")
#: Seconds without a line after which pubd is gone: it says every five seconds that it is there.
SILENCE = 30.0
#: Seconds between tries to reach a pubd that has gone.
AGAIN = 1.0
#: Events of pubd itself, not of a message.
_OWN = ("watching", "alive", "skipped", "stopping")


@click.command()
@click.option("-e", "--exchange", shell_complete=complete_exchange, help="Only messages for this exchange.")
@click.option(
    "-O",
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice(OUTCOMES),
    help="Only these; may be given more than once. [default: all but accepted]",
)
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many.")
@click.option("--for", "seconds", type=Duration(), help="End after this time.")
@click.option("-F", "--reconnect", is_flag=True, help="When pubd ends, wait until it is back, and go on.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: everything known of each event, skipped ones too.")
@daemon_options
def tail(
    exchange: str | None,
    outcomes: tuple[str, ...],
    count: int | None,
    seconds: float | None,
    reconnect: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what becomes of messages while it happens: confirmed, returned, nacked, lost, parked, a line each.

    It holds nothing up: where there are more than can be shown, it says how many were skipped. Ctrl-C ends it.

    Exit codes: 0 done or Ctrl-C, 1 refused, 2 usage, 3 pubd is not reachable (any more), 75 pubd stops.
    """
    until = time.monotonic() + seconds if seconds is not None else None
    shown, screen = 0, Screen()
    with daemon(options) as asked, output():
        try:
            for event in _events(asked, exchange, outcomes, until, reconnect):
                if as_json:
                    json_line(event)
                else:
                    _line(screen, event)
                # Whoever reads a pipe wants to see it now.
                sys.stdout.flush()
                shown += event["event"] not in _OWN
                if count is not None and shown >= count:
                    return
        except KeyboardInterrupt:
            # That is how it is ended.
            return


def _events(
    asked: Daemon, exchange: str | None, outcomes: tuple[str, ...], until: float | None, reconnect: bool
) -> Iterator[dict[str, Any]]:
    """Those of messages, and how many were skipped; across restarts, if ``reconnect``. Raises Failure."""
    known = False
    while True:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return
        try:
            stopping = False
            for event in asked.lines(
                "/tail",
                silence=SILENCE,
                exchange=asked_exchange(exchange),
                outcome=",".join(dict.fromkeys(outcomes)) or None,
                **{"for": f"{left:.3f}s" if left is not None else None},
            ):
                known = True
                if event["event"] == "stopping":
                    stopping = True
                elif event["event"] not in ("watching", "alive"):
                    yield event
            if not stopping:
                return
            why = Failure("pubd stops; once it is back: 'pubd tail', or 'pubd tail --reconnect' to wait", TRY_LATER)
        except Broken as error:
            why = Failure(f"{error.message}; see 'pubd status'; 'pubd tail --reconnect' goes on by itself", UNREACHABLE)
        except Failure as error:
            if not known or error.exit_code not in (UNREACHABLE, TRY_LATER):
                raise
            why = error
        if not reconnect:
            raise why
        time.sleep(AGAIN)


def _line(screen: Screen, event: dict[str, Any]) -> None:
    """Time, what it is, id, how long it took, what became of it, exchange, key; no longer than a terminal is wide."""
    at = datetime.fromisoformat(event["time"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    name = event["event"]
    if name == "skipped":
        screen.line(f"{at} skipped   {event['count']:,} more than can be shown", fg="yellow")
        return
    became = f" {plain(event['state'])}" if name not in ("accepted", "confirmed") else ""
    why = f": {short_reason(event['reason'])}" if event["reason"] is not None else ""
    took = f" {_took(event['seconds'])}" if event["seconds"] is not None else ""
    where = f"{exchange_name(event['exchange'])} {plain(event['routing_key'])}"
    text = f"{at} {name:<9} {plain(event['id'])}{took}{became}{why} {where}"
    colour = STYLES.get(name) or ("red" if event["state"] == "parked" else "yellow" if became else None)
    if screen.is_terminal:
        text = fitted(text, screen.width, False).rstrip()
    screen.line(text, **({"fg": colour} if colour else {}))


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.1f}ms" if seconds < 1 else f"{seconds:.1f}s"
