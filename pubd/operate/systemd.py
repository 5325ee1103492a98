"""What pubd tells systemd: that it is ready, how it is in a sentence, that it lives, that it reloads, that it stops."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from pubd.operate.sentence import age

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

#: Seconds between looks: until the start is complete, and then for a sentence that changed.
STARTING, LOOK = 0.1, 2.0
#: The spool is asked this often in the time that systemd allows between two signs of life.
ASKED = 3
#: Seconds that closing takes beyond the time to drain.
CLOSING = 30.0


class Tells(Protocol):
    """Such as :class:`pubd.operate.sd_notify.NotifySocket`."""

    def send(self, **variables: str | int) -> bool:
        """Tell systemd; whether that was possible."""

    def close(self) -> None:
        """Let go of what is open."""


def watchdog_of(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds within which systemd wants a sign of life of process ``pid``, or None (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    microseconds = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    return microseconds / 1e6 if microseconds else None


class Systemd(Service):
    """Started after everything else, stopped before it.

    READY=1 goes out once ``ready()``. From then on ``oldest`` asks the spool when its oldest message was accepted: its
    answer, which comes through the spool's thread and the reactor, is what feeds the watchdog (``watchdog`` seconds,
    None: there is none), so that either of them hanging lets systemd act. ``sentence`` gets that message's age in
    seconds and makes the STATUS=. ``stopping`` says how long the stop may take, in seconds. ``wall`` is the time of
    day.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        socket: Tells,
        ready: Callable[[], bool],
        oldest: Callable[[], Deferred[float | None]],
        sentence: Callable[[float | None], str],
        watchdog: float | None = None,
        stopping: Callable[[], float] = lambda: CLOSING,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._socket = socket
        self._ready = ready
        self._oldest = oldest
        self._sentence = sentence
        self._watchdog = watchdog
        self._time_to_stop = stopping
        self._wall = wall
        self._interval = LOOK if watchdog is None else min(LOOK, watchdog / ASKED)
        self._call: IDelayedCall | None = None
        self._told_ready = False
        self._asked_at: float | None = None
        self._hangs = False
        self._status = ""

    def startService(self) -> None:
        """Look until the start is complete, then regularly."""
        super().startService()
        self._asked_at, self._hangs, self._told_ready, self._status = None, False, False, ""
        self._tell("opening the spool")
        self._turn()

    def stopService(self) -> Deferred[None]:
        """Tell STOPPING=1, once, and nothing after it."""
        if self.running:
            super().stopService()
            if self._call is not None:
                self._call.cancel()
                self._call = None
            self._socket.send(
                STOPPING=1,
                # Its own patience (TimeoutStopSec) may be shorter than the drain_timeout.
                EXTEND_TIMEOUT_USEC=int(self._time_to_stop() * 1e6),
                STATUS=f"stopping; {self._sentence(None)}",
            )
            self._socket.close()
        return succeed(None)

    def reloading(self) -> None:
        """A new configuration is being read; :meth:`reloaded` has to follow, whatever becomes of it."""
        if not self._told_ready:
            # The READY=1 that follows would be taken for the end of the start.
            return
        # Since version 253 (Type=notify-reload) systemd wants to know when that began, by the clock that time.monotonic
        # reads; before, it ignores that.
        self._socket.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000, STATUS="reloading")
        self._status = ""

    def reloaded(self) -> None:
        """The reload is over, with the new configuration or with the old one; the next look tells the STATUS=."""
        if self._told_ready and self.running:
            self._socket.send(READY=1)

    def _turn(self) -> None:
        try:
            self._look()
        except Exception:
            self.log.failure("telling systemd how pubd is failed; going on")
        self._call = self._clock.callLater(self._interval if self._told_ready else STARTING, self._turn)

    def _look(self) -> None:
        if not self._told_ready:
            # What could not be sent is sent again: without READY=1 systemd would end pubd after a while.
            self._told_ready = self._ready() and self._socket.send(READY=1)
            if not self._told_ready:
                return
        now = self._clock.seconds()
        if self._asked_at is None:
            self._asked_at = now
            self._oldest().addCallbacks(self._answered, self._failed).addErrback(self._mistaken)
            return
        silent = now - self._asked_at
        if not self._hangs:
            self._hangs = True
            self.log.error("the spool has not answered for {silent}: look at its disk", silent=age(silent))
        self._tell(f"the spool has not answered for {age(silent)}: look at its disk")

    def _answered(self, accepted_at: float | None) -> None:
        self._asked_at = None
        if not self.running:
            return
        if self._hangs:
            self._hangs = False
            self.log.info("the spool answers again")
        if self._watchdog is not None:
            self._socket.send(WATCHDOG=1)
        self._tell(self._sentence(self._wall() - accepted_at if accepted_at is not None else None))

    def _failed(self, failure: Failure) -> None:
        self._asked_at = None
        if self.running:
            self._tell(f"the spool fails: {failure.getErrorMessage()}")

    def _mistaken(self, failure: Failure) -> None:
        self.log.failure("telling systemd how pubd is failed; going on", failure)

    def _tell(self, status: str) -> None:
        if status != self._status and self._socket.send(STATUS=status):
            self._status = status


def process_watchdog() -> float | None:
    """:func:`watchdog_of` this process."""
    return watchdog_of(os.environ, os.getpid())
