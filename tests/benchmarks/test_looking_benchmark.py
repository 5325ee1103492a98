"""The benchmark of looking runs, small: every question is answered, everything is published. No times are judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.looking import QUESTIONS, Round, fill, main, printed, report
from pubd.spool.offline import verify


def test_it_asks_and_publishes(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUBD_BROKER_URL", broker_url)
    small = "--waiting 300 --parked 200 --messages 40 --rounds 1 --times 1 --lines 10 --body 10 --json"
    main([*small.split(), "--dir", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert set(QUESTIONS) | {"pubd status", "pubd list"} <= set(found["answers"])
    assert [len(row["samples"]) for row in found["publishing"]] == [1, 1]
    assert "an operator looks once a second" in printed(found)
    assert not list(tmp_path.iterdir())


def test_the_spool_that_it_fills_is_whole(tmp_path: Path) -> None:
    fill(tmp_path / "spool.db", waiting=2500, parked=1200, body=5)
    found = verify(tmp_path / "spool.db")
    assert found.problems == ()
    assert (found.books.ready, found.books.parked) == (2500, 1200)


def test_what_was_to_be_reached_stands_beside_what_was() -> None:
    found = report([Round(100.0, 1.0)], [Round(90.0, 2.0)], {"q": [0.3]}, {"pubd q": [9.0]}, [])
    assert [(row["found"], row["reached"]) for row in found["targets"]] == [(0.9, False), (300.0, False)]
