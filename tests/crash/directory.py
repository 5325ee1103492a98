"""Kill pubd and a writer again and again while files go through a directory: each file is one accepted message.

The worker is pubd as far as this is concerned: a publisher with its spool in a file, RabbitMQ out of reach, and the
intake. ``python -m tests.crash.directory --kills 200 --files 5000`` is the whole campaign.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random, SystemRandom
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from tests.directories import Box, PlainDoor, Writer, stored

#: Lines in one file of an .ndjson, and the share of files of each kind.
LINES = 7
KINDS = ("raw", "json", "meta", "ndjson")
_REPOSITORY = Path(__file__).resolve().parents[2]


def kind_of(number: int) -> str:
    """The kind of file ``number``."""
    return KINDS[number % len(KINDS)]


def bodies_of(number: int) -> list[str]:
    """The bodies that file ``number`` holds."""
    return [f"{number}.{line}" for line in range(LINES)] if kind_of(number) == "ndjson" else [f"{number}"]


@attrs.frozen(kw_only=True)
class Verdict:
    """``kills`` of pubd and of the writer; ``doubled`` and ``lost`` are bodies."""

    files: int
    messages: int
    kills: int
    writer_kills: int
    doubled: tuple[str, ...]
    lost: tuple[str, ...]
    left: tuple[str, ...]
    rejected: tuple[str, ...]
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether each file was accepted exactly once."""
        return not (self.doubled or self.lost or self.left or self.rejected)


# The processes


def write(path: Path, count: int, pause: float = 0.0) -> None:
    """The writer: files it has renamed into new/ are noted, so that its next life goes on after them.

    The note is written before the rename: a file that was noted and is in tmp/ still is renamed by the next life.
    """
    box, noted = Box(path), path / "noted"
    done = noted.read_text().splitlines() if noted.exists() else []
    if done:
        _into_new(box, int(done[-1]))
    with noted.open("a") as notes:
        for number in range(len(done), count):
            kind, (first, *_) = kind_of(number), bodies_of(number)
            message = {"exchange": "x", "routing_key": kind}
            if kind == "json":
                text = json.dumps(message | {"body": first})
            elif kind == "ndjson":
                text = "".join(json.dumps(message | {"body": body}) + "\n" for body in bodies_of(number))
            else:
                text = first
            if kind == "meta":
                (box.tmp / f"{number}.m").write_text(json.dumps({"exchange": "y", "routing_key": kind, "type": first}))
            (box.tmp / f"{number}").write_text(text)
            notes.write(f"{number}\n")
            notes.flush()
            _into_new(box, number)
            time.sleep(pause)


def _into_new(box: Box, number: int) -> None:
    suffix = {"raw": "", "meta": "", "json": ".json", "ndjson": ".ndjson"}[kind_of(number)]
    name = f"{number:06}{suffix}"
    for draft, final in ((f"{number}.m", f"{name}.meta.json"), (f"{number}", name)):
        if (box.tmp / draft).exists():
            os.rename(box.tmp / draft, box.new / final)


def serve(path: Path, user: int | None = None, group: int | None = None) -> None:
    """pubd: says ``ready`` once it runs, when it was told to; as ``user``, of ``group`` besides its own, if given."""
    from twisted.internet import reactor

    from pubd.intake.directory import DirectoryIntake
    from pubd.intake.options import DirectoryOptions
    from pubd.publisher import Publisher
    from pubd.spool import schema

    running: Any = reactor
    sys.stdin.readline()
    if user is not None and group is not None:
        # Not before everything is imported: Python may be where only root can read it.
        schema.steps()
        os.setgroups([group])
        os.setgid(user)
        os.setuid(user)
    publisher = Publisher.from_url("amqp://127.0.0.1:1", spool=f"sqlite:///{path / 'spool.db'}", reactor=running)
    writer: Any = Writer()
    intake = DirectoryIntake(
        reactor=running,
        door=PlainDoor(publisher),
        options=DirectoryOptions(path=path, exchange="x", routing_key="raw", rescan=1.0),
        principal=writer,
    )

    def start() -> None:
        publisher.startService()
        intake.startService()
        os.write(1, b"ready\n")

    running.callWhenRunning(start)
    running.run()


