"""Where messages come from: standard input, or a file."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.failure import INTERRUPTED, USAGE, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_all(limit: int) -> bytes:
    """Standard input up to its end, at most so many bytes. Raises Failure."""
    if sys.stdin is None:
        raise Failure("there is no standard input; give the body with -b", USAGE)
    if sys.stdin.isatty():
        click.echo("pubd: reading from the terminal; end with Ctrl-D on a line of its own", err=True)
    try:
        content = sys.stdin.buffer.read(limit + 1)
    except OSError as error:
        raise Failure(f"standard input cannot be read: {error.strerror}") from None
    except KeyboardInterrupt:
        raise Failure("interrupted; nothing was sent", INTERRUPTED) from None
    if len(content) > limit:
        raise Failure(f"standard input is more than {limit} bytes; split it, or store it elsewhere")
    return content


@contextmanager
def opened(name: str) -> Iterator[int]:
    """The descriptor of a file, ``-`` is standard input. Raises Failure."""
    if name == "-":
        if sys.stdin is None:
            raise Failure("there is no standard input; name a file", USAGE)
        yield sys.stdin.fileno()
        return
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Failure(f"{name!r} is no name of a file", USAGE) from None
    try:
        yield fd
    finally:
        os.close(fd)


def is_terminal(file: Any) -> bool:
    """Whether somebody looks at it."""
    with suppress(AttributeError, ValueError):
        return bool(file.isatty())
    return False
