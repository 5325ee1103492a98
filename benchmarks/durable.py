"""What durability costs: submit, synced, published, confirmed, settled; beside pubd in memory and pika's own channel.

``python -m benchmarks.durable --help``. Every run is a process of its own; the ways take turns (A B A B). The broker is
that of PUBD_BROKER_URL, or a private one. All messages are persistent. The spool's file is made anew for each run in a
directory under ``--dir``, which should be on the disk that is to be measured, and removed afterwards.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks import arguments
from benchmarks.measure import Median, Sample, Stopwatch, table
from benchmarks.pace import Latency, Pace
from benchmarks.report import disk, disk_line, median, millis, ratio, target, targets_table
from benchmarks.rig import Queue, in_process
from benchmarks.ways import Load, single_way, way
from pubd.service import COLLECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: To reach. Throughput as a part of what pubd reaches in memory, at batches of 100; CPU µs a message; milliseconds.
TARGET_RATE, TARGET_BATCH, TARGET_MICROS, TARGET_STORED = 0.9, 100, 15.0, 20.0


@attrs.frozen
class Contender:
    """A way of publishing with its batch (of pubd's ways); ``durable`` with a spool file."""

    way: str
    batch: int = 1
    durable: bool = False

    def __str__(self) -> str:
        if not self.way.startswith("pubd"):
            return self.way
        asked = "last of each" if self.way == "pubd-last" else "each"
        return f"{'durable' if self.durable else 'memory'}, batches of {self.batch}, settled() on {asked}"


def contenders(batches: Sequence[int]) -> list[Contender]:
    """Stock first; then each way in memory and durably, next to each other."""
    ways = [("pubd", batch) for batch in batches] + [("pubd-last", batch) for batch in batches if batch > 1]
    pairs = itertools.product(ways, (False, True))
    return [Contender("stock"), *(Contender(name, batch, durable) for (name, batch), durable in pairs)]


def paced() -> list[Contender]:
    """Those that submit one message at a time."""
    return [Contender("stock"), Contender("pubd", durable=False), Contender("pubd", durable=True)]


@attrs.frozen(kw_only=True)
class Plan:
    """What is measured, the same for all contenders. ``ahead``: beyond the window, at least two batches."""

    url: str
    directory: Path
    rounds: int
    messages: int
    window: int
    ahead: int
    body: int
    rate: int
    seconds: float

    def each(self, entrants: Sequence[Contender], what: str, messages: int) -> Iterator[tuple[Contender, Any]]:
        """What each run found, in rounds of all contenders. Each has a queue and a spool file of its own."""
        for _, entrant in itertools.product(range(self.rounds), entrants):
            with Queue(self.url) as queue, tempfile.TemporaryDirectory(prefix="durable-", dir=self.directory) as spool:
                load = Load(
                    url=self.url,
                    queue=queue,
                    messages=messages,
                    warm_up=max(1, messages // 10),
                    window=self.window,
                    batch=entrant.batch,
                    body=self.body,
                    persistent=True,
                    ready=False,
                    spool=f"sqlite:///{spool}/spool.db" if entrant.durable else "memory:",
                    ahead=max(self.ahead, 2 * entrant.batch),
                )
                yield entrant, in_process("benchmarks.durable", f"{what}:{entrant.way}:{self.rate}", load)


def throughput(plan: Plan, entrants: Sequence[Contender]) -> list[dict[str, Any]]:
    """A row for each contender: medians, and how they compare with stock's and with the same in memory."""
    samples: dict[Contender, list[Sample]] = {entrant: [] for entrant in entrants}
    for entrant, found in plan.each(entrants, "throughput", plan.messages):
        samples[entrant].append(Sample(**found))
    return throughput_rows(samples)


def throughput_rows(samples: dict[Contender, list[Sample]]) -> list[dict[str, Any]]:
    """The first contender is stock."""
    stock = next(iter(samples.values()))
    found = []
    for entrant, own in samples.items():
        median = Median.of(own)
        memory = samples.get(attrs.evolve(entrant, durable=False)) if entrant.durable else None
        found.append(
            {
                **attrs.asdict(entrant),
                "contender": str(entrant),
                "messages_per_second": round(median.rate),
                "rate_to_stock": _ratio(own, stock, "rate"),
                "rate_to_memory": _ratio(own, memory, "rate") if memory else None,
                "cpu_micros_per_message": round(median.micros, 2),
                "cpu_micros_reactor": round(median.of_thread("MainThread"), 2),
                "cpu_micros_spool": round(median.of_thread("pubd-spool"), 2),
                "cpu_to_stock": _ratio(own, stock, "micros"),
                "samples": [attrs.asdict(sample) for sample in own],
            }
        )
    return found


def _ratio(own: Sequence[Sample], others: Sequence[Sample], figure: str) -> float:
    return ratio([getattr(one, figure) for one in own], [getattr(one, figure) for one in others])


def latency(plan: Plan, entrants: Sequence[Contender]) -> list[dict[str, Any]]:
    """A row for each contender: medians of each percentile."""
    found: dict[Contender, list[Latency]] = {entrant: [] for entrant in entrants}
    for entrant, one in plan.each(entrants, "latency", max(1, int(plan.rate * plan.seconds))):
        found[entrant].append(Latency.from_json(one))
    return [
        {
            **attrs.asdict(entrant),
            "contender": "stock" if entrant.way == "stock" else "durable" if entrant.durable else "memory",
            **{name: median([getattr(one, name) for one in runs]) for name in ("handed_in", "stored", "confirmed")},
            "samples": [attrs.asdict(one) for one in runs],
        }
        for entrant, runs in found.items()
    ]


def targets(rates: Sequence[dict[str, Any]], latencies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is to be reached, beside what was."""
    found = []
    for row in rates:
        if row["durable"] and row["batch"] == TARGET_BATCH:
            name = row["contender"]
            if row["rate_to_memory"] is not None:
                found.append(target(f"{name}: msgs/s, of memory's", row["rate_to_memory"], TARGET_RATE, at_least=True))
            found.append(target(f"{name}: CPU µs/msg", row["cpu_micros_per_message"], TARGET_MICROS))
    for row in latencies:
        if row["durable"]:
            found.append(target("durable, single: due to receipt, p99 ms", row["stored"]["p99"], TARGET_STORED))
    return found


def printed(report: dict[str, Any]) -> str:
    """The report as tables for people."""
    parts = [disk_line(report["disk"])]
    if report["throughput"]:
        parts.append(table(_RATE_HEAD, [_rate_cells(row) for row in report["throughput"]]))
    if report["latency"]:
        times = [(row["contender"], *(millis(row[name]) for name in _STEPS)) for row in report["latency"]]
        parts.append(table(_LATENCY_HEAD, times))
    if report["targets"]:
        parts.append(targets_table(report["targets"]))
    return "\n\n".join(parts)


_RATE_HEAD = ("", "msgs/s", "x stock", "x memory", "CPU µs/msg", "reactor", "spool", "x stock")
_LATENCY_HEAD = ("ms from when it was due: p50 / p99 / max", "handed in", "receipt", "confirmed")
_STEPS = ("handed_in", "stored", "confirmed")


def _rate_cells(row: dict[str, Any]) -> tuple[str, ...]:
    memory = row["rate_to_memory"]
    return (
        row["contender"],
        f"{row['messages_per_second']:,}",
        f"{row['rate_to_stock']:.2f}",
        "" if memory is None else f"{memory:.2f}",
        f"{row['cpu_micros_per_message']:.1f}",
        f"{row['cpu_micros_reactor']:.1f}",
        f"{row['cpu_micros_spool']:.1f}",
        f"{row['cpu_to_stock']:.2f}",
    )


# In a process of its own


async def _throughput(reactor: Any, name: str, load: Load, _rate: float) -> Sample:
    publishing = way(name, reactor, load)
    await publishing.open()
    await publishing.run(load.warm_up)
    watch = Stopwatch()
    await publishing.run(load.messages)
    sample = watch.stop(load.messages)
    await publishing.close()
    return sample


async def _latency(reactor: Any, name: str, load: Load, rate: float) -> Latency:
    publishing = single_way(name, reactor, load)
    await publishing.open()
    await publishing.run(1)
    await Pace(publishing, rate=rate, count=load.warm_up).run()
    found = await Pace(publishing, rate=rate, count=load.messages).run()
    await publishing.close()
    return found


async def _run(reactor: Any, what: str, load: Load) -> None:
    # As in the daemon, and the same for all.
    gc.set_threshold(*COLLECT)
    kind, name, rate = what.split(":")
    runs: dict[str, Callable[[Any, str, Load, float], Any]] = {"throughput": _throughput, "latency": _latency}
    print(json.dumps(attrs.asdict(await runs[kind](reactor, name, load, float(rate)))))


def _options() -> argparse.ArgumentParser:
    parser = arguments.parser("durable", __doc__, messages=20_000, messages_of="in each run; ")
    arguments.add_rounds(parser, "stock")
    arguments.add_spool(parser)
    parser.add_argument(
        "--batches", type=arguments.numbers, default=[1, 10, 100, 1000], metavar="N,N", help="1,10,100,1000"
    )
    parser.add_argument("--window", type=int, default=1000, metavar="N", help="unconfirmed messages; 1000")
    parser.add_argument("--ahead", type=int, default=2000, metavar="N", help="handed in beyond the window; 2000")
    parser.add_argument("--rate", type=int, default=1000, metavar="N", help="single submissions a second; 1000")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="at that rate; 0 for none; 5")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options().parse_args(given)
    if options.run:
        what, load = options.run[0], Load(**json.loads(options.run[1]))
        react(lambda reactor: Deferred.fromCoroutine(_run(reactor, what, load)))
        return
    directory = arguments.spool_directory(options.dir)
    entrants = contenders(options.batches)
    if options.only:
        entrants = entrants[:1] + [entrant for entrant in entrants[1:] if options.only in str(entrant)]
    with arguments.broker() as url:
        plan = Plan(
            url=url,
            directory=directory,
            rounds=options.rounds,
            messages=options.messages,
            window=options.window,
            ahead=options.ahead,
            body=options.body,
            rate=options.rate,
            seconds=options.seconds,
        )
        report: dict[str, Any] = {"disk": disk(directory), "throughput": throughput(plan, entrants)}
        report["latency"] = latency(plan, paced()) if options.seconds else []
    report["targets"] = targets(report["throughput"], report["latency"])
    print(json.dumps(report, indent=1) if options.json else printed(report))


if __name__ == "__main__":
    main()
