"""The broker is away while a backlog is submitted, and comes back. Judged by structure and memory, not by times."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.backlog import Load, Result, RunFailed, measure, printed, run
from tests.rabbitmq import Node

MESSAGES = 20_000
#: What the daemon may take with a million messages waiting, and how much more these few may take than none.
MEMORY, GROWTH = 150 << 20, 20 << 20


@pytest.fixture
def result(own_node: Node, tmp_path: Path) -> Result:
    return measure(own_node, tmp_path, messages=MESSAGES, batch=100, body=1000, window=1000)


def test_a_backlog_survives_sigterm_twice_and_is_published_once_in_order_in_little_memory(result: Result) -> None:
    assert (result.missing, result.duplicated, result.in_order) == (0, 0, True)
    assert result.problems == ()
    # One process until SIGTERM in the middle, and one for the rest, in submitting as in publishing.
    assert (len(result.submit_peak_rss), len(result.publish_peak_rss)) == (2, 2)
    assert max(result.submit_peak_rss + result.publish_peak_rss) < MEMORY
    # The bodies alone are as much as this.
    assert max(result.submit_peak_rss) - min(rss for _, rss in result.submit_rss) < GROWTH
    assert result.file_size > MESSAGES * 1000
    assert min(result.publish_rate, result.submit_rate, *result.empty_rates) > 0
    assert result.first_publish > 0
    assert "pubd verify" in printed(result)


def test_a_run_that_fails_has_no_result(own_node: Node, tmp_path: Path) -> None:
    load = Load(
        url=own_node.url,
        queue="q",
        spool=str(tmp_path / "no-such-directory" / "spool.db"),
        first=0,
        last=10,
        batch=10,
        body=10,
        window=10,
    )
    with pytest.raises(RunFailed):
        run("submit", load)
