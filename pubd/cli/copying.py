"""A copy of the running pubd's spool, whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pubd.cli.daemon import Broken
from pubd.cli.failure import Failure
from pubd.cli.source import is_terminal
from pubd.wording import octets

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        fd, made = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=directory)
    except OSError as error:
        raise Failure(f"{directory} cannot be written: {error.strerror}; name another place") from None
    path = Path(made)
    try:
        with os.fdopen(fd, "wb") as file:
            for piece in pieces(asked):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        yield path
    except OSError as error:
        raise Failure(f"{directory} cannot be written: {error.strerror}; make room, or name another place") from None
    finally:
        for left in (path, path.with_name(f"{path.name}.lock")):
            with contextlib.suppress(OSError):
                left.unlink()


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
