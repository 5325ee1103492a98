"""``pubd reload``: have the running daemon read its configuration again, and say what that changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import Misconfigured, daemon, daemon_options
from pubd.cli.failure import REFUSED, Failure
from pubd.cli.screen import json_line, output
from pubd.wording import plain, short_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pubd.cli.daemon import Daemon

#: Seconds for which is waited whether a connection to other brokers stands, and between looks.
MOVING, LOOK = 3.0, 0.1


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: what POST /reload answers.")
@daemon_options
def reload(as_json: bool, **options: Any) -> None:
    """Have pubd read its configuration again, as SIGHUP does: all of it is checked first, and with a mistake in it
    nothing is changed. No connection and no message is lost by it.

    Exit codes: 0 the new configuration is in use, 1 refused, or pubd cannot connect to the new brokers, 2 usage, 3 pubd
    is not reachable, 75 try again later (it is stopping), 78 the new configuration has a mistake, or takes a restart.
    """
    with daemon(options) as asked, output():
        try:
            done = asked.post("/reload")
        except Misconfigured as wrong:
            for problem in wrong.problems:
                if as_json:
                    json_line({"problem": problem})
                else:
                    click.echo(problem, err=True)
            raise
        if as_json:
            json_line(done)
        else:
            for line in _lines(done):
                click.echo(line)
        _look_at_the_move(asked)


def _look_at_the_move(asked: Daemon) -> None:
    """Where publishing moves to other brokers: say how that begins. Raises Failure if it does not."""
    until = time.monotonic() + MOVING
    while (move := asked.get("/status")["moving"]) is not None and move["reason"] is None:
        if time.monotonic() > until:
            waits = (
                f"pubd: publishing moves to {plain(move['url'])} once a connection there stands, and what is in flight"
            )
            click.echo(f"{waits} is answered; 'pubd status' says how it goes", err=True)
            return
        time.sleep(LOOK)
    if move is not None:
        raise Failure(
            f"publishing still goes over the former connection; the new one: {plain(move['url'])}: "
            f"{short_reason(move['reason'])}; it is tried again. Correct [broker] urls, and 'pubd reload'; see "
            "'pubd status'",
            REFUSED,
        )


def _lines(done: dict[str, Any]) -> Iterator[str]:
    for hint in done["hints"]:
        yield f"hint: {plain(hint)}"
    for change in done["changes"]:
        yield plain(_change(**change))
    count = len(done["changes"])
    yield (
        f"reloaded: {count} change{'s' if count != 1 else ''}"
        if count
        else ("reloaded: nothing has changed; certificates were read again")
    )


def _change(table: str, key: str | None, old: str | None, new: str | None) -> str:
    if key is None:
        return f"{table} is {'new' if old is None else 'gone'}"
    return f"{table} {key}: changed, not shown" if old == new else f"{table} {key}: {old} -> {new}"
