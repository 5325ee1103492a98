"""A copy of the running pubd's spool, whole or not there at all."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pubd.cli.daemon import Broken
from pubd.cli.failure import Failure
from pubd.cli.placing import sync, unnamed
from pubd.cli.source import is_terminal
from pubd.wording import octets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pubd.cli.daemon import Daemon

#: Seconds without a byte: pubd sends none until all is copied.
SILENCE = 3600.0
#: Bytes between two words about how far it is.
TOLD = 64 << 20


@contextmanager
def copied(asked: Daemon, directory: Path, name: str) -> Iterator[Path]:
    """A file of that directory, readable by nobody else, synced, and gone afterwards if it is still there.

    Raises Failure.
    """
    try:
        with unnamed(directory, name) as (path, file):
            for piece in pieces(asked):
                file.write(piece)
            sync(file)
            file.close()
            yield path
    except OSError as error:
        raise Failure(f"{directory} cannot be written: {error.strerror}; make room, or name another place") from None


def pieces(asked: Daemon) -> Iterator[bytes]:
    """The bytes of the copy, all of them; how far it is goes to a terminal. Raises Failure."""
    size, told = 0, 0
    shown = is_terminal(sys.stderr)
    if shown:
        click.echo("pubd copies its spool...", err=True, nl=False)
    try:
        for piece in asked.stream("/backup", "POST", silence=SILENCE):
            size += len(piece)
            if shown and size - told >= TOLD:
                told = size
                click.echo(f"\r\033[K{octets(size)} read", err=True, nl=False)
            yield piece
    except Broken as error:
        raise Failure(
            f"{error.message}: nothing is kept of it; pubd's log says why, try again", error.exit_code
        ) from None
    finally:
        if shown:
            click.echo("\r\033[K", err=True, nl=False)
