"""What systemd is told, and when.

How it fails: ready before the spool is open; a watchdog fed by a timer while the spool's thread hangs on its disk; a
datagram that did not go through and is never sent again; a broker's text with a line break in it, which would be a
variable of its own; another process's watchdog; a stop that systemd ends because it did not know how long it takes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from pubd.errors import SpoolError
from pubd.operate.sd_notify import NotifySocket
from pubd.operate.systemd import CLOSING, LOOK, STARTING, Systemd, watchdog_of
from tests.slow_spool import SlowSpool
from tests.strictness import Logged

# The socket


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@pubd-test-{tmp_path.name}-{id(request)}"


@pytest.fixture
def manager(address: str) -> Iterator[socket.socket]:
    """What systemd has at the other end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if address[0] == "@" else address)
        listening.settimeout(5)
        yield listening


def told_over(address: str) -> NotifySocket:
    made = NotifySocket.from_environment({"NOTIFY_SOCKET": address})
    assert made is not None
    return made


def test_variables_are_lines_of_one_datagram(address: str, manager: socket.socket) -> None:
    tells = told_over(address)
    assert tells.send(READY=1, STATUS="connected – 1 ready")
    assert manager.recv(4096) == "READY=1\nSTATUS=connected – 1 ready".encode()
    tells.close()
    tells.close()
    assert tells.send(STOPPING=1)
    tells.close()


def test_no_text_of_others_becomes_a_variable_and_all_is_utf8(address: str, manager: socket.socket) -> None:
    tells = told_over(address)
    assert tells.send(STATUS="refused: a\nMAINPID=1\r\n\x0bb \ud800")
    datagram = manager.recv(4096)
    assert datagram.splitlines() == [b"STATUS=refused: a MAINPID=1 b ?"]
    datagram.decode()
    tells.close()


def test_a_full_queue_does_not_block_and_is_said(address: str, manager: socket.socket, logged: Logged) -> None:
    tells = told_over(address)
    for _ in range(10_000):
        if not tells.send(WATCHDOG=1):
            break
    assert not tells.send(STATUS="x")
    # Once, not at each attempt.
    assert [text for text in logged.texts if "cannot be told" in text] == [
        "systemd cannot be told WATCHDOG: [Errno 11] Resource temporarily unavailable"
    ]
    manager.recv(4096)
    assert tells.send(STATUS="x")
    tells.close()


def test_nobody_at_the_other_end_is_no_error(tmp_path: Path, logged: Logged) -> None:
    tells = told_over(str(tmp_path / "nobody"))
    assert not tells.send(READY=1)
    assert "cannot be told READY" in logged.texts[0]
    tells.close()


def test_without_the_variable_there_is_nobody_to_tell() -> None:
    assert NotifySocket.from_environment({}) is None
    assert NotifySocket.from_environment({"NOTIFY_SOCKET": ""}) is None


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative", "/" + "x" * 108, "/a\0b"])
def test_an_address_that_is_of_no_use_is_said(address: str, logged: Logged) -> None:
    assert NotifySocket.from_environment({"NOTIFY_SOCKET": address}) is None
    assert "nothing is told to systemd" in logged.texts[0]


