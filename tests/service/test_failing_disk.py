"""A disk that fails under a real daemon: no receipt for what it may have lost, a sentence, the end, and a good restart.

strace makes one system call of the daemon fail, and no other: so does a disk that has dropped the dirty pages and
reports success the next time.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.conftest import Run
from tests.service.crowd import Client
from tests.service.process import Program, until

CONFIG = """\
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///pubd.db"
[delivery]
drain_timeout = 0
[lines]
listen = ["unix:{socket}"]
"""
FAILURES = {"sync": "fdatasync,fsync", "write": "pwrite64"}


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "lines.sock"


def started(run: Run, url: str, socket: Path) -> Program:
    socket.unlink(missing_ok=True)
    (socket.parent / "pubd.toml").write_text(CONFIG.format(url=url, socket=socket))
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
    until(socket.exists, what=lambda: program.output)
    return program


@contextmanager
def failing(run: Run, program: Program, calls: str, error: str = "EIO:when=1") -> Iterator[Program]:
    """From here on the first of these system calls fails, in each thread; or all until the strace that comes ends."""
    strace = run("strace", "-f", "-qq", "-p", str(program.pid), "-e", f"inject={calls}:error={error}", "-o", "calls")
    until(lambda: traced(program.pid), what=lambda: strace.output)
    yield strace
    strace.ends()


def traced(pid: int) -> bool:
    """Whether each of its threads is watched."""
    tasks = [Path(each.path, "status").read_text() for each in os.scandir(f"/proc/{pid}/task")]
    return not any("TracerPid:\t0\n" in status for status in tasks)


def submit(client: Client, *keys: str) -> list[dict[str, object]]:
    """The answers; none for what was not answered any more."""
    line = '{"exchange":"x","routing_key":"k","body":"b","idempotency_key":"%s"}\n'
    client.send("".join(line % key for key in keys).encode())
    answers = [client.read_line() for _ in keys]
    return [json.loads(each) for each in answers if each]


@pytest.mark.parametrize("kind", FAILURES)
def test_after_a_failed_sync_or_write_it_ends_with_1_and_the_next_start_reads_what_is_in_the_file(
    run: Run, nowhere: str, socket: Path, kind: str
) -> None:
    program = started(run, nowhere, socket)
    with Client(socket) as client:
        before = submit(client, *map(str, range(20)))
        assert [each.get("state") for each in before] == ["stored"] * 20
        with failing(run, program, FAILURES[kind]):
            answers = submit(client, "20")
            assert program.ends() == 1
    assert not any("state" in each for each in answers), answers
    program.says(
        "the disk of the spool", "failed (IOError: disk I/O error): check it; start pubd again once it is well"
    )
    assert "Traceback" not in program.output
    assert "Input/output error" in (socket.parent / "calls").read_text()

    program = started(run, nowhere, socket)
    with Client(socket) as client:
        # What had a receipt is there, under its id; what had none is accepted now, once.
        again = submit(client, *map(str, range(21)))
    assert [each["id"] for each in again[:20]] == [each["id"] for each in before]
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    done = run("pubd", "verify", str(socket.parent / "pubd.db"))
    assert done.ends() == 0
    done.says("21 accepted = 0 confirmed + 0 expired + 0 discarded + 21 held", "its books balance")


def test_a_quota_that_is_used_up_is_a_full_disk(run: Run, nowhere: str, socket: Path) -> None:
    program = started(run, nowhere, socket)
    with Client(socket) as client:
        assert "state" in submit(client, "0")[0]
        with failing(run, program, "pwrite64", "EDQUOT") as strace:
            (refused,) = submit(client, "1")
            # Though the disk has free space, and no limit of pubd's own is reached.
            program.says("submissions are refused: the spool is full (disk): no room is left")
            strace.signal(signal.SIGTERM)
        assert "make room, pubd goes on by itself" in str(refused["error"])
        assert "state" in submit(client, "1")[0]
    assert "Disk quota exceeded" in (socket.parent / "calls").read_text()
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    assert "Traceback" not in program.output
