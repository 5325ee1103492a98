"""What a shell is given for the names of exchanges and the ids of messages, by the real daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Run
from tests.service.process import BIN, until
from tests.service.running import Running, Unique, running


@pytest.fixture
def daemon(run: Run, url: str, unique: Unique, tmp_path: Path) -> Iterator[Running]:
    with running(run, url, unique("exchange"), tmp_path) as found:
        yield found


def completed(line: str, **environment: str) -> list[str]:
    """As bash asks for it, with the cursor at the end of the line."""
    words = line.split(" ")
    done = subprocess.run(
        [BIN / "pubd"],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "_PUBD_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return [each.partition(",")[2] for each in done.stdout.splitlines() if each]


def test_exchanges_and_ids_are_asked_of_the_running_pubd(daemon: Running) -> None:
    id = daemon.send("bad.key")
    until(lambda: daemon.books()["parked"] == 1)
    assert completed("pubd list -e pubd", PUBD_SERVER=daemon.server) == [daemon.exchange]
    assert completed(f"pubd tail -s {daemon.server} -e ") == [daemon.exchange]
    assert completed(f"pubd trace {id[:4]}", PUBD_SERVER=daemon.server) == [id]
    assert completed("pubd show nothing", PUBD_SERVER=daemon.server) == []
    daemon.ok("discard", id, "--reason", "test", "--yes")


def test_without_a_daemon_there_is_no_word(tmp_path: Path) -> None:
    nobody = f"unix:{tmp_path}/nobody"
    assert completed("pubd list -e ", PUBD_SERVER=nobody) == []
    assert completed("pubd trace ", PUBD_SERVER=nobody) == []
    assert completed("pubd list -e ", PUBD_SERVER="nonsense") == []
    assert "backup" in completed("pubd b")
