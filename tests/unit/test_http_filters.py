"""GET /messages and /messages/count choose messages by everything that is known of them."""

from __future__ import annotations

from typing import Any

import pytest

from pubd import finding
from pubd.spool import memory
from tests.web import GOOD, Bench, Got, get, post


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.rig.broker.exchanges["x"].add("order.new")
    bench.rig.publisher.pause("y")
    for exchange, key in (("x", "nowhere.a"), ("x", "nowhere.b"), ("y", "order.new"), ("y", "order.paid.eu")):
        body = GOOD.replace(b'"x"', f'"{exchange}"'.encode()).replace(b'"k"', f'"{key}"'.encode())
        bench.ask(post(body.replace(b"{", f'{{"ordering_key":"{key}",'.encode())))
        bench.rig.network.flush()
    return bench


def asked(bench: Bench, query: str) -> Got:
    (got,), _ = bench.ask(get(f"/messages{query}"))
    return got


def keys(bench: Bench, query: str) -> list[str]:
    """The routing keys of what is listed; and there are so many when they are counted."""
    found: list[dict[str, Any]] = asked(bench, query).json["messages"]
    assert asked(bench, f"/count{query}").json == {"count": len(found), "next": None}
    return [record["routing_key"] for record in found]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["nowhere.a", "nowhere.b", "order.new", "order.paid.eu"]),
        ("?routing_key=order.%23", ["order.new", "order.paid.eu"]),
        ("?routing_key=*.a&state=parked", ["nowhere.a"]),
        ("?ordering_key=order.new&state=ready", ["order.new"]),
        ("?reason=312", ["nowhere.a", "nowhere.b"]),
        ("?reason=route&exchange=y", []),
        ("?held=true", []),
        ("?held=false&state=parked", ["nowhere.a", "nowhere.b"]),
        ("?older_than=1h30m", []),
        ("?older_than=999999999d", []),
        ("?newer_than=999999999d&state=parked", ["nowhere.a", "nowhere.b"]),
        ("?newer_than=1h&state=ready", ["order.new", "order.paid.eu"]),
        ("?exchange=y&routing_key=order.*", ["order.new"]),
    ],
)
def test_messages_are_chosen(bench: Bench, query: str, expected: list[str]) -> None:
    assert keys(bench, query) == expected


def test_age_is_by_the_clock(bench: Bench) -> None:
    bench.rig.network.advance(100.0)
    bench.clock.advance(bench.rig.network.seconds() - bench.clock.seconds())
    assert len(keys(bench, "?older_than=50s")) == 4
    assert keys(bench, "?newer_than=50s") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?held=maybe", "held"),
        ("?older_than=soon", "older_than"),
        ("?newer_than=5x", "newer_than"),
        ("?newer_than=+5m", "newer_than"),
        ("?older_than=1y", "older_than"),
        ("?colour=red", "colour"),
        ("?after=x", "after"),
    ],
)
def test_what_cannot_be_asked_is_named(bench: Bench, query: str, field: str) -> None:
    for path in ("", "/count"):
        got = asked(bench, f"{path}{query}")
        assert (got.status, got.json["field"]) == (400, field)
    assert asked(bench, "/count?limit=5").json["field"] == "limit"


def test_a_count_that_takes_too_long_says_where_to_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STEP", 3)
    monkeypatch.setattr(finding, "FIND", 0.0)
    first = asked(bench, "/count").json
    assert first["count"] == 3
    assert asked(bench, f"/count?after={first['next']}").json == {"count": 1, "next": None}
