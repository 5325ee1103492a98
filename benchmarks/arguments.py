"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rabbitmq import Node

if TYPE_CHECKING:
    from collections.abc import Iterator


def parser(name: str, description: str | None, *, messages: int, messages_of: str = "") -> argparse.ArgumentParser:
    """With --messages, --body, --json, and the hidden --run by which a benchmark starts itself for one run."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("--messages", type=int, default=messages, metavar="N", help=f"{messages_of}{messages}")
    made.add_argument("--body", type=int, default=100, metavar="BYTES", help="100")
    made.add_argument("--json", action="store_true", help="one JSON document with every sample")
    made.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    return made


def add_rounds(made: argparse.ArgumentParser, first: str) -> None:
    """--rounds and --only, for those that compare; ``first`` is what all are compared with."""
    made.add_argument("--rounds", type=int, default=3, metavar="N", help="the median of so many; 3")
    made.add_argument("--only", metavar="TEXT", help=f"{first}, and contenders with this in their names")


def add_spool(made: argparse.ArgumentParser) -> None:
    """--dir, for those with a durable spool that is compared: ``spool_directory`` makes it."""
    made.add_argument("--dir", type=Path, default=Path("var"), help="where the spool's file is made; var/")


def spool_directory(given: Path) -> Path:
    """The directory of --dir, absolute; made where it is missing."""
    directory = given.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def numbers(text: str) -> list[int]:
    """ "1,10,100", all above 0; raises ValueError for anything else."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """The URL of the broker: that of PUBD_BROKER_URL, or of a private one that ends with this."""
    given = os.environ.get("PUBD_BROKER_URL")
    if given:
        yield given
        return
    with Node() as node:
        yield node.url
