"""Who holds a part and waits for the rest of the budget: one at a time goes beyond it, and so all of them end."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pubd.access import Quotas
from pubd.intake.door import Door
from pubd.intake.http.inflow import Inflow
from pubd.intake.lines.inlet import FREE, Inlet
from pubd.intake.lines.timers import Timers
from tests.lines import Desk

KIB = 1024
BUDGET = 1024 * KIB
LINE = BUDGET // 2
PIECE = 16 * KIB


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Door:
    return Door(publisher=Desk(), clock=clock, quotas=Quotas(), max_unanswered=BUDGET)


def test_without_a_part_the_budget_is_the_limit(door: Door) -> None:
    assert door.take(BUDGET)
    assert not door.take(1)


def test_one_of_those_with_a_part_may_go_beyond_by_half(door: Door) -> None:
    one, other = object(), object()
    assert door.take(BUDGET)
    assert door.take(1, one)
    assert not door.take(1, other)
    assert not door.take(BUDGET // 2, one)
    assert door.take(BUDGET // 2 - 1, one)
    assert not door.take(1, one)


def test_the_next_one_in_order_is_told_when_the_first_is_done(door: Door, clock: Clock) -> None:
    told: list[str] = []

    def tell(_: None, name: str) -> None:
        told.append(name)

    one, two, three = object(), object(), object()
    door.take(BUDGET)
    door.take(1, one)
    for name, waiter in (("two", two), ("three", three)):
        assert not door.take(1, waiter)
        door.when_room(waiter).addCallback(tell, name)
    door.done(one)
    assert told == []
    assert door.take(1, two)
    clock.advance(0)
    assert told == ["two"]
    door.done(two)
    clock.advance(0)
    assert told == ["two", "three"]


def test_who_has_gone_has_no_turn_and_is_not_told(door: Door, clock: Clock) -> None:
    one, two = object(), object()
    door.take(BUDGET)
    door.take(1, one)
    assert not door.take(1, two)
    room = door.when_room(two)
    room.addErrback(lambda _: None)
    room.cancel()
    door.done(two)
    door.done(one)
    clock.advance(0)
    assert clock.getDelayedCalls() == []
    assert door.take(1, object())


class Writer:
    """A client of the lines intake: long lines, a piece at a time, as long as it is read."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door, self._clock = door, clock
        self._inlet = Inlet(max_line=LINE, door=door, timers=Timers(clock), has_room=self._go_on)
        self._left = LINE - PIECE
        self.lines = 0

    def write(self) -> None:
        if self._inlet.held or self._inlet.starved or self.lines == 3:
            return
        size = min(PIECE, self._left)
        self._left -= size
        self._inlet.feed(b"x" * size if self._left else b"x" * (size - 1) + b"\n")
        self._go_on()

    def _go_on(self) -> None:
        while self._inlet.held:
            taken = self._inlet.take(1000)
            if taken is None:
                return
            self.lines += 1
            self._left = LINE - PIECE
            self._clock.callLater(0.01, self._door.give, taken[1])
        self._inlet.hold_partial()


def test_many_long_lines_at_once_all_arrive(door: Door, clock: Clock) -> None:
    writers = [Writer(door, clock) for _ in range(2 * BUDGET // FREE)]
    highest = 0
    for _ in range(20_000):
        for writer in writers:
            writer.write()
        clock.advance(0.005)
        highest = max(highest, door.unanswered)
        if all(writer.lines == 3 for writer in writers):
            break
    assert [writer.lines for writer in writers] == [3] * len(writers)
    assert highest <= BUDGET * 3 // 2
    clock.advance(1)
    assert door.unanswered == 0


def test_many_large_bodies_at_once_all_arrive(door: Door, clock: Clock) -> None:
    ended: list[int] = []
    refused: list[object] = []
    held: dict[int, bool] = {}
    taken: dict[int, int] = {}

    def end(number: int) -> None:
        ended.append(number)
        clock.callLater(0.001, door.give, taken[number])

    def body(number: int) -> Inflow:
        def sink(data: bytes) -> None:
            taken[number] = taken.get(number, 0) + len(data)

        return Inflow(
            budget=door,
            clock=clock,
            decoder=None,
            limit=LINE,
            sink=sink,
            ended=lambda: end(number),
            failed=refused.append,
            hold=lambda holding: held.__setitem__(number, holding),
        )

    bodies = [body(number) for number in range(16)]
    left = dict.fromkeys(range(16), LINE)
    highest = 0
    for _ in range(20_000):
        for number, inflow in enumerate(bodies):
            if held.get(number) or not left[number]:
                continue
            left[number] -= PIECE
            inflow.data(b"x" * PIECE)
            if not left[number]:
                inflow.end()
        clock.advance(0.0005)
        highest = max(highest, door.unanswered)
        if len(ended) == 16:
            break
    assert refused == []
    assert sorted(ended) == list(range(16))
    assert highest <= BUDGET * 3 // 2
    clock.advance(1)
    assert door.unanswered == 0


def test_room_for_all_is_told_to_all(door: Door) -> None:
    told: list[int] = []

    def tell(_: None, number: int) -> None:
        told.append(number)

    door.take(BUDGET)
    rooms: list[Deferred[None]] = [door.when_room(), door.when_room(object())]
    for number, room in enumerate(rooms):
        room.addCallback(tell, number)
    door.give(BUDGET // 2)
    assert sorted(told) == [0, 1]
