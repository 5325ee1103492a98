"""The command lines of the operations manual, as they stand there, on a real pubd and a real RabbitMQ.

Only addresses are others: /run/pubd, and the port of RabbitMQ.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.rabbitmq import Node
from tests.service.process import BIN, Program

ROOT = Path(__file__).resolve().parents[2]
#: Not 0: what this line is there to show.
CODES = {"pubd send -e '' -r first-hour -b 'hello' --wait": 4}


def lines(page: str) -> list[str]:
    """What users type (after ``$``), in the order of the page."""
    text = (ROOT / f"docs/{page}.rst").read_text()
    blocks = re.findall(r"^ *\.\. code-block:: console\n\n((?:\n|[ ]+.*\n)+)", text, re.MULTILINE)
    return [line[2:] for block in blocks for line in dedent(block).splitlines() if line.startswith("$ ")]


class Host:
    """A directory with what has the paths of the manual in it, and the daemon once there is a pubd.toml."""

    def __init__(self, directory: Path, node: Node) -> None:
        self.directory = directory
        self._port = node.port
        (directory / "run/pubd").mkdir(parents=True)
        self.daemon: Program | None = None

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """As somebody would who copies it."""
        line = line.replace("/run/pubd", f"{self.directory}/run/pubd").replace(
            "localhost:5672", f"localhost:{self._port}"
        )
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.directory,
            env={
                **os.environ,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "PUBD_SERVER": f"unix:{self.directory}/run/pubd/http.sock",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self) -> None:
        """``twistd -n pubd --config pubd.toml``."""
        self.daemon = Program(self.directory, ["twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"])
        self.daemon.says("connected to")


@pytest.fixture
def host(shared_node: Node, tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path, shared_node)
    yield host
    if host.daemon is not None:
        host.daemon.remove()


def test_the_first_hour_and_a_move_go_as_the_manual_says(host: Host) -> None:
    first, recovery = lines("first-hour"), lines("recovery")
    assert len(first) >= 8
    assert len(recovery) >= 5
    outputs = {}
    for line in [*first, *recovery]:
        if line.startswith("pubd status") and host.daemon is None:
            host.start()
        done = host.type(line)
        assert done.returncode == CODES.get(line, 0), f"{line}: {done.stdout}{done.stderr}"
        outputs[line] = done.stdout + done.stderr
    assert outputs["pubd status"].startswith("healthy")
    assert "312 NO_ROUTE" in outputs["pubd list --state parked"]
    assert "nothing is left" in outputs["pubd drain --within 10m"]
    assert "books balance" in outputs["pubd verify backup.db"]
    assert host.daemon is not None
    assert "Traceback" not in host.daemon.output
