"""``pubd status``: is pubd healthy, what waits, why, since when, and what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import daemon, daemon_options
from pubd.cli.failure import REFUSED
from pubd.cli.held import held_table
from pubd.cli.screen import Column, Screen, json_line, output, wrapped
from pubd.findings import findings, is_healthy
from pubd.grouping import groups
from pubd.wording import age, exchange, moment, octets, plain, reason, short_reason, since

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pubd.findings import Finding

#: Lanes that are shown; the others are counted. Those with something to say come first.
MOST_LANES = 20
_MARGIN = " " * 12


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: what GET /status answers, and what it means.")
@daemon_options
def status(as_json: bool, **options: Any) -> None:
    """Say how pubd is: link, lanes, books, what is held and why, and what to do next.

    Exit codes: 0 healthy, 1 not healthy (it does not accept, or not publish everything, or its books do not balance;
    parked messages alone do not count) or refused, 2 usage, 3 pubd is not reachable, 75 try again later.
    """
    with daemon(options) as asked, output():
        facts = asked.get("/status")
        found = findings(facts)
        # What is parked waits for a person: so say which, and why.
        held = groups(facts)
        if as_json:
            shown = {"healthy": is_healthy(found), "findings": [each.as_json() for each in found], "held": held}
            json_line(facts | shown)
        else:
            _show(Screen(), facts, found, held, asked.address)
    if not is_healthy(found):
        sys.exit(REFUSED)


def _show(
    screen: Screen, facts: dict[str, Any], found: Sequence[Finding], held: Sequence[dict[str, Any]], address: str
) -> None:
    now = moment(facts["time"])
    healthy = is_healthy([*found])
    screen.line("healthy" if healthy else "NOT HEALTHY", bold=True, fg="green" if healthy else "red")
    for name, text in _facts(facts, now, address):
        for line in wrapped(text, width=screen.width, first=f"{name:<12}", rest=_MARGIN):
            screen.line(line)
    if facts["lanes"]:
        screen.line()
        _lanes(screen, facts["lanes"])
    if held:
        screen.line()
        held_table(screen, held, facts, now)
    for finding in found:
        screen.line()
        began = f" (for {since(finding.since, now)})" if finding.since is not None else ""
        for line in wrapped(
            f"{finding.text}{began}", width=screen.width, first="! " if finding.bad else "- ", rest="  "
        ):
            screen.line(line, **({"fg": "red"} if finding.bad else {"fg": "yellow"}))
        for line in wrapped(finding.advice, width=screen.width, first="  -> ", rest="     "):
            screen.line(line)


def _facts(facts: dict[str, Any], now: float, address: str) -> Iterator[tuple[str, str]]:
    link, books, spool = facts["link"], facts["books"], facts["spool"]
    up = age(facts["uptime"])
    yield "pubd", f"{facts['version']}, pid {facts['pid']}, up for {up}, at {address}"
    yield "link", f"{link['state']}: {link['url']}{_blocked(link)}"
    oldest = f"; the oldest waits for {since(facts['oldest'], now)}" if facts["oldest"] is not None else ""
    yield (
        "messages",
        f"{books['ready']:,} ready, {books['in_flight']:,} in flight, {books['deferred']:,} deferred, "
        f"{books['parked']:,} parked{oldest}",
    )
    balance = "" if not books["difference"] else f": OUT OF BALANCE by {books['difference']:+,}"
    yield (
        "books",
        f"{books['accepted']:,} accepted = {books['confirmed']:,} confirmed + {books['expired']:,} expired + "
        f"{books['discarded']:,} discarded + {books['held']:,} held{balance}",
    )
    yield "spool", _spool(spool, books)
    for way in facts["intakes"]:
        connections = way["connections"]
        open = f" ({connections:,} open)" if connections is not None else ""
        yield way["name"], f"{' '.join(way['listens']) or 'not listening'}{open}"


def _blocked(link: dict[str, Any]) -> str:
    if link["blocked"] is not None:
        return f"; RabbitMQ says: {link['blocked']}"
    return f"; {reason(link['reason'])}" if link["reason"] is not None and link["state"] != "ready" else ""


def _spool(spool: dict[str, Any], books: dict[str, Any]) -> str:
    most = f" of {octets(spool['max_bytes'])}" if spool["max_bytes"] is not None else ""
    free = f", {octets(spool['free'])} free on its disk" if spool["free"] is not None else ""
    answers = "" if spool["answers"] else "; IT DOES NOT ANSWER"
    return f"{spool['path'] or 'in memory'}: {octets(books['bytes'])}{most}{free}{answers}"


def _lanes(screen: Screen, lanes: Sequence[dict[str, Any]]) -> None:
    ordered = sorted(lanes, key=lambda lane: (lane["reason"] is None, -lane["in_flight"], lane["exchange"]))
    columns = (
        Column("EXCHANGE", share=1),
        Column("LANE", width=9),
        Column("IN FLIGHT", width=9, right=True),
        Column("BYTES", width=10, right=True),
        Column("RABBITMQ'S REASON", share=2),
    )
    rows = [
        (
            exchange(lane["exchange"]),
            "paused" if lane["paused"] else plain(lane["state"]),
            f"{lane['in_flight']:,}",
            octets(lane["bytes"]),
            short_reason(lane["reason"]) + (f" ({lane['suspects']:,} suspects)" if lane["suspects"] else ""),
        )
        for lane in ordered[:MOST_LANES]
    ]
    screen.table(columns, rows)
    if len(ordered) > MOST_LANES:
        screen.line(f"and {len(ordered) - MOST_LANES:,} more: pubd status --json")
