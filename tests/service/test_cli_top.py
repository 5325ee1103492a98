"""`pubd top` on a terminal and without one, against the real daemon and a real RabbitMQ."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Run
from tests.service.process import BIN, until
from tests.service.running import Running, Unique, running


class Terminal:
    """A command on a terminal of its own, of so many columns."""

    def __init__(self, *command: str | Path, columns: int = 80, rows: int = 24) -> None:
        self._fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(other)
        self._other = other
        self._process = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        os.set_blocking(self._fd, False)
        self.text = ""

    def read(self) -> str:
        """All that was shown so far."""
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._fd, 65536):
                self.text += data.decode("utf-8", "replace")
        return self.text

    def shows(self, part: str, since: int = 0) -> int:
        """Wait for it; where the text ends now."""
        until(lambda: part in self.read()[since:], what=lambda: f"{part!r} is not in {self.text[-3000:]}")
        return len(self.text)

    def press(self, key: str) -> None:
        os.write(self._fd, key.encode())

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def ends(self) -> int:
        until(lambda: self.read() is not None and self._process.poll() is not None, what=lambda: self.text[-3000:])
        return self._process.returncode

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self._other) == self.before

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)
        os.close(self._fd)
        os.close(self._other)


Start = Callable[..., Terminal]


@pytest.fixture
def start(daemon: Running) -> Iterator[Start]:
    terminals: list[Terminal] = []

    def begin(*arguments: str, columns: int = 80) -> Terminal:
        terminals.append(Terminal("pubd", "top", "-s", daemon.server, *arguments, columns=columns))
        return terminals[-1]

    yield begin
    for each in terminals:
        each.close()


@pytest.fixture
def daemon(run: Run, url: str, unique: Unique, tmp_path: Path) -> Iterator[Running]:
    with running(run, url, unique("exchange"), tmp_path) as found:
        yield found


@pytest.mark.parametrize("columns", [80, 120])
def test_it_goes_on_until_q_is_pressed_and_leaves_the_terminal_as_it_was(
    daemon: Running, start: Start, columns: int
) -> None:
    top = start("-d", "200ms", columns=columns)
    top.shows("healthy")
    daemon.send("good.one", "x", "--wait")
    top.shows("CONFIRMED/S")
    top.press("q")
    assert top.ends() == 0
    assert top.restored
    assert "Traceback" not in top.text


def test_p_pauses_and_goes_on(daemon: Running, start: Start) -> None:
    top = start("-d", "200ms")
    top.shows("healthy")
    top.press("p")
    seen = top.shows("PAUSED, p goes on")
    daemon.send("bad.key")
    until(lambda: daemon.books()["parked"] == 1)
    top.press("p")
    top.shows("1 message parked", seen)
    top.interrupt()
    assert top.ends() == 0, "Ctrl-C ends it, too"
    assert top.restored


def test_while_pubd_is_away_it_says_so_and_goes_on_when_it_is_back(daemon: Running, start: Start) -> None:
    top = start("-d", "200ms")
    top.shows("healthy")
    daemon.program.interrupt()
    daemon.program.ends()
    seen = top.shows("trying again")
    daemon.begin()
    id = daemon.send("bad.key")
    assert id
    top.shows("1 message parked", seen)
    top.press("q")
    assert top.ends() == 0


def test_without_a_terminal_it_says_what_to_use(daemon: Running) -> None:
    done = daemon.pubd("top")
    assert done.exit_code == 2
    assert "'pubd top --once'" in done.stderr
    once = daemon.ok("top", "--once").stdout
    assert once.startswith("healthy\n")
    assert "rates     accepted 0/s" in once
    assert all(len(line) <= 80 for line in once.splitlines())


def test_as_json_lines(daemon: Running) -> None:
    (found,) = daemon.json("top", "--once")
    assert (found["healthy"], found["rates"]["accepted"]) == (True, 0.0)
    top = daemon.start("top", "--json", "-d", "100ms")
    until(lambda: len(top.lines("{")) >= 3, what=lambda: top.output)
    daemon.program.interrupt()
    assert top.ends() in (3, 75)
    assert [json.loads(line)["healthy"] for line in top.lines("{")[:3]] == [True] * 3


def test_nobody_is_there(daemon: Running, start: Start) -> None:
    daemon.program.interrupt()
    daemon.program.ends()
    top = start()
    assert top.ends() == 3
    assert "there is no socket" in top.read()
    daemon.begin()
