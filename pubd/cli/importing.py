"""``pubd import``: hands in what ``pubd export`` wrote, each message once, however often it is repeated."""

from __future__ import annotations

import sys
import time
from io import TextIOWrapper
from typing import Any

import click

from pubd.cli.compose import completed
from pubd.cli.connect import connect, server_options
from pubd.cli.durations import Duration
from pubd.cli.failure import BROKEN_PIPE
from pubd.cli.many import send_many
from pubd.cli.report import Output, OutputClosed
from pubd.cli.source import opened
from pubd.cli.submit import Submission


@click.command("import")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--from-line", type=click.IntRange(1), default=1, metavar="N", help="Begin at line N of FILE.")
@click.option("-w", "--wait", is_flag=True, help="Wait until RabbitMQ has confirmed.")
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long one batch of lines may take; waiting and trying again included.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: what became of each line.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no counts on stderr, only what is wrong.")
@server_options
def import_messages(
    file: str, from_line: int, wait: bool, timeout: float, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Hand in every message of FILE, an export (- is standard input), in its order, parked ones too.

    Each has its former id as idempotency key: the same command again hands in nothing twice, as long as pubd remembers
    ('retain'). Lines that are refused, damaged ones among them, are told with their number; the others are accepted.

    Exit codes: 0 all accepted, 1 some refused, 2 usage, 3 pubd is not reachable, 4 returned or parked (--wait), 75 try
    again later, 130 interrupted.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    with connect(**options) as client, opened(file) as fd:
        try:
            send_many(
                Submission(client, timeout=timeout, wait=wait, clock=time.monotonic, sleep=time.sleep),
                lambda key, line: completed(line, {}, key),
                fd,
                seasoning=b"import",
                resume=None,
                can_resume=False,
                first=from_line,
                output=Output.JSON if as_json else Output.NONE,
                quiet=quiet,
            )
        except OutputClosed:
            # As SIGPIPE would have it.
            sys.exit(BROKEN_PIPE)
