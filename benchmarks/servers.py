"""Servers as processes of their own: the daemon as a user runs it, and a bare twisted.web; and the CPU they take."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

from benchmarks.rig import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

#: Seconds for a server to be ready, and to end.
PATIENCE = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")
_READY = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class ServerFailed(Exception):
    """It ended, or was not ready in time; with what it printed."""


class Server:
    """A process that answers HTTP on a Unix socket; ready when entered, ended and its files removed when left."""

    def __init__(self) -> None:
        # In the system's own: the path of a socket has to be short.
        self._sockets = tempfile.TemporaryDirectory(prefix="pubd-intake-")
        self.directory = Path(self._sockets.name)
        self.http = str(self.directory / "http.sock")
        self.lines = str(self.directory / "lines.sock")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def command(self) -> Sequence[str]:
        """What to run."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._output = self.directory / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._sockets.cleanup()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not _answers(self.http):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.command()} is not ready:\n{self._output.read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.05)


class Bare(Server):
    """:mod:`benchmarks.bare`."""

    def command(self) -> Sequence[str]:
        """See :class:`Server`."""
        return [sys.executable, "-m", "benchmarks.bare", self.http]


class Daemon(Server):
    """``twistd -n pubd --config pubd.toml``, its spool in ``spool``, connected to the broker at ``url``.

    ``lines``: how many one connection may have unanswered.
    """

    def __init__(self, url: str, spool: Path, *, window: int, lines: int = 1000) -> None:
        super().__init__()
        (self.directory / "pubd.toml").write_text(
            f'[broker]\nurls = ["{url}"]\n'
            f'[spool]\nurl = "sqlite:///{spool}/spool.db"\n'
            f"[delivery]\nwindow = {window}\n"
            f'[http]\nlisten = ["unix:{self.http}:mode=600"]\n'
            f'[lines]\nlisten = ["unix:{self.lines}:mode=600"]\nmax_unanswered_lines = {lines}\n'
        )

    def command(self) -> Sequence[str]:
        """See :class:`Server`."""
        twistd = Path(sys.executable).with_name("twistd")
        return [str(twistd), "-n", "--pidfile=", "pubd", "--config", "pubd.toml"]


def _answers(path: str) -> bool:
    """Whether it says 200 to whether it is ready."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(path)
        peer.sendall(_READY)
        return peer.recv(64).startswith(b"HTTP/1.1 200")
    return False


@attrs.frozen
class Cpu:
    """CPU seconds (user and system) of a process so far: in all, and of its main thread."""

    total: float
    reactor: float
    """In steps of 10 ms, as the kernel tells it."""

    @classmethod
    def of(cls, pid: int) -> Cpu:
        """Raises OSError where there is no such process."""
        fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
        reactor = (int(fields[11]) + int(fields[12])) / _TICKS
        # The kernel's number of the CPU clock of another process (clock_getcpuclockid(3)): getrusage of it, but finer.
        return cls(time.clock_gettime(~pid << 3 | 2), reactor)
