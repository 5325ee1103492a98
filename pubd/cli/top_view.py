"""What ``pubd top`` shows, as lines of a width and height: from two looks at the daemon and its history. Pure."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any

import attrs

from pubd.cli.screen import Column, fitted, widths, wrapped
from pubd.findings import findings, is_healthy
from pubd.wording import age, exchange, moment, octets, plain, reason, short_reason, since

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Rates that are shown, by what counts them in the status.
RATES = (
    ("accepted", "books", "accepted"),
    ("confirmed", "books", "confirmed"),
    ("returned", "deliveries", "returned"),
    ("nacked", "deliveries", "nacked"),
    ("lost", "deliveries", "lost"),
)
#: Lines of the history, by their names there.
CHARTS = (("confirmed/s", "confirmed"), ("ready", "ready"), ("confirm p99", "confirm_p99"))
_BARS = " ▁▂▃▄▅▆▇█"
_SAMPLE = re.compile(r'^pubd_deliveries_total\{exchange="((?:[^"\\]|\\.)*)",outcome="confirmed"\} ([0-9.e+]+)', re.M)
#: From this width on there is room for the bytes in flight.
WIDE = 100


@attrs.frozen(kw_only=True)
class Look:
    """``at``: seconds of a clock that only goes forward. ``status`` and ``history`` as the daemon answers."""

    at: float
    status: dict[str, Any]
    history: dict[str, Any]
    confirmed: dict[str, float]
    """By exchange, since the start of the daemon."""


@attrs.frozen
class Line:
    """``style`` is rich's and click's word for a colour, empty for none."""

    text: str
    style: str = ""
    bold: bool = False


def confirmed_by_exchange(metrics: str) -> dict[str, float]:
    """From the text of ``/metrics``; the default exchange is amq.default there."""
    found = {}
    for name, value in _SAMPLE.findall(metrics):
        found[re.sub(r"\\(.)", lambda each: "\n" if each[1] == "n" else each[1], name)] = float(value)
    return found


def rates(now: Look, before: Look | None) -> dict[str, float | None]:
    """Messages (deliveries for the last three) a second between two looks; None where there is nothing to compare."""
    seconds = now.at - before.at if before is not None else 0.0
    found: dict[str, float | None] = {}
    for name, part, key in RATES:
        if before is None or seconds <= 0 or before.status["pid"] != now.status["pid"]:
            found[name] = None
        else:
            found[name] = max(now.status[part][key] - before.status[part][key], 0) / seconds
    return found


def as_object(now: Look, before: Look | None) -> dict[str, Any]:
    """For ``--json``: what the screen shows."""
    status, history = now.status, now.history
    found = findings(status)
    return {
        "time": status["time"],
        "healthy": is_healthy(found),
        "rates": {name: round(rate, 3) if rate is not None else None for name, rate in rates(now, before).items()},
        "books": status["books"],
        "oldest": status["oldest"],
        "confirm_p50": _last(history, "confirm_p50"),
        "confirm_p99": _last(history, "confirm_p99"),
        "link": status["link"],
        "lanes": [lane | {"confirmed": _lane_rate(lane, now, before)} for lane in status["lanes"]],
        "findings": [each.as_json() for each in found],
    }


def lines(now: Look, before: Look | None, *, width: int, height: int | None, note: str = "") -> list[Line]:
    """At most ``height`` lines of at most ``width`` cells; ``note`` (why there is no newer look, say) is the first."""
    status = now.status
    found = findings(status)
    healthy = is_healthy(found)
    head = [Line(text, "yellow") for text in _whole(note, width, "", "")] if note else []
    head.append(Line("healthy" if healthy else "NOT HEALTHY", "green" if healthy else "red", bold=True))
    head += _facts(now, before)
    charts = list(_charts(now.history, width))
    told = []
    for each in found:
        style = "red" if each.bad else "yellow"
        told += [Line(text, style) for text in _whole(each.text, width, "! " if each.bad else "- ", "  ")]
        told += [Line(text) for text in _whole(each.advice, width, "  -> ", "     ")]
    room = None if height is None else height - len(head) - len(charts) - min(len(told), 10) - 2
    lanes = list(_lanes(now, before, width, room))
    body = [*head, *charts, *([Line("")] if lanes else []), *lanes, *([Line("")] if told else []), *told]
    return [attrs.evolve(line, text=fitted(line.text, width, False).rstrip()) for line in body[:height]]


def _whole(text: str, width: int, first: str, rest: str) -> Iterator[str]:
    """In lines; a command that is longer than one goes on in the next."""
    for line in wrapped(text, width=width, first=first, rest=rest):
        yield from (
            textwrap.wrap(line, width, subsequent_indent=rest, drop_whitespace=False) if len(line) > width else [line]
        )


def _facts(now: Look, before: Look | None) -> Iterator[Line]:
    status = now.status
    link, books, spool = status["link"], status["books"], status["spool"]
    at = moment(status["time"])
    yield Line(f"pubd      {plain(status['version'])}, up for {age(status['uptime'])}, at {status['time'][11:19]} UTC")
    if link["blocked"] is not None:
        yield Line(f"link      BLOCKED: RabbitMQ says: {plain(link['blocked'])}", "red")
    elif link["state"] != "ready":
        yield Line(f"link      {plain(link['state'])}: {plain(link['url'])}; {reason(link['reason'])}", "red")
    else:
        yield Line(f"link      ready: {plain(link['url'])}")
    yield Line(f"rates     {', '.join(f'{name} {_rate(rate)}' for name, rate in rates(now, before).items())}")
    oldest = f"; oldest {since(status['oldest'], at)}" if status["oldest"] is not None else ""
    parked = "red" if books["parked"] else ""
    yield Line(
        f"messages  {books['ready']:,} ready{oldest}, {books['in_flight']:,} in flight, "
        f"{books['deferred']:,} deferred, {books['parked']:,} parked",
        parked,
    )
    p50, p99 = _last(now.history, "confirm_p50"), _last(now.history, "confirm_p99")
    yield Line(f"confirms  half within {_took(p50)}, 99 of 100 within {_took(p99)}")
    most = f" of {octets(spool['max_bytes'])}" if spool["max_bytes"] is not None else ""
    free = f", {octets(spool['free'])} free on its disk" if spool["free"] is not None else ""
    answers = "" if spool["answers"] else "; IT DOES NOT ANSWER"
    yield Line(f"spool     {octets(books['bytes'])}{most}{free}{answers}", "" if spool["answers"] else "red")


def _charts(history: dict[str, Any], width: int) -> Iterator[Line]:
    """The newest samples to the right; the highest one is a full bar, and is told."""
    room = width - 10 - 12
    span = age(room * history["interval"])
    for title, name in CHARTS:
        values = [value or 0.0 for value in history[name][-room:]]
        if not values:
            continue
        top = max(values)
        bars = "".join(_BARS[0 if not value else max(1, round(value / top * 8))] for value in values) if top else ""
        most = _took(top) if name.startswith("confirm_") else f"{top:,.0f}"
        yield Line(f"{title:<12}{bars:>{room}} {most}"[: width + 12], "cyan")
    if history["time"]:
        yield Line(f"{'':<12}{f'the last {span}, highest at the right':<{room}}")


def _lanes(now: Look, before: Look | None, width: int, room: int | None) -> Iterator[Line]:
    """Those with something to say first, then the busiest."""
    lanes = now.status["lanes"]
    ordered = sorted(lanes, key=lambda lane: (lane["reason"] is None, -lane["in_flight"], lane["exchange"]))
    most = len(ordered) if room is None else max(room - 1, 3)
    wide = width >= WIDE
    columns = (
        Column("EXCHANGE", share=2),
        Column("LANE", width=9),
        Column("CONFIRMED/S", width=11, right=True),
        Column("IN FLIGHT", width=9, right=True),
        *((Column("BYTES", width=10, right=True),) if wide else ()),
        Column("RABBITMQ'S REASON", share=3),
    )
    rows = [
        (
            exchange(lane["exchange"]),
            plain(lane["state"]),
            _rate(_lane_rate(lane, now, before)),
            f"{lane['in_flight']:,}",
            *((octets(lane["bytes"]),) if wide else ()),
            short_reason(lane["reason"]) + (f" ({lane['suspects']:,} suspects)" if lane["suspects"] else ""),
        )
        for lane in ordered[:most]
    ]
    if not rows:
        return
    cells = widths(columns, rows, width)
    titles = [fitted(each.title, cell, each.right) for each, cell in zip(columns, cells, strict=True)]
    yield Line(" ".join(titles), bold=True)
    for row, lane in zip(rows, ordered, strict=False):
        fitting = [fitted(each, cell, column.right) for each, cell, column in zip(row, cells, columns, strict=True)]
        yield Line(" ".join(fitting), "" if lane["state"] == "open" and lane["reason"] is None else "red")
    if len(ordered) > most:
        yield Line(f"and {len(ordered) - most:,} more: pubd status --json")


def _lane_rate(lane: dict[str, Any], now: Look, before: Look | None) -> float | None:
    name = lane["exchange"] or "amq.default"
    if before is None or now.at <= before.at or name not in now.confirmed:
        return None
    return round(max(now.confirmed[name] - before.confirmed.get(name, 0.0), 0.0) / (now.at - before.at), 3)


def _last(history: dict[str, Any], name: str) -> float | None:
    values: Sequence[float | None] = history[name]
    return values[-1] if values else None


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:,.0f}/s" if rate >= 10 or rate == 0 else f"{rate:.1f}/s"


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
