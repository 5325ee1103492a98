"""``pubd send``: hands messages to the daemon, with the letters of ``amqp-publish``."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from pubd.cli import compose
from pubd.cli.compose import InvalidHeader
from pubd.cli.connect import connect, server_options
from pubd.cli.daemon import Daemon
from pubd.cli.durations import Duration
from pubd.cli.failure import BROKEN_PIPE, REFUSED, USAGE, Failure
from pubd.cli.many import send_many
from pubd.cli.names import complete_exchange
from pubd.cli.one import send_one
from pubd.cli.report import Output, OutputClosed
from pubd.cli.source import opened, read_all
from pubd.cli.submit import Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The largest body, or JSON object, that is read for one message: RabbitMQ's largest message, and that in base64.
MAX_BODY, MAX_OBJECT = 128 * 1024 * 1024, 192 * 1024 * 1024

#: Seconds that the daemon has to say why a message is not confirmed.
ASKING = 2.0

#: Options that are keys of the message as they are.
_PROPERTIES = (
    "exchange",
    "routing_key",
    "content_type",
    "content_encoding",
    "reply_to",
    "priority",
    "correlation_id",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
    "mandatory",
    "delay",
    "ttl",
    "ordering_key",
)
_TEXTS = {
    "correlation_id": "Property correlation_id.",
    "expiration": "RabbitMQ's time to live in the queue: milliseconds, in digits.",
    "message_id": "Property message_id. [default: pubd's id of the message]",
    "type": "Property type.",
    "user_id": "Property user_id: must be the user with which pubd logs in.",
    "app_id": "Property app_id.",
    "cluster_id": "Property cluster_id.",
    "delay": "Publish after this time, such as 5m.",
    "ttl": "Give up if it is not published within this time, such as 1h.",
    "ordering_key": "Messages with the same key are published one after another.",
}


def _text_options(command: Any) -> Any:
    for name, text in reversed(_TEXTS.items()):
        command = click.option("--" + name.replace("_", "-"), name, metavar="TEXT", help=text)(command)
    return command


@click.command()
@click.option(
    "-e", "--exchange", shell_complete=complete_exchange, help="The exchange. [default: the default exchange]"
)
@click.option("-r", "--routing-key", help="The routing key; for the default exchange the name of the queue.")
@click.option("-b", "--body", help="The body, or with --json the object. [default: standard input]")
@click.option("-C", "--content-type", metavar="TYPE", help="Property content_type.")
@click.option("-E", "--content-encoding", metavar="CODING", help="Property content_encoding.")
@click.option("-t", "--reply-to", metavar="QUEUE", help="Property reply_to.")
@click.option("-H", "--header", "headers", multiple=True, metavar="K=V", help="A header: K=TEXT, 'K: TEXT' or K:=JSON.")
@click.option(
    "-p/ ", "--persistent/--transient", default=None, help="Does it outlive a restart of RabbitMQ? [default: pubd's]"
)
@click.option("--mandatory/--no-mandatory", default=None, help="Is it an error if no queue gets it? [default: pubd's]")
@click.option("--priority", type=click.IntRange(0, 255), help="Property priority.")
@click.option(
    "--timestamp", type=click.IntRange(0), metavar="SECONDS", help="Property timestamp, in seconds since 1970."
)
@_text_options
@click.option("--idempotency-key", metavar="KEY", help="The same key again: no second message. [default: a new one]")
@click.option("--json", "as_json", is_flag=True, help="The input is one message as a JSON object.")
@click.option("--ndjson", metavar="FILE", type=click.Path(), help="Messages as JSON objects, one a line; - is stdin.")
@click.option("-l", "--line-buffered", is_flag=True, help="Each line of standard input is the body of a message.")
@click.option("--resume", metavar="NAME", help="What the keys of lines are made from, in place of the content of FILE.")
@click.option("--from-line", type=click.IntRange(1), default=1, metavar="N", help="Begin at line N of the input.")
@click.option("-w", "--wait", is_flag=True, help="Wait until RabbitMQ has confirmed.")
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long one message, or one batch of lines, may take; waiting and trying again included.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice([each.value for each in Output]),
    help="What to write to stdout. [default: ids; none for lines when stdout is a terminal]",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no counts on stderr, only what is wrong.")
@server_options
def send(
    body: str | None,
    headers: tuple[str, ...],
    persistent: bool | None,
    idempotency_key: str | None,
    as_json: bool,
    ndjson: str | None,
    line_buffered: bool,
    resume: str | None,
    from_line: int,
    wait: bool,
    timeout: float,
    output: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Hand a message to pubd, or with --ndjson many of them. It answers when they are stored for good.

    Exit codes: 0 stored (with --wait: confirmed), 1 refused, 2 usage, 3 pubd is not reachable, 4 returned or parked,
    75 try again later, 78 a file of yours cannot be used, 130 interrupted.
    """
    lines = ndjson is not None or line_buffered
    _check_usage(
        body=body, as_json=as_json, ndjson=ndjson, line_buffered=line_buffered, key=idempotency_key, resume=resume
    )
    if not lines and (resume is not None or from_line != 1):
        raise Failure("--resume and --from-line are for --ndjson and -l", USAGE)
    given = _given(options, headers, persistent)
    if ndjson is None and not as_json and not given.get("exchange") and not given.get("routing_key"):
        raise Failure("name an exchange with -e, or with -r a queue (for the default exchange)", USAGE)
    keys = ("server", "token", "token_file", "cacert", "cert", "key")
    with connect(**{name: options[name] for name in keys}) as client, _quietly():
        submission = Submission(client, timeout=timeout, wait=wait, clock=time.monotonic, sleep=time.sleep)
        chosen = Output(output) if output is not None else None
        if lines:
            with opened(ndjson if ndjson is not None else "-") as fd:
                send_many(
                    submission,
                    _text_line(given) if line_buffered else lambda key, line: compose.completed(line, given, key),
                    fd,
                    # The same content to another exchange is something else.
                    seasoning=json.dumps([given, line_buffered], sort_keys=True).encode(),
                    resume=resume,
                    first=from_line,
                    output=chosen,
                    quiet=quiet,
                )
        else:
            message = _message(given, body, as_json)
            send_one(
                submission,
                lambda key: compose.completed(message, given, key),
                asked=Daemon(client, timeout=ASKING),
                key=idempotency_key,
                output=chosen,
                quiet=quiet,
            )


