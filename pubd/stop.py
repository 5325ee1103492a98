"""How the process ends: signals, exit codes. Only for pubd as a program; a library leaves both to its application."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ProcessEnd(Service):
    """Stops the reactor on SIGINT and SIGTERM, or when told, and ends the process with an exit code; SIGHUP reloads.

    Twisted's own handlers make the process die of the signal after a clean stop (exit status 143 or 130); pubd means 0
    by that. The first signal stops cleanly, a second one ends the process at once.
    """

    log = Logger()

    def __init__(self, *, reactor: Any, exit: Callable[[int], None] | None = None) -> None:
        self._reactor = reactor
        self._exit = exit or _exit_at_end
        self._stopping = False
        self._had_terminal = False
        self.reload: Callable[[], object] | None = None
        """What SIGHUP does; None: there is nothing to be read again."""

    def startService(self) -> None:
        """Take the signals over once the reactor has set its own handlers."""
        super().startService()
        # At once: it would end the process without a word.
        self._had_terminal = _has_terminal()
        signal.signal(signal.SIGHUP, self._on_hang_up)
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

    def _on_hang_up(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self._hung_up)

    def _hung_up(self) -> None:
        """SIGHUP: from whoever wants a reload, or from the kernel, because the terminal is gone."""
        if self._stopping:
            self.log.info("SIGHUP: stopping already")
        elif self._had_terminal and not _has_terminal():
            self._stop_on_signal("SIGHUP, the terminal was closed")
        elif self.reload is None:
            self.log.info("SIGHUP: there is nothing to reload, since pubd was started without --config")
        else:
            self.log.info("SIGHUP: reloading")
            self.reload()

    def _stop_on_signal(self, name: str) -> None:
        self.log.info("{name}: stopping; a second signal ends pubd at once", name=name)
        self.stop()


class InTurn(MultiService):
    """Starts its services in their order, and no more of them once pubd is to end: nobody is to connect to it then.

    Stops them one after the other, the last one first: each outlives what was added after it.
    """

    log = Logger()

    def __init__(self, end: ProcessEnd) -> None:
        super().__init__()
        self._end = end

    def startService(self) -> None:
        """As IService says."""
        Service.startService(self)
        for service in self:
            if self._end.stopping:
                break
            service.startService()

    def stopService(self) -> Deferred[None]:
        """Fires when the last one has stopped."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed([each for each in self if each.running]):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                self.log.failure("{service} did not stop; going on", service=service)


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal, which is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _exit_at_end(code: int) -> None:
    """twistd exits 0 after every clean stop and offers no way to say otherwise, so the code is set behind its back.

    Exit handlers run last in, first out: those that were registered later have run, the streams are flushed here.
    """

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)
