"""``pubd show``: everything known of one message, and with --body its body, safe to look at."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from pubd.body_text import body_lines, body_of
from pubd.cli.daemon import daemon, daemon_options, path_of
from pubd.cli.failure import USAGE, Failure
from pubd.cli.names import complete_id
from pubd.cli.screen import Screen, json_line, output
from pubd.cli.source import is_terminal
from pubd.wording import SETTLED, exchange, plain, reason, since, state

if TYPE_CHECKING:
    from collections.abc import Iterator

_BODY = ("body", "body_base64", "body_json")
_RECORD_KEYS = frozenset(("exchange", "routing_key", "message_id"))


@click.command()
@click.argument("id", shell_complete=complete_id)
@click.option(
    "--body", "with_body", is_flag=True, help="The body, too: text with its control characters escaped, else bytes."
)
@click.option("--raw", is_flag=True, help="Nothing but the body's bytes; into a file or a pipe.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as GET /messages/ID answers.")
@daemon_options
def show(id: str, with_body: bool, raw: bool, as_json: bool, **options: Any) -> None:
    """Show what is known of the message ID: its state and why, its properties, its body.

    Exit codes: 0 done, 1 refused or not known, 2 usage, 3 pubd is not reachable, 75 try again later.
    """
    if raw and as_json:
        raise Failure("give one of --raw and --json", USAGE)
    if raw and is_terminal(sys.stdout):
        raise Failure(
            f"--raw would send the bytes to this terminal as they are; use 'pubd show {id} --raw > FILE'", USAGE
        )
    with_body = with_body or raw
    with daemon(options) as asked, output():
        record = asked.get(path_of(id), **({"body": "true"} if with_body else {"properties": "true"}))
        if as_json:
            json_line(record)
            return
        message = record.get("message", {})
        body = body_of(message) if with_body and record["state"] not in SETTLED else None
        if raw:
            if body is None:
                raise Failure(f"the message is {state(record)}: a body is kept until it is settled, and no longer")
            sys.stdout.buffer.write(body)
            return
        screen = Screen()
        for line in _lines(record, message):
            screen.line(line)
        if with_body:
            screen.line()
            for line in body_lines(body, plain(id)):
                screen.line(line)


def _lines(record: dict[str, Any], message: dict[str, Any]) -> Iterator[str]:
    now = time.time()
    yield _line("id", record["id"])
    given = reason(record["reason"])
    yield _line("state", f"{state(record)}{f': {given}' if given else ''}")
    yield _line("exchange", exchange(record["exchange"]))
    yield _line("routing key", record["routing_key"])
    yield _line("accepted", _moment(record["accepted_at"], now))
    if record["principal"] is not None:
        yield _line("handed in by", record["principal"])
    if record["due"] is not None:
        yield _line("due", str(record["due"]))
    if record["settled_at"] is not None:
        yield _line("settled", _moment(record["settled_at"], now))
    if record["node"] is not None:
        yield _line("delivery", f"{record['node']} channel {record['channel']} tag {record['tag']}")
    failures = sum(failure["times"] for failure in record["failures"])
    yield _line("attempts", str(record["attempts"]))
    if failures:
        yield _line(
            "not confirmed",
            f"{failures} deliveries: pubd trace {record['id']}"
            if failures > 1
            else f"1 delivery: pubd trace {record['id']}",
        )
    yield _line("message_id", record["message_id"])
    for name, value in message.items():
        if name in _RECORD_KEYS or name in _BODY:
            continue
        if name == "headers" and isinstance(value, dict):
            for header, content in value.items():
                yield _line("header", f"{header}: {_value(content)}")
        else:
            yield _line(name, _value(value))


def _line(name: str, value: str) -> str:
    return f"{plain(name):<16} {plain(value)}".rstrip()


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _moment(text: str, now: float) -> str:
    return f"{text} ({since(text, now)} ago)"
