"""What became of the messages: ids or JSON on stdout, sentences on stderr, counts, and the exit code."""

from __future__ import annotations

import json
import os
import sys
from enum import Enum
from typing import IO, TYPE_CHECKING, Protocol

import attrs

from pubd.cli.failure import NOT_CONFIRMED, REFUSED, TRY_LATER
from pubd.cli.submit import SETTLED_TYPES, Result

if TYPE_CHECKING:
    from collections.abc import Iterable


class Output(Enum):
    """What goes to stdout for each message."""

    IDS = "ids"
    JSON = "json"
    NONE = "none"


class OutputClosed(Exception):
    """Whoever read stdout does not any more."""


class OutputFailed(Exception):
    """stdout cannot be written; the sentence says why."""


@attrs.define(kw_only=True)
class Tally:
    """Messages so far: each that was sent is in one of the others, or has no answer yet.

    ``stored`` are those not known to be settled; ``unsettled`` were stored, but returned, parked, expired or discarded.
    """

    wait: bool = False
    sent: int = 0
    stored: int = 0
    confirmed: int = 0
    unsettled: int = 0
    refused: int = 0

    def count(self, result: Result) -> None:
        """One more answer."""
        if result.type in SETTLED_TYPES:
            self.unsettled += 1
        elif result.error:
            self.refused += 1
        elif result.state == "confirmed":
            self.confirmed += 1
        else:
            self.stored += 1

    @property
    def code(self) -> int:
        """The exit code for these answers."""
        if self.refused:
            return REFUSED
        if self.unsettled:
            return NOT_CONFIRMED
        return TRY_LATER if self.wait and self.stored else 0

    def __str__(self) -> str:
        parts = [f"{self.sent} sent"]
        if self.wait:
            parts += [f"{self.confirmed} confirmed", f"{self.unsettled} returned or parked"] if self.unsettled else []
            parts += [] if self.unsettled else [f"{self.confirmed} confirmed"]
            parts += [f"{self.stored} stored, but not confirmed in time"] if self.stored else []
        else:
            parts.append(f"{self.stored + self.confirmed} stored")
        parts.append(f"{self.refused} refused")
        return ", ".join(parts)


class Say(Protocol):
    """Writes one line for a person."""

    def __call__(self, sentence: str) -> None:
        """``sentence`` has no line break in it."""


class Printer:
    """Writes results to ``stdout`` (None: it is closed) and what is wrong with ``say``.

    Raises OutputClosed and OutputFailed.
    """

    def __init__(self, stdout: IO[str] | None, output: Output, say: Say, *, numbered: bool) -> None:
        self._stdout = stdout
        self._output = output
        self._say = say
        self._numbered = numbered

    def write(self, results: Iterable[tuple[int, Result]]) -> None:
        """Each with the number of its line."""
        rows: list[str] = []
        for number, result in results:
            if result.error:
                where = f"line {number}: " if self._numbered else ""
                self._say(f"{where}{result.sentence}")
            if self._output is Output.JSON:
                line = {"line": number} if self._numbered else {}
                rows.append(json.dumps(line | result.said))
            elif self._output is Output.IDS and result.id is not None:
                rows.append(result.id)
        if rows and self._stdout is not None:
            self._print(self._stdout, "\n".join(rows) + "\n")

    def _print(self, stdout: IO[str], text: str) -> None:
        try:
            stdout.write(text)
            stdout.flush()
        except BrokenPipeError:
            close_quietly()
            raise OutputClosed from None
        except OSError as error:
            close_quietly()
            raise OutputFailed(f"standard output cannot be written: {error.strerror}") from None


def close_quietly() -> None:
    """Python would try once more, at its end, to write what is left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