# The watchdog's environment


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "77"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "9" * 30}, None),
        ({"WATCHDOG_PID": "77"}, None),
    ],
)
def test_the_watchdog_is_the_processs_own(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_of(environ, 77) == seconds


# The service


class Told:
    """What systemd was told; ``deaf`` while its queue is full."""

    def __init__(self) -> None:
        self.datagrams: list[dict[str, str | int]] = []
        self.deaf = False
        self.closed = False

    def send(self, **variables: str | int) -> bool:
        if not self.deaf:
            self.datagrams.append(variables)
        return not self.deaf

    def close(self) -> None:
        self.closed = True

    def times(self, name: str) -> int:
        return sum(name in each for each in self.datagrams)

    @property
    def names(self) -> list[str]:
        return ["+".join(each) for each in self.datagrams]

    @property
    def status(self) -> str | int:
        return next(each["STATUS"] for each in reversed(self.datagrams) if "STATUS" in each)


class Disk(SlowSpool):
    """``claiming``: how long it takes to read."""

    mistake: Exception | None = None

    def oldest(self) -> Any:
        if self.mistake is not None:
            return fail(self.mistake)
        return super().oldest()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def disk(clock: Clock) -> Iterator[Disk]:
    disk = Disk(clock)
    yield disk
    for call in clock.getDelayedCalls():
        call.cancel()


class State:
    """What the rest of pubd would say."""

    ready = True
    words = "fine"
    mistake: Exception | None = None

    def sentence(self, oldest: float | None) -> str:
        if self.mistake is not None:
            raise self.mistake
        return self.words if oldest is None else f"{self.words}, oldest {oldest:g} s"


def service(clock: Clock, told: Told, disk: Disk, state: State, watchdog: float | None = 6.0) -> Systemd:
    made = Systemd(
        clock=clock,
        socket=told,
        ready=lambda: state.ready,
        oldest=disk.oldest,
        sentence=state.sentence,
        watchdog=watchdog,
        stopping=lambda: CLOSING + 10,
        wall=clock.seconds,
    )
    made.startService()
    return made


def test_ready_comes_when_the_start_is_complete_and_not_before(clock: Clock, told: Told, disk: Disk) -> None:
    state = State()
    state.ready = False
    systemd = service(clock, told, disk, state)
    clock.pump([STARTING] * 20)
    assert told.datagrams == [{"STATUS": "opening the spool"}]
    state.ready = True
    clock.advance(STARTING)
    clock.advance(0)
    assert told.names == ["STATUS", "READY", "WATCHDOG", "STATUS"]
    assert told.status == "fine"
    systemd.stopService()


def test_what_could_not_be_sent_is_sent_again(clock: Clock, told: Told, disk: Disk) -> None:
    told.deaf = True
    systemd = service(clock, told, disk, State())
    clock.pump([STARTING] * 5)
    told.deaf = False
    clock.advance(STARTING)
    clock.advance(0)
    assert told.names == ["READY", "WATCHDOG", "STATUS"]
    told.deaf = True
    clock.advance(LOOK)
    told.deaf = False
    clock.advance(LOOK)
    clock.advance(0)
    assert told.times("READY") == 1
    assert told.times("WATCHDOG") == 2
    systemd.stopService()


def test_the_watchdog_is_fed_often_enough_and_the_status_told_when_it_changes(
    clock: Clock, told: Told, disk: Disk
) -> None:
    state = State()
    systemd = service(clock, told, disk, state, watchdog=6.0)
    clock.pump([0.1] * 300)
    # 30 s: at least twice in each 6 s, as sd_watchdog_enabled(3) wants it.
    assert 10 <= told.times("WATCHDOG") <= 20
    assert told.times("STATUS") == 2
    state.words = "BLOCKED"
    clock.pump([0.1] * 30)
    assert told.status == "BLOCKED"
    assert told.times("STATUS") == 3
    systemd.stopService()


def test_a_spool_that_does_not_answer_stops_the_watchdog_and_is_said(
    clock: Clock, told: Told, disk: Disk, logged: Logged
) -> None:
    systemd = service(clock, told, disk, State(), watchdog=6.0)
    clock.advance(0)
    fed = told.times("WATCHDOG")
    disk.claiming = 20.0
    clock.pump([0.5] * 30)
    assert told.times("WATCHDOG") == fed
    assert told.status == "the spool has not answered for 12 s: look at its disk"
    # One question is open, not one for each look.
    assert len(clock.getDelayedCalls()) == 2
    assert len([each for each in logged.events if each["log_level"] is LogLevel.error]) == 1
    disk.claiming = 0.0
    clock.pump([0.5] * 20)
    assert told.times("WATCHDOG") > fed
    assert told.status == "fine"
    assert "the spool answers again" in logged.texts
    systemd.stopService()


def test_a_slow_answer_feeds_it_all_the_same(clock: Clock, told: Told, disk: Disk) -> None:
    disk.claiming = 3.0
    systemd = service(clock, told, disk, State(), watchdog=6.0)
    gaps, last, fed = [], 0.0, 0
    for _ in range(600):
        clock.advance(0.1)
        if told.times("WATCHDOG") > fed:
            fed, now = told.times("WATCHDOG"), clock.seconds()
            gaps.append(now - last)
            last = now
    assert fed
    assert max(gaps) < 6.0
    systemd.stopService()


def test_a_spool_that_fails_does_not_feed_it(clock: Clock, told: Told, disk: Disk) -> None:
    disk.mistake = SpoolError("the disk of the spool failed")
    systemd = service(clock, told, disk, State())
    clock.pump([0.5] * 60)
    assert told.times("WATCHDOG") == 0
    assert told.status == "the spool fails: the disk of the spool failed"
    disk.mistake = None
    clock.pump([0.5] * 10)
    assert told.times("WATCHDOG") >= 1
    assert told.status == "fine"
    systemd.stopService()


def test_without_a_watchdog_only_the_status_is_told(clock: Clock, told: Told, disk: Disk) -> None:
    systemd = service(clock, told, disk, State(), watchdog=None)
    clock.pump([1.0] * 100)
    assert told.names == ["STATUS", "READY", "STATUS"]
    systemd.stopService()


def test_a_mistake_in_the_sentence_is_logged_and_it_lives(clock: Clock, told: Told, disk: Disk, logged: Logged) -> None:
    state = State()
    systemd = service(clock, told, disk, state)
    clock.advance(0)
    state.mistake = ZeroDivisionError("mistake")
    clock.pump([0.5] * 20)
    assert len(logged.flush(ZeroDivisionError)) >= 2
    state.mistake = None
    state.words = "fine again"
    clock.pump([0.5] * 10)
    assert told.status == "fine again"
    systemd.stopService()


def test_the_stop_is_told_first_with_the_time_it_takes_and_nothing_after_it(
    clock: Clock, told: Told, disk: Disk
) -> None:
    disk.claiming = 1.0
    systemd = service(clock, told, disk, State())
    clock.advance(0.5)
    systemd.stopService()
    assert told.datagrams[-1] == {"STOPPING": 1, "EXTEND_TIMEOUT_USEC": 40_000_000, "STATUS": "stopping; fine"}
    assert told.closed
    systemd.stopService()
    # The answer to the last question.
    clock.advance(1.0)
    assert clock.getDelayedCalls() == []
    assert told.names[-1] == "STOPPING+EXTEND_TIMEOUT_USEC+STATUS"
    assert told.times("STOPPING") == 1


def test_a_stop_before_the_start_is_complete(clock: Clock, told: Told, disk: Disk) -> None:
    state = State()
    state.ready = False
    systemd = service(clock, told, disk, state)
    systemd.stopService()
    assert told.names == ["STATUS", "STOPPING+EXTEND_TIMEOUT_USEC+STATUS"]
    assert clock.getDelayedCalls() == []


def test_a_reload_is_told_with_the_time_and_ends_with_ready(clock: Clock, told: Told, disk: Disk) -> None:
    systemd = service(clock, told, disk, State())
    clock.advance(0)
    systemd.reloading()
    assert list(told.datagrams[-1]) == ["RELOADING", "MONOTONIC_USEC", "STATUS"]
    assert isinstance(told.datagrams[-1]["MONOTONIC_USEC"], int)
    systemd.reloaded()
    assert told.names[-1] == "READY"
    clock.advance(LOOK)
    clock.advance(0)
    assert told.status == "fine"
    systemd.stopService()


def test_it_can_be_started_again(clock: Clock, told: Told, disk: Disk) -> None:
    systemd = service(clock, told, disk, State())
    clock.advance(0)
    systemd.stopService()
    told.datagrams.clear()
    systemd.startService()
    clock.advance(0)
    assert told.names == ["STATUS", "READY", "WATCHDOG", "STATUS"]
    systemd.stopService()


def test_a_question_that_is_never_answered_is_no_dropped_error(clock: Clock, told: Told) -> None:
    pending: Deferred[float | None] = Deferred()
    systemd = Systemd(
        clock=clock, socket=told, ready=lambda: True, oldest=lambda: pending, sentence=lambda _: "fine", watchdog=6.0
    )
    systemd.startService()
    clock.pump([0.5] * 10)
    systemd.stopService()
    pending.errback(SpoolError("closed"))
    assert told.times("WATCHDOG") == 0
