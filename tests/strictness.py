"""A test that leaves something behind fails: unhandled errors, timers, sockets, child processes.

pytest-twisted alone lets all of these pass. The fixture `strict` is for every test; `logged` is how a test says
that a logged failure was expected.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer, reactor, task
from twisted.internet.base import ReactorBase
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.rabbitmq import children

TURNS, TURN = 25, 0.02
"""How often, and how long (s), the reactor may turn for what is already on its way to close."""

HERALD = "Unhandled error in Deferred:"
"""What Deferred.__del__ logs just before the failure itself, as an event of its own."""

SPARED = pytest.StashKey[set[Callable[[], int | None]]]()
"""On the config: functions that return the pid of a child process which belongs to a wider scope than one test."""


@implementer(ILogObserver)
class Logged:
    """What twisted.logger got during one test, in order."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    @property
    def texts(self) -> list[str]:
        """The events as a person reads them."""
        return [formatEvent(event) for event in self.events]

    def alarming(self) -> list[LogEvent]:
        """The events that fail the test: those with a failure, and critical ones."""
        return [
            e
            for e in self.events
            if e.get("log_failure") or (e.get("log_level") is LogLevel.critical and e.get("log_format") != HERALD)
        ]

    def flush(self, *kinds: type[BaseException]) -> list[LogEvent]:
        """Take out, and return, the alarming events: of these exception types, or all of them."""
        gc.collect()
        taken = [e for e in self.alarming() if not kinds or _is_a(e, kinds)]
        self.events = [e for e in self.events if not any(e is t for t in taken)]
        return taken


def _is_a(event: LogEvent, kinds: tuple[type[BaseException], ...]) -> bool:
    failure = event.get("log_failure")
    return failure is not None and failure.check(*kinds) is not None


@pytest.fixture
def logged(strict: Logged) -> Logged:
    """The log events of this test, to look at and to flush."""
    return strict


@pytest.fixture(autouse=True)
def strict(request: pytest.FixtureRequest) -> Iterator[Logged]:
    """Fail the test at its teardown when it left something behind, and say what."""
    assert isinstance(reactor, ReactorBase)
    if not reactor.running:  # its own readers come with the first turn
        pytest_twisted.blockon(_turn(reactor))
    log = Logged()
    globalLogPublisher.addObserver(log)
    before = _alive(reactor)
    children_before = set(children(os.getpid()))
    try:
        yield log
    finally:
        left = _wait_for_nothing(reactor, before)
        gc.collect()
        globalLogPublisher.removeObserver(log)
    spared = {pid() for pid in request.config.stash.get(SPARED, set())}
    left += [
        f"child process {pid}: {_command(pid)}" for pid in sorted(set(children(os.getpid())) - children_before - spared)
    ]
    for event in log.alarming():
        failure = event.get("log_failure")
        left.append(f"logged: {formatEvent(event)}" + (f"\n{failure.getTraceback()}" if failure else ""))
    if left:
        _end_timers(reactor, before)
        pytest.fail("the test left behind:\n" + "\n".join(f"- {what}" for what in left), pytrace=False)


def _alive(reactor: Any) -> list[object]:
    """Timers, readers and writers of the reactor."""
    return [*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()]


def _new(reactor: Any, before: Collection[object]) -> list[object]:
    known = set(map(id, before))
    return list({id(what): what for what in _alive(reactor) if id(what) not in known}.values())


def _wait_for_nothing(reactor: Any, before: Collection[object]) -> list[str]:
    """Let the reactor turn until nothing new is in it; what is still there then, in words."""
    for _ in range(TURNS):
        if not (left := _new(reactor, before)):
            return []
        del left
        pytest_twisted.blockon(_turn(reactor))
    return [f"{_kind(what, reactor)}: {what}" for what in _new(reactor, before)]


def _turn(reactor: Any) -> defer.Deferred[None]:
    return task.deferLater(reactor, TURN, lambda: None)


def _kind(what: object, reactor: Any) -> str:
    return "timer" if what in reactor.getDelayedCalls() else "in the reactor"


def _end_timers(reactor: Any, before: Collection[object]) -> None:
    """So that what one test left does not disturb the next."""
    for what in _new(reactor, before):
        if what in reactor.getDelayedCalls():
            what.cancel()  # type: ignore[attr-defined]  # getDelayedCalls has just said that it is a delayed call
        else:
            reactor.removeReader(what)
            reactor.removeWriter(what)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return "(ended meanwhile)"
