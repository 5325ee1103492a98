"""A real process: what it prints, how it ends, and that it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
PATIENCE = 20.0
"""Seconds that anything may take on a busy machine."""


def until(condition: Callable[[], object], seconds: float = PATIENCE, what: Callable[[], str] = str) -> None:
    """Wait for the condition; ``what`` tells what there was instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to pass within {seconds:g} s:\n{what()}"
        time.sleep(0.02)


class Program:
    """A program of the virtual environment, or a script, running in a directory of its own; leave no one running."""

    def __init__(self, directory: Path, command: Sequence[str | Path], **environment: str) -> None:
        repository = Path(__file__).resolve().parents[2]
        self._output = directory / f"output-{len(list(directory.glob('output-*')))}"
        path = BIN / command[0]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [path if path.exists() else command[0], *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(repository), "PYTHONUNBUFFERED": "1", **environment},
                # As a terminal does, so that interrupt() reaches it and its children, and nobody else.
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Standard output and standard error so far."""
        return self._output.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    def lines(self, part: str) -> list[str]:
        """The lines of the output with ``part`` in them."""
        return [line for line in self.output.splitlines() if part in line]

    def says(self, *parts: str, seconds: float = PATIENCE) -> None:
        """Wait until each of these is in the output."""
        for part in parts:
            until(lambda part=part: part in self.output or self._ended, seconds, lambda: self.output)  # type: ignore[misc]  # mypy cannot infer a lambda's default
            assert part in self.output, f"{part!r} is not in:\n{self.output}"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to it and to all that it started."""
        os.killpg(self._process.pid, signal.SIGINT)

    def ends(self, seconds: float = PATIENCE) -> int:
        """Wait for its end: the exit code, or minus the signal."""
        until(lambda: self._ended, seconds, lambda: self.output)
        return self._process.returncode

    def remove(self) -> None:
        """Whatever a failed test left of it ends now."""
        if not self._ended:
            self._process.kill()
            self._process.wait(5)

    @property
    def _ended(self) -> bool:
        return self._process.poll() is not None
