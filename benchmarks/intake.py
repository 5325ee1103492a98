"""What the ways in cost: HTTP beside a bare twisted.web resource, batches and lines beside pubd's Python path.

``python -m benchmarks.intake --help``. The daemon is the real one (``twistd -n pubd --config``) with a durable spool,
the resource a process of its own, and the client another one; all over Unix sockets. Each run starts its server anew,
and the ways take turns (A B A B). The broker is that of PUBD_BROKER_URL, or a private one.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pika

from benchmarks import arguments, ways
from benchmarks.clients import (
    Closed,
    Connection,
    HttpAnswers,
    LineAnswers,
    Open,
    Request,
    http_post,
    message,
)
from benchmarks.measure import Sample, Spread, table
from benchmarks.pace import Latency
from benchmarks.report import disk, disk_line, median, millis, ratio, target, targets_table
from benchmarks.rig import Queue, in_process
from benchmarks.servers import Bare, Cpu, Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.servers import Server

#: To reach: parts of the rate of what each is compared with; milliseconds.
TARGET_POST, TARGET_BATCH, TARGET_P99 = 0.5, 0.8, 25.0
_JSON, _NDJSON = "application/json", "application/x-ndjson"
_STORED, _CONFIRMED, _EITHER = b'"state":"stored"', b'"state":"confirmed"', b'"state":"'


@attrs.frozen
class Contender:
    """One way in. ``base``: the way of that which it is compared with; ``wanted``: the part of its rate to reach."""

    name: str
    way: str
    base: str | None = None
    wanted: float | None = None

    @property
    def daemon(self) -> bool:
        """Whether pubd's daemon is measured."""
        return self.base is not None

    @property
    def single(self) -> bool:
        """Whether each message is a request."""
        return self.way in ("bare", "post")


CONTENDERS = (
    Contender("bare twisted.web, POST", "bare"),
    Contender("pubd, POST of one message, stored", "post", "bare", TARGET_POST),
    Contender("Python, settled() on last of each batch", "pubd-last"),
    Contender("HTTP, NDJSON, stored", "ndjson", "pubd-last", TARGET_BATCH),
    Contender("lines, confirmed on last of each batch", "lines", "pubd-last", TARGET_BATCH),
    Contender("Python, settled() on each", "pubd"),
    Contender("HTTP, NDJSON, confirmed each", "ndjson-each", "pubd", TARGET_BATCH),
    Contender("lines, confirmed each", "lines-each", "pubd", TARGET_BATCH),
)
#: At a fixed rate.
PACED = (
    Contender("bare twisted.web, POST", "bare"),
    Contender("Python, submit()", "pubd"),
    Contender("pubd, POST of one message, stored", "post", "bare"),
)


@attrs.frozen(kw_only=True)
class Load:
    """What one client does to the server of this pid: ``messages`` measured after ``warm_up`` others."""

    way: str
    http: str
    lines: str
    pid: int
    queue: str
    messages: int
    warm_up: int
    batch: int
    body: int
    connections: int
    in_flight: int
    """Batches that are unanswered at any time."""
    rate: int


@attrs.frozen
class Served:
    """One run: seconds until the last message was answered, and confirmed; CPU seconds of the server until then."""

    messages: int
    answered: float
    confirmed: float
    cpu: float
    reactor: float
    """What of ``cpu`` went to the main thread."""
    client: float
    """CPU seconds of the client."""


