"""The benchmark of counting and of the page of metrics runs, small. No times are judged."""

from __future__ import annotations

from click.testing import CliRunner

from benchmarks.operate import main


def test_counting_and_a_page_are_measured() -> None:
    done = CliRunner().invoke(main, ["--number", "2", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    assert [line.split("  ")[0] for line in done.output.splitlines() if "," in line or "a page" in line] == [
        "counting, by exchanges",
        "one, batches of 1000",
        "one, batches of 1",
        "ten in turn, batches of 1000",
        "/metrics, 200 of each",
        "a page",
    ]
