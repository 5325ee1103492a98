"""Schedules: when a message is made by itself, and what it says. Pure: the time is an argument, there is no clock.

Cron expressions are evaluated by cronsim, which keeps to Debian's cron where clocks are changed for daylight saving.
"""

from __future__ import annotations

import difflib
import enum
import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo, available_timezones

import attrs
from cronsim import CronSim, CronSimError

from pubd.errors import InvalidOption
from pubd.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pubd.fields import FieldValue

FIELDS = "minute hour day-of-month month day-of-week"
_TAKES = {
    "second": "0 to 59, or *",
    "minute": "0 to 59, or *",
    "hour": "0 to 23, or *",
    "day-of-month": "1 to 31, L, or *",
    "month": "1 to 12, JAN to DEC, or *",
    "day-of-week": "0 to 7, SUN to SAT, or *",
}
#: What cron(8) calls nicknames; @reboot has no time of its own.
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LONGEST = 500
# Any moment does; a fixed one, so that what is valid does not depend on when it is asked.
_REFERENCE = datetime(2024, 1, 1, tzinfo=UTC).timestamp()

#: What a body may name between braces.
NAMES = ("epoch", "now", "seq", "hostname")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")


class Missed(enum.Enum):
    """What becomes of runs whose time passed while pubd was down or too busy."""

    SKIP = "skip"
    """They are dropped."""
    ONCE = "once"
    """One run is made up for all of them."""


class Timing(Protocol):
    """When a schedule runs."""

    def next_after(self, now: float) -> float:
        """The first time later than ``now``, both in epoch seconds; ``math.inf`` if there is none."""


@attrs.frozen
class Every:
    """Every so many seconds, counted from ``anchor`` (epoch seconds): restarts do not shift the times."""

    seconds: float = attrs.field()
    anchor: float = 0.0

    @seconds.validator
    def _check(self, _: attrs.Attribute[Any], value: float) -> None:
        if not 0.001 <= value < math.inf:
            raise InvalidOption(f"every: must be a millisecond or more, not {value:g} s")

    def next_after(self, now: float) -> float:
        """See :class:`Timing`."""
        turn = math.floor((now - self.anchor) / self.seconds) + 1
        # One more where rounding has led back to now.
        later = (self.anchor + (turn + more) * self.seconds for more in (0, 1))
        return next((each for each in later if each > now), math.nextafter(now, math.inf))


@attrs.frozen
class Cron:
    """Five fields as in crontab(5), or six with seconds first, in a time zone of the IANA database.

    Where minute and hour are both fixed, a time that daylight saving skips runs right after the gap, and one that
    comes twice runs once, the first time. With ``*`` in either, the runs follow real time through both changes.
    """

    expression: str
    timezone: str = "UTC"
    _zone: ZoneInfo = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_zone", _zone(self.timezone))
        text = self.expression
        try:
            first = self.next_after(_REFERENCE) if len(text) <= _LONGEST else None
        except CronSimError as error:
            raise InvalidOption(f"cron: {_cron_problem(text, str(error))}") from None
        except (ValueError, AssertionError):  # digits without end, and what cronsim has not foreseen
            first = None
        if first is None:
            raise InvalidOption(f"cron: this is not a cron expression; write the five fields {FIELDS}")
        if first == math.inf:
            raise InvalidOption(f"cron: {text!r} never comes; check day and month")

    def next_after(self, now: float) -> float:
        """See :class:`Timing`."""
        expression = NICKNAMES.get(self.expression.strip().lower(), self.expression)
        # cronsim gives a time that comes twice as its first occurrence, which may have passed already.
        for moment in CronSim(expression, datetime.fromtimestamp(now, self._zone)):
            at = moment.timestamp()
            if at > now:
                return at
        return math.inf


@lru_cache
def _zones() -> tuple[str, ...]:
    """All names; found by reading directories, which takes its time."""
    return tuple(available_timezones())


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        near = difflib.get_close_matches(name[:60], _zones(), 1)
        fix = f"did you mean {near[0]}?" if near else "use a name such as Europe/Berlin or UTC"
        raise InvalidOption(f"timezone: there is no {name[:60]!r} in the time zone database; {fix}") from None


