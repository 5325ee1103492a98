"""Submit to confirm: pubd beside pika's own Twisted channel, in one run against one RabbitMQ.

``python -m benchmarks.publish --help``. Every run is a process of its own; the ways take turns (A B A B), so that what
the machine does meanwhile hits all of them. The broker is that of PUBD_BROKER_URL, or a private one.
"""

from __future__ import annotations

import argparse
import itertools
import json
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks import arguments
from benchmarks.measure import Median, Sample, Stopwatch, table
from benchmarks.rig import Queue, in_process
from benchmarks.ways import Load, way

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@attrs.frozen
class Contender:
    """A way of publishing with its batch; ``ready`` where Messages are made outside the measured time."""

    way: str
    batch: int = 1
    ready: bool = False

    def __str__(self) -> str:
        if not self.way.startswith("pubd"):
            return self.way
        return f"{self.way}, batches of {self.batch}" + (", messages made before" if self.ready else "")


@attrs.frozen
class Setting:
    """What all contenders do alike."""

    window: int
    persistent: bool

    def __str__(self) -> str:
        return f"window {self.window:,}, {'persistent' if self.persistent else 'transient'}"


def contenders(batches: Sequence[int]) -> list[Contender]:
    """Stock first: the others are measured against it."""
    largest = max(batches)
    return [
        Contender("stock"),
        Contender("stock-bare"),
        Contender("raw"),
        *(Contender("pubd", batch) for batch in batches),
        Contender("pubd-last", largest),
        Contender("pubd-last", largest, ready=True),
    ]


def measure(name: str, load: Load) -> Sample:
    """One run in a new process; raises subprocess.SubprocessError."""
    return Sample(**in_process("benchmarks.publish", name, load))


async def _run(reactor: Any, name: str, load: Load) -> None:
    publishing = way(name, reactor, load)
    await publishing.open()
    await publishing.run(load.warm_up)
    watch = Stopwatch()
    await publishing.run(load.messages)
    sample = watch.stop(load.messages)
    await publishing.close()
    print(json.dumps(attrs.asdict(sample)))


def compare(
    url: str, settings: Sequence[Setting], entrants: Sequence[Contender], *, rounds: int, messages: int, body: int
) -> Iterator[tuple[Setting, Contender, list[Sample]]]:
    """The samples of each setting and contender; each setting is measured in rounds of all contenders."""
    for setting in settings:
        samples: dict[Contender, list[Sample]] = {entrant: [] for entrant in entrants}
        for _, entrant in itertools.product(range(rounds), entrants):
            with Queue(url) as queue:
                load = Load(
                    url=url,
                    queue=queue,
                    messages=messages,
                    warm_up=max(1, messages // 10),
                    window=setting.window,
                    batch=entrant.batch,
                    body=body,
                    persistent=setting.persistent,
                    ready=entrant.ready,
                )
                samples[entrant].append(measure(entrant.way, load))
        for entrant in entrants:
            yield setting, entrant, samples[entrant]


def rows(results: Sequence[tuple[Setting, Contender, list[Sample]]]) -> list[dict[str, Any]]:
    """One row for each setting and contender: medians, and what they are of the first contender's of that setting."""
    found: list[dict[str, Any]] = []
    base: dict[Setting, Median] = {}
    for setting, entrant, samples in results:
        median = Median.of(samples)
        stock = base.setdefault(setting, median)
        found.append(
            {
                **attrs.asdict(setting),
                **attrs.asdict(entrant),
                "setting": str(setting),
                "contender": str(entrant),
                "messages_per_second": round(median.rate),
                "cpu_micros_per_message": round(median.micros, 2),
                "rate_to_stock": round(median.rate / stock.rate, 2),
                "cpu_to_stock": round(median.micros / stock.micros, 2),
                "samples": [attrs.asdict(sample) for sample in samples],
            }
        )
    return found


def printed(found: Sequence[dict[str, Any]]) -> str:
    """The rows as a table for people."""
    head = ("", "msgs/s", "x stock", "CPU µs/msg", "x stock")
    parts = []
    for setting, group in itertools.groupby(found, lambda row: row["setting"]):
        cells = [
            (
                row["contender"],
                f"{row['messages_per_second']:,}",
                f"{row['rate_to_stock']:.2f}",
                f"{row['cpu_micros_per_message']:.1f}",
                f"{row['cpu_to_stock']:.2f}",
            )
            for row in group
        ]
        parts.append(f"{setting}\n{table(head, cells)}")
    return "\n\n".join(parts)


def _options() -> argparse.ArgumentParser:
    parser = arguments.parser("publish", __doc__, messages=20_000, messages_of="in each run; ")
    arguments.add_rounds(parser, "stock")
    several = arguments.numbers
    parser.add_argument("--windows", type=several, default=[100, 1000, 10_000], metavar="N,N", help="100,1000,10000")
    parser.add_argument("--modes", choices=("both", "transient", "persistent"), default="both")
    parser.add_argument("--batches", type=several, default=[1, 100], metavar="N,N", help="of submit_many; 1,100")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options().parse_args(given)
    if options.run:
        name, load = options.run[0], Load(**json.loads(options.run[1]))
        react(lambda reactor: Deferred.fromCoroutine(_run(reactor, name, load)))
        return
    modes = {"both": (False, True), "transient": (False,), "persistent": (True,)}[options.modes]
    settings = [Setting(window, persistent) for persistent in modes for window in options.windows]
    entrants = contenders(options.batches)
    if options.only:
        entrants = entrants[:1] + [entrant for entrant in entrants[1:] if options.only in str(entrant)]
    with arguments.broker() as url:
        results = compare(url, settings, entrants, rounds=options.rounds, messages=options.messages, body=options.body)
        found = rows(list(results))
    print(json.dumps(found, indent=1) if options.json else printed(found))


if __name__ == "__main__":
    main()
