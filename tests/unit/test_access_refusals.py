"""Refusals: the operator's log tells who wanted what, and cannot be flooded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock

from pubd.access import Grant, Principal, Refusals
from pubd.message import Message

if TYPE_CHECKING:
    from tests.strictness import Logged

SHOP = Principal(name="shop", grants=(Grant(exchange="orders"),))


def message(routing_key: str = "k", exchange: str = "salaries") -> Message:
    return Message(exchange=exchange, routing_key=routing_key, body=b"s3cr3t", headers={"x": "s3cr3t", "CC": ["c"]})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock) -> Refusals:
    return Refusals(clock=clock)


def test_the_operator_learns_who_wanted_what(refusals: Refusals, logged: Logged) -> None:
    refusals.not_allowed(SHOP, message())
    refusals.not_operating(SHOP, "discard messages")
    refusals.unknown("process 5 of user 1000", "an unknown token")
    assert logged.texts == [
        "shop may not publish to exchange 'salaries' with routing key 'k', CC 'c'; a grant in [[principal]] allows it",
        "shop may not discard messages; operate = true in its [[principal]] allows it",
        "refused process 5 of user 1000: an unknown token",
    ]
    assert "s3cr3t" not in str(logged.events)


def test_a_route_is_told_once_a_second_and_the_others_are_counted(
    refusals: Refusals, clock: Clock, logged: Logged
) -> None:
    for _ in range(10):
        refusals.not_allowed(SHOP, message())
        clock.advance(0.0999)
    assert len(logged.texts) == 1
    clock.advance(0.001)
    refusals.not_allowed(SHOP, message())
    assert logged.texts[-1].endswith("(and 9 refusals before, not logged one by one)")
    refusals.not_allowed(SHOP, message("other"))
    assert "refusals before" not in logged.texts[-1]


def test_each_route_and_each_principal_is_told_by_itself(refusals: Refusals, logged: Logged) -> None:
    other = Principal(name="other")
    for who, what in ((SHOP, message()), (SHOP, message("l")), (SHOP, message(exchange="x")), (other, message())):
        refusals.not_allowed(who, what)
    assert len(logged.texts) == 4


def test_whoever_invents_routes_does_not_write_the_log(refusals: Refusals, clock: Clock, logged: Logged) -> None:
    for second in range(3):
        for number in range(10_000):
            refusals.not_allowed(SHOP, message(f"{second}.{number}"))
        clock.advance(Refusals.INTERVAL)
    assert len(logged.texts) == 3 * Refusals.MOST
    refusals.not_allowed(SHOP, message())
    assert logged.texts[-1].endswith(f"(and {10_000 - Refusals.MOST} refusals before, not logged one by one)")


def test_a_route_cannot_break_a_line_or_take_pages(refusals: Refusals, logged: Logged) -> None:
    refusals.not_allowed(
        SHOP, Message(exchange="x" * 255, routing_key="a\nb\x1b[2J", headers={"CC": [f"{n}" * 200 for n in range(9)]})
    )
    (text,) = logged.texts
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 1000


def test_a_clock_that_is_set_back_silences_nothing_for_long(refusals: Refusals, clock: Clock, logged: Logged) -> None:
    clock.advance(1000)
    refusals.not_allowed(SHOP, message())
    clock.rightNow = 5.0
    refusals.not_allowed(SHOP, message())
    assert len(logged.texts) == 2


def test_whoever_floods_the_log_hides_nobody_else(refusals: Refusals, logged: Logged) -> None:
    for number in range(1000):
        refusals.not_allowed(SHOP, message(str(number)))
        refusals.unknown(f"10.0.0.1 port {number}", "an unknown token")
    assert len(logged.texts) == 2 * Refusals.MOST
    refusals.not_allowed(Principal(name="other"), message())
    assert logged.texts[-1].startswith("other may not publish")
    assert "before" not in logged.texts[-1]
