"""A broker that is away while a backlog is submitted, then back: memory, start-up, and the rate of publishing it.

``python -m benchmarks.backlog --help``. The daemon's part is played by a process of its own with a durable spool: it is
ended by SIGTERM and started again in the middle of submitting and in the middle of publishing. The broker is a private
one, because it is stopped meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pika
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from benchmarks import arguments
from benchmarks.measure import table
from pubd.amqp.lane import LaneOptions
from pubd.message import Message
from pubd.options import Options
from pubd.publisher import Publisher
from pubd.spool import offline
from tests.rabbitmq import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pubd.receipt import Receipt

ROOT = Path(__file__).resolve().parent.parent
#: Submissions whose answers are outstanding.
PIPELINE = 4
#: Seconds between looks at what is done, and between reports of it.
LOOK, REPORT = 0.002, 0.1
#: Seconds without any news of a run until it is given up.
PATIENCE = 60.0
#: Messages that measure what the machine does with an empty spool.
SAMPLE = 100_000


@attrs.frozen(kw_only=True)
class Load:
    """Messages ``first`` to ``last`` (without it), of ``body`` bytes each, by submissions of ``batch``."""

    url: str
    queue: str
    spool: str
    first: int
    last: int
    batch: int
    body: int
    window: int


class Worker:
    """One process: a publisher on the spool of ``load``. Prints what it did as JSON lines."""

    def __init__(self, reactor: Any, load: Load) -> None:
        self.load = load
        self.publisher = Publisher.from_url(
            load.url,
            spool=f"sqlite:///{load.spool}",
            reactor=reactor,
            name="pubd backlog benchmark",
            options=Options(lanes=LaneOptions(window=load.window)),
        )
        self._reactor = reactor
        self._next = load.first
        self._outstanding = 0
        self._first: float | None = None
        self._last = 0.0
        self._confirmed = 0
        self._reported = 0.0
        self._look = LoopingCall(self._looked)
        self._done: Deferred[None] = Deferred()
        self._ending = False
        # SIGTERM: what is outstanding is still answered, and counted.
        reactor.addSystemEventTrigger("before", "shutdown", self._stop)

    def run(self, what: str) -> None:
        """``submit`` all without a look at the broker, ``publish`` all that is there, or ``through``: both at once."""
        self._what = what
        self.publisher.startService()
        self._look.start(LOOK)
        self._reactor.callWhenRunning(self._more)
        self._done.addCallback(lambda _: self._ending or self._reactor.stop())
        self._reactor.run()

    def _more(self) -> None:
        load = self.load
        most = 2 * load.window // load.batch + 2 if self._what == "through" else PIPELINE
        while self._what != "publish" and not self._ending and self._next < load.last and self._outstanding < most:
            numbers = range(self._next, min(self._next + load.batch, load.last))
            self._next = numbers.stop
            self._outstanding += 1
            messages = [Message(exchange="", routing_key=load.queue, body=b"%0*d" % (load.body, n)) for n in numbers]
            self.publisher.submit_many(messages).addCallbacks(self._accepted, self._failed)

    def _accepted(self, receipts: Sequence[Receipt]) -> None:
        if self._what == "through":
            # Of the last one only: the receipts of the others are dropped.
            receipts[-1].settled().addCallbacks(self._answered, self._failed)
        else:
            self._answered(None)

    def _answered(self, _: Any) -> None:
        self._outstanding -= 1
        self._more()

    def _failed(self, failure: Any) -> None:
        if not self._ending:
            self._say(failed=str(failure.value))
            if not self._done.called:
                self._done.callback(None)

    def _looked(self) -> None:
        account, now = self.publisher.account(), time.monotonic()
        if self._first is None and account.published:
            self._first = now
            self._say(first_published_at=now)
        if account.books.confirmed != self._confirmed:
            self._confirmed, self._last = account.books.confirmed, now
        if now - self._reported > REPORT:
            self._reported = now
            self._say(accepted=account.books.accepted, confirmed=account.books.confirmed, rss=status("VmRSS"))
        handed_in = self._next == self.load.last and not self._outstanding
        if self._what == "publish":
            handed_in = account.books.accepted > 0 and not account.books.held
        if handed_in and not self._done.called:
            self._done.callback(None)

    def _stop(self) -> Deferred[None]:
        self._ending = True
        self._look.stop()
        stopped = self.publisher.stopService()
        return stopped.addCallback(lambda _: self._ended())

    def _ended(self) -> None:
        books = self.publisher.account().books
        self._say(
            accepted=books.accepted,
            confirmed=books.confirmed,
            difference=books.difference,
            first_published_at=self._first,
            last_confirmed_at=self._last,
            peak_rss=status("VmHWM"),
        )

    @staticmethod
    def _say(**told: Any) -> None:
        print(json.dumps(told), flush=True)


def status(name: str) -> int:
    """A figure of this process in bytes, by its name in /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


# From outside


