"""inotify: a hint that something came, and no more than that. What is there, only a look at the directory tells."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.python.filepath import FilePath

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DRAIN = 64 * 1024
log = Logger()


def watch(reactor: Any, path: Path, hint: Callable[[], None]) -> Callable[[], None]:
    """Call ``hint`` soon after something is put into ``path``; what is returned ends that.

    Where the system has no inotify, or gives none any more, that is logged and nothing is ever hinted.
    """
    try:
        from twisted.internet.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_MOVED_TO, INotify
    except Exception as error:
        _without(path, error)
        return lambda: None

    class Hints(INotify):
        """Reads events without looking at them: a flood of them, or their overflow, costs next to nothing."""

        def doRead(self) -> None:
            try:
                os.read(self.fileno(), _DRAIN)
            except BlockingIOError:
                return
            hint()

    try:
        hints = Hints(reactor)
    except Exception as error:
        _without(path, error)
        return lambda: None
    try:
        hints.watch(FilePath(os.fsencode(path)), IN_MOVED_TO | IN_CLOSE_WRITE | IN_CREATE)
    except Exception as error:
        _without(path, error)
        hints.loseConnection()
        return lambda: None
    hints.startReading()
    return hints.loseConnection


def _without(path: Path, error: Exception) -> None:
    log.info("{path}: no inotify ({reason}); new files are found by looking", path=str(path), reason=str(error))
