"""``pubd flush``, ``pause`` and ``resume``: what a person decides about all messages, or those for an exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import daemon, daemon_options
from pubd.cli.listing import asked_exchange
from pubd.cli.names import complete_exchange
from pubd.cli.screen import json_line, output
from pubd.wording import exchange as exchange_name
from pubd.wording import messages, plain

if TYPE_CHECKING:
    from pubd.cli.daemon import Daemon

#: Exchanges that are named where somebody may have mistaken one.
MOST_SHOWN = 20


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: how many messages backed off.")
@daemon_options
def flush(as_json: bool, **options: Any) -> None:
    """Try everything now: messages that back off, the connection to RabbitMQ, exchanges and declarations that it
    refused, and healing. A delay that was asked for goes on.

    Exit codes: 0 done, 1 refused, 2 usage, 3 pubd is not reachable, 75 try again later.
    """
    with daemon(options) as asked, output():
        flushed = asked.post("/flush")
        if as_json:
            json_line(flushed)
        else:
            click.echo(f"pubd: everything is tried now; {messages(flushed['messages'])} backed off", err=True)


@click.command()
@click.argument("exchange", required=False, shell_complete=complete_exchange)
@click.option("--reason", metavar="TEXT", help="Why; shown to everybody who looks.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: what is paused now.")
@daemon_options
def pause(exchange: str | None, reason: str | None, as_json: bool, **options: Any) -> None:
    """Publish nothing to EXCHANGE (amq.default is the default exchange), or, without it, nothing at all, until it is
    resumed; after a restart of pubd, too, where its spool is on a disk. Messages are accepted, and wait.

    Exit codes: 0 done, or so before, 1 refused, 2 usage, 3 pubd is not reachable, 75 try again later.
    """
    with daemon(options) as asked, output():
        answer = asked.post("/pause", exchange=asked_exchange(exchange), reason=reason)
        _say(answer, exchange, as_json, f"{_to(exchange)} is paused", f"{_to(exchange)} was paused before")
        if exchange is not None and not as_json and answer["changed"]:
            _doubt(asked, exchange)


@click.command()
@click.argument("exchange", required=False, shell_complete=complete_exchange)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: what is paused still.")
@daemon_options
def resume(exchange: str | None, as_json: bool, **options: Any) -> None:
    """Publish to EXCHANGE again, or, without it, end the pause of all; exchanges that were paused by name stay so.

    Exit codes: 0 done, or so before, 1 refused, 2 usage, 3 pubd is not reachable, 75 try again later.
    """
    with daemon(options) as asked, output():
        answer = asked.post("/resume", exchange=asked_exchange(exchange))
        _say(answer, exchange, as_json, f"{_to(exchange)} is resumed", f"{_to(exchange)} was not paused by itself")


def _doubt(asked: Daemon, exchange: str) -> None:
    """Where nothing is known of the exchange: say so, and what there is. A pause of it is right before it is used."""
    name = asked_exchange(exchange)
    used = [lane["exchange"] for lane in asked.get("/status")["lanes"]]
    if name in used:
        return
    page = asked.get("/messages", exchange=name, limit="1")
    if page["messages"] or page["next"] is not None:
        # Or it is not known after one look through so many messages.
        return
    shown = ", ".join(sorted(map(exchange_name, used))[:MOST_SHOWN]) or "none"
    click.echo(
        f"pubd: it has no message for {plain(exchange)}, and published none to it lately (exchanges in use: {shown}); "
        f"if that is not its name: '{resume_command({'exchange': name})}'",
        err=True,
    )


def _say(answer: dict[str, Any], exchange: str | None, as_json: bool, changed: str, unchanged: str) -> None:
    """What was done, and what else is paused."""
    if as_json:
        json_line(answer)
        return
    click.echo(f"pubd: {changed if answer['changed'] else unchanged}", err=True)
    for pause in answer["pauses"]:
        if pause["exchange"] == asked_exchange(exchange) and answer["changed"]:
            continue
        click.echo(f"pubd: {pause_text(pause)}; to end that: '{resume_command(pause)}'", err=True)


def _to(exchange: str | None) -> str:
    return "publishing" if exchange is None else f"publishing to {plain(exchange)}"


def pause_text(pause: dict[str, Any]) -> str:
    """Such as ``publishing to orders is paused by alice since 2026-...: upgrade``."""
    to = "" if pause["exchange"] is None else f" to {exchange_name(pause['exchange'])}"
    text = f": {plain(pause['text'])}" if pause["text"] else ""
    return f"publishing{to} is paused by {plain(pause['who'])} since {plain(str(pause['since']))}{text}"


def resume_command(pause: dict[str, Any]) -> str:
    """What ends it."""
    return "pubd resume" + ("" if pause["exchange"] is None else f" {exchange_name(pause['exchange'])}")
