"""The intake of schedules, with a clock and a wall clock that are set by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pubd.errors import PublisherStopped, SpoolFull
from pubd.intake.diary import FileDiary, MemoryDiary
from pubd.intake.schedule import GRACE, LOOK, MAX_UNANSWERED, ScheduleIntake
from pubd.receipt import Receipt
from pubd.schedule import Cron, Every, Missed, Schedule, Template

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pubd.intake.diary import Diary
    from pubd.message import Message

START = 1_700_000_000.0
DAY = 86400.0


class Bench:
    """An intake whose submissions are kept; ``wall`` is the reactor's clock plus what was stepped."""

    def __init__(self, diary: Diary | None = None) -> None:
        self.clock = Clock()
        self.step = START
        self.runs: list[tuple[float, str]] = []
        self.answer: Callable[[], Deferred[Receipt]] = lambda: succeed(Receipt("id", "message-id"))
        self.diary = diary
        self.intake: ScheduleIntake | None = None

    def wall(self) -> float:
        return self.step + self.clock.seconds()

    def submit(self, message: Message) -> Deferred[Receipt]:
        self.runs.append((self.wall(), message.body.decode()))
        return self.answer()

    def start(self, when: Every | Cron, missed: Missed = Missed.SKIP) -> None:
        schedule = Schedule(name="s", when=when, exchange="e", body=Template.parse("{seq}"), missed=missed)
        self.intake = ScheduleIntake(
            clock=self.clock,
            wall=self.wall,
            submit=self.submit,
            schedules=[schedule],
            hostname="h",
            diary=self.diary,
        )
        self.intake.startService()

    def stop(self) -> None:
        assert self.intake is not None
        self.intake.stopService()
        assert not self.clock.getDelayedCalls()

    def go(self, seconds: float, pace: float = 0.5) -> None:
        """Let time pass, as a reactor with something to do every ``pace`` seconds sees it."""
        self.clock.pump([pace] * round(seconds / pace))

    @property
    def times(self) -> list[float]:
        return [at - START for at, _ in self.runs]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_schedule_runs_at_its_times_and_counts(bench: Bench) -> None:
    bench.start(Every(10.0))
    bench.go(35)
    assert bench.runs == [(START + 10, "1"), (START + 20, "2"), (START + 30, "3")]
    bench.stop()
    bench.go(100)
    assert len(bench.runs) == 3


def test_cron_runs_at_its_times(bench: Bench) -> None:
    bench.start(Cron("0 * * * *"))
    bench.go(2 * 3600, pace=10)
    assert [at % 3600 for at, _ in bench.runs] == [0, 0]
    bench.stop()


@pytest.mark.parametrize("missed", Missed)
def test_a_stall_gives_one_run_and_no_burst(bench: Bench, missed: Missed) -> None:
    bench.start(Every(1.0), missed)
    bench.go(2)
    bench.clock.advance(500.0)
    assert len(bench.runs) == 3
    bench.go(3)
    assert len(bench.runs) == 6
    bench.stop()


def test_a_daily_run_that_is_a_little_late_is_made(bench: Bench) -> None:
    bench.start(Every(DAY, anchor=START + 100))
    bench.go(90)
    bench.clock.advance(GRACE)
    assert len(bench.runs) == 1
    bench.stop()


@pytest.mark.parametrize(("missed", "made"), [(Missed.SKIP, 0), (Missed.ONCE, 1)])
def test_a_daily_run_that_a_stall_missed(bench: Bench, missed: Missed, made: int) -> None:
    bench.start(Every(DAY, anchor=START + 100), missed)
    bench.go(90)
    bench.clock.advance(GRACE + 60)
    bench.go(60)
    assert len(bench.runs) == made
    bench.go(DAY, pace=20)
    assert len(bench.runs) == made + 1
    bench.stop()


@pytest.mark.parametrize(("missed", "made"), [(Missed.SKIP, 0), (Missed.ONCE, 1)])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_runs_missed_while_pubd_was_down(tmp_path: Path, kind: str, missed: Missed, made: int) -> None:
    memory = MemoryDiary()

    def diary() -> Diary:
        return memory if kind == "memory" else FileDiary(tmp_path / "schedules")

    bench = Bench(diary())
    bench.start(Every(DAY, anchor=START), missed)
    bench.go(DAY, pace=20)
    assert bench.times == [DAY]
    bench.stop()
    later = Bench(diary())
    later.step = START + 5 * DAY + 7
    later.start(Every(DAY, anchor=START), missed)
    later.go(60)
    assert len(later.runs) == made
    later.stop()
    again = Bench(diary())
    again.step = START + 5 * DAY + 100
    again.start(Every(DAY, anchor=START), missed)
    again.go(60)
    assert again.runs == []
    again.stop()


