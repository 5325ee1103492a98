"""The benchmark of the codec runs, small. No times are judged."""

from __future__ import annotations

from click.testing import CliRunner

from benchmarks.codec import KINDS, main


def test_each_kind_is_measured() -> None:
    done = CliRunner().invoke(main, ["--number", "2", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    assert [line.split("  ")[0] for line in done.output.splitlines()[2:]] == list(KINDS)
