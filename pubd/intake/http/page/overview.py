"""What is on the page, out of what pubd tells programs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pubd.findings import NEARLY, SLOW, is_healthy
from pubd.wording import age, messages, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.findings import Finding

#: Of each kind of thing, so many are shown; the others are counted.
MOST = 20
#: Columns of the table of what happened lately: seconds, and how they are called.
SPANS = ((5, "5 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"))
_RATES = ("accepted", "confirmed", "returned", "nacked", "lost")
_NOTHING: dict[str, Any] = {"accepted": None, "confirmed": None, "confirm_p99": None}


def overview(facts: dict[str, Any], found: Sequence[Finding], history: dict[str, Any]) -> dict[str, Any]:
    """Values for the template, all but those of what is parked. ``history`` is that of an hour."""
    now = moment(facts["time"])
    healthy = is_healthy([*found])
    books, spool = facts["books"], facts["spool"]
    lanes = sorted(facts["lanes"], key=_worst_first)
    columns = lately(history)
    return {
        "facts": facts,
        "now": now,
        "healthy": healthy,
        "icon": "healthy" if healthy else "unhealthy",
        "headline": _headline(found, healthy),
        "sentence": _sentence(facts),
        "findings": found[:MOST],
        "more_findings": max(0, len(found) - MOST),
        "peer": urlsplit(facts["link"]["url"]).netloc.rpartition("@")[2],
        "link_mood": {"ready": "good"}.get(facts["link"]["state"], "wrong"),
        "late": facts["oldest"] is not None and now - moment(facts["oldest"]) > SLOW,
        "full": bool(spool["max_bytes"]) and books["bytes"] > NEARLY * spool["max_bytes"],
        "newest": columns[0] if columns else _NOTHING,
        "lately": columns,
        "lanes": lanes[:MOST],
        "more_lanes": max(0, len(lanes) - MOST),
        "most": MOST,
    }


def _worst_first(lane: dict[str, Any]) -> tuple[bool, int, str]:
    return lane["reason"] is None and not lane["paused"], -lane["in_flight"], lane["exchange"]


def _headline(found: Sequence[Finding], healthy: bool) -> str:
    """For the title: what is wrong in a few words."""
    if healthy:
        return "Healthy"
    first = next(finding for finding in found if finding.bad)
    return f"NOT HEALTHY: {first.text[:80]}"


def _sentence(facts: dict[str, Any]) -> str:
    books = facts["books"]
    waiting = books["ready"] + books["in_flight"]
    rest = f"{messages(waiting)} on the way" if waiting else "nothing waits"
    return f"pubd accepts and publishes; {rest}. Up for {age(facts['uptime'])}."


def lately(history: dict[str, Any]) -> list[dict[str, Any]]:
    """A column for each span that reaches further back than the one before: means of rates, the worst of all else."""
    count, interval = len(history["time"]), history["interval"]
    columns: list[dict[str, Any]] = []
    before = 0
    for seconds, label in SPANS:
        samples = min(count, round(seconds / interval))
        if samples <= before:
            break
        before = samples
        part = {name: values[-samples:] for name, values in history.items() if isinstance(values, list)}
        column: dict[str, Any] = {name: sum(part[name]) / samples for name in _RATES}
        column |= {name: sum(part[name]) * interval for name in ("blocked", "down")}
        column |= {name: _most(part[name]) for name in ("confirm_p99", "oldest")}
        column["confirm_p50"] = _middle(part["confirm_p50"])
        column["waiting"] = max(map(sum, zip(part["ready"], part["in_flight"], strict=True)))
        column["label"] = label
        columns.append(column)
    return columns


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _middle(values: Sequence[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None
