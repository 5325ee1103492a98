"""What to reckon with, for docs/sizing.rst: bytes on disk for each body size, memory, and syncs a second.

No broker: everything that is accepted waits, which is the case to size for. ``--dir`` says on which disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from prometheus_client.parser import text_string_to_metric_families

from pubd.cli.client import Client
from pubd.cli.server import Server
from tests.service.process import Program

SIZES = (100, 1024, 10_240, 102_400)
#: Bytes of bodies that are handed in for each size, and messages at most.
VOLUME, MOST = 100 << 20, 50_000
BATCH_BYTES, BATCH = 1 << 20, 1000
CLIENTS = (1, 16)
SINGLES = 2000
PATIENCE = 60.0
CONFIG = """\
[broker]
urls = ["amqp://127.0.0.1:1"]
[spool]
url = "sqlite:///{directory}/pubd.db"
max_bytes = "10GiB"
[http]
listen = ["unix:{directory}/s"]
"""


@attrs.frozen
class Daemon:
    """A pubd whose RabbitMQ is away."""

    program: Program
    directory: Path

    def client(self) -> Client:
        """One connection."""
        return Client(Server.parse(f"{self.directory}/s"), clock=time.monotonic)

    @property
    def rss(self) -> int:
        """The largest so far, in bytes."""
        status = Path(f"/proc/{self.program.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    @property
    def disk(self) -> int:
        """The spool's file and its WAL, in bytes; the ballast is as large always."""
        return sum(path.stat().st_size for path in self.directory.glob("pubd.db*") if path.suffix in (".db", ".db-wal"))

    def metric(self, name: str) -> float:
        """One sample of /metrics."""
        with self.client() as client:
            text = client.ask("GET", "/metrics", deadline=time.monotonic() + PATIENCE).body.decode()
        families = text_string_to_metric_families(text)
        return next(sample.value for family in families for sample in family.samples if sample.name == name)


@contextmanager
def daemon(disk: Path) -> Iterator[Daemon]:
    """On a spool of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sizing-", dir=disk) as name:
        (Path(name) / "pubd.toml").write_text(CONFIG.format(directory=name))
        program = Program(Path(name), ["twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"])
        try:
            program.says("listening on")
            yield Daemon(program, Path(name))
        finally:
            program.remove()


def held(disk: Path, size: int) -> dict[str, Any]:
    """So many messages of one size that wait."""
    count = min(MOST, VOLUME // size)
    batch = max(1, min(BATCH, BATCH_BYTES // size))
    line = json.dumps({"exchange": "orders", "routing_key": "order.new", "body": "x" * size}).encode() + b"\n"
    with daemon(disk) as pubd, pubd.client() as client:
        empty, before = pubd.rss, pubd.disk
        for start in range(0, count, batch):
            body = line * min(batch, count - start)
            answer = client.ask(
                "POST",
                "/messages",
                deadline=time.monotonic() + PATIENCE,
                body=body,
                headers={"Content-Type": "application/x-ndjson"},
            )
            assert answer.status == 200, answer
        bytes = pubd.metric("pubd_spool_held_bytes")
        return {
            "body": size,
            "messages": count,
            "counted": bytes / count,
            "disk": (pubd.disk - before) / count,
            "rss": pubd.rss / (1 << 20),
            "rss_empty": empty / (1 << 20),
        }


def syncs(disk: Path, clients: int) -> dict[str, Any]:
    """Single submissions by so many clients at once, each waiting for its answer."""
    body = json.dumps({"exchange": "orders", "routing_key": "order.new", "body": "x" * 100}).encode()

    def submit(pubd: Daemon) -> None:
        with pubd.client() as client:
            for _ in range(SINGLES // clients):
                answer = client.ask(
                    "POST",
                    "/messages",
                    deadline=time.monotonic() + PATIENCE,
                    body=body,
                    headers={"Content-Type": "application/json"},
                )
                assert answer.status == 202, answer

    with daemon(disk) as pubd, ThreadPoolExecutor(clients) as pool:
        before, started = pubd.metric("pubd_commit_seconds_count"), time.monotonic()
        for each in [pool.submit(submit, pubd) for _ in range(clients)]:
            each.result()
        seconds = time.monotonic() - started
        commits = pubd.metric("pubd_commit_seconds_count") - before
        taken = pubd.metric("pubd_commit_seconds_sum")
    return {
        "clients": clients,
        "messages_a_second": SINGLES / seconds,
        "commits_a_second": commits / seconds,
        "commit_ms": 1000 * taken / commits,
    }


def main() -> None:
    """Prints a JSON object a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("var"), help="the disk to measure (default: var)")
    given = parser.parse_args()
    given.dir.mkdir(exist_ok=True)
    disk = given.dir.resolve()
    for size in SIZES:
        print(json.dumps({name: round(value, 1) for name, value in held(disk, size).items()}), flush=True)
    for clients in CLIENTS:
        print(json.dumps({name: round(value, 1) for name, value in syncs(disk, clients).items()}), flush=True)


if __name__ == "__main__":
    main()
