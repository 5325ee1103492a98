"""When schedules ran last, kept across restarts, so that a run missed while pubd was down can be made up."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

if TYPE_CHECKING:
    from pathlib import Path


class Diary(Protocol):
    """Remembers a time (epoch seconds) for each schedule's name."""

    def last(self, name: str) -> float | None:
        """When ``name`` was noted last."""

    def note(self, name: str, at: float) -> None:
        """``name`` ran at ``at``, or began to be watched then. Never raises."""


class MemoryDiary:
    """Remembers until the process ends."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}

    def last(self, name: str) -> float | None:
        """See :class:`Diary`."""
        return self._times.get(name)

    def note(self, name: str, at: float) -> None:
        """See :class:`Diary`."""
        self._times[name] = at


class FileDiary:
    """A small JSON file, replaced as a whole by each note and not synced: a power cut may cost the latest notes.

    A file that cannot be read or written is logged, and then nothing is remembered of it: schedules go on.
    """

    log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = False
        self._times = self._read()

    def last(self, name: str) -> float | None:
        """See :class:`Diary`."""
        return self._times.get(name)

    def note(self, name: str, at: float) -> None:
        """See :class:`Diary`."""
        self._times[name] = at
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            fresh.write_text(json.dumps(self._times, indent=0), encoding="utf-8")
            fresh.replace(self._path)
        except OSError as error:
            if not self._failed:
                self.log.warn(
                    "{path} cannot be written ({reason}); after a restart missed runs may be made up twice",
                    path=str(self._path),
                    reason=error.strerror,
                )
            self._failed = True
        else:
            self._failed = False

    def _read(self) -> dict[str, float]:
        try:
            times = json.loads(self._path.read_text(encoding="utf-8"))
            if not isinstance(times, dict):
                raise ValueError("not a table of times")
            return {str(name): _time(at) for name, at in times.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self.log.warn(
                "{path} cannot be read ({reason}); missed runs of schedules are not made up this time",
                path=str(self._path),
                reason=str(error),
            )
            return {}


def _time(at: object) -> float:
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise ValueError(f"{at!r} is no time")
    return float(at)
