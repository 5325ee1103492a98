"""Retain and purge: many messages go through a durable spool that forgets them after a short while.

``python -m benchmarks.soak --help``. What is looked at: whether the file stays bounded, whether purging makes
publishing pause, and what is left in the end. The broker is that of PUBD_BROKER_URL, or a private one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater, react

from benchmarks import arguments
from benchmarks.backlog import RunFailed, channel_of, process, status, told
from benchmarks.measure import Spread, table
from pubd.amqp.lane import LaneOptions
from pubd.message import Message
from pubd.options import Options
from pubd.publisher import Publisher
from pubd.spool import offline
from pubd.spool.base import Swept
from pubd.spool.sqlite import SqliteSpool

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pubd.ledger import Delivery
    from pubd.outcome import Settlement
    from pubd.receipt import Receipt
    from pubd.spool.store import Store

#: Seconds between looks at the file, and between looks whether more may be handed in.
LOOK, PACE = 0.25, 0.01
#: Seconds after the end of the last retention until everything has to be gone.
PATIENCE = 60.0


@attrs.frozen(kw_only=True)
class Load:
    """``rate`` in messages a second, 0 for as fast as it goes; each ``keyed``-th has an idempotency key (0: none)."""

    url: str
    queue: str
    spool: str
    messages: int
    batch: int
    body: int
    window: int
    rate: float
    keyed: int
    retain: float


@attrs.frozen
class Gap:
    """``gap`` milliseconds between two batches of confirms, and what took longest meanwhile, in milliseconds: a commit
    with a purge, one without, a checkpoint, and a turn of the reactor (``late``), which has no need of the spool's
    thread. What nothing of it explains was RabbitMQ's.
    """

    gap: float
    confirmed: int
    """Messages confirmed by then."""
    with_purge: float
    without: float
    checkpoint: float
    late: float


@attrs.frozen(kw_only=True)
class Result:
    """Sizes in bytes, of the database and its WAL together where nothing else is said."""

    messages: int
    seconds: float
    confirmed: int
    difference: int
    gaps: tuple[Gap, ...]
    """The ten longest."""
    purges: int
    commits_with_purge: Spread
    commits_without: Spread
    checkpoints: Spread
    sizes: list[tuple[int, int]]
    """(confirmed, size) in about twenty steps."""
    peak_size: int
    wal_size: int
    """The largest."""
    peak_rss: int
    forgotten: float
    """Seconds from the last confirm until nothing was left to forget."""
    rows: int
    """Left in the message, settlement, attempt and idempotency tables."""
    final_size: int
    problems: tuple[str, ...]


class _TimedSpool(SqliteSpool):
    """Notes how long its transactions and checkpoints take, and how far confirms are apart."""

    def watch(self) -> None:
        """From now on. All times in seconds, but those of gaps."""
        self.confirmed = 0
        self.last_confirm = 0.0
        self.gaps: list[Gap] = []
        self.purges: list[float] = []
        self.others: list[float] = []
        self.checkpoints: list[float] = []
        self._marks = (0, 0, 0)
        self._ticked = time.monotonic()
        self._late = 0.0

    def tick(self) -> None:
        """Called every PACE seconds, by a reactor that is in time."""
        now = time.monotonic()
        self._late, self._ticked = max(self._late, now - self._ticked - PACE), now

    def settle(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> Deferred[Collection[str]]:
        now = time.monotonic()
        times = (self.purges, self.others, self.checkpoints)
        purge, other, checkpoint = (max(times[n][mark:], default=0.0) * 1e3 for n, mark in enumerate(self._marks))
        self._marks = (len(times[0]), len(times[1]), len(times[2]))
        if self.confirmed:
            late = max(self._late, now - self._ticked - PACE)
            self.gaps.append(Gap((now - self.last_confirm) * 1e3, self.confirmed, purge, other, checkpoint, late * 1e3))
            if len(self.gaps) > 1000:
                self.gaps = self.longest_gaps()
        self.last_confirm = now
        self._late = 0.0
        self.confirmed += len(confirmed)
        return super().settle(confirmed, others)

    def longest_gaps(self) -> list[Gap]:
        """Ten of them."""
        return sorted(self.gaps, key=lambda gap: -gap.gap)[:10]

    # On the spool's thread; a list takes from one and gives to another without a lock.

    def _transaction(self, store: Store, ops: Any) -> bool:
        started = time.monotonic()
        done = super()._transaction(store, ops)
        took = time.monotonic() - started
        purged = any(isinstance(op.result, Swept) and op.result.purged for op in ops)
        (self.purges if purged else self.others).append(took)
        return done

    def _checkpoint(self, connection: apsw.Connection, *, shrunk: bool) -> None:
        pages, started = self._wal_pages, time.monotonic()
        super()._checkpoint(connection, shrunk=shrunk)
        if shrunk or pages >= self._checkpoint_at:
            self.checkpoints.append(time.monotonic() - started)


class Soak:
    """One process: a publisher that is handed messages as fast as they are confirmed."""

    def __init__(self, reactor: Any, load: Load) -> None:
        self.load = load
        self.spool = _TimedSpool(load.spool, reactor=reactor)
        self.spool.watch()
        self.publisher = Publisher.from_url(
            load.url,
            spool=self.spool,
            reactor=reactor,
            name="pubd soak",
            options=Options(lanes=LaneOptions(window=load.window), retain=load.retain),
        )
        self._reactor = reactor
        self._next = self._outstanding = 0
        self._started = 0.0
        self._sizes: list[tuple[int, int]] = []
        self._peak = self._wal = 0
        self._done: Deferred[None] = Deferred()

    async def run(self) -> Result:
        """All of it."""
        self.publisher.startService()
        look = LoopingCall(self._looked)
        self._started = time.monotonic()
        handing_in, ticking = LoopingCall(self._more), LoopingCall(self.spool.tick)
        looking = [look.start(LOOK), handing_in.start(PACE), ticking.start(PACE)]
        await self._done
        handing_in.stop()
        ticking.stop()
        ended = time.monotonic()
        books = self.publisher.account().books
        gaps = self.spool.longest_gaps()
        await self._forgotten()
        forgotten = time.monotonic() - ended
        look.stop()
        for each in looking:
            await each
        await self.publisher.stopService()
        path = Path(self.load.spool)
        return Result(
            messages=self.load.messages,
            seconds=ended - self._started,
            confirmed=books.confirmed,
            difference=books.difference,
            gaps=tuple(gaps),
            purges=len(self.spool.purges),
            commits_with_purge=Spread.of(self.spool.purges or [0.0]),
            commits_without=Spread.of(self.spool.others or [0.0]),
            checkpoints=Spread.of(self.spool.checkpoints or [0.0]),
            sizes=self._sizes[:: max(1, len(self._sizes) // 20)] + self._sizes[-1:],
            peak_size=self._peak,
            wal_size=self._wal,
            peak_rss=status("VmHWM"),
            forgotten=forgotten,
            rows=rows(path),
            final_size=path.stat().st_size,
            problems=offline.verify(path).problems,
        )

    def _more(self) -> None:
        load = self.load
        while self._next < load.messages and self._outstanding < 2 * load.window + load.batch:
            if load.rate and self._next > load.rate * (time.monotonic() - self._started):
                return
            numbers = range(self._next, min(self._next + load.batch, load.messages))
            self._next = numbers.stop
            self._outstanding += len(numbers)
            submitted = self.publisher.submit_many([self._message(number) for number in numbers])
            submitted.addCallbacks(self._accepted, self._failed)

    def _message(self, number: int) -> Message:
        keyed = self.load.keyed and number % self.load.keyed == 0
        return Message(
            exchange="",
            routing_key=self.load.queue,
            body=b"%0*d" % (self.load.body, number),
            idempotency_key=f"soak-{number}" if keyed else None,
        )

    def _accepted(self, receipts: list[Receipt]) -> None:
        receipts[-1].settled().addCallbacks(self._settled, self._failed, callbackArgs=(len(receipts),))

    def _settled(self, _: Any, count: int) -> None:
        self._outstanding -= count
        if self._next == self.load.messages and not self._outstanding:
            self._done.callback(None)
        else:
            self._more()

    def _failed(self, failure: Any) -> None:
        if not self._done.called:
            self._done.errback(failure)

    def _looked(self) -> None:
        size, wal = (_size(self.load.spool + end) for end in ("", "-wal"))
        self._peak, self._wal = max(self._peak, size + wal), max(self._wal, wal)
        self._sizes.append((self.spool.confirmed, size + wal))
        print(json.dumps({"confirmed": self.spool.confirmed}), flush=True)

    async def _forgotten(self) -> None:
        """Wait until the sweep finds nothing more to forget, or PATIENCE ends; not where it would be too long."""
        if self.load.retain > PATIENCE / 2:
            return
        until = time.monotonic() + self.load.retain + PATIENCE
        await deferLater(self._reactor, self.load.retain + 0.01, lambda: None)
        while time.monotonic() < until:
            if not (await self.spool.sweep(time.time(), self.load.retain)).purged:
                return
            await deferLater(self._reactor, 0, lambda: None)


def rows(path: Path) -> int:
    """How many rows a closed spool still has of messages and what belongs to them."""
    connection = apsw.Connection(str(path))
    tables = ("message", "settlement", "attempt", "idempotency")
    count: int = sum(n for (n,) in connection.execute(" UNION ALL ".join(f"SELECT count(*) FROM {t}" for t in tables)))
    connection.close()
    return count


def _size(path: str) -> int:
    return os.stat(path).st_size if os.path.exists(path) else 0


def measure(load: Load) -> Result:
    """A run in a process of its own. Raises RunFailed."""
    last: dict[str, Any] = {}
    for report in told(process("benchmarks.soak", "soak", load)):
        last = report
    if "problems" not in last:
        raise RunFailed(f"it did not say how it ended, but {last}")
    spreads = ("commits_with_purge", "commits_without", "checkpoints")
    gaps = tuple(Gap(**gap) for gap in last["gaps"])
    return Result(**last | {"gaps": gaps} | {name: Spread(**last[name]) for name in spreads})


def printed(result: Result) -> str:
    """For people."""

    def mib(size: float) -> str:
        return f"{size / (1 << 20):.1f} MiB"

    def spread(times: Spread) -> str:
        return f"{times.p50:.1f}, {times.p99:.1f}, {times.max:.0f} ms"

    def gap(one: Gap) -> str:
        return f"{one.gap:.0f} ({one.with_purge:.0f}, {one.without:.0f}, {one.checkpoint:.0f}, {one.late:.0f})"

    lines = [
        ("messages confirmed", f"{result.confirmed:,} of {result.messages:,}"),
        ("  a second", f"{result.messages / result.seconds:,.0f}"),
        ("longest gaps between confirms, ms (of that a commit", ", ".join(map(gap, result.gaps[:5]))),
        ("  with a purge, one without, a checkpoint, the reactor late)", ", ".join(map(gap, result.gaps[5:]))),
        (f"commits with a purge ({result.purges:,}): p50, p99, max", spread(result.commits_with_purge)),
        ("commits without", spread(result.commits_without)),
        ("checkpoints", spread(result.checkpoints)),
        ("largest size, WAL included", mib(result.peak_size)),
        ("  of the WAL", mib(result.wal_size)),
        ("  on the way", ", ".join(f"{count:,}: {mib(size)}" for count, size in result.sizes[::4])),
        ("peak RSS", mib(result.peak_rss)),
        ("last confirm to everything forgotten", f"{result.forgotten:.1f} s"),
        ("rows left, size in the end", f"{result.rows}, {mib(result.final_size)}"),
        ("difference in the books", str(result.difference)),
        ("pubd verify", "; ".join(result.problems) or "whole"),
    ]
    return table(("", ""), lines)


def _options() -> argparse.ArgumentParser:
    parser = arguments.parser("soak", __doc__, messages=2_000_000)
    parser.add_argument("--retain", type=float, default=10.0, metavar="SECONDS", help="10")
    parser.add_argument("--rate", type=float, default=0.0, metavar="N", help="a second; as fast as it goes")
    parser.add_argument("--keyed", type=int, default=10, metavar="N", help="an idempotency key for each Nth; 10")
    parser.add_argument("--batch", type=int, default=100, metavar="N", help="of submit_many; 100")
    parser.add_argument("--window", type=int, default=1000, metavar="N", help="deliveries in flight; 1000")
    parser.add_argument("--directory", type=Path, help="where the spool is; a temporary one where not said")
    return parser


def soak(url: str, directory: Path, **load: Any) -> Result:
    """On a queue that keeps the last few messages only; ``load`` is the rest of Load."""
    queue = f"pubd-soak-{uuid.uuid4().hex[:12]}"
    with channel_of(url) as channel:
        channel.queue_declare(queue, durable=True, arguments={"x-max-length": 10_000})
    try:
        return measure(Load(url=url, queue=queue, spool=str(directory / "soak.db"), **load))
    finally:
        with channel_of(url) as channel:
            channel.queue_delete(queue)


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options().parse_args(given)
    if options.run:
        load = Load(**json.loads(options.run[1]))

        async def run(reactor: Any) -> None:
            print(json.dumps(attrs.asdict(await Soak(reactor, load).run())))

        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    with arguments.broker() as url, tempfile.TemporaryDirectory(dir=options.directory) as directory:
        loaded = {name: getattr(options, name) for name in ("messages", "retain", "rate", "keyed", "batch", "body")}
        result = soak(url, Path(directory), window=options.window, **loaded)
    print(json.dumps(attrs.asdict(result), indent=1) if options.json else printed(result))


if __name__ == "__main__":
    main()
