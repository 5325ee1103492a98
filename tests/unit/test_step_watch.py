"""A step of the clock is seen, told once, and shown; what a time service corrects bit by bit is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pubd.operate.clock import STEP, StepWatch
from tests.operating import Shown
from tests.rig import Rig
from tests.strictness import Logged

START = 1_700_000_000.0


@pytest.fixture
def shown() -> Iterator[Shown]:
    shown = Shown(Rig()).start()
    shown.rig.start()
    yield shown
    shown.stop()
    shown.rig.stop()


@pytest.mark.parametrize("step", [3600.0, -3600.0, STEP])
def test_a_step_is_seen_once(step: float) -> None:
    watch = StepWatch()
    assert watch.look(clock=10, wall=START) is None
    assert watch.look(clock=11, wall=START + 1.001) is None
    found = watch.look(clock=12, wall=START + 2.001 + step)
    assert found is not None
    assert found.seconds == pytest.approx(step)
    assert watch.look(clock=13, wall=START + 3.001 + step) is None
    assert watch.last is found


def test_a_correction_bit_by_bit_is_none() -> None:
    watch = StepWatch()
    assert not any(watch.look(clock=second, wall=START + second * 1.0005) for second in range(10_000))


@pytest.mark.parametrize(("step", "words"), [(3600, "set forward by 3,600 s"), (-3600, "set back by 3,600 s")])
def test_it_is_a_line_in_the_log_and_stands_in_the_status(
    shown: Shown, logged: Logged, step: float, words: str
) -> None:
    shown.rig.network.advance(2)
    seconds = shown.rig.network.seconds
    shown.operating.health._wall = lambda: seconds() + step
    shown.rig.network.advance(10)
    (line,) = [text for text in logged.texts if "clock of this host" in text]
    assert words in line
    assert shown.operating.health.steps.last is not None
    assert shown.operating.health.steps.last.seconds == pytest.approx(step, abs=0.01)
