"""Waking lanes when something is due: one timer an exchange, set to the earliest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pubd.errors import SpoolError
from pubd.spool.memory import MemorySpool
from pubd.wakeups import LOOK, Wakeups
from tests.strictness import Logged

EPOCH = 1_000_000.0


class Due(MemorySpool):
    """A spool that knows one more due time after each of these; ``asked`` are the questions."""

    def __init__(self, *dues: float | SpoolError) -> None:
        super().__init__()
        self.dues = list(dues)
        self.asked: list[tuple[str, float]] = []

    def due(self, exchange: str, after: float) -> Deferred[float | None]:
        self.asked.append((exchange, after))
        due = self.dues.pop(0) if self.dues else None
        return fail(due) if isinstance(due, SpoolError) else succeed(due)


class Bench:
    def __init__(self, spool: Due | None = None) -> None:
        self.clock: Any = Clock()
        self.ahead = 0.0
        self.spool = spool or Due()
        self.woken: list[tuple[float, str]] = []
        self.wakeups = Wakeups(clock=self.clock, wall=self.wall, spool=self.spool, wake=self.wake)

    def wall(self) -> float:
        return EPOCH + float(self.clock.seconds()) + self.ahead

    def wake(self, exchanges: Sequence[str]) -> None:
        self.woken += [(self.clock.seconds(), exchange) for exchange in exchanges]

    def go(self, seconds: int) -> list[tuple[float, str]]:
        self.clock.pump([1.0] * seconds)
        return self.woken

    @property
    def timers(self) -> int:
        return len(self.clock.getDelayedCalls())


def test_a_lane_is_woken_when_something_is_due() -> None:
    bench = Bench()
    bench.wakeups.at("x", EPOCH + 3)
    assert bench.go(2) == []
    assert bench.go(5) == [(3.0, "x")]
    assert bench.timers == 0


def test_of_many_the_earliest_counts_and_there_is_one_timer_an_exchange() -> None:
    bench = Bench()
    for due in (9, 4, 7, 4, 12):
        bench.wakeups.at("x", EPOCH + due)
    bench.wakeups.at("y", EPOCH + 5)
    assert bench.timers == 2
    assert bench.go(20) == [(4.0, "x"), (5.0, "y")]


def test_after_each_the_spool_is_asked_for_the_next() -> None:
    bench = Bench(Due(EPOCH + 6, EPOCH + 8))
    bench.wakeups.at("x", EPOCH + 2)
    assert bench.go(20) == [(2.0, "x"), (6.0, "x"), (8.0, "x")]
    assert bench.spool.asked == [("x", EPOCH + 2), ("x", EPOCH + 6), ("x", EPOCH + 8)]
    assert bench.timers == 0


def test_what_is_due_already_is_woken_at_once() -> None:
    bench = Bench()
    bench.wakeups.at("x", EPOCH - 100)
    bench.clock.advance(0)
    assert bench.woken == [(0.0, "x")]


def test_at_the_start_the_spool_is_asked() -> None:
    bench = Bench(Due(EPOCH + 2))
    bench.wakeups.look("x")
    bench.wakeups.look("nothing due")
    assert bench.timers == 1
    assert bench.go(3) == [(2.0, "x")]


def test_a_spool_that_cannot_say_is_logged_and_does_no_harm(logged: Logged) -> None:
    bench = Bench(Due(SpoolError("the disk is gone")))
    bench.wakeups.look("x")
    assert logged.texts == ["the disk is gone"]
    assert bench.timers == 0


@pytest.mark.parametrize("back", [50.0, 3600.0])
def test_a_clock_that_is_set_back_is_waited_for_and_costs_a_look_now_and_then(back: float) -> None:
    bench = Bench()
    bench.wakeups.at("x", EPOCH + 10)
    bench.ahead = -back
    assert bench.go(int(back) + 9) == []
    assert bench.go(1) == [(back + 10, "x")]


@pytest.mark.parametrize("ahead", [50.0, 3600.0])
def test_a_clock_that_is_set_forward_is_noticed_soon(ahead: float) -> None:
    bench = Bench()
    bench.wakeups.at("x", EPOCH + ahead + 10)
    bench.ahead = ahead
    assert bench.go(9) == []
    assert bench.go(int(LOOK)) == [(LOOK, "x")]


def test_what_is_due_long_from_now_is_waited_for_without_asking_the_spool() -> None:
    bench = Bench()
    bench.wakeups.at("x", EPOCH + 1000)
    assert bench.go(999) == []
    assert bench.spool.asked == []
    assert bench.go(1) == [(1000.0, "x")]


def test_after_the_stop_nobody_is_woken_and_nothing_is_left() -> None:
    bench = Bench()
    bench.wakeups.at("x", EPOCH + 3)
    bench.wakeups.stop()
    bench.wakeups.at("x", EPOCH + 4)
    assert bench.timers == 0
    assert bench.go(9) == []
