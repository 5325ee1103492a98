"""Sending the lines of a file, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pubd.cli.feed import MAX_LINE, Line
from pubd.cli.report import Printer, Tally
from pubd.cli.submit import GivenUp, Result, Submission

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.cli.feed import Feed
    from pubd.cli.progress import Progress

_TOO_LONG = Result(
    said={
        "error": {"type": "too-large", "detail": f"the line is longer than {MAX_LINE} bytes; store its body elsewhere"}
    }
)


@attrs.frozen(kw_only=True)
class _Batch:
    """Lines and, for each that can be sent, what is sent."""

    lines: list[Line]
    prepared: list[bytes]


class Stream:
    """``prepare`` makes the JSON object of a line, with its key. One batch is on its way while the next is read."""

    def __init__(
        self,
        *,
        feed: Feed,
        submission: Submission,
        prepare: Callable[[int, bytes], bytes],
        printer: Printer,
        progress: Progress,
        tally: Tally,
    ) -> None:
        self._feed = feed
        self._submission = submission
        self._prepare = prepare
        self._printer = printer
        self._progress = progress
        self._tally = tally
        self._ahead: list[_Batch | None] = []
        """The next batch, when it was read in time; then None, if it is the end."""
        self._noted = ""
        self.answered = 0
        """The number of the last line that was answered, and before which all were."""

    def run(self) -> GivenUp | None:
        """To the end of the feed; or why not. Raises OSError for the feed, OutputClosed, OutputFailed."""
        batch = self._batch(self._feed.take())
        while batch is not None:
            position = self._feed.taken
            answered = self._submission.submit(batch.prepared, self._look_ahead, self._note)
            if answered.given_up is None:
                self.answered = batch.lines[-1].number
            self._report(batch, answered.results)
            if answered.given_up is not None:
                return answered.given_up
            self._noted = ""
            self._progress.update(self._tally, position)
            batch = self._ahead.pop() if self._ahead else self._batch(self._feed.take())
        return None

    def _look_ahead(self) -> None:
        lines = self._feed.take_ready()
        if lines is not None:
            self._ahead.append(self._batch(lines))

    def _batch(self, lines: list[Line]) -> _Batch | None:
        if not lines:
            return None
        prepare = self._prepare
        return _Batch(lines=lines, prepared=[prepare(at, raw) for at, raw in lines if raw is not None])

    def _report(self, batch: _Batch, answers: tuple[Result | None, ...]) -> None:
        """Count, and tell; lines without an answer are left out."""
        rest = iter(answers)
        told: list[tuple[int, Result]] = []
        for number, raw in batch.lines:
            result = _TOO_LONG if raw is None else next(rest)
            self._tally.sent += 1
            if result is not None:
                self._tally.count(result)
                told.append((number, result))
        self._printer.write(told)

    def _note(self, sentence: str) -> None:
        """Once for a batch and reason: it is said while it lasts, not each time it is tried again."""
        if sentence != self._noted:
            self._noted = sentence
            self._progress.say(f"{sentence}; trying again")
