"""What tracing costs: CPU of a message from submit to confirm, without it and with several shares of messages traced.

``python -m benchmarks.tracing --help``. Every run is a process of its own; the shares take turns (A B A B). The broker
is that of PUBD_BROKER_URL, or a private one.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks import arguments
from benchmarks.measure import Median, Sample, Stopwatch, table
from benchmarks.rig import Queue, in_process
from benchmarks.ways import Load, Pubd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

#: What is compared: no tracing at all, shares of messages that begin a trace, and batches that come with one.
OFF, REQUEST = "off", "request"
WAYS = (OFF, "0", "0.01", "1", REQUEST)
CARRIER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def publishing(name: str, reactor: Any, load: Load) -> Pubd:
    """pubd's own way, traced as ``name`` says."""
    if name == OFF:
        return Pubd(reactor, load, each=False)
    # Only here: without tracing nothing of it is to be imported.
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from pubd.operate.tracing import Tracing

    class Encodes(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            encode_spans(spans).SerializeToString()
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            pass

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Encodes(), max_queue_size=1 << 20))
    tracing = Tracing(tracer=provider.get_tracer("pubd"), ratio=0.0 if name == REQUEST else float(name))
    return Pubd(reactor, load, each=False, traces=tracing, carrier=CARRIER if name == REQUEST else None)


async def _run(reactor: Any, name: str, load: Load) -> None:
    way = publishing(name, reactor, load)
    await way.open()
    await way.run(load.warm_up)
    watch = Stopwatch()
    await way.run(load.messages)
    sample = watch.stop(load.messages)
    await way.close()
    print(json.dumps(attrs.asdict(sample)))


def measure(url: str, *, rounds: int, messages: int, body: int, batch: int) -> dict[str, list[Sample]]:
    """The samples of each way."""
    samples: dict[str, list[Sample]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name in WAYS:
            with Queue(url) as queue:
                load = Load(
                    url=url,
                    queue=queue,
                    messages=messages,
                    warm_up=max(1, messages // 10),
                    window=1000,
                    batch=batch,
                    body=body,
                    persistent=False,
                    ready=True,
                )
                samples[name].append(Sample(**in_process("benchmarks.tracing", name, load)))
    return samples


def _options() -> argparse.ArgumentParser:
    parser = arguments.parser("tracing", __doc__, messages=20_000, messages_of="in each run; ")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="the median of so many; 3")
    parser.add_argument("--batch", type=int, default=100, metavar="N", help="messages in one submission; 100")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options().parse_args(given)
    if options.run:
        name, load = options.run[0], Load(**json.loads(options.run[1]))
        react(lambda reactor: Deferred.fromCoroutine(_run(reactor, name, load)))
        return
    with arguments.broker() as url:
        samples = measure(url, rounds=options.rounds, messages=options.messages, body=options.body, batch=options.batch)
    if options.json:
        print(json.dumps({name: [attrs.asdict(each) for each in found] for name, found in samples.items()}, indent=1))
        return
    medians = {name: Median.of(found) for name, found in samples.items()}
    cells = [
        (name, f"{median.rate:,.0f}", f"{median.micros:.2f}", f"{median.micros / medians[OFF].micros:.2f}")
        for name, median in medians.items()
    ]
    print(table(("tracing", "msgs/s", "CPU µs/msg", f"x {OFF}"), cells))


if __name__ == "__main__":
    main()
