"""Sending the lines of a file or pipe."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import TYPE_CHECKING

import click

from pubd.cli.failure import INTERRUPTED, REFUSED, TRY_LATER, USAGE, Failure
from pubd.cli.feed import Feed, digest, is_file
from pubd.cli.progress import progress, summary
from pubd.cli.report import Output, OutputFailed, Printer, Tally
from pubd.cli.source import is_terminal
from pubd.cli.stream import Stream
from pubd.cli.submit import GivenUp

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.cli.submit import Submission

#: Bytes of a file whose reading takes so long that somebody may wonder.
MUCH = 1 << 30


def send_many(
    submission: Submission,
    prepare: Callable[[str, bytes], bytes],
    fd: int,
    *,
    seasoning: bytes,
    resume: str | None,
    can_resume: bool = True,
    first: int,
    output: Output | None,
    quiet: bool,
) -> None:
    """Ends when each line has its answer, or with a Failure. ``prepare`` makes a JSON object of a key and a line.

    Keys are NAME:NUMBER. The name is ``resume``, or else a digest of the file and of ``seasoning``. ``can_resume``: the
    command has --resume; what has keys of its own in each line does without.
    """
    written = _written(fd)
    name, size = _name(fd, seasoning, resume, quiet)
    tally = Tally(wait=submission.wait)
    start = time.monotonic()
    with progress(is_terminal=is_terminal(sys.stderr), quiet=quiet, total=size, clock=time.monotonic) as shown:
        chosen = output or (Output.NONE if is_terminal(sys.stdout) else Output.IDS)
        stream = Stream(
            feed=Feed(fd, end=size, first=first),
            submission=submission,
            prepare=lambda number, line: prepare(f"{name}:{number}", line),
            printer=Printer(sys.stdout, chosen, shown.say, numbered=True),
            progress=shown,
            tally=tally,
        )
        why = _run(stream)

    def say(sentence: str) -> None:
        if not quiet:
            click.echo(f"pubd: {sentence}", err=True)

    say(summary(tally, time.monotonic() - start))
    if size is not None and _written(fd) != written:
        say(
            "the file was changed meanwhile; what was added after the start was not sent"
            + (
                f", and for the same command again it is another file, unless it has --resume {name}"
                if can_resume
                else ""
            )
        )
    if why is not None:
        next_line = max(stream.answered + 1, first)
        if not tally.sent:
            raise Failure(why.sentence, why.code)
        same = resume or size is not None or not can_resume
        again = "the same command again" if same else f"the same with --resume {name} again"
        raise Failure(
            f"{why.sentence}. The lines before {next_line} are answered; to go on, give {again}, or add "
            f"--from-line {next_line}: what pubd remembers ([spool] retain) is not published twice",
            why.code,
        )
    if tally.refused:
        again = f"send the file again with --resume {name}" if can_resume else "run the same command again"
        say(f"correct the lines that were refused, and {again}")
    elif tally.code == TRY_LATER:
        say("the daemon goes on with what is not confirmed yet")
    if tally.code:
        sys.exit(tally.code)


def _written(fd: int) -> int:
    return os.fstat(fd).st_mtime_ns


def _name(fd: int, seasoning: bytes, resume: str | None, quiet: bool) -> tuple[str, int | None]:
    """What the keys of lines begin with, and the size of what is to be read of a file."""
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise Failure("the input is a directory; name a file, or - for standard input", USAGE)
        if not is_file(fd):
            return resume or os.urandom(16).hex(), None
        if resume is not None:
            return resume, os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR)
        if os.fstat(fd).st_size > MUCH and not quiet:
            click.echo("pubd: reading the file once, to know it again", err=True)
        return digest(fd, seasoning)
    except OSError as error:
        raise Failure(f"the input cannot be read: {error.strerror}") from None
    except KeyboardInterrupt:
        raise Failure("interrupted; nothing was sent", INTERRUPTED) from None


def _run(stream: Stream) -> GivenUp | None:
    try:
        return stream.run()
    except OutputFailed as error:
        return GivenUp(sentence=str(error), code=REFUSED)
    except OSError as error:
        return GivenUp(sentence=f"the input cannot be read any further: {error.strerror}", code=REFUSED)
    except KeyboardInterrupt:
        return GivenUp(sentence="interrupted", code=INTERRUPTED)