def _check_usage(
    *, body: str | None, as_json: bool, ndjson: str | None, line_buffered: bool, key: str | None, resume: str | None
) -> None:
    if (as_json, ndjson is not None, line_buffered).count(True) > 1:
        raise Failure("give one of --json, --ndjson and -l", USAGE)
    if body is not None and (ndjson is not None or line_buffered):
        raise Failure("-b is one message; --ndjson and -l read theirs from a file or standard input", USAGE)
    if key is not None and (ndjson is not None or line_buffered):
        raise Failure("--idempotency-key is for one message; many lines have --resume NAME", USAGE)
    if resume is not None and not 0 < len(resume.encode(errors="surrogateescape")) <= 200:
        raise Failure("--resume takes a name of 1 to 200 bytes", USAGE)
    if key is not None and not key:
        raise Failure("--idempotency-key must not be empty", USAGE)


def _given(options: dict[str, Any], headers: tuple[str, ...], persistent: bool | None) -> dict[str, Any]:
    """The options that are part of a message, as its JSON has them."""
    given = {name: options[name] for name in _PROPERTIES if options[name] is not None}
    if persistent is not None:
        given["delivery_mode"] = 2 if persistent else 1
    if headers:
        try:
            given["headers"] = compose.headers(headers)
        except InvalidHeader as error:
            raise Failure(f"-H {error}", USAGE) from None
    return given


def _message(given: dict[str, Any], body: str | None, as_json: bool) -> bytes:
    """The message without its key, on one line."""
    content = os.fsencode(body) if body is not None else read_all(MAX_OBJECT if as_json else MAX_BODY)
    if not as_json:
        return compose.dumps({"exchange": "", **given, **compose.body(content)})
    text = compose.one_line(content)
    if not text:
        raise Failure("--json: there is no JSON object on standard input; give one there, or with -b", REFUSED)
    return text


def _text_line(given: dict[str, Any]) -> Callable[[str, bytes], bytes]:
    """Makes a message of a line that is its body."""
    return lambda key, line: compose.dumps({"exchange": "", **given, "idempotency_key": key, **compose.body(line)})


@contextmanager
def _quietly() -> Iterator[None]:
    """Whoever read our output has gone: so do we, without a word, as SIGPIPE would have it."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        yield
    except OutputClosed:
        sys.exit(BROKEN_PIPE)
