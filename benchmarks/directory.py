"""Many files waiting at the start of pubd: how long it takes, the memory, and how late the reactor is meanwhile.

``python -m benchmarks.directory --files 100000``; RabbitMQ is not needed, the messages stay in the spool.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from pubd.intake.directory import DirectoryIntake
from pubd.intake.options import DirectoryOptions
from pubd.publisher import Publisher
from tests.directories import Box, PlainDoor, Writer

#: Seconds between looks at the clock.
TICK = 0.005


def peak() -> int:
    """Resident memory at its highest so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="waiting at start (%(default)s)")
    files = parser.parse_args().files
    reactor: Any = installed_reactor
    with TemporaryDirectory(prefix="pubd-directory-") as directory:
        box = Box(Path(directory) / "box").make()
        for number in range(files):
            (box.new / f"{number:08}.json").write_text(f'{{"exchange": "x", "routing_key": "k", "body": "{number}"}}')
        publisher = Publisher.from_url(
            "amqp://127.0.0.1:1", spool=f"sqlite:///{Path(directory) / 'spool.db'}", reactor=reactor
        )
        writer: Any = Writer()
        intake = DirectoryIntake(
            reactor=reactor, door=PlainDoor(publisher), options=DirectoryOptions(path=box.path), principal=writer
        )
        late: list[float] = []
        before, began, cpu, last = peak(), 0.0, 0.0, 0.0

        async def end() -> None:
            seconds, used = time.monotonic() - began, time.process_time() - cpu
            late.sort()
            print(
                f"{files:,} files in {seconds:.1f} s: {files / seconds:,.0f} a second, {used / files * 1e6:.0f} us CPU"
            )
            print(f"memory: {before} MiB before, {peak()} MiB at most")
            shares = {"median": 0.5, "p99": 0.99, "worst": 1.0}
            print(
                "reactor late: "
                + ", ".join(
                    f"{name} {late[int(share * (len(late) - 1))] * 1000:.1f} ms" for name, share in shares.items()
                )
            )
            await intake.stopService()
            await publisher.stopService()
            reactor.stop()

        def tick() -> None:
            nonlocal last
            now = time.monotonic()
            late.append(max(0.0, now - last - TICK))
            last = now
            if intake.counts.files >= files:
                ticking.stop()
                Deferred.fromCoroutine(end())

        ticking = LoopingCall(tick)

        def start() -> None:
            nonlocal began, cpu, last
            began, cpu, last = time.monotonic(), time.process_time(), time.monotonic()
            publisher.startService()
            intake.startService()
            ticking.start(TICK)

        reactor.callWhenRunning(start)
        reactor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
