"""A stopped process is told from one that goes on, and the sentences that name it say what helps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pubd.cli.client import AnswerLost, Client
from pubd.cli.server import Server
from pubd.errors import SpoolInUse
from pubd.hung import hung
from tests.service.process import until

HOLDER = """
import fcntl, os, socket, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
os.pwrite(lock, f"{os.getpid()}\\n".encode(), 0)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """A process with the lock of ``db`` that listens on ``s``, and was stopped."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "db.lock"), str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        until(lambda: hung(process.pid))
        yield process.pid
        process.kill()


def test_who_goes_on_or_is_not_there_is_not_hung(tmp_path: Path) -> None:
    assert hung(os.getpid()) is None
    assert hung("") is None
    assert hung("4711", proc=tmp_path) is None
    (tmp_path / "4711").mkdir()
    (tmp_path / "4711/stat").write_text("4711 (a) T) S 1 2 3")
    assert hung("4711", proc=tmp_path) is None
    (tmp_path / "4711/stat").write_text("4711 (pubd) T 1 2 3")
    assert "'kill -CONT 4711'" in str(hung(4711, proc=tmp_path))


def test_the_holder_of_a_spool_that_was_stopped_is_named_with_what_helps(holder: int, tmp_path: Path) -> None:
    from pubd.spool.lock import SpoolLock

    with pytest.raises(SpoolInUse, match=f"process {holder}, which is stopped .*'kill -CONT {holder}'"):
        SpoolLock(tmp_path / "db")


def test_so_is_who_listens_on_a_unix_socket_and_does_not_answer(holder: int, tmp_path: Path) -> None:
    with Client(Server.parse(str(tmp_path / "s")), clock=time.monotonic) as client, pytest.raises(AnswerLost) as lost:
        client.ask("GET", "/status", deadline=time.monotonic() + 0.2)
    assert "did not answer in time: process" in str(lost.value)
    assert f"'kill -KILL {holder}'" in str(lost.value)
