"""`pubd drain` against the real daemon and a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Run
from tests.service.running import Running, Unique, running


@pytest.fixture
def daemon(run: Run, url: str, unique: Unique, tmp_path: Path) -> Iterator[Running]:
    with running(run, url, unique("exchange"), tmp_path) as found:
        yield found


def test_what_is_there_is_published_and_nothing_is_accepted_until_it_is_told(daemon: Running) -> None:
    daemon.fill(5000)
    daemon.fill(3, delay="1s")
    done = daemon.ok("drain")
    assert "nothing is left to publish; pubd accepts nothing, 'pubd drain --resume'" in done.stdout
    books = daemon.books()
    assert (books["confirmed"], books["held"]) == (5003, 0)
    refused = daemon.pubd("send", "-e", daemon.exchange, "-r", "good.x", "-b", "x", "--timeout", "500ms")
    assert (refused.exit_code, "draining" in refused.stderr) == (75, True)
    status = daemon.pubd("status")
    assert status.exit_code == 1
    assert "submissions are refused: pubd is draining" in status.stdout
    assert "accepts messages again" in daemon.ok("drain", "--resume").stdout
    assert daemon.send("good.one", "x", "--wait")
    assert daemon.ok("status")


def test_with_stop_the_daemon_ends_when_all_is_published(daemon: Running) -> None:
    daemon.fill(5000)
    done = daemon.ok("drain", "--stop")
    assert "pubd ends" in done.stdout or "left" in done.stderr
    assert daemon.program.ends() == 0
    assert "every accepted message is settled" in daemon.program.output
    daemon.begin()
    assert daemon.books()["held"] == 0
    assert daemon.send("good.one", "x", "--wait"), "and it accepts after the next start"


def test_what_is_parked_stays_and_is_told(daemon: Running) -> None:
    daemon.send("bad.key")
    done = daemon.pubd("drain")
    assert done.exit_code == 4
    assert "1 message parked, which wait for a person" in done.stderr
    daemon.ok("drain", "--resume")
    daemon.ok("discard", "--state", "parked", "--reason", "test", "--yes")


def test_what_is_deferred_is_waited_for_within_the_time_or_not_at_all(daemon: Running) -> None:
    daemon.fill(2, delay="1h")
    done = daemon.pubd("drain", "--within", "1s")
    assert done.exit_code == 75
    assert "2 messages left (0 ready, 0 in flight, 2 deferred) after that time; pubd goes on draining" in done.stderr
    daemon.ok("drain", "--ignore-deferred")
    (*_, last) = daemon.json("drain", "--ignore-deferred")
    assert (last["left"], last["draining"], last["deferred"]) == (0, True, 2)


def test_interrupted_it_says_that_pubd_goes_on(daemon: Running) -> None:
    daemon.fill(2, delay="1h")
    drain = daemon.start("drain")
    drain.says("only deferred messages are left")
    drain.interrupt()
    assert drain.ends() == 130
    assert "interrupted; pubd goes on draining, 'pubd drain --resume'" in drain.output
    drain = daemon.start("drain", "--json")
    drain.says('"draining":true')
    daemon.ok("drain", "--resume")
    assert drain.ends() == 1
    assert "somebody else had pubd accept messages again" in drain.output


def test_what_keeps_it_from_publishing_is_told(daemon: Running) -> None:
    daemon.ok("pause", daemon.exchange)
    daemon.fill(3)
    drain = daemon.start("drain", "--within", "30s")
    drain.says("publishing to", "is paused", "'pubd resume")
    daemon.ok("resume", daemon.exchange)
    assert drain.ends() == 0, drain.output
    assert "nothing is left to publish" in drain.output


def test_resume_goes_alone(daemon: Running) -> None:
    assert daemon.pubd("drain", "--resume", "--stop").exit_code == 2
