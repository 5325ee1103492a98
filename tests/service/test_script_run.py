"""`script/run` against a given broker, in the environment that is there."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.service.conftest import Run


def test_it_publishes_counts_and_ends(run: Run, url: str, repository: Path) -> None:
    program = run(repository / "script/run", "--count", "2", "--interval", "0.1", PUBD_BROKER_URL=url)
    assert program.ends(60) == 0
    program.says("using the broker of PUBD_BROKER_URL: ", "2 were acked", "Server Shut Down")
    assert "guest:guest" not in program.output


def test_ctrl_c_ends_it_cleanly(run: Run, url: str, repository: Path) -> None:
    program = run(repository / "script/run", "--interval", "0.1", PUBD_BROKER_URL=url)
    program.says("acked", seconds=60)
    program.interrupt()
    assert program.ends() == 0
    program.says(f"{signal.SIGINT.name}: stopping", "every accepted message is settled")
    assert "Traceback" not in program.output