# The campaign


def _process(role: str, path: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.directory", role, str(path), *more],
        cwd=_REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for end in (process.stdin, process.stdout):
            if end:
                end.close()


def _go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


def carry_out(
    path: Path, *, kills: int, files: int, seed: int, show: Callable[[str], None] = lambda _: None
) -> Verdict:
    """A campaign in ``path``: half of the kills come at random times, half between the commit and the removal."""
    random, began = Random(seed), time.monotonic()
    box = Box(path).make()
    writer_kills = 0
    with ExitStack() as stack:

        def begin(kill: int) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
            # What was written so far keeps step with the kills, so that all of them hit something.
            share = files * (kill + 1) // (kills + 1)
            failpoint = {} if kill % 2 else {"PUBD_FAILPOINT": f"after-commit:{random.randint(2, 12)}"}
            pubd = _process("serve", path, **(failpoint if kill < kills else {}))
            writer = _process("write", path, str(share if kill < kills else files), str(0.002 if kill < kills else 0.0))
            return stack.enter_context(_ended(pubd)), stack.enter_context(_ended(writer))

        coming = begin(0)
        for kill in range(kills):
            (pubd, writer), coming = coming, begin(kill + 1)
            _go(writer)
            _go(pubd)
            assert pubd.stdout is not None
            pubd.stdout.readline()
            until = time.monotonic() + random.uniform(0.0, 0.4)
            if random.random() < 0.25:
                time.sleep(random.uniform(0.0, 0.05))
                writer.kill()
            while time.monotonic() < (until if kill % 2 else until + 2.0) and pubd.poll() is None:
                time.sleep(0.001)
            pubd.kill()
            pubd.wait()
            # What it leaves unwritten is written in its next life, together with the share of that.
            writer_kills += writer.poll() is None or writer.returncode < 0
            writer.kill()
            writer.wait()
            show(f"{kill + 1} of {kills} kills, {len(box.waiting)} files wait")
        pubd, writer = coming
        _go(writer)
        writer.wait(300)
        _go(pubd)
        deadline = time.monotonic() + 300
        while box.waiting and time.monotonic() < deadline:
            time.sleep(0.05)
        pubd.send_signal(signal.SIGTERM)
        pubd.wait(60)
    return judge(box, files=files, kills=kills, writer_kills=writer_kills, seconds=time.monotonic() - began)


def judge(box: Box, *, files: int, kills: int, writer_kills: int, seconds: float) -> Verdict:
    """What the spool has, against what was written."""
    expected = {(kind_of(number), body.encode()) for number in range(files) for body in bodies_of(number)}
    found = Counter(stored(box.path / "spool.db"))
    return Verdict(
        files=files,
        messages=len(expected),
        kills=kills,
        writer_kills=writer_kills,
        doubled=tuple(f"{key} {body!r}" for (key, body), count in found.items() if count > 1),
        lost=tuple(sorted(f"{one}" for one in expected ^ set(found))),
        left=tuple(box.waiting),
        rejected=tuple(box.refused),
        seconds=seconds,
    )


def main() -> int:
    if len(sys.argv) > 1 and sys.argv[1] in ("serve", "write"):
        path = Path(sys.argv[2])
        if sys.argv[1] == "serve":
            serve(path, *map(int, sys.argv[3:]))
        else:
            sys.stdin.readline()
            write(path, int(sys.argv[3]), float(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description="Kill pubd while files go through a directory, and judge.")
    parser.add_argument("--kills", type=int, default=200, help="of pubd (%(default)s)")
    parser.add_argument("--files", type=int, default=5000, help="written (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to repeat it")
    arguments = parser.parse_args()
    seed = SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    with TemporaryDirectory(prefix="pubd-crash-") as directory:
        verdict = carry_out(
            Path(directory) / "box",
            kills=arguments.kills,
            files=arguments.files,
            seed=seed,
            show=lambda text: print(text, flush=True),
        )
    print(verdict, flush=True)
    return 0 if verdict.kept else 1


if __name__ == "__main__":
    sys.exit(main())
