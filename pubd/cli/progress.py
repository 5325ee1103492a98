"""How far a long command is: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pubd.cli.report import Tally

#: Seconds between two lines where there is no terminal.
EVERY = 10.0


class Progress(Protocol):
    """A context manager; ``done`` and ``total`` are bytes of the input, the latter None when nobody knows."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Show no more."""

    def update(self, tally: Tally, done: int) -> None:
        """So far."""

    def say(self, sentence: str) -> None:
        """A line that stays."""


def duration(seconds: float) -> str:
    """For people: ``0.5 s``, ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def summary(tally: Tally, seconds: float) -> str:
    """The counts and the rate."""
    rate = f", {tally.sent / seconds:.0f}/s" if seconds > 0 and tally.sent else ""
    return f"{tally} ({duration(seconds)}{rate})"


class Lines:
    """A line every ten seconds (``every``) by ``clock``, and no line at all for what ends sooner."""

    def __init__(self, *, total: int | None, clock: Callable[[], float], every: float = EVERY) -> None:
        self._total = total
        self._clock = clock
        self._every = every
        self._start = self._last = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def update(self, tally: Tally, done: int) -> None:
        """See Progress."""
        now = self._clock()
        if now - self._last < self._every:
            return
        self._last = now
        text = summary(tally, now - self._start)
        if self._total and done:
            left = (now - self._start) * max(self._total - done, 0) / done
            text += f"; {100 * done // self._total} %, {duration(left)} left"
        self.say(text)

    def say(self, sentence: str) -> None:
        """See Progress."""
        click.echo(f"pubd: {sentence}", err=True)


class Quiet(Lines):
    """Says only what is wrong."""

    def update(self, tally: Tally, done: int) -> None:
        """Nothing."""


class Bar:
    """A bar of rich's on stderr: what was sent, stored, confirmed and refused, the rate, and the time that is left."""

    def __init__(self, *, total: int | None) -> None:
        # Loaded only where there is a terminal to draw on.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            ProgressColumn,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Rich

        known: tuple[ProgressColumn, ...] = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        unknown: tuple[ProgressColumn, ...] = (SpinnerColumn(), TimeElapsedColumn())
        self._console = Console(stderr=True)
        columns = known if total else unknown
        self._rich: Any = Rich(TextColumn("{task.description}"), *columns, console=self._console)
        self._task = self._rich.add_task("sending", total=total or None)

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._rich.stop()

    def update(self, tally: Tally, done: int) -> None:
        """See Progress."""
        elapsed = self._rich.tasks[0].elapsed or 0.0
        rate = f"  {tally.sent / elapsed:.0f}/s" if elapsed > 0.5 else ""
        self._rich.update(self._task, completed=done, description=f"{tally}{rate}")

    def say(self, sentence: str) -> None:
        """See Progress."""
        self._console.print(f"pubd: {sentence}", markup=False, highlight=False, soft_wrap=True)


def progress(
    *, is_terminal: bool, quiet: bool, total: int | None, clock: Callable[[], float], every: float = EVERY
) -> Progress:
    """The one that fits."""
    if quiet:
        return Quiet(total=total, clock=clock)
    return Bar(total=total) if is_terminal else Lines(total=total, clock=clock, every=every)
