"""How the process ends: signals, exit codes. Only for pubd as a program; a library leaves both to its application."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ProcessEnd(Service):
    """Stops the reactor on SIGINT and SIGTERM, or when told, and ends the process with an exit code.

    Twisted's own handlers make the process die of the signal after a clean stop (exit status 143 or 130); pubd means 0
    by that. The first signal stops cleanly, a second one ends the process at once.
    """

    log = Logger()

    def __init__(self, *, reactor: Any, exit: Callable[[int], None] | None = None) -> None:
        self._reactor = reactor
        self._exit = exit or _exit_at_end
        self._stopping = False

    def startService(self) -> None:
        """Take the signals over once the reactor has set its own handlers."""
        super().startService()
        self._reactor.callWhenRunning(self._take_signals)

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stopping

    def stop(self, code: int = 0) -> None:
        """Stop cleanly and exit with ``code``; only the first call counts."""
        if self._stopping:
            return
        self._stopping = True
        if code:
            self._exit(code)
        self._reactor.callWhenRunning(self._reactor.stop)

    def _take_signals(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._reactor.callFromThread(self._stop_on_signal, signal.Signals(number).name)

    def _stop_on_signal(self, name: str) -> None:
        self.log.info("{name}: stopping; a second signal ends pubd at once", name=name)
        self.stop()


def _exit_at_end(code: int) -> None:
    """twistd exits 0 after every clean stop and offers no way to say otherwise, so the code is set behind its back.

    Exit handlers run last in, first out: those that were registered later have run, the streams are flushed here.
    """

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)
