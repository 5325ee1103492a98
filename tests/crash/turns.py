"""A reactor of one queue, turned by the test: with it the SQLite spool does the same every time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.crash.vfs import Disk

#: Seconds after which a test is stuck.
PATIENCE = 10.0


class Turns:
    """What the spool's thread calls lands in a queue; :meth:`result` runs it until an answer is there."""

    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.Queue()

    def callFromThread(self, call: Callable[..., None], *args: Any) -> None:
        self._calls.put((call, args))

    def result(self, answer: Deferred[Any]) -> Any:
        """What it fires with, or the exception that it fails with."""
        found: list[Any] = []
        answer.addBoth(found.append)
        while not found:
            self.turn()
        return found[0].value if isinstance(found[0], Failure) else found[0]

    def turn(self) -> None:
        call, args = self._calls.get(timeout=PATIENCE)
        call(*args)

    def group(self, disk: Disk, asks: Sequence[Callable[[], Deferred[Any]]]) -> list[Any]:
        """The first ask is committed alone; while that is synced, all others arrive, so that they are one group."""
        held = threading.Event()
        at_sync: list[bool] = []

        def hold() -> None:
            disk.before_sync = lambda: None
            self.callFromThread(at_sync.append, True)
            held.wait(PATIENCE)

        disk.before_sync = hold
        answers = [asks[0]()]
        found: list[Any] = []
        answers[0].addBoth(_noted, found)
        while not at_sync and not found:
            self.turn()
        disk.before_sync = lambda: None
        answers += [ask() for ask in asks[1:]]
        held.set()
        return [self.result(answer) for answer in answers]


def _noted(result: Any, found: list[Any]) -> Any:
    found.append(result)
    return result
