"""``pubd reload``: have the running daemon read its configuration again, and say what that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import Misconfigured, daemon, daemon_options
from pubd.cli.screen import json_line, output
from pubd.wording import plain

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: what POST /reload answers.")
@daemon_options
def reload(as_json: bool, **options: Any) -> None:
    """Have pubd read its configuration again, as SIGHUP does: all of it is checked first, and with a mistake in it
    nothing is changed. No connection and no message is lost by it.

    Exit codes: 0 the new configuration is in use, 1 refused, 2 usage, 3 pubd is not reachable, 75 try again later (it
    is stopping), 78 the new configuration has a mistake, or takes a restart.
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