def test_nothing_is_made_up_at_the_very_first_start_but_its_time_is_noted() -> None:
    diary = MemoryDiary()
    bench = Bench(diary)
    bench.start(Every(DAY, anchor=START + 100), Missed.ONCE)
    assert bench.runs == []
    assert diary.last("s") == START
    bench.stop()


def test_a_diary_from_the_future_does_not_stop_a_schedule() -> None:
    diary = MemoryDiary()
    diary.note("s", START + 100 * DAY)
    bench = Bench(diary)
    bench.start(Every(10.0), Missed.ONCE)
    bench.go(20)
    assert bench.times == [10, 20]
    bench.stop()


@pytest.mark.parametrize("back", [0.3, 5.0, 3600.0, 10 * DAY])
@pytest.mark.parametrize("interval", [1.0, 5.0, 300.0])
def test_a_clock_set_back_neither_stalls_nor_bursts(bench: Bench, back: float, interval: float) -> None:
    bench.start(Every(interval))
    bench.go(2 * interval + 0.5)
    before = len(bench.runs)
    bench.step -= back
    bench.go(interval + min(interval, LOOK) + 1)
    assert 1 <= len(bench.runs) - before <= 3
    bench.stop()


@pytest.mark.parametrize("ahead", [0.3, 5.0, 3600.0, 10 * DAY])
def test_a_clock_set_forward_neither_stalls_nor_bursts(bench: Bench, ahead: float) -> None:
    bench.start(Every(5.0))
    bench.go(11)
    assert len(bench.runs) == 2
    bench.step += ahead
    bench.go(6)
    assert 3 <= len(bench.runs) <= 4
    bench.stop()


def test_a_clock_set_forward_is_noticed_before_the_old_time_would_have_come(bench: Bench) -> None:
    bench.start(Every(DAY, anchor=START))
    bench.go(10)
    bench.step += DAY - 30
    bench.go(LOOK + 1)
    assert len(bench.runs) == 1
    bench.stop()


def test_a_full_spool_drops_runs_and_goes_on(bench: Bench) -> None:
    bench.start(Every(10.0))
    bench.answer = lambda: fail(SpoolFull("max_bytes", "full"))
    bench.go(30)
    bench.answer = lambda: succeed(Receipt("id", "message-id"))
    bench.go(10)
    assert [body for _, body in bench.runs] == ["1", "2", "3", "4"]
    bench.stop()


def test_a_refused_run_is_not_noted_as_made() -> None:
    diary = MemoryDiary()
    bench = Bench(diary)
    bench.start(Every(10.0), Missed.ONCE)
    bench.answer = lambda: fail(SpoolFull("max_bytes", "full"))
    bench.go(10)
    assert diary.last("s") == START
    bench.answer = lambda: succeed(Receipt("id", "message-id"))
    bench.go(10)
    assert diary.last("s") == START + 20
    bench.stop()


def test_a_spool_that_does_not_answer_is_not_flooded(bench: Bench) -> None:
    waiting: list[Deferred[Receipt]] = []

    def answer() -> Deferred[Receipt]:
        waiting.append(Deferred())
        return waiting[-1]

    bench.answer = answer
    bench.start(Every(1.0))
    bench.go(MAX_UNANSWERED + 50)
    assert len(waiting) == MAX_UNANSWERED
    for each in list(waiting):
        each.callback(Receipt("id", "message-id"))
    bench.go(1)
    assert bench.runs[-1][1] == str(MAX_UNANSWERED + 51)
    bench.stop()
    waiting[-1].errback(PublisherStopped("stopped"))


def test_a_stopping_publisher_is_no_error(bench: Bench) -> None:
    bench.answer = lambda: fail(PublisherStopped("stopping"))
    bench.start(Every(1.0))
    bench.go(3)
    assert len(bench.runs) == 3
    bench.stop()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"s": "x"}', '{"s": true}', '{"s": NaN}', "\xff", "[" * 100_000])
def test_a_damaged_diary_is_forgotten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "schedules"
    path.write_text(content, encoding="latin-1")
    diary = FileDiary(path)
    assert diary.last("s") is None
    diary.note("s", 5.0)
    assert FileDiary(path).last("s") == 5.0


def test_a_diary_that_cannot_be_written_still_remembers_for_this_run(tmp_path: Path) -> None:
    diary = FileDiary(tmp_path / "missing" / "schedules")
    diary.note("s", 5.0)
    diary.note("s", 6.0)
    assert diary.last("s") == 6.0
