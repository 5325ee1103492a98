"""How a command fails: one sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import shutil
import sys
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Exit codes; sysexits.h where it has one. (2, usage, is click's own.)
REFUSED, USAGE, UNREACHABLE, NOT_CONFIRMED, TRY_LATER, CONFIGURATION = 1, 2, 3, 4, 75, 78
#: 128 and the number of the signal, as a shell has it: SIGINT, SIGPIPE.
INTERRUPTED, BROKEN_PIPE = 130, 141


class Failure(click.ClickException):
    """Ends the command with ``message`` on stderr and exit code ``code``."""

    def __init__(self, message: str, code: int = REFUSED) -> None:
        super().__init__(message)
        setattr(self, "exit_code", code)  # noqa: B010 (a class variable to click's types, read from the instance)

    def show(self, file: IO[str] | None = None) -> None:
        """See click."""
        file = file or sys.stderr
        for line in _lines(f"pubd: {self.message}", file):
            click.echo(line, file=file)


def _lines(text: str, file: IO[str]) -> Iterable[str]:
    """As it is; on a terminal in lines of its width, with commands in one piece."""
    if not file.isatty():
        return [text]
    # Loaded where something is wrong only.
    from pubd.cli.screen import wrapped

    width = shutil.get_terminal_size().columns
    return [
        part for line in text.splitlines() for part in (wrapped(line, width=width) if len(line) > width else [line])
    ]
