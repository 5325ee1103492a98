"""The benchmark runs, small: every way gets its messages confirmed, and says what it took. No times are judged."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from benchmarks.measure import Median, Sample, table
from benchmarks.publish import Contender, Setting, contenders, main, measure, printed, rows
from benchmarks.ways import Load


def test_every_way_is_measured_in_every_setting(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUBD_BROKER_URL", broker_url)
    main(["--windows", "10", "--batches", "1,7", "--messages", "50", "--rounds", "1", "--body", "10", "--json"])
    found = json.loads(capsys.readouterr().out)
    settings = ["window 10, transient", "window 10, persistent"]
    names = [str(entrant) for entrant in contenders([1, 7])]
    assert [(row["setting"], row["contender"]) for row in found] == [(one, two) for one in settings for two in names]
    for row in found:
        (sample,) = row["samples"]
        assert sample["messages"] == 50
        assert sample["seconds"] > 0
        assert row["cpu_micros_per_message"] >= 0


@pytest.mark.parametrize("way", ["stock", "pubd", "pubd-last"])
def test_a_run_whose_messages_are_not_all_confirmed_has_no_result(
    way: str, broker_url: str, unique: Callable[..., str]
) -> None:
    load = Load(
        url=broker_url,
        queue=unique("no-such-queue"),
        messages=5,
        warm_up=1,
        window=5,
        batch=5,
        body=1,
        persistent=False,
        ready=False,
    )
    with pytest.raises(subprocess.CalledProcessError):
        measure(way, load)


def test_medians_are_compared_with_the_first_contender_of_their_setting() -> None:
    setting, other = Setting(100, False), Setting(1000, True)
    stock, pubd = Contender("stock"), Contender("pubd", 100)
    results = [
        (setting, stock, [Sample(10, 1.0, 1.0), Sample(10, 2.0, 0.5), Sample(10, 4.0, 0.25)]),
        (setting, pubd, [Sample(10, 1.0, 0.25)]),
        (other, stock, [Sample(10, 1.0, 1.0)]),
    ]
    found = rows(results)
    assert [row["rate_to_stock"] for row in found] == [1.0, 2.0, 1.0]
    assert [row["cpu_to_stock"] for row in found] == [1.0, 0.5, 1.0]
    text = printed(found)
    assert "window 100, transient" in text
    assert "window 1,000, persistent" in text
    assert "pubd, batches of 100" in text


def test_a_median_is_taken_of_each_figure_for_itself() -> None:
    samples = [Sample(100, 1.0, 0.3), Sample(100, 2.0, 0.1), Sample(100, 4.0, 0.2)]
    median = Median.of(samples)
    assert median.rate == 50.0
    assert median.micros == pytest.approx(2000.0)


def test_a_table_lines_up() -> None:
    assert table(("", "n"), [("a", "1"), ("long", "1,000")]).splitlines() == [
        "          n",
        "----  -----",
        "a         1",
        "long  1,000",
    ]