@attrs.frozen(kw_only=True)
class Plan:
    """What is measured, the same for all contenders. ``ahead``: of the Python path, beyond the window."""

    url: str
    directory: Path
    rounds: int
    messages: int
    window: int
    ahead: int
    batch: int
    body: int
    connections: int
    rate: int
    seconds: float

    def throughput(self, entrant: Contender) -> Served:
        """One run."""
        if entrant.way.startswith("pubd"):
            sample = Sample(**self._python(f"throughput:{entrant.way}:0", self.batch, self.messages))
            reactor = sample.threads["MainThread"]
            return Served(sample.messages, sample.seconds, sample.seconds, sample.cpu, reactor, 0.0)
        return Served(**self._served(entrant, "throughput", self.messages))

    def latency(self, entrant: Contender) -> tuple[Spread, Spread]:
        """One run: until a message was handed in, and until it was stored and answered; both from when it was due."""
        count = max(1, int(self.rate * self.seconds))
        if entrant.way.startswith("pubd"):
            found = Latency.from_json(self._python(f"latency:{entrant.way}:{self.rate}", 1, count))
            assert found.stored is not None
            return found.handed_in, found.stored
        times = self._served(entrant, "latency", count)
        return Spread(**times["sent"]), Spread(**times["answered"])

    def _python(self, what: str, batch: int, messages: int) -> Any:
        with Queue(self.url) as queue, self._spool() as spool:
            load = ways.Load(
                url=self.url,
                queue=queue,
                messages=messages,
                warm_up=max(1, messages // 10),
                window=self.window,
                batch=batch,
                body=self.body,
                persistent=True,
                ready=False,
                spool=f"sqlite:///{spool}/spool.db",
                ahead=max(self.ahead, 2 * batch),
            )
            return in_process("benchmarks.durable", what, load)

    def _served(self, entrant: Contender, what: str, messages: int) -> Any:
        batch = 1 if entrant.single else self.batch
        # Whole batches.
        messages = -(-messages // batch) * batch
        warm_up = -(-messages // 10 // batch) * batch or batch
        in_flight = -(-(self.window + max(self.ahead, 2 * batch)) // batch)
        with Queue(self.url) as queue, self._spool() as spool:
            with self._server(entrant, spool, in_flight * batch) as server:
                load = Load(
                    way=entrant.way,
                    http=server.http,
                    lines=server.lines,
                    pid=server.pid,
                    queue=queue,
                    messages=messages,
                    warm_up=warm_up,
                    batch=batch,
                    body=self.body,
                    connections=self.connections,
                    in_flight=in_flight,
                    rate=self.rate,
                )
                found = in_process("benchmarks.intake", what, load)
            if entrant.daemon:
                # And one that was waited for after each of the two parts.
                _check(self.url, queue, warm_up + messages + 2)
        return found

    def _server(self, entrant: Contender, spool: Path, unanswered: int) -> Server:
        if not entrant.daemon:
            return Bare()
        # As many under way as in the Python path.
        return Daemon(self.url, spool, window=self.window, lines=unanswered)

    @contextlib.contextmanager
    def _spool(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="intake-", dir=self.directory) as spool:
            yield Path(spool)


class Lost(Exception):
    """The queue has not what was answered for."""


def _check(url: str, queue: str, wanted: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        found = connection.channel().queue_declare(queue, passive=True).method.message_count
    finally:
        connection.close()
    if found != wanted:
        raise Lost(f"{found} messages came out of {wanted}")


def throughput(plan: Plan, entrants: Sequence[Contender]) -> list[dict[str, Any]]:
    """A row for each contender: medians, and how they compare with their bases'."""
    samples: dict[Contender, list[Served]] = {entrant: [] for entrant in entrants}
    for _, entrant in itertools.product(range(plan.rounds), entrants):
        samples[entrant].append(plan.throughput(entrant))
    return throughput_rows(samples)


def throughput_rows(samples: dict[Contender, list[Served]]) -> list[dict[str, Any]]:
    """Single requests count when they are answered, batches when they are confirmed."""
    rates = {entrant.way: [_rate(entrant, one) for one in own] for entrant, own in samples.items()}
    return [
        {
            **attrs.asdict(entrant),
            "messages_per_second": round(statistics.median(rates[entrant.way])),
            "rate_to_base": ratio(rates[entrant.way], rates[entrant.base]) if entrant.base in rates else None,
            "cpu_micros_per_message": _micros([one.cpu / one.messages for one in own]),
            "cpu_micros_reactor": _micros([one.reactor / one.messages for one in own]),
            "cpu_micros_client": _micros([one.client / one.messages for one in own]),
            "samples": [attrs.asdict(one) for one in own],
        }
        for entrant, own in samples.items()
    ]


def _rate(entrant: Contender, one: Served) -> float:
    return one.messages / (one.answered if entrant.single else one.confirmed)


def _micros(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e6, 1)


def latency(plan: Plan, entrants: Sequence[Contender]) -> list[dict[str, Any]]:
    """A row for each contender: medians of each percentile."""
    found: dict[Contender, list[tuple[Spread, Spread]]] = {entrant: [] for entrant in entrants}
    for _, entrant in itertools.product(range(plan.rounds), entrants):
        found[entrant].append(plan.latency(entrant))
    return [
        {
            **attrs.asdict(entrant),
            "handed_in": median([sent for sent, _ in runs]),
            "answered": median([answered for _, answered in runs]),
            "samples": [{"handed_in": attrs.asdict(one), "answered": attrs.asdict(two)} for one, two in runs],
        }
        for entrant, runs in found.items()
    ]


def targets(rates: Sequence[dict[str, Any]], latencies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is to be reached, beside what was."""
    bases = {each.way: each.name for each in CONTENDERS}
    found = [
        target(f"{row['name']}: rate, of {bases[row['base']]}", row["rate_to_base"], row["wanted"], at_least=True)
        for row in rates
        if row["rate_to_base"] is not None
    ]
    found += [
        target("POST of one message: due to answer, p99 ms", row["answered"]["p99"], TARGET_P99)
        for row in latencies
        if row["way"] == "post"
    ]
    return found


def printed(report: dict[str, Any]) -> str:
    """The report as tables for people."""
    parts = [disk_line(report["disk"])]
    if report["throughput"]:
        parts.append(table(_RATE_HEAD, [_rate_cells(row) for row in report["throughput"]]))
    if report["latency"]:
        times = [(row["name"], millis(row["handed_in"]), millis(row["answered"])) for row in report["latency"]]
        parts.append(table(_LATENCY_HEAD, times))
    if report["targets"]:
        parts.append(targets_table(report["targets"]))
    return "\n\n".join(parts)


_RATE_HEAD = ("", "msgs/s", "x base", "CPU µs/msg", "reactor", "client's")
_LATENCY_HEAD = ("ms from when it was due: p50 / p99 / max", "handed in", "answered")


def _rate_cells(row: dict[str, Any]) -> tuple[str, ...]:
    base = row["rate_to_base"]
    return (
        row["name"],
        f"{row['messages_per_second']:,}",
        "" if base is None else f"{base:.2f}",
        f"{row['cpu_micros_per_message']:.1f}",
        f"{row['cpu_micros_reactor']:.1f}",
        f"{row['cpu_micros_client']:.1f}",
    )


# In a process of its own: the client


def _request(load: Load) -> Request:
    one = message(load.queue, load.body)
    waiting = message(load.queue, load.body, wait="confirmed")
    lines = [one] * load.batch
    match load.way:
        case "ndjson":
            return Request(http_post("/messages", b"\n".join(lines), _NDJSON), load.batch, _STORED)
        case "ndjson-each":
            body = b"\n".join(lines)
            return Request(http_post("/messages?wait=confirmed", body, _NDJSON), load.batch, _CONFIRMED)
        case "lines":
            return Request(b"\n".join([*lines[1:], waiting, b""]), load.batch, _EITHER)
        case "lines-each":
            return Request(b"\n".join([*[waiting] * load.batch, b""]), load.batch, _CONFIRMED)
        case _:
            return Request(http_post("/messages", one, _JSON), 1, _STORED)


def _connections(load: Load) -> list[Connection]:
    if load.way.startswith("lines"):
        return [Connection(load.lines, LineAnswers())]
    count = load.connections if load.batch == 1 else load.in_flight
    return [Connection(load.http, HttpAnswers()) for _ in range(count)]


def _settle(load: Load) -> None:
    """Return when a message that is submitted now is confirmed, and so those before it."""
    if load.way == "bare":
        return
    last = Request(http_post("/messages?wait=confirmed", message(load.queue, load.body), _JSON), 1, _CONFIRMED)
    connection = Connection(load.http, HttpAnswers())
    Closed([connection], 1).run(last, 1)
    connection.close()


def _throughput(load: Load) -> Served:
    request = _request(load)
    client = Closed(_connections(load), load.in_flight if load.way.startswith("lines") else 1)
    client.run(request, load.warm_up // request.messages)
    _settle(load)
    before, client_before, start = Cpu.of(load.pid), time.process_time(), time.monotonic()
    client.run(request, load.messages // request.messages)
    answered, client_cpu = time.monotonic() - start, time.process_time() - client_before
    _settle(load)
    confirmed, cpu = time.monotonic() - start, Cpu.of(load.pid)
    used = (cpu.total - before.total, cpu.reactor - before.reactor)
    return Served(load.messages, answered, confirmed, *used, client_cpu)


def _latency(load: Load) -> dict[str, Spread]:
    request, client = _request(load), Open(_connections(load), load.rate)
    client.run(request, load.warm_up)
    _settle(load)
    sent, answered = client.run(request, load.messages)
    _settle(load)
    return {"sent": Spread.of(sent), "answered": Spread.of(answered)}


def _run(what: str, load: Load) -> None:
    if what == "latency":
        print(json.dumps({name: attrs.asdict(spread) for name, spread in _latency(load).items()}))
    else:
        print(json.dumps(attrs.asdict(_throughput(load))))


def _options() -> argparse.ArgumentParser:
    parser = arguments.parser("intake", __doc__, messages=20_000, messages_of="in each run; ")
    arguments.add_rounds(parser, "what they are compared with")
    arguments.add_spool(parser)
    parser.add_argument("--connections", type=int, default=64, metavar="N", help="for single messages; 64")
    parser.add_argument("--batch", type=int, default=1000, metavar="N", help="lines of a request; 1000")
    parser.add_argument("--window", type=int, default=1000, metavar="N", help="deliveries in flight; 1000")
    parser.add_argument("--ahead", type=int, default=2000, metavar="N", help="handed in beyond the window; 2000")
    parser.add_argument("--rate", type=int, default=1000, metavar="N", help="single requests a second; 1000")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="at that rate; 0 for none; 5")
    return parser


def _chosen(entrants: Sequence[Contender], only: str | None) -> list[Contender]:
    """Those with ``only`` in their names, and what they are compared with."""
    wanted = [entrant for entrant in entrants if not only or only in entrant.name]
    bases = {entrant.base for entrant in wanted}
    return [entrant for entrant in entrants if entrant in wanted or entrant.way in bases]


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options().parse_args(given)
    if options.run:
        _run(options.run[0], Load(**json.loads(options.run[1])))
        return
    directory = arguments.spool_directory(options.dir)
    with arguments.broker() as url:
        plan = Plan(
            url=url,
            directory=directory,
            rounds=options.rounds,
            messages=options.messages,
            window=options.window,
            ahead=options.ahead,
            batch=options.batch,
            body=options.body,
            connections=options.connections,
            rate=options.rate,
            seconds=options.seconds,
        )
        report: dict[str, Any] = {
            "disk": disk(directory),
            "throughput": throughput(plan, _chosen(CONTENDERS, options.only)),
            "latency": latency(plan, _chosen(PACED, options.only)) if options.seconds else [],
        }
    report["targets"] = targets(report["throughput"], report["latency"])
    print(json.dumps(report, indent=1) if options.json else printed(report))


if __name__ == "__main__":
    main()
