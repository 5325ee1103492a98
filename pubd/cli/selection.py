"""Which messages: the options of ``pubd list``, and the same as ``--match NAME=VALUE`` of the commands that decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from pubd.cli.failure import USAGE, Failure
from pubd.cli.names import complete_exchange
from pubd.duration import NoDuration, seconds
from pubd.wording import exchange as exchange_name
from pubd.wording import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.cli.daemon import Daemon

_Command = TypeVar("_Command", bound="Callable[..., Any]")

STATES = ("ready", "deferred", "parked", "confirmed", "expired", "discarded")
#: What can be matched -> its name in the query, and how a person reads it.
NAMES = {
    "state": ("state", ""),
    "exchange": ("exchange", "for exchange"),
    "routing-key": ("routing_key", "with routing key"),
    "ordering-key": ("ordering_key", "with ordering key"),
    "reason": ("reason", "with reason"),
    "older-than": ("older_than", "older than"),
    "newer-than": ("newer_than", "newer than"),
}


@attrs.frozen
class Selection:
    """``given`` is by the names of :data:`NAMES`; nothing given: everything."""

    given: dict[str, str]

    @property
    def state(self) -> str | None:
        """The state, where one is given."""
        return self.given.get("state")

    def query(self, state: str | None = None) -> dict[str, str]:
        """For ``GET /messages`` and ``/messages/count``; in ``state``, if that is given."""
        found = {NAMES[name][0]: value for name, value in self.given.items()}
        if found.get("exchange") == "amq.default":
            found["exchange"] = ""
        return found | ({"state": state} if state is not None else {})

    def __str__(self) -> str:
        """After ``messages``: ``that are parked for exchange orders, with reason 312``."""
        state = f" that are {self.state}" if self.state is not None else ""
        return state + self.rest

    @property
    def rest(self) -> str:
        """The same but for the state."""
        said = []
        for name, value in self.given.items():
            if name != "state":
                shown = exchange_name(value) if name == "exchange" else plain(value)
                said.append(f"{NAMES[name][1]} {shown}")
        return f" {', '.join(said)}" if said else ""

    @property
    def options(self) -> str:
        """As options of ``pubd list``."""
        return "".join(f" --{name} {plain(value)}" for name, value in self.given.items())


def selection(options: dict[str, Any], states: Sequence[str] = STATES) -> Selection:
    """Takes the options of this module out of ``options``. Raises Failure for what cannot be matched."""
    given: dict[str, str] = {}
    for name in NAMES:
        value = options.pop(name.replace("-", "_"), None)
        if value is not None:
            given[name] = value
    for match in options.pop("match", ()):
        name, there, value = match.partition("=")
        name = name.strip().replace("_", "-")
        if not there or name not in NAMES:
            raise Failure(
                f"--match takes NAME=VALUE with one of the names {', '.join(NAMES)}; not {plain(match)!r}", USAGE
            )
        if name in given:
            raise Failure(f"{name} is given twice; give it once", USAGE)
        given[name] = value
    state = given.get("state")
    if state is not None and state not in states:
        raise Failure(f"the state can be {' or '.join(states)} here, not {plain(state)!r}", USAGE)
    for name in ("older-than", "newer-than"):
        if name in given:
            try:
                seconds(given[name])
            except NoDuration as error:
                raise Failure(f"{name} {error.sentence}", USAGE) from None
    return Selection(given)


def match_option(command: _Command) -> _Command:
    """Adds ``--match``."""
    return click.option(
        "-m",
        "--match",
        multiple=True,
        metavar="NAME=VALUE",
        help=f"All that match; repeated: all of it has to be so. The names are those of the options of 'pubd list': "
        f"{', '.join(NAMES)}.",
    )(command)


def selection_options(command: _Command) -> _Command:
    """Adds an option for each name, and ``--match``."""
    for option in (
        click.option("--newer-than", metavar="DURATION", help="Only those accepted since: 5m, 1h30m, 2d."),
        click.option("--older-than", metavar="DURATION", help="Only those accepted before that long."),
        click.option("--reason", metavar="TEXT", help="Only with this reply code, or this in the reason's words."),
        click.option("--ordering-key", metavar="KEY", help="Only those with this ordering key."),
        click.option(
            "-r",
            "--routing-key",
            metavar="PATTERN",
            help="Only those whose routing key matches, as a topic binding would.",
        ),
        click.option(
            "-e",
            "--exchange",
            shell_complete=complete_exchange,
            help="Only those for this exchange; amq.default is the default exchange.",
        ),
        click.option("--state", type=click.Choice(STATES), help="Only those in this state."),
    ):
        command = option(command)
    return match_option(command)


def counted(daemon: Daemon, query: dict[str, str]) -> int:
    """How many there are now, piece by piece. Raises Failure."""
    count: int = 0
    after: str | None = None
    while True:
        answer = daemon.get("/messages/count", **query, after=after)
        count += answer["count"]
        before, after = after, answer["next"]
        if after is None or after == before:
            return count
