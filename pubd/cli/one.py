"""Sending one message."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from pubd.cli.failure import INTERRUPTED, NOT_CONFIRMED, TRY_LATER, Failure
from pubd.cli.held_up import held_up
from pubd.cli.progress import duration
from pubd.cli.report import Output, OutputFailed, Printer, Tally
from pubd.wording import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.cli.daemon import Daemon
    from pubd.cli.submit import Submission


def send_one(
    submission: Submission,
    prepare: Callable[[str], bytes],
    *,
    asked: Daemon,
    key: str | None,
    output: Output | None,
    quiet: bool,
) -> None:
    """Ends when there is an answer, or with a Failure. ``prepare`` makes the JSON object for an idempotency key.

    ``asked`` may say why it is not confirmed.
    """
    key = key or f"send:{os.urandom(16).hex()}"
    again = f"with --idempotency-key {key} it will not be published twice"

    def note(sentence: str) -> None:
        if not quiet:
            click.echo(f"pubd: {sentence}; trying again", err=True)

    unknown = f"whether it is stored is not known: send it again, {again}"
    try:
        message = prepare(key)
        answered = submission.submit([message], note=note)
    except KeyboardInterrupt:
        raise Failure(f"interrupted; {unknown}", INTERRUPTED) from None
    if (why := answered.given_up) is not None:
        rest = unknown if why.unknown else "nothing was stored" if why.code == TRY_LATER else ""
        raise Failure(f"{why.sentence}; {rest}" if rest else why.sentence, why.code)
    (result,) = answered.results
    assert result is not None, "without an answer there is a reason"
    try:
        Printer(sys.stdout, output or Output.IDS, lambda _: None, numbered=False).write([(1, result)])
    except OutputFailed as error:
        raise Failure(f"{error}; the message is stored as {result.id}" if result.id else str(error)) from None
    tally = Tally(wait=submission.wait)
    tally.count(result)
    if result.error:
        stored = ""
        if tally.code == NOT_CONFIRMED and result.id:
            stored = f"; once the cause is gone: pubd retry {result.id}; to drop it: pubd discard {result.id}"
        raise Failure(result.sentence + stored, tally.code)
    if tally.code:
        why_not = held_up(asked, json.loads(message).get("exchange", ""))
        because = f": {plain(why_not)}; see 'pubd status'. pubd" if why_not else "; pubd"
        raise Failure(
            f"stored, but not confirmed within {duration(submission.timeout)}{because} goes on with it. "
            f"To wait again, send it again, {again}",
            tally.code,
        )
