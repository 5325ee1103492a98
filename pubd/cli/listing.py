"""``pubd list``: messages in order of acceptance, a line each."""

from __future__ import annotations

import heapq
import json
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import daemon, daemon_options
from pubd.cli.pages import pages
from pubd.cli.screen import Column, Screen, json_line, output
from pubd.cli.selection import counted, selection, selection_options
from pubd.wording import exchange as exchange_name
from pubd.wording import plain, since, why
from pubd.wording import state as state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pubd.cli.daemon import Daemon

LIMIT = 100
#: States of what is not settled: shown where nothing else is asked for.
OPEN = ("ready", "deferred", "parked")
#: From this width on there is room for routing keys.
WIDE = 110

_COLUMNS = (
    Column("ID", width=36),
    Column("STATE", width=9),
    Column("AGE", width=4, right=True),
    Column("EXCHANGE", share=2),
)


@click.command("list")
@selection_options
@click.option("-n", "--limit", type=click.IntRange(1), default=LIMIT, show_default=True, help="How many at most.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--after", metavar="ID", help="Begin after this message.")
@click.option("--count", "only_count", is_flag=True, help="Nothing but how many there are.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: everything known of each message.")
@daemon_options
def list_messages(
    limit: int,
    everything: bool,
    after: str | None,
    only_count: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """List messages: what waits and why, or, if anything is chosen by the options or with --all, also what was settled
    within 'retain'.

    Exit codes: 0 done (even if there are none), 1 refused, 2 usage, 3 pubd is not reachable, 75 try again later.
    """
    screen, shown, first = Screen(), 0, True
    rest: str | None = None
    query = selection(options).query()
    only_open = not query and not everything
    with daemon(options) as asked, output():
        if only_count:
            count = counted(asked, query)
            click.echo(json.dumps({"count": count}) if as_json else count)
            return
        for found, rest in (  # noqa: B007 (it is what remains)
            _open(asked, after, limit)
            if only_open
            else pages(asked, query, after=after, limit=None if everything else limit)
        ):
            if as_json:
                for record in found:
                    json_line(record)
            elif found:
                _table(screen, found, header=first)
                first = False
            shown += len(found)
    if as_json:
        return
    if rest is not None:
        click.echo(f"pubd: there may be more; go on with --after {plain(rest)}, or give --all", err=True)
    elif not shown and not only_open:
        click.echo("pubd: there are no such messages", err=True)
    elif only_open:
        which = "those that are" if shown else "no message waits; those that were"
        click.echo(f"pubd: {which} settled are listed by --state confirmed, or --all", err=True)


def _open(asked: Daemon, after: str | None, limit: int) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """As :func:`pubd.cli.pages.pages`: what is not settled, in order of acceptance, ``limit`` at most, as one page."""

    def records(state: str) -> Iterator[dict[str, Any]]:
        for page, _ in pages(asked, {"state": state}, after=after, limit=limit + 1):
            yield from page

    # Ids sort as the messages were accepted.
    found = list(islice(heapq.merge(*map(records, OPEN), key=lambda record: record["id"]), limit + 1))
    yield found[:limit], found[limit - 1]["id"] if len(found) > limit else None


def asked_exchange(name: str | None) -> str | None:
    """As the API takes it: the default exchange has an empty name there."""
    return "" if name == "amq.default" else name


def _table(screen: Screen, records: list[dict[str, Any]], *, header: bool) -> None:
    now = time.time()
    wide = screen.width >= WIDE
    columns = [*_COLUMNS, *([Column("KEY", share=2)] if wide else []), Column("REASON", share=4 if wide else 3)]
    rows = []
    for record in records:
        row = [plain(record["id"]), state_of(record), since(record["accepted_at"], now)]
        row.append(exchange_name(record["exchange"]))
        if wide:
            row.append(plain(record["routing_key"]))
        rows.append([*row, _shortened(record, now)])
    screen.table(columns, rows, header=header)


def _shortened(record: dict[str, Any], now: float) -> str:
    """Why, and for what is settled, how long ago."""
    if record["state"] == "confirmed" and record["settled_at"] is not None:
        return f"{since(record['settled_at'], now)} ago"
    if record["state"] == "ready" and record["reason"] is None and record["failures"]:
        last = record["failures"][-1]
        seconds = since(last["at"], now) if last["at"] else "?"
        return f"{plain(str(last['outcome']))} {seconds} ago"
    return why(record, now)
