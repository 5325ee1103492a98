"""The benchmark of the durable spool runs, small: everything gets confirmed and settled. No times are judged."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import pytest_twisted
from twisted.python.failure import Failure

from benchmarks.durable import Contender, contenders, main, paced, printed, targets, throughput_rows
from benchmarks.measure import Sample, Spread, Stopwatch
from benchmarks.pace import Latency, Pace
from benchmarks.rig import in_process
from benchmarks.ways import Fate, Load


def test_every_way_is_measured_and_no_file_is_left(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUBD_BROKER_URL", broker_url)
    small = "--batches 1,7 --window 10 --ahead 0 --messages 40 --rounds 1 --body 10 --rate 200 --seconds 0.1 --json"
    main([*small.split(), "--dir", str(tmp_path)])
    report = json.loads(capsys.readouterr().out)
    assert [row["contender"] for row in report["throughput"]] == [str(one) for one in contenders([1, 7])]
    for row in report["throughput"]:
        (sample,) = row["samples"]
        assert sample["messages"] == 40
        assert sample["seconds"] > 0
        assert ("pubd-spool" in sample["threads"]) is row["durable"]
    assert [row["contender"] for row in report["latency"]] == ["stock", "memory", "durable"]
    assert [row["stored"] is None for row in report["latency"]] == [True, False, False]
    assert "durable, batches of 7, settled() on each" in printed(report)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["throughput:pubd:1", "latency:pubd:100", "latency:stock:100"])
def test_a_run_whose_messages_are_not_all_confirmed_has_no_result(
    what: str, broker_url: str, tmp_path: Path, unique: Callable[..., str]
) -> None:
    load = Load(
        url=broker_url,
        queue=unique("no-such-queue"),
        messages=3,
        warm_up=1,
        window=5,
        batch=1,
        body=1,
        persistent=True,
        ready=False,
        spool=f"sqlite:///{tmp_path}/spool.db",
    )
    with pytest.raises(subprocess.CalledProcessError):
        in_process("benchmarks.durable", what, load)


def test_the_durable_way_is_compared_with_the_same_in_memory_and_all_with_stock() -> None:
    memory, durable = Contender("pubd", 100), Contender("pubd", 100, durable=True)
    rows = throughput_rows(
        {
            Contender("stock"): [Sample(10, 1.0, 1.0, {"MainThread": 1.0})],
            memory: [Sample(10, 0.5, 0.5, {"MainThread": 0.5})],
            durable: [Sample(10, 1.0, 0.8, {"MainThread": 0.6, "pubd-spool": 0.2})],
        }
    )
    assert [row["rate_to_stock"] for row in rows] == [1.0, 2.0, 1.0]
    assert [row["rate_to_memory"] for row in rows] == [None, None, 0.5]
    assert [row["cpu_to_stock"] for row in rows] == [1.0, 0.5, 0.8]
    assert [row["cpu_micros_spool"] for row in rows] == [0.0, 0.0, 20_000.0]
    assert [(target["found"], target["reached"]) for target in targets(rows, [])] == [(0.5, False), (80_000.0, False)]


def test_ratios_are_taken_within_a_round_before_their_median_is() -> None:
    memory, durable = Contender("pubd", 100), Contender("pubd", 100, durable=True)
    rows = throughput_rows(
        {
            Contender("stock"): [Sample(10, 1.0, 1.0)] * 3,
            memory: [Sample(10, 1.0, 1.0), Sample(10, 4.0, 1.0), Sample(10, 2.0, 1.0)],
            durable: [Sample(10, 2.0, 1.0), Sample(10, 4.0, 1.0), Sample(10, 2.0, 1.0)],
        }
    )
    assert rows[2]["rate_to_memory"] == 1.0


def test_only_ways_with_a_batch_of_one_are_paced() -> None:
    assert [(one.way, one.batch, one.durable) for one in paced()] == [
        ("stock", 1, False),
        ("pubd", 1, False),
        ("pubd", 1, True),
    ]


def test_percentiles_are_figures_that_were_measured() -> None:
    assert Spread.of([each / 1000 for each in range(1, 201)]) == Spread(100.0, 198.0, 200.0)
    assert Spread.of([0.5]) == Spread(500.0, 500.0, 500.0)
    assert Spread.median([Spread(1, 9, 9), Spread(2, 8, 30), Spread(3, 7, 20)]) == Spread(2, 8, 20)


def test_latencies_survive_json() -> None:
    latency = Latency(Spread(1, 2, 3), None, Spread(4, 5, 6))
    assert Latency.from_json(json.loads(json.dumps(attrs.asdict(latency)))) == latency


def test_cpu_is_told_by_thread() -> None:
    watch = Stopwatch()
    sum(range(100_000))
    sample = watch.stop(1)
    assert 0 < sample.threads["MainThread"] <= sample.cpu + 0.1


class _Broken:
    """A way on which nothing succeeds."""

    async def open(self) -> None: ...

    async def run(self, count: int) -> None: ...

    async def close(self) -> None: ...

    def single(self, fate: Fate) -> None:
        fate.failed(Failure(ValueError("no")))


@pytest_twisted.ensureDeferred
async def test_a_message_that_fails_ends_the_paced_run() -> None:
    with pytest.raises(ValueError, match="no"):
        await Pace(_Broken(), rate=1000, count=3).run()
