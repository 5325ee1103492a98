"""What goes to stdout: tables that fit, JSON Lines, and no word more once nobody reads."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import attrs
import click

from pubd.cli.failure import BROKEN_PIPE, Failure
from pubd.cli.source import is_terminal
from pubd.wording import COMMAND, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Columns where there is no terminal, and the fewest that are counted on.
WIDTH = 80
#: What stands for a space that no line ends at; plain text has none.
_GLUE = "\xa0"

STYLES = {
    "parked": "red",
    "refused": "red",
    "blocked": "red",
    "waiting": "red",
    "paused": "red",
    "deferred": "yellow",
    "probation": "yellow",
    "discarded": "yellow",
    "expired": "yellow",
    "confirmed": "green",
    "open": "green",
    "ready": "green",
}


@attrs.frozen
class Column:
    """``width`` in cells; 0: as much as its cells need. ``share`` of what is left over, in place of a width."""

    title: str
    width: int = 0
    share: int = 0
    right: bool = False


class Screen:
    """Lines and tables for people: 80 columns, or those of the terminal, with colours where there is one."""

    def __init__(self) -> None:
        self.is_terminal = is_terminal(sys.stdout)
        self.width = max(shutil.get_terminal_size().columns, WIDTH) if self.is_terminal else WIDTH

    def line(self, text: str = "", **style: Any) -> None:
        """One line as it is; see click.style for ``style``."""
        click.echo(click.style(text, **style) if style and self.is_terminal else text)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, header: bool = True) -> None:
        """A row a line; what does not fit ends in an ellipsis."""
        room = widths(columns, rows, self.width)
        if header:
            titles = [fitted(each.title, width, each.right) for each, width in zip(columns, room, strict=True)]
            self.line(" ".join(titles).rstrip(), bold=True)
        for row in rows:
            cells = []
            for cell, column, width in zip(row, columns, room, strict=True):
                shown = fitted(cell, width, column.right)
                colour = STYLES.get(cell) if self.is_terminal else None
                cells.append(click.style(shown, fg=colour) if colour else shown)
            click.echo(" ".join(cells).rstrip())


def widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Those given, those that the cells need, and what is left over in shares."""
    found = [
        column.width or (0 if column.share else max(map(_cells, (column.title, *(row[at] for row in rows)))))
        for at, column in enumerate(columns)
    ]
    left = room - sum(found) - (len(columns) - 1)
    shares = sum(column.share for column in columns)
    return [width or max(left * column.share // shares, 4) for width, column in zip(found, columns, strict=True)]


def _cells(text: str) -> int:
    """Columns of a terminal: some characters take two, some none."""
    if text.isascii():
        return len(text)
    # Loaded where there is more than ASCII only.
    from rich.cells import cell_len

    return cell_len(text)


def fitted(text: str, width: int, right: bool) -> str:
    """In so many cells, to the right or left of them; what does not fit ends in an ellipsis."""
    length = _cells(text)
    if length > width:
        if text.isascii():
            return f"{text[: width - 1]}…"
        from rich.cells import set_cell_size

        return set_cell_size(text, width - 1) + "…"
    padding = " " * (width - length)
    return padding + text if right else text + padding


def json_line(value: Any) -> None:
    """One object a line, in ASCII: no control character is in it."""
    click.echo(json.dumps(value, separators=(",", ":")))


def wrapped(text: str, *, width: int, first: str = "", rest: str = "") -> Iterator[str]:
    """``text`` in lines of at most so many characters; longer words, and commands in ' ', stay in one piece."""
    import textwrap

    whole = COMMAND.sub(lambda command: command[0].replace(" ", _GLUE), plain(text))
    for line in textwrap.wrap(
        whole, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    ):
        yield line.replace(_GLUE, " ")


@contextmanager
def output() -> Iterator[None]:
    """UTF-8; whoever read our output may leave, and then so do we, without a word, as SIGPIPE would have it."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _close()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        _close()
        raise Failure(f"stdout cannot be written: {error.strerror}") from None


def _close() -> None:
    # Python would try once more at its end, to write what is left.
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
