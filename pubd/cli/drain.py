"""``pubd drain``: pubd takes nothing more and publishes what it has; the command says how far it is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import daemon, daemon_options
from pubd.cli.durations import Duration
from pubd.cli.failure import INTERRUPTED, NOT_CONFIRMED, TRY_LATER, UNREACHABLE, USAGE, Failure
from pubd.cli.screen import json_line, output
from pubd.cli.source import is_terminal
from pubd.findings import findings
from pubd.wording import messages

if TYPE_CHECKING:
    from pubd.cli.daemon import Daemon

#: Seconds between looks, and without progress until it is said why.
LOOK, STUCK = 0.5, 5.0
_RESUME = "'pubd drain --resume' has it accept again"


@click.command()
@click.option("--stop", is_flag=True, help="End the daemon when nothing is left.")
@click.option("--resume", is_flag=True, help="Accept messages again; give up ending the daemon.")
@click.option("--ignore-deferred", is_flag=True, help="Do not wait for messages that are to be published later.")
@click.option("--within", type=Duration(), help="Wait no longer than this. [default: as long as it takes]")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: how far it is.")
@daemon_options
def drain(stop: bool, resume: bool, ignore_deferred: bool, within: float | None, as_json: bool, **options: Any) -> None:
    """Have pubd accept nothing more and publish what it has; wait until nothing is left.

    Submissions are refused meanwhile (503), and schedules drop their runs. Afterwards pubd goes on refusing, until it
    is stopped, started anew, or told --resume. Parked messages stay: they wait for a person.

    Exit codes: 0 nothing is left, 1 refused, 2 usage, 3 pubd is not reachable, 4 nothing but parked messages is left,
    75 not within that time, 130 interrupted. In the last two cases pubd goes on draining.
    """
    if resume and (stop or ignore_deferred or within is not None):
        raise Failure("--resume goes alone", USAGE)
    with daemon(options) as asked, output():
        if resume:
            found = asked.delete("/drain")
            json_line(found) if as_json else click.echo("pubd accepts messages again")
            return
        until = time.monotonic() + within if within is not None else None
        try:
            found = asked.post("/drain", {"stop": stop, "deferred": not ignore_deferred})
            found = _wait(asked, found, until, stop, as_json)
        except KeyboardInterrupt:
            raise Failure(f"interrupted; pubd goes on draining, {_RESUME}", INTERRUPTED) from None
        if not as_json:
            click.echo("nothing is left to publish; pubd " + ("ends" if stop else f"accepts nothing, {_RESUME}"))
    if found["parked"]:
        then = "see them, once it runs again," if stop else "see them"
        raise Failure(
            f"{messages(found['parked'])} parked, which wait for a person: {then} with 'pubd list --state parked'",
            NOT_CONFIRMED,
        )


def _wait(asked: Daemon, found: dict[str, Any], until: float | None, stop: bool, as_json: bool) -> dict[str, Any]:
    """What is known when nothing is left. Raises Failure when the time is up, or somebody had pubd accept again."""
    progress = _Progress(asked, as_json)
    while True:
        progress.show(found)
        if not found["left"]:
            progress.end()
            return found
        if not found["draining"]:
            progress.end()
            raise Failure("somebody else had pubd accept messages again; it is not drained")
        if until is not None and time.monotonic() >= until:
            progress.end()
            raise Failure(f"{_left(found)} after that time; pubd goes on draining, {_RESUME}", TRY_LATER)
        time.sleep(LOOK)
        try:
            found = asked.get("/drain")
        except Failure as failure:
            progress.end()
            if stop and failure.exit_code in (UNREACHABLE, TRY_LATER):
                # It may have ended between two looks.
                click.echo(f"pubd: when it was asked last, there was {_left(found)}", err=True)
                return found
            raise


def _left(found: dict[str, Any]) -> str:
    return (
        f"{messages(found['left'])} left ({found['ready']:,} ready, {found['in_flight']:,} in flight, "
        f"{found['deferred']:,} deferred)"
    )


class _Progress:
    """On a terminal a line that is written over; and, when nothing goes on, why."""

    def __init__(self, asked: Daemon, as_json: bool) -> None:
        self._asked = asked
        self._as_json = as_json
        self._shown = not as_json and is_terminal(sys.stderr)
        self._last: tuple[int, float] = (-1, time.monotonic())
        self._told = ""

    def show(self, found: dict[str, Any]) -> None:
        """So far it is."""
        if self._as_json:
            json_line(found)
        elif self._shown:
            click.echo(f"\r\033[K{_left(found)}", err=True, nl=False)
        left, since = self._last
        now = time.monotonic()
        if found["left"] != left:
            self._last = (found["left"], now)
        elif found["left"] and now - since >= STUCK:
            self._last = (left, now)
            self._tell(found)

    def end(self) -> None:
        """The line goes."""
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)

    def _tell(self, found: dict[str, Any]) -> None:
        bad = [each for each in findings(self._asked.get("/status")) if each.bad and "draining" not in each.text]
        why = f"{bad[0].text}; {bad[0].advice}" if bad else ""
        if not why and found["deferred"] and not found["ready"] and not found["in_flight"]:
            why = "only deferred messages are left: 'pubd list --state deferred' says for when; or --ignore-deferred"
        if why and why != self._told:
            self._told = why
            self.end()
            click.echo(f"pubd: {why}", err=True)
