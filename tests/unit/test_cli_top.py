"""What `pubd top` shows, for widths and heights, and with whatever the daemon says."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pubd.cli.top_view import Look, as_object, confirmed_by_exchange, lines, rates

HOSTILE = "\x1b[2J\x1b]0;owned\x07"


def lane(exchange: str, **more: Any) -> dict[str, Any]:
    return {
        "exchange": exchange,
        "state": "open",
        "reason": None,
        "in_flight": 0,
        "bytes": 0,
        "suspects": 0,
    } | more


def status(**more: Any) -> dict[str, Any]:
    books = dict.fromkeys(
        ("accepted", "confirmed", "expired", "discarded", "ready", "deferred", "parked", "in_flight", "held", "bytes"),
        0,
    )
    return {
        "version": "1.2.3",
        "pid": 1,
        "time": "2026-11-23T12:00:00.000Z",
        "uptime": 7200.0,
        "accepting": True,
        "refusal": None,
        "troubles": [],
        "link": {"state": "ready", "url": "amqp://u:***@h/%2F", "reason": None, "blocked": None},
        "refused": [],
        "lanes": [],
        "books": books | {"difference": 0} | more.pop("books", {}),
        "deliveries": dict.fromkeys(("published", "pending", "acked", "nacked", "returned", "lost", "poison"), 0)
        | more.pop("deliveries", {}),
        "oldest": None,
        "spool": {
            "path": "/s",
            "answers": True,
            "max_bytes": 1 << 30,
            "max_messages": None,
            "min_free": None,
            "free": 1 << 40,
            "retain": 3600.0,
        },
        "intakes": [],
    } | more


def history(count: int = 0) -> dict[str, Any]:
    return {
        "interval": 5.0,
        "last": count - 1,
        "time": [float(n) for n in range(count)],
        "confirmed": [float(n) for n in range(count)],
        "ready": [0] * count,
        "confirm_p50": [0.001] * count,
        "confirm_p99": [None, *[0.01] * (count - 1)] if count else [],
    }


def look(at: float, samples: int = 100, confirmed: dict[str, float] | None = None, **more: Any) -> Look:
    return Look(at=at, status=status(**more), history=history(samples), confirmed=confirmed or {})


def text(now: Look, before: Look | None = None, *, width: int = 80, height: int | None = None, note: str = "") -> str:
    return "\n".join(line.text for line in lines(now, before, width=width, height=height, note=note))


def test_rates_are_what_came_between_two_looks() -> None:
    before = look(10.0, books={"accepted": 100, "confirmed": 50}, deliveries={"returned": 1})
    now = look(12.0, books={"accepted": 300, "confirmed": 250}, deliveries={"returned": 2})
    assert rates(now, before) == {"accepted": 100, "confirmed": 100, "returned": 0.5, "nacked": 0, "lost": 0}
    assert "accepted 100/s, confirmed 100/s, returned 0.5/s, nacked 0/s, lost 0/s" in text(now, before)


@pytest.mark.parametrize("before", [None, look(12.0), attrs.evolve(look(1.0), status=status(pid=2))])
def test_there_are_no_rates_without_a_look_before_of_the_same_process(before: Look | None) -> None:
    assert set(rates(look(12.0), before).values()) == {None}
    assert "accepted -, confirmed -" in text(look(12.0), before)


def test_lanes_have_their_rates_and_those_with_a_reason_come_first() -> None:
    refused = {"cause": "refused", "code": 404, "text": "NOT_FOUND - no exchange"}
    lanes = [lane("a", in_flight=3, bytes=2048), lane(""), lane("z", state="refused", reason=refused, suspects=2)]
    now = look(12.0, lanes=lanes, confirmed={"a": 30.0, "amq.default": 8.0})
    before = look(10.0, confirmed={"a": 10.0, "amq.default": 8.0})
    shown = text(now, before, width=120).splitlines()
    start = next(n for n, line in enumerate(shown) if line.startswith("EXCHANGE"))
    z, a, default = (line.split() for line in shown[start + 1 : start + 4])
    assert z[:4] == ["z", "refused", "-", "0"]
    assert "404 NOT_FOUND" in " ".join(z)
    assert a[:6] == ["a", "open", "10/s", "3", "2.0", "KiB"]
    assert default[:3] == ["amq.default", "open", "0/s"]


def test_metrics_give_confirms_by_exchange_whatever_its_name() -> None:
    page = (
        'pubd_deliveries_total{exchange="a",outcome="returned"} 3.0\n'
        'pubd_deliveries_total{exchange="a",outcome="confirmed"} 5.0\n'
        'pubd_deliveries_total{exchange="q\\"u\\\\o\\nte",outcome="confirmed"} 1e+06\n'
    )
    assert confirmed_by_exchange(page) == {"a": 5.0, 'q"u\\o\nte': 1e6}


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("height", [5, 24, 60, None])
def test_it_fits(width: int, height: int | None) -> None:
    lanes = [lane(f"exchange-{n}" * 10, in_flight=n) for n in range(100)]
    now = look(12.0, lanes=lanes, books={"parked": 5}, oldest="2026-11-23T11:00:00.000Z", samples=700)
    shown = lines(now, look(10.0), width=width, height=height)
    assert all(len(line.text) <= width for line in shown)
    assert height is None or len(shown) <= height
    if height == 60:
        assert any("more: pubd status --json" in line.text for line in shown)
    if height is None or height >= 24:
        assert any("'pubd list --state parked'" in line.text for line in shown), "what to do is whole"


def test_the_chart_ends_at_the_newest_sample_and_tells_the_highest() -> None:
    (line,) = [line for line in text(look(1.0, samples=3)).splitlines() if line.startswith("confirmed/s")]
    assert line.endswith("▄█ 2")
    (flat,) = [line for line in text(look(1.0, samples=3)).splitlines() if line.startswith("ready")]
    assert flat.split() == ["ready", "0"]
    assert "confirmed/s" not in text(look(1.0, samples=0)), "nothing is known yet"


def test_what_is_wrong_stands_first_and_last() -> None:
    blocked = {"state": "blocked", "url": "amqp://h", "reason": None, "blocked": f"low on memory{HOSTILE}"}
    troubles = [{"type": "blocked", "detail": "RabbitMQ blocks the connection: low on memory", "since": None}]
    shown = text(look(1.0, link=blocked, troubles=troubles), note="it went away; trying again").splitlines()
    assert shown[:2] == ["it went away; trying again", "NOT HEALTHY"]
    assert any(line.startswith("link      BLOCKED: RabbitMQ says: low on memory") for line in shown)
    assert any("rabbitmq-diagnostics alarms" in line for line in shown)
    assert "\x1b" not in "\n".join(shown)


def test_as_json_it_is_the_same() -> None:
    now = look(12.0, books={"accepted": 20}, lanes=[lane("a")], confirmed={"a": 10.0})
    found = as_object(now, look(10.0, confirmed={"a": 4.0}))
    assert found["healthy"] is True
    assert found["rates"]["accepted"] == 10.0
    assert found["lanes"][0]["confirmed"] == 3.0
    assert (found["confirm_p50"], found["confirm_p99"]) == (0.001, 0.01)
