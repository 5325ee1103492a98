"""Time in the drill: seconds that only go on, waiting for a condition, and a daemon's clock that can be set."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

#: Seconds that anything may take; those that it took are measured.
PATIENCE = 120.0

#: Before anything else is imported, so that everybody asks this one.
_CUSTOMIZE = """\
import time
_time = time.time
def _ahead():
    with open({file!r}) as file:
        return int(file.read())
time.time = lambda: _time() + _ahead()
"""

now = time.monotonic


class NotSaid(Exception):
    """What had to come did not."""


def until(condition: Callable[[], object], what: Callable[[], str]) -> None:
    """Wait for it."""
    end = now() + PATIENCE
    while not condition():
        if now() > end:
            raise NotSaid(f"within {PATIENCE:g} s it did not come to pass: {what()}")
        time.sleep(0.05)


class SetClock:
    """The time of day of a Python process that has ``environment``; no other clock of it, and nobody else's.

    (libfaketime makes timed waits of Python's threads fail or last too long, whatever it is told of monotonic clocks.)
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "ahead"
        self.set(0)
        (directory / "python").mkdir()
        (directory / "python/sitecustomize.py").write_text(_CUSTOMIZE.format(file=str(self._file)))
        repository = Path(__file__).resolve().parents[2]
        self.environment = {"PYTHONPATH": f"{directory}/python:{repository}"}

    def set(self, ahead: int) -> None:
        """So many seconds ahead of the machine's."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead}")
        new.replace(self._file)