class RunFailed(Exception):
    """A process did not do what it was for."""


@attrs.define
class Run:
    """What a process said: its last report, and RSS (bytes) over the number of messages accepted or confirmed."""

    seconds: float
    started_at: float
    last: Mapping[str, Any]
    rss: list[tuple[int, int, int]]

    @property
    def peak_rss(self) -> int:
        """Bytes."""
        found: int = self.last["peak_rss"]
        return found

    @property
    def first_publish(self) -> float:
        """Seconds from the start of the process, its imports included, to the first message written to RabbitMQ."""
        at: float = self.last["first_published_at"]
        return at - self.started_at

    @property
    def publishing(self) -> float:
        """Seconds from the first message written to the last one confirmed."""
        span: float = self.last["last_confirmed_at"] - self.last["first_published_at"]
        return span


def process(module: str, what: str, load: Any) -> subprocess.Popen[str]:
    """A worker; its standard output is JSON lines."""
    return subprocess.Popen(
        [sys.executable, "-m", module, "--run", what, json.dumps(attrs.asdict(load))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def told(worker: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """What it says, until its end; killed after PATIENCE seconds without progress, and when the caller goes away.

    Raises RunFailed unless it ended well.
    """
    assert worker.stdout is not None
    progress: dict[str, Any] = {}
    patience = threading.Timer(PATIENCE, worker.kill)
    patience.start()
    try:
        for line in worker.stdout:
            report = json.loads(line)
            told_before, progress = progress, {name: value for name, value in report.items() if name != "rss"}
            if progress != told_before:
                patience.cancel()
                patience = threading.Timer(PATIENCE, worker.kill)
                patience.start()
            yield report
        if worker.wait():
            raise RunFailed(f"it ended with {worker.returncode} after it had said {progress}")
    finally:
        patience.cancel()
        if worker.poll() is None:
            worker.kill()
            worker.wait()
        worker.stdout.close()


def run(what: str, load: Load, *, end_at: tuple[str, int] | None = None) -> Run:
    """A worker's whole life; ``end_at``: SIGTERM when ``accepted`` or ``confirmed`` has come so far."""
    started_at = time.monotonic()
    worker = process("benchmarks.backlog", what, load)
    rss: list[tuple[int, int, int]] = []
    last: dict[str, Any] = {}
    for last in told(worker):
        if "failed" in last:
            raise RunFailed(last["failed"])
        if "rss" in last:
            rss.append((last["accepted"], last["confirmed"], last["rss"]))
        if end_at and last.get(end_at[0], 0) >= end_at[1]:
            end_at = None
            worker.send_signal(signal.SIGTERM)
    if "peak_rss" not in last:
        raise RunFailed(f"{what}: it did not say how it ended")
    return Run(time.monotonic() - started_at, started_at, last, rss)


@attrs.frozen(kw_only=True)
class Result:
    """Times in seconds, sizes in bytes, rates in messages a second."""

    messages: int
    submit_rate: float
    submit_peak_rss: list[int]
    """Of the processes that submitted, the broker being down."""
    submit_rss: list[tuple[int, int]]
    """(messages in the spool, RSS) in ten steps."""
    file_size: int
    first_publish: float
    """From the start of a process on the whole backlog to its first publish; imports included."""
    first_publish_again: float
    """The same after the SIGTERM in the middle."""
    publish_rate: float
    publish_peak_rss: list[int]
    empty_rates: list[float]
    """The same machine with an empty spool, submitting as fast as is published: before and after."""
    empty_peak_rss: list[int]
    missing: int
    duplicated: int
    in_order: bool
    problems: tuple[str, ...]
    """Of ``pubd verify`` afterwards."""

    @property
    def ratio(self) -> float:
        """Rate of publishing the backlog to that with an empty spool."""
        return self.publish_rate / (sum(self.empty_rates) / len(self.empty_rates))


def measure(node: Node, directory: Path, *, messages: int, batch: int, body: int, window: int) -> Result:
    """All of it, on a node that runs and is stopped and started. Raises RunFailed."""
    name = f"pubd-backlog-{uuid.uuid4().hex[:12]}"
    with channel_of(node.url) as channel:
        for queue in (name, f"{name}-empty"):
            # Lazy: what the broker does for the last message is what it did for the first.
            channel.queue_declare(queue, durable=True, arguments={"x-queue-mode": "lazy"})
    whole = Load(
        url=node.url,
        queue=name,
        spool=str(directory / "backlog.db"),
        first=0,
        last=messages,
        batch=batch,
        body=body,
        window=window,
    )
    empty = attrs.evolve(
        whole, queue=f"{name}-empty", spool=str(directory / "empty.db"), last=max(batch, min(messages, SAMPLE))
    )
    empties = [_empty(node, empty)]
    node.stop()
    submitted = [run("submit", whole, end_at=("accepted", messages // 2))]
    rest = attrs.evolve(whole, first=submitted[0].last["accepted"])
    submitted.append(run("submit", rest))
    file_size = Path(whole.spool).stat().st_size
    node.start()
    published = [run("publish", whole, end_at=("confirmed", messages // 2)), run("publish", whole)]
    empties.append(_empty(node, empty))
    with channel_of(node.url) as channel:
        numbers = _taken(channel, name)
    first = list(dict.fromkeys(numbers))
    halfway = published[0].last["confirmed"]
    seconds = sum(each.publishing for each in published)
    return Result(
        messages=messages,
        submit_rate=messages / sum(each.seconds for each in submitted),
        submit_peak_rss=[each.peak_rss for each in submitted],
        submit_rss=_steps([(accepted, rss) for each in submitted for accepted, _, rss in each.rss]),
        file_size=file_size,
        first_publish=published[0].first_publish,
        first_publish_again=published[1].first_publish if halfway < messages else 0.0,
        publish_rate=messages / seconds,
        publish_peak_rss=[each.peak_rss for each in published],
        empty_rates=[(empty.last - empty.first) / each.publishing for each in empties],
        empty_peak_rss=[each.peak_rss for each in empties],
        missing=messages - len(first),
        duplicated=len(numbers) - len(first),
        in_order=first == sorted(first),
        problems=offline.verify(Path(whole.spool)).problems,
    )


def _empty(node: Node, load: Load) -> Run:
    for path in Path(load.spool).parent.glob(Path(load.spool).name + "*"):
        path.unlink()
    with channel_of(node.url) as channel:
        channel.queue_purge(load.queue)
    return run("through", load)


@contextlib.contextmanager
def channel_of(url: str) -> Iterator[Any]:
    """A channel of pika's blocking connection, for a short while."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        connection.close()


def _taken(channel: Any, queue: str) -> list[int]:
    """The numbers of all messages in the queue, in order."""
    numbers: list[int] = []
    count = channel.queue_declare(queue, passive=True).method.message_count

    def got(_: Any, method: Any, __: Any, body: bytes) -> None:
        numbers.append(int(body))
        if len(numbers) == count:
            channel.basic_cancel(method.consumer_tag)

    if count:
        channel.basic_consume(queue, got, auto_ack=True)
        channel.start_consuming()
    return numbers


def _steps(points: Sequence[tuple[int, int]], steps: int = 10) -> list[tuple[int, int]]:
    """About ``steps`` of the points, the last one included."""
    return list(points[:: max(1, len(points) // steps)]) + list(points[-1:])


def printed(result: Result) -> str:
    """For people."""

    def mib(size: float) -> str:
        return f"{size / (1 << 20):.0f} MiB"

    rows = [
        ("submitted, the broker being down", f"{result.messages:,}"),
        ("  messages a second (SIGTERM and restart included)", f"{result.submit_rate:,.0f}"),
        ("  peak RSS of each process", ", ".join(map(mib, result.submit_peak_rss))),
        ("  RSS on the way", ", ".join(f"{count:,}: {mib(rss)}" for count, rss in result.submit_rss[::3])),
        ("  size of the spool", mib(result.file_size)),
        ("start of the process to the first publish", f"{result.first_publish:.2f} s"),
        ("  again after SIGTERM in the middle", f"{result.first_publish_again:.2f} s"),
        ("publishing the backlog, messages a second", f"{result.publish_rate:,.0f}"),
        ("  peak RSS of each process", ", ".join(map(mib, result.publish_peak_rss))),
        ("with an empty spool, before and after", ", ".join(f"{rate:,.0f}" for rate in result.empty_rates)),
        ("  peak RSS", ", ".join(map(mib, result.empty_peak_rss))),
        ("  ratio", f"{result.ratio:.2f}"),
        ("missing, duplicated, in order", f"{result.missing}, {result.duplicated}, {result.in_order}"),
        ("pubd verify", "; ".join(result.problems) or "whole"),
    ]
    return table(("", ""), rows)


def _options() -> argparse.ArgumentParser:
    parser = arguments.parser("backlog", __doc__, messages=1_000_000)
    parser.add_argument("--batch", type=int, default=100, metavar="N", help="of submit_many; 100")
    parser.add_argument("--window", type=int, default=1000, metavar="N", help="deliveries in flight; 1000")
    parser.add_argument("--directory", type=Path, help="where the spools are; a temporary one where not said")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options().parse_args(given)
    if options.run:
        from twisted.internet import reactor

        Worker(reactor, Load(**json.loads(options.run[1]))).run(options.run[0])
        return
    with Node() as node, tempfile.TemporaryDirectory(dir=options.directory) as directory:
        result = measure(
            node,
            Path(directory),
            messages=options.messages,
            batch=options.batch,
            body=options.body,
            window=options.window,
        )
    print(json.dumps(attrs.asdict(result) | {"ratio": result.ratio}, indent=1) if options.json else printed(result))


if __name__ == "__main__":
    main()
