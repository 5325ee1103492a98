"""How far a long command is, where there is no terminal."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from pubd.cli.progress import Lines, Quiet, duration
from pubd.cli.report import Tally
from pubd.cli.submit import Result


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(total=1000, clock=clock.seconds, every=10)
    tally = Tally(sent=500, stored=499, refused=1)
    for _ in range(25):
        clock.advance(1)
        lines.update(tally, 250)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "pubd: 500 sent, 499 stored, 1 refused (10 s, 50/s); 25 %, 30 s left"
    assert second == "pubd: 500 sent, 499 stored, 1 refused (20 s, 25/s); 25 %, 60 s left"


def test_what_comes_from_a_pipe_has_no_end_in_sight(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(total=None, clock=clock.seconds, every=10)
    clock.advance(10)
    lines.update(Tally(sent=5, stored=5), 100)
    assert capsys.readouterr().err == "pubd: 5 sent, 5 stored, 0 refused (10 s, 0/s)\n"


def test_quiet_says_only_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    quiet = Quiet(total=None, clock=clock.seconds)
    clock.advance(100)
    quiet.update(Tally(sent=5, stored=5), 100)
    quiet.say("line 5: no")
    assert capsys.readouterr().err == "pubd: line 5: no\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.9, "9.9 s"), (59.6, "60 s"), (600, "10 min"), (36000, "10.0 h")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("said", "wait", "code"),
    [
        ([{"id": "1", "state": "stored"}], False, 0),
        ([{"id": "1", "state": "confirmed"}], True, 0),
        ([{"id": "1", "state": "stored"}], True, 75),
        ([{"error": {"type": "parked", "id": "1"}}, {"id": "1", "state": "stored"}], True, 4),
        ([{"error": {"type": "expired", "id": "1"}}, {"error": {"type": "invalid-message"}}], True, 1),
        ([{"error": {"type": "of a later version"}}], True, 1),
        ([], True, 0),
    ],
)
def test_the_exit_code_is_that_of_the_worst(said: list[dict[str, object]], wait: bool, code: int) -> None:
    tally = Tally(wait=wait)
    for each in said:
        tally.count(Result(said=each))
    assert tally.code == code


def test_what_a_daemon_says_cannot_move_the_cursor() -> None:
    result = Result(said={"error": {"type": "invalid-message", "detail": "a\x1b[2Jb\nc ü", "field": "x\r"}})
    assert result.sentence == "x\\r: a\\x1b[2Jb\\nc ü"
