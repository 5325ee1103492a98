"""What it costs to look: ``python -m benchmarks.looking --help``.

The daemon as a user runs it, on a spool in which 1,000,000 messages wait for an exchange that is paused and 100,000 are
parked. How long each question of an operator takes, and the commands ``pubd status`` and ``pubd list`` as a whole; and
how many messages a second are published beside that, in turns without anybody looking and with an operator who asks
once a second for status, for the page and what follows the charts as the page's script does (every five seconds), and
for a list of 100. Dearer questions (1,000 messages in a page, filters that lead to nothing) are asked afterwards, for
the time that each takes, and are not in that comparison. The broker is that of PUBD_BROKER_URL, or a private one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from benchmarks import arguments
from benchmarks.clients import Closed, Connection, HttpAnswers, Request, http_post, message
from benchmarks.measure import Spread, table
from benchmarks.report import disk, disk_line, millis, ratio, target, targets_table
from benchmarks.rig import ROOT, Queue
from benchmarks.servers import PATIENCE, Cpu, Daemon
from pubd.decision import Decision, Verb
from pubd.entry import Entry
from pubd.outcome import Cause, Outcome, Reason, Settlement, State, Via
from pubd.spool import schema
from pubd.spool.base import Limits
from pubd.spool.ids import Ids
from pubd.spool.sqlite import connect
from pubd.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: To reach: milliseconds for an answer, and the share of the rate that is left while an operator looks.
TARGET_MILLIS, TARGET_RATE = 200.0, 0.95
#: One in so many has another routing key, and another reason.
RARE = 100_000
#: Messages of one transaction while the spool is filled.
BATCH = 1000
#: What an operator asks for, and what it is called.
QUESTIONS = {
    "the status page": "/",
    "the status page, parked ones of an exchange": "/?exchange=parked",
    "status": "/status",
    "metrics": "/metrics",
    "list": "/messages",
    "list, a page of 1,000": "/messages?limit=1000",
    "list ready": "/messages?state=ready",
    "list parked": "/messages?state=parked",
    "list parked, a page of 1,000": "/messages?state=parked&limit=1000",
    "list parked of an exchange that has none": "/messages?state=parked&exchange=waiting",
    "list deferred (none)": "/messages?state=deferred",
    "list discarded (none)": "/messages?state=discarded",
    "by ordering key, ready": "/messages?state=ready&ordering_key=k7",
    "by routing key, 1 in 100,000": "/messages?routing_key=rare.%23",
    "by routing key, ready, none": "/messages?state=ready&routing_key=none.*",
    "by age, none is older": "/messages?older_than=9d",
    "by age, newer": "/messages?newer_than=1m",
    "by reason, parked, 1 in 100,000": "/messages?state=parked&reason=NOT_FOUND",
    "by reason, parked, none": "/messages?state=parked&reason=541",
    "count parked by reason": "/messages/count?state=parked&reason=312",
    "count all": "/messages/count",
}
#: What is asked once a second, while messages are published: the charts of ten minutes go on from their newest sample.
ROUND = ("/status", "/", "/history?last=10m&after={sample}", "/messages?state=parked")
#: Seconds of a sample of the charts.
SAMPLE = 5
#: May take longer: no index leads to it.
SEARCH = "/page/search?q=nobody"
COMMANDS = (("status",), ("list",), ("list", "--state", "parked"))


def fill(path: Path, *, waiting: int, parked: int, body: int) -> None:
    """A spool in which so many messages wait for the exchange ``waiting``, which is paused, and so many are parked."""
    connection = connect(path)
    try:
        schema.migrate(connection, lambda _: None)
        connection.execute("INSERT INTO books (tag) VALUES (1)")
        ids = Ids(1, 0, time.time)
        store = Store(connection, ids, Limits, lambda: 1 << 60)
        with _transaction(store):
            store.decisions.pause(Decision(verb=Verb.PAUSE, who="the benchmark", at=time.time()), "waiting")
        for first in range(0, waiting, BATCH):
            with _transaction(store):
                store.submissions.append(_entries(ids, "waiting", range(first, min(first + BATCH, waiting)), body))
        for first in range(0, parked, BATCH):
            with _transaction(store):
                store.submissions.append(_entries(ids, "parked", range(first, min(first + BATCH, parked)), body))
            with _transaction(store):
                claimed = store.claims.claim("parked", BATCH, 1 << 40, time.time())
                assert isinstance(claimed, list)
                others = [_parked(entry, first + at) for at, entry in enumerate(claimed)]
                store.settlements.settle([], others, time.time())
    finally:
        connection.close()
    os.chmod(path, 0o600)


@contextlib.contextmanager
def _transaction(store: Store) -> Iterator[None]:
    store.base.begin()
    yield
    store.submissions.flush()
    store.base.commit()


def _entries(ids: Ids, exchange: str, numbers: Sequence[int], body: int) -> list[Entry]:
    found = []
    for number in numbers:
        seq = ids.next()
        id = ids.id_of(seq)
        found.append(
            Entry(
                id=id,
                seq=seq,
                exchange=exchange,
                routing_key="rare.key" if number % RARE == RARE // 2 else f"order.new.{number % 100}",
                message_id=id,
                mandatory=True,
                properties=b"\x10\x00\x02",
                body=b"x" * body,
                accepted_at=time.time(),
                ordering_key=f"k{number}" if number % 100 == 7 else None,
            )
        )
    return found


def _parked(entry: Entry, number: int) -> Settlement:
    reason = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
    if number % RARE == RARE // 2:
        reason = Reason(cause=Cause.POISON, code=404, text="NOT_FOUND - no exchange")
    return Settlement(
        entry=entry,
        state=State.PARKED,
        attempts=1,
        reason=reason,
        outcome=Outcome.RETURNED,
        via=Via("rabbit@benchmark", 1),
        tag=1,
    )


# Looking


def ask(path: str, what: str) -> float:
    """Seconds until the whole answer is there. Raises RuntimeError for any but 200."""
    start = time.monotonic()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(path)
        peer.sendall(f"GET {what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := peer.recv(1 << 20):
            parts.append(part)
    answer = b"".join(parts)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{what}: {answer[:500]!r}")
    return time.monotonic() - start


def command(path: str, *words: str) -> float:
    """Seconds that a command takes, Python's start included. ``pubd status`` says 1: publishing is paused."""
    start = time.monotonic()
    program = Path(sys.executable).with_name("pubd")
    done = subprocess.run(
        [program, *words, "-s", f"unix:{path}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"pubd {' '.join(words)}: {done.returncode} {done.stderr}")
    return time.monotonic() - start


class Operator(threading.Thread):
    """Asks :data:`ROUND` once a second until it is stopped."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._stopped = threading.Event()
        self.took: list[float] = []
        self.failed: Exception | None = None

    def run(self) -> None:
        try:
            while True:
                due = time.monotonic() + 1.0
                newest = int(time.time()) // SAMPLE - 1
                self.took += [ask(self._path, what.format(sample=newest)) for what in ROUND]
                if self._stopped.wait(max(0.0, due - time.monotonic())):
                    return
        except Exception as error:
            self.failed = error

    def stop(self) -> None:
        """Raises what went wrong."""
        self._stopped.set()
        self.join()
        if self.failed is not None:
            raise self.failed


@attrs.frozen
class Round:
    """What publishing reached: messages a second, and the daemon's CPU (microseconds) for each."""

    rate: float
    micros: float


class Publishing:
    """Messages through HTTP as NDJSON, each answered when RabbitMQ has confirmed it."""

    def __init__(self, daemon: Daemon, queue: str, *, lines: int, body: int) -> None:
        self._daemon = daemon
        data = http_post(
            "/messages?wait=confirmed", b"".join([message(queue, body) + b"\n"] * lines), "application/x-ndjson"
        )
        self._request, self._lines = Request(data, lines, b'"state":"confirmed"'), lines

    def round(self, messages: int, operator: Operator | None = None) -> Round:
        """So many of them, beside the operator if there is one."""
        connections = [Connection(self._daemon.http, HttpAnswers()) for _ in range(4)]
        if operator is not None:
            operator.start()
        try:
            count = max(1, messages // self._lines)
            cpu, start = Cpu.of(self._daemon.pid), time.monotonic()
            Closed(connections, 1).run(self._request, count)
            seconds, used = time.monotonic() - start, Cpu.of(self._daemon.pid).total - cpu.total
            return Round(count * self._lines / seconds, used / (count * self._lines) * 1e6)
        finally:
            for connection in connections:
                connection.close()
            if operator is not None:
                operator.stop()


def measure(url: str, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, on a spool made for it, which is removed."""
    # Its connection says nothing meanwhile.
    lasting = f"{url}{'&' if '?' in url else '?'}heartbeat=0"
    with tempfile.TemporaryDirectory(prefix="looking-", dir=directory) as name, Queue(lasting) as queue:
        spool = Path(name)
        fill(spool / "spool.db", waiting=options.waiting, parked=options.parked, body=options.body)
        size = (spool / "spool.db").stat().st_size
        with Daemon(url, spool, window=1000) as daemon:
            publishing = Publishing(daemon, queue, lines=options.lines, body=options.body)
            publishing.round(options.messages // 10)
            quiet: list[Round] = []
            looked: list[Round] = []
            meanwhile: list[float] = []
            for _ in range(options.rounds):
                quiet.append(publishing.round(options.messages))
                operator = Operator(daemon.http)
                looked.append(publishing.round(options.messages, operator))
                meanwhile += operator.took
            answers = {name: [ask(daemon.http, what) for _ in range(options.times)] for name, what in QUESTIONS.items()}
            commands = {
                f"pubd {' '.join(words)}": [command(daemon.http, *words) for _ in range(max(1, options.times // 5))]
                for words in COMMANDS
            }
            commands["search by message_id, none"] = [
                ask(daemon.http, SEARCH) for _ in range(max(1, options.times // 5))
            ]
    return report(quiet, looked, answers, commands, meanwhile) | {"file_size": size, "disk": disk(directory)}


def report(
    quiet: Sequence[Round],
    looked: Sequence[Round],
    answers: dict[str, list[float]],
    commands: dict[str, list[float]],
    meanwhile: Sequence[float],
) -> dict[str, Any]:
    """What was found, and what was to be."""
    spreads = {name: attrs.asdict(Spread.of(took)) for name, took in (answers | commands).items()}
    if meanwhile:
        spreads["the operator's, meanwhile"] = attrs.asdict(Spread.of(meanwhile))
    share = ratio([each.rate for each in looked], [each.rate for each in quiet])
    slowest = max(spread["p99"] for name, spread in spreads.items() if name in answers)
    return {
        "publishing": [
            {
                "": name,
                "messages_per_second": round(statistics.median(each.rate for each in rounds)),
                "cpu_micros_per_message": round(statistics.median(each.micros for each in rounds), 1),
                "samples": [attrs.asdict(each) for each in rounds],
            }
            for name, rounds in (("nobody looks", quiet), ("an operator looks once a second", looked))
        ],
        "answers": spreads,
        "targets": [
            target("rate with an operator, of that without", share, TARGET_RATE, at_least=True),
            target("slowest answer, p99 ms", round(slowest, 1), TARGET_MILLIS),
        ],
    }


def printed(found: dict[str, Any]) -> str:
    """The report for people."""
    rates = [
        (row[""], f"{row['messages_per_second']:,}", f"{row['cpu_micros_per_message']}") for row in found["publishing"]
    ]
    answers = [(name, millis(spread)) for name, spread in found["answers"].items()]
    return "\n\n".join(
        (
            f"{disk_line(found['disk'])}; the spool has {found['file_size'] / (1 << 20):,.0f} MiB",
            table(("publishing", "msgs/s", "CPU µs/msg"), rates),
            table(("ms until the answer: p50 / p99 / max", ""), answers),
            targets_table(found["targets"]),
        )
    )


def _options() -> argparse.ArgumentParser:
    parser = arguments.parser("looking", __doc__, messages=40_000, messages_of="published in each round; ")
    arguments.add_spool(parser)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each of the two; 5")
    parser.add_argument("--waiting", type=int, default=1_000_000, metavar="N", help="messages that wait; 1000000")
    parser.add_argument("--parked", type=int, default=100_000, metavar="N", help="messages that are parked; 100000")
    parser.add_argument("--times", type=int, default=100, metavar="N", help="each question is asked; 100")
    parser.add_argument("--lines", type=int, default=100, metavar="N", help="messages of a request; 100")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options().parse_args(given)
    with arguments.broker() as url:
        found = measure(url, arguments.spool_directory(options.dir), options)
    print(json.dumps(found, indent=1) if options.json else printed(found))


if __name__ == "__main__":
    main()
