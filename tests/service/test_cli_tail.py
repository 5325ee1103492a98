"""`pubd tail` against the real daemon and a real RabbitMQ."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Run
from tests.service.process import Program, until
from tests.service.running import Running, Unique, running


@pytest.fixture
def daemon(run: Run, url: str, unique: Unique, tmp_path: Path) -> Iterator[Running]:
    with running(run, url, unique("exchange"), tmp_path) as found:
        yield found


def watching(daemon: Running, *arguments: str) -> Program:
    """`pubd tail`, from the moment on at which it sees what happens."""
    tail = daemon.start("tail", "--json", *arguments)
    # It says nothing before the first event: a message of our own is one.
    until(lambda: daemon.send("good.first") and tail.lines("{"), what=lambda: tail.output)
    return tail


def test_each_message_is_a_line_with_what_became_of_it(daemon: Running) -> None:
    tail = daemon.start("tail", "--for", "60s")
    until(lambda: daemon.send("good.one") and tail.lines("confirmed"), what=lambda: tail.output)
    id = daemon.send("bad.key\x1b[2J")
    tail.says("312 NO_ROUTE")
    (line,) = [line for line in tail.lines(id) if "returned" in line]
    assert " parked: 312 NO_ROUTE " in line
    assert "\x1b" not in tail.output
    tail.interrupt()
    assert tail.ends() == 0, "Ctrl-C is how it is ended"
    assert "Traceback" not in tail.output


def test_as_json_and_chosen_by_outcome_and_exchange(daemon: Running) -> None:
    tail = daemon.start("tail", "--json", "-O", "parked", "-e", daemon.exchange, "-n", "1")
    until(lambda: daemon.send("bad.key") and tail.lines("{"), what=lambda: tail.output)
    assert tail.ends() == 0
    (event,) = map(json.loads, tail.output.splitlines())
    assert (event["event"], event["state"], event["exchange"]) == ("returned", "parked", daemon.exchange)
    assert event["reason"]["code"] == 312
    assert daemon.ok("discard", "--state", "parked", "--reason", "test", "--yes")


def test_when_pubd_ends_it_says_what_to_do(daemon: Running) -> None:
    tail = watching(daemon)
    daemon.program.interrupt()
    assert tail.ends() == 75
    assert "pubd stops; once it is back: 'pubd tail'" in tail.output


def test_when_pubd_is_killed_it_says_what_to_do(daemon: Running) -> None:
    tail = watching(daemon)
    daemon.program.signal(signal.SIGKILL)
    assert tail.ends() == 3
    assert "'pubd tail --reconnect' goes on by itself" in tail.output
    daemon.begin()


def test_it_goes_on_after_a_restart(daemon: Running) -> None:
    tail = watching(daemon, "--reconnect")
    daemon.restart()
    until(lambda: daemon.send("good.two") and tail.lines("good.two"), what=lambda: tail.output[-2000:])
    tail.interrupt()
    assert tail.ends() == 0


def test_who_stops_reading_holds_nothing_up(daemon: Running) -> None:
    tail = watching(daemon)
    tail.signal(signal.SIGSTOP)
    daemon.fill(20_000)
    daemon.settled()
    assert daemon.books()["confirmed"] > 20_000
    tail.signal(signal.SIGCONT)
    tail.says('"skipped"')
    shown = [json.loads(line) for line in tail.lines("{")]
    until(lambda: daemon.send("good.last") and tail.lines("good.last"), what=lambda: tail.output[-2000:])
    assert len([event for event in shown if event["event"] == "confirmed"]) < 20_000
    tail.interrupt()
    assert tail.ends() == 0


def test_nobody_is_there(tmp_path: Path, run: Run) -> None:
    tail = run("pubd", "tail", "-s", f"unix:{tmp_path}/nobody")
    assert tail.ends() == 3
    assert "there is no socket" in tail.output


def test_the_socket_is_not_kept_by_who_has_gone(daemon: Running) -> None:
    for _ in range(25):
        done = daemon.pubd("tail", "--for", "10ms")
        assert done.exit_code == 0, done.output
