"""The processes of one life, as the supervisor has them."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests.crash.judge import History
from tests.crash.plan import Orders

REPOSITORY = Path(__file__).resolve().parents[2]
LOG = "pubd.log"


class CampaignFailed(Exception):
    """The campaign could not be carried out; this is not a verdict."""


class Life:
    """One process of pubd, and who drives it, if that is another one. Both are started early and wait for their orders.

    Through Python the worker *is* pubd. Else pubd is the daemon, whose standard output is the worker's input: orders
    are passed on by it, and the end of it is the daemon's death.
    """

    def __init__(self, directory: Path, failpoint: str, through: str) -> None:
        self._directory = directory
        if through == "python":
            self._pubd = self._worker = self._process("worker", subprocess.PIPE, failpoint)
        else:
            self._pubd = self._process("daemon", subprocess.PIPE, failpoint)
            self._worker = self._process("worker", self._pubd.stdout, "")
            assert self._pubd.stdout is not None
            self._pubd.stdout.close()
        assert self._pubd.stdin is not None
        assert self._worker.stdout is not None
        self._orders: IO[bytes] = self._pubd.stdin
        self._output = self._worker.stdout.fileno()
        self._rest = b""
        self.ready = self.done = False

    def _process(self, module: str, stdin: int | IO[bytes] | None, failpoint: str) -> subprocess.Popen[bytes]:
        with (self._directory / LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"tests.crash.{module}"],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PUBD_FAILPOINT": failpoint},
            )

    def begin(self, orders: Orders) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(orders.dumps().encode() + b"\n")
            self._orders.flush()

    def listen(self, history: History, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Take down what it says for so long, or until ``until()``; False once it has ended and all has been heard."""
        deadline = time.monotonic() + seconds
        while not until():
            readable, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                return True
            data = os.read(self._output, 1 << 16)
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self.ready |= line == b"ready"
                self.done |= line == b"done"
                history.hear(line.decode())
        return True

    def kill(self) -> int:
        """pubd's exit status; minus the signal."""
        self._pubd.kill()
        return self.reap()

    def stop(self) -> int:
        """As an operator does, where pubd does not end with the worker; its exit status."""
        if self._pubd is not self._worker:
            self._pubd.terminate()
        return self.reap()

    def reap(self) -> int:
        """pubd's exit status, when it has ended by itself; it has to within some seconds."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        try:
            return self._pubd.wait(20)
        except subprocess.TimeoutExpired:
            raise CampaignFailed(f"pubd does not end; see {self._directory / LOG}") from None

    def close(self) -> None:
        for process in (self._pubd, self._worker):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
