"""The log of parked messages is bounded by time, not by messages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from pubd.entry import Entry
from pubd.outcome import Cause, Reason, Settlement, State
from pubd.parked import ParkedLog
from tests.strictness import Logged


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Iterator[ParkedLog]:
    log = ParkedLog(clock)
    yield log
    log.stop()
    assert clock.getDelayedCalls() == []


def parked(message_id: str, exchange: str = "x", code: int = 312) -> Settlement:
    entry = Entry(
        id=message_id,
        exchange=exchange,
        routing_key="k",
        message_id=message_id,
        mandatory=True,
        properties=b"",
        body=b"secret",
    )
    reason = Reason(cause=Cause.RETURNED, code=code, text="NO_ROUTE")
    return Settlement(entry=entry, state=State.PARKED, attempts=1, reason=reason)


def test_the_first_parked_message_is_logged_at_once(log: ParkedLog, logged: Logged) -> None:
    log.note(parked("m1"))
    assert logged.texts == ["message m1 for 'x' is parked: returned: 312 NO_ROUTE"]


def test_more_of_them_are_counted_in_one_line_a_second(log: ParkedLog, clock: Clock, logged: Logged) -> None:
    for number in range(1000):
        log.note(parked(f"m{number}"))
    assert len(logged.texts) == 1
    clock.advance(1)
    assert logged.texts[1:] == ["999 more messages for 'x' are parked, the last of them m999: returned: 312 NO_ROUTE"]
    log.note(parked("n1"))
    assert len(logged.texts) == 2
    clock.advance(1)
    assert len(logged.texts) == 3


def test_after_a_quiet_second_the_next_one_is_news_again(log: ParkedLog, clock: Clock, logged: Logged) -> None:
    log.note(parked("m1"))
    clock.advance(1)
    assert clock.getDelayedCalls() == []
    log.note(parked("m2"))
    assert logged.texts[1] == "message m2 for 'x' is parked: returned: 312 NO_ROUTE"


def test_exchanges_and_causes_are_told_apart(log: ParkedLog, logged: Logged) -> None:
    for settlement in (parked("m1"), parked("m2", exchange="y"), parked("m3", code=313)):
        log.note(settlement)
    assert len(logged.texts) == 3


def test_what_has_been_counted_is_said_when_it_stops(log: ParkedLog, clock: Clock, logged: Logged) -> None:
    for message_id in ("m1", "m2", "m3"):
        log.note(parked(message_id))
    log.stop()
    assert logged.texts[1:] == ["2 more messages for 'x' are parked, the last of them m3: returned: 312 NO_ROUTE"]
    assert clock.getDelayedCalls() == []
