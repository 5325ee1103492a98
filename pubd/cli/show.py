"""``pubd show``: everything known of one message, and with --body its body, safe to look at."""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.client import plain
from pubd.cli.daemon import daemon, daemon_options, path_of
from pubd.cli.failure import USAGE, Failure
from pubd.cli.screen import Screen, json_line, output
from pubd.cli.source import is_terminal
from pubd.cli.wording import SETTLED, exchange, octets, reason, since, state

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of a body that are shown: more is for a file.
SHOWN = 64 * 1024
_BODY = ("body", "body_base64", "body_json")
_RECORD_KEYS = frozenset(("exchange", "routing_key", "message_id"))


@click.command()
@click.argument("id")
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
            f"--raw would send the bytes to this terminal as they are; use: pubd show {id} --raw > FILE", USAGE
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
    more = f"; {failures} not confirmed: pubd trace {record['id']}" if failures else ""
    yield _line("attempts", f"{record['attempts']}{more}")
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


def body_of(message: dict[str, Any]) -> bytes:
    """The body's bytes, in whichever of its keys it stands."""
    if "body_base64" in message:
        return base64.b64decode(message["body_base64"], validate=True)
    if "body_json" in message:
        return json.dumps(message["body_json"], separators=(",", ":"), ensure_ascii=False).encode()
    return str(message.get("body", "")).encode("utf-8", "surrogatepass")


def body_lines(body: bytes | None, id: str) -> Iterator[str]:
    """A body for a terminal: text line by line, anything else in hexadecimal; control characters are escaped."""
    if body is None:
        yield "(the body is kept until a message is settled, and no longer)"
        return
    if not body:
        yield "(the body is empty)"
        return
    shown = body[:SHOWN]
    text = _text(shown, whole=len(shown) == len(body))
    if text is None:
        yield from _hexadecimal(shown)
    else:
        lines = text.split("\n")
        # A line break at the end is no further line.
        for line in lines[:-1] if not lines[-1] else lines:
            yield "\t".join(map(plain, line.split("\t")))
    if len(body) > SHOWN:
        yield f"(the first {octets(SHOWN)} of {octets(len(body))}; all of it: pubd show {id} --raw > FILE)"


def _text(body: bytes, *, whole: bool) -> str | None:
    """None for what is no text: no UTF-8, or with NULs in it."""
    if b"\0" in body:
        return None
    for cut in range(1 if whole else 4):
        try:
            # The last character may be cut off where the body is.
            return body[: len(body) - cut].decode()
        except UnicodeDecodeError:
            continue
    return None


def _hexadecimal(body: bytes) -> Iterator[str]:
    """As hexdump -C writes it."""
    for at in range(0, len(body), 16):
        row = body[at : at + 16]
        left, right = row[:8].hex(" "), row[8:].hex(" ")
        printable = "".join(chr(each) if 32 <= each < 127 else "." for each in row)
        yield f"{at:08x}  {left:<23}  {right:<23}  |{printable}|"
