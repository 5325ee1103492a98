"""The service tree of `twistd pubd`: in which order it ends, and how it ends the process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from pubd.config import OnChannelClose
from pubd.outcome import Cause, Reason
from pubd.service import _OnChannelClose
from pubd.stop import InTurn, ProcessEnd
from tests.strictness import Logged


class Part(Service):
    """Stops when it is told to."""

    def __init__(self, name: str, story: list[str], stopped: Deferred[None] | None = None) -> None:
        self.name = name
        self._story = story
        self._stopped = stopped or succeed(None)

    def stopService(self) -> Deferred[None]:
        self._story.append(f"{self.name} stops")
        return self._stopped.addCallback(lambda _: self._story.append(f"{self.name} stopped"))


class Reactor:
    """What ProcessEnd wants of one; it runs."""

    def __init__(self) -> None:
        self.stops = 0

    def callWhenRunning(self, call: Callable[..., Any]) -> None:
        call()

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        call(*arguments)

    def stop(self) -> None:
        self.stops += 1


@pytest.fixture
def own_signals() -> Iterator[None]:
    """What a test sets is put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, action in before.items():
        signal.signal(number, action)


def test_each_service_outlives_what_was_added_after_it() -> None:
    story: list[str] = []
    slow: Deferred[None] = Deferred()
    tree = InTurn(ProcessEnd(reactor=Reactor()))
    for part in (Part("first", story), Part("second", story, slow), Part("third", story)):
        tree.addService(part)
    tree.startService()
    stopped = tree.stopService()
    assert story == ["third stops", "third stopped", "second stops"]
    assert not stopped.called
    slow.callback(None)
    assert stopped.called
    assert story[3:] == ["second stopped", "first stops", "first stopped"]


def test_what_comes_after_a_service_that_ends_pubd_is_not_started() -> None:
    story: list[str] = []
    end = ProcessEnd(reactor=Reactor(), exit=lambda _: None)
    tree = InTurn(end)

    class Failing(Part):
        def startService(self) -> None:
            self.running = 1
            end.stop(1)

    for part in (Part("first", story), Failing("second", story), Part("third", story)):
        tree.addService(part)
    tree.startService()
    assert tree.stopService().called
    assert story == ["second stops", "second stopped", "first stops", "first stopped"]


def test_a_service_that_fails_to_stop_does_not_keep_the_others(logged: Logged) -> None:
    story: list[str] = []
    failing: Deferred[None] = Deferred()
    tree = InTurn(ProcessEnd(reactor=Reactor()))
    for part in (Part("first", story), Part("second", story, failing)):
        tree.addService(part)
    tree.startService()
    stopped = tree.stopService()
    failing.errback(RuntimeError("stuck"))
    assert stopped.called
    assert story[-1] == "first stopped"
    assert len(logged.flush(RuntimeError)) == 1


def test_a_closed_channel_ends_the_process_once_with_its_reason(logged: Logged) -> None:
    codes: list[int] = []
    reactor = Reactor()
    end = ProcessEnd(reactor=reactor, exit=codes.append)
    shutdown = _OnChannelClose(end, OnChannelClose.SHUTDOWN)
    for text in ("NOT_FOUND - no exchange 'a'", "NOT_FOUND - no exchange 'b'"):
        shutdown.channel_closed(Reason(cause=Cause.REFUSED, code=404, text=text))
    assert (codes, reactor.stops) == ([1], 1)
    (said,) = logged.texts
    assert "404 NOT_FOUND - no exchange 'a'" in said


def test_a_clean_stop_leaves_the_exit_code_alone() -> None:
    codes: list[int] = []
    reactor = Reactor()
    end = ProcessEnd(reactor=reactor, exit=codes.append)
    end.stop()
    end.stop(1)
    assert (codes, reactor.stops, end.stopping) == ([], 1, True)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_is_the_kernels(number: signal.Signals, logged: Logged) -> None:
    reactor = Reactor()
    end = ProcessEnd(reactor=reactor, exit=lambda code: None)  # noqa: ARG005
    end.startService()
    signal.raise_signal(number)
    assert reactor.stops == 1
    assert logged.texts == [f"{number.name}: stopping; a second signal ends pubd at once"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == [signal.SIG_DFL] * 2
