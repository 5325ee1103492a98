"""A message every interval, until enough of them were confirmed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from pubd.errors import InvalidMessage, PublisherStopped, SpoolFull
from pubd.intake.timer import TimerIntake
from pubd.message import Message
from pubd.outcome import Cause, Reason, State
from pubd.receipt import Receipt
from tests.strictness import Logged


class Desk:
    """Takes submissions; ``refusal`` refuses them."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []
        self.refusal: Exception | None = None
        self.finished = 0

    def __call__(self, message: Message) -> Deferred[Receipt]:
        if self.refusal is not None:
            return fail(self.refusal)
        self.receipts.append(Receipt(f"id-{len(self.receipts)}", message.body.decode()))
        return succeed(self.receipts[-1])

    def finish(self) -> None:
        self.finished += 1

    def settle(self, *numbers: int, state: State = State.CONFIRMED) -> None:
        for number in numbers:
            self.receipts[number].settle(state, 0, Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk() -> Desk:
    return Desk()


class Timers:
    def __init__(self, clock: Clock, desk: Desk) -> None:
        self.clock, self.desk = clock, desk
        self.made: list[TimerIntake] = []

    def __call__(self, count: int | None = None) -> TimerIntake:
        timer = TimerIntake(
            clock=self.clock,
            submit=self.desk,
            make=lambda: Message(exchange="message", body=f"{self.clock.seconds():g}".encode()),
            interval=1.0,
            count=count,
            finished=self.desk.finish,
        )
        self.made.append(timer)
        timer.startService()
        return timer


@pytest.fixture
def start(clock: Clock, desk: Desk) -> Iterator[Timers]:
    timers = Timers(clock, desk)
    yield timers
    for timer in timers.made:
        timer.stopService()
    assert clock.getDelayedCalls() == []


def test_the_first_goes_at_once_and_one_more_every_interval(start: Timers, clock: Clock, desk: Desk) -> None:
    start()
    assert [one.message_id for one in desk.receipts] == ["0"]
    clock.pump([1.0, 1.0])
    assert [one.message_id for one in desk.receipts] == ["0", "1", "2"]


def test_a_late_clock_does_not_make_a_burst(start: Timers, clock: Clock, desk: Desk) -> None:
    start()
    clock.advance(10.5)
    assert len(desk.receipts) == 2


def test_after_stopping_nothing_more_is_made(start: Timers, clock: Clock, desk: Desk) -> None:
    timer = start()
    assert timer.stopService().called
    assert timer.stopService().called
    clock.advance(5)
    assert len(desk.receipts) == 1


def test_with_a_count_it_makes_no_more_than_are_missing_and_finishes_once(
    start: Timers, clock: Clock, desk: Desk
) -> None:
    start(count=2)
    clock.pump([1.0] * 5)
    assert len(desk.receipts) == 2
    desk.settle(0)
    clock.pump([1.0] * 5)
    assert (len(desk.receipts), desk.finished) == (2, 0)
    desk.settle(1)
    assert desk.finished == 1
    clock.pump([1.0] * 5)
    assert (len(desk.receipts), desk.finished) == (2, 1)


def test_what_was_parked_is_made_again_and_told_by_the_publisher(
    start: Timers, clock: Clock, desk: Desk, logged: Logged
) -> None:
    start(count=1)
    desk.settle(0, state=State.PARKED)
    clock.advance(1)
    assert len(desk.receipts) == 2
    desk.settle(1)
    assert desk.finished == 1
    assert logged.texts == []


@pytest.mark.parametrize(
    "refusal", [SpoolFull("max_bytes", "1 of 1 bytes are held"), InvalidMessage("body", "is too large")]
)
def test_a_refused_message_is_said_and_the_timer_goes_on(
    start: Timers, clock: Clock, desk: Desk, logged: Logged, refusal: Exception
) -> None:
    desk.refusal = refusal
    start()
    desk.refusal = None
    clock.advance(1)
    assert len(desk.receipts) == 1
    assert [e for e in logged.events if e["log_level"] is LogLevel.warn]
    assert str(refusal) in logged.texts


def test_refusals_are_said_once_and_so_is_their_end(start: Timers, clock: Clock, desk: Desk, logged: Logged) -> None:
    desk.refusal = SpoolFull("max_bytes", "1 of 1 bytes are held")
    start()
    clock.pump([1.0] * 5)
    desk.refusal = None
    clock.pump([1.0] * 5)
    assert logged.texts == [
        "the spool is full (max_bytes): 1 of 1 bytes are held",
        "messages are accepted again; 6 were refused",
    ]


def test_a_stopping_publisher_is_nothing_to_talk_about(start: Timers, desk: Desk, logged: Logged) -> None:
    start()
    desk.receipts[0].stop()
    desk.refusal = PublisherStopped("is stopping")
    start()
    assert [e for e in logged.events if e["log_level"] in (LogLevel.warn, LogLevel.error)] == []


def test_the_last_confirmation_may_come_after_the_stop(start: Timers, desk: Desk) -> None:
    timer = start(count=1)
    timer.stopService()
    desk.settle(0)
    assert desk.finished == 1


def test_mistakes_in_making_a_message_are_logged_and_it_goes_on(clock: Clock, desk: Desk, logged: Logged) -> None:
    def make() -> Message:
        if clock.seconds() < 1:
            raise RuntimeError("no message today")
        return Message(exchange="message")

    timer = TimerIntake(clock=clock, submit=desk, make=make, interval=1.0)
    timer.startService()
    clock.advance(1)
    timer.stopService()
    assert len(desk.receipts) == 1
    assert len(logged.flush(RuntimeError)) == 1


def test_a_timer_that_cannot_go_on_says_so(clock: Clock, desk: Desk, logged: Logged) -> None:
    def finish() -> None:
        raise RuntimeError("mistake")

    timer = TimerIntake(
        clock=clock, submit=desk, make=lambda: Message(exchange="e"), interval=1.0, count=1, finished=finish
    )
    timer.startService()
    desk.settle(0)
    timer.stopService()
    assert len(logged.flush(RuntimeError)) == 1