def _cron_problem(text: str, problem: str) -> str:
    if text.strip().startswith("@"):
        near = difflib.get_close_matches(text.strip().lower(), NICKNAMES, 1)
        return f"{text!r} is not known; " + (f"did you mean {near[0]}?" if near else f"use {', '.join(NICKNAMES)}")
    if problem.startswith("Bad "):
        field = problem[4:]
        return f"{text!r} has a wrong {field}: it takes {_TAKES.get(field, '*')}; the five fields are {FIELDS}"
    return f"{text!r} has {len(text.split())} fields; write five: {FIELDS}"


@attrs.frozen
class Template:
    """A text with ``{epoch}``, ``{now}``, ``{seq}`` and ``{hostname}`` in it; ``{{`` and ``}}`` are braces.

    Nothing else is looked up or evaluated. ``parse`` raises :class:`pubd.errors.InvalidOption` for an unknown name.
    """

    text: str
    _parts: tuple[tuple[str, str], ...] = attrs.field(repr=False, eq=False)
    """Literal text, and the name that follows it ("" for none)."""

    @classmethod
    def parse(cls, text: str) -> Template:
        """Check the names and braces of ``text``."""
        parts, literal, end = [], "", 0
        for match in _TOKEN.finditer(text):
            token, name = match.group(), match.group(1)
            literal += text[end : match.start()]
            end = match.end()
            if token in ("{{", "}}"):
                literal += token[0]
            elif name in NAMES:
                parts.append((literal, name))
                literal = ""
            else:
                raise InvalidOption(_template_problem(token, name))
        return cls(text, (*parts, (literal + text[end:], "")))

    def render(self, *, now: float, seq: int, hostname: str) -> str:
        """The text at ``now`` (epoch seconds): {epoch} is whole seconds, {now} ISO 8601 in UTC with milliseconds."""
        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        values = {"epoch": str(math.floor(now)), "now": moment, "seq": str(seq), "hostname": hostname, "": ""}
        return "".join(literal + values[name] for literal, name in self._parts)


def _template_problem(token: str, name: str | None) -> str:
    known = ", ".join(f"{{{each}}}" for each in NAMES)
    braces = "a brace itself is written twice, {{ or }}"
    if name is None:
        return f"a {token} stands alone; {braces}"
    near = difflib.get_close_matches(name, NAMES, 1)
    hint = f"did you mean {{{near[0]}}}? " if near else ""
    return f"{{{name[:40]}}} is not known; {hint}known are {known}, and {braces}"


_EMPTY = Template.parse("")


@attrs.frozen(kw_only=True)
class Schedule:
    """A message made by itself, again and again. ``persistent`` and ``mandatory`` None leave it to the publisher;
    ``ttl`` is in seconds."""

    name: str
    when: Every | Cron
    exchange: str
    missed: Missed = Missed.SKIP
    routing_key: str = ""
    body: Template = _EMPTY
    content_type: str | None = None
    headers: Mapping[str, FieldValue] | None = None
    type: str | None = None
    app_id: str | None = None
    priority: int | None = None
    ttl: float | None = None
    ordering_key: str | None = None
    persistent: bool | None = None
    mandatory: bool | None = None

    def message(self, *, now: float, seq: int, hostname: str) -> Message:
        """Run number ``seq`` at ``now`` (epoch seconds). Raises :class:`pubd.errors.InvalidMessage`."""
        return Message(
            exchange=self.exchange,
            routing_key=self.routing_key,
            body=self.body.render(now=now, seq=seq, hostname=hostname).encode("utf-8", "surrogateescape"),
            content_type=self.content_type,
            headers=self.headers,
            type=self.type,
            app_id=self.app_id,
            priority=self.priority,
            ttl=self.ttl,
            ordering_key=self.ordering_key,
            delivery_mode=None if self.persistent is None else 2 if self.persistent else 1,
            mandatory=self.mandatory,
        )
