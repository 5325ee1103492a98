"""``pubd top``: a screen that goes on: rates, what is held, latencies, lanes, and what is wrong."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import daemon, daemon_options
from pubd.cli.durations import Duration
from pubd.cli.failure import TRY_LATER, UNREACHABLE, USAGE, Failure
from pubd.cli.screen import Screen, json_line, output
from pubd.cli.source import is_terminal
from pubd.cli.top_view import Look, as_object, confirmed_by_exchange, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pubd.cli.daemon import Daemon
    from pubd.cli.top_view import Line

#: How far back the charts go at most.
LAST = "15m"
#: Seconds between the two looks of --once.
APART = 1.0
_KEYS = "q: quit  p: pause"


@click.command()
@click.option("-d", "--interval", type=Duration(), default="2s", show_default=True, help="Between two looks.")
@click.option("--once", is_flag=True, help="Look twice, a second apart, show it, and end; needs no terminal.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, one at each look; with --once only one.")
@daemon_options
def top(interval: float, once: bool, as_json: bool, **options: Any) -> None:
    """Show, again and again, what goes on: rates, what is held and how old it is, confirm latency, lanes, troubles.

    Keys: q quits, p pauses and goes on. While pubd is away the last look stays, and it goes on when it is back.

    Exit codes: 0 done, 1 refused, 2 usage, 3 pubd is not reachable (at the start), 75 try again later.
    """
    if not (once or as_json or (is_terminal(sys.stdout) and is_terminal(sys.stdin))):
        raise Failure(
            "there is no terminal: 'pubd top --once' shows it once, 'pubd top --json' as JSON Lines; "
            "'pubd status' says how pubd is",
            USAGE,
        )
    with daemon(options) as asked, output():
        try:
            before = look(asked)
            if once:
                time.sleep(APART)
                _show(look(asked), before, as_json)
            elif as_json:
                _go_on(asked, before, interval)
            else:
                _Live(asked, before, interval).run()
        except KeyboardInterrupt:
            # That is how it is ended.
            return


def look(asked: Daemon) -> Look:
    """Raises Failure."""
    status = asked.get("/status")
    return Look(
        at=time.monotonic(),
        status=status,
        history=asked.get("/history", last=LAST),
        confirmed=confirmed_by_exchange(asked.text("/metrics")),
    )


def _show(now: Look, before: Look | None, as_json: bool) -> None:
    if as_json:
        json_line(as_object(now, before))
        return
    screen = Screen()
    for line in lines(now, before, width=screen.width, height=None):
        screen.line(line.text, **({"fg": line.style} if line.style else {}), **({"bold": True} if line.bold else {}))


def _go_on(asked: Daemon, before: Look, interval: float) -> None:
    """Ends when pubd goes, or nobody reads."""
    while True:
        time.sleep(interval)
        now = look(asked)
        _show(now, before, as_json=True)
        sys.stdout.flush()
        before = now


class _Live:
    """The screen, its keys, and a daemon that may go and come back."""

    def __init__(self, asked: Daemon, first: Look, interval: float) -> None:
        self._asked = asked
        self._now, self._before = first, None if first is None else first
        self._interval = interval
        self._paused = False
        self._away = ""

    def run(self) -> None:
        """Until q."""
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False)
        with _keys() as key, Live(console=console, screen=True, auto_refresh=False) as live:
            # Rates soon: the first look alone has none.
            due = time.monotonic() + min(self._interval, APART)
            while True:
                live.update(self._drawn(console.size.width, console.size.height), refresh=True)
                pressed = key(max(0.0, min(due - time.monotonic(), 1.0)))
                if pressed in ("q", "Q", "\x03", "\x04"):
                    return
                if pressed in ("p", "P", " "):
                    self._paused = not self._paused
                if time.monotonic() >= due:
                    due = time.monotonic() + self._interval
                    if not self._paused:
                        self._look()

    def _look(self) -> None:
        try:
            now = look(self._asked)
        except Failure as failure:
            if failure.exit_code not in (UNREACHABLE, TRY_LATER):
                raise
            self._away = f"trying again: {failure.message}"
            return
        self._away = ""
        self._before, self._now = self._now, now

    def _drawn(self, width: int, height: int) -> Any:
        from rich.text import Text

        state = "PAUSED, p goes on" if self._paused else f"every {self._interval:g} s"
        title = f"pubd top  {state}  {_KEYS}"
        shown = lines(self._now, self._before, width=width, height=height - 1, note=self._away)
        text = Text(no_wrap=True, overflow="crop")
        text.append(f"{title[:width]:<{width}}\n", style="reverse")
        for line in shown:
            text.append(f"{line.text}\n", style=_style(line))
        text.rstrip()
        return text


def _style(line: Line) -> str:
    return " ".join(filter(None, ("bold" if line.bold else "", line.style)))


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key, and gives it, or an empty text."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def key(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        return sys.stdin.read(1) if ready else ""

    try:
        tty.setcbreak(fd)
        yield key
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
