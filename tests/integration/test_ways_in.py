"""Every line of docs/ways-in.rst does what the page says, on a real pubd and a real RabbitMQ.

The lines are run as they stand there; only addresses are others: ports, and the directories under /run and /var. pubd
send, which would find the usual socket by itself, is told by PUBD_SERVER.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import attrs
import pytest

from tests.conftest import Drained
from tests.integration.support import channel_of
from tests.rabbitmq import Node, free_ports
from tests.service.process import BIN, Program, until

PAGE = (Path(__file__).resolve().parents[2] / "docs/ways-in.rst").read_text()
JSON = "application/json"


@attrs.frozen
class Piece:
    """A code block: in which section it stands, its language, and its text."""

    section: str
    language: str
    text: str


@attrs.frozen
class Expected:
    """A message as the queue has it. Properties that are not named must not be there."""

    body: bytes
    properties: dict[str, Any] = attrs.Factory(dict)
    routing_key: str = "order.new"


def pieces() -> list[Piece]:
    found: list[Piece] = []
    section = ""
    pattern = r"^(?P<title>\S.*)\n-{3,}$|^\.\. code-block:: (?P<language>\w+)\n\n(?P<text>(?:\n|[ ]+.*\n)+)"
    for match in re.finditer(pattern, PAGE, re.MULTILINE):
        if match["title"]:
            section = match["title"]
        else:
            found.append(Piece(section, match["language"], dedent(match["text"]).strip("\n") + "\n"))
    return found


CONFIGURATION, *LINES = pieces()
PERSISTENT = {"delivery_mode": 2}
#: What each piece of the page brings into the queue, in its order. A message_id of None is one that pubd made.
EXPECTED: list[list[Expected]] = [
    [Expected(b'{"order": 1}', {"content_type": JSON, "headers": {"source": "shell"}})],
    [Expected(b"order 2\n", {"priority": 5, "message_id": "order-2"})],
    [
        Expected(b'{"order":3}', {"content_type": JSON, "correlation_id": "batch 1"}),
        Expected(b"order 4", {"content_type": "text/plain"}),
    ],
    [
        Expected(
            b'{"order":5}',
            {"content_type": JSON, "headers": {"source": "curl", "attempt": 1}, "expiration": "3600000"},
        )
    ],
    [Expected(b"order 6", {"content_type": "text/plain"})],
    [Expected(b"order 7", {"type": "order"}), Expected(b"order 8", {"app_id": "shop"})],
    [Expected(b"order 9", {"reply_to": "answers"})],
    [Expected(b"order 10", {"user_id": "guest"})],
    [Expected(b"order 11")],
    [Expected(b"order 12", {"content_type": "text/plain", "headers": {"source": "rabbitmqadmin"}})],
    [Expected(b'{"order": 13}', {"content_type": JSON, "type": "order.new"})],
]
PROGRAMS = {"curl": "curl", "nc": "netcat-openbsd", "rabbitmqadmin": "rabbitmq-server"}


@attrs.frozen
class Host:
    """A pubd with the configuration of the page, and where it is."""

    directory: Path
    port: int
    broker: Node

    def located(self, text: str) -> str:
        """``text`` with the addresses of this test."""
        text = re.sub(r"/(?:run|var/spool|var/lib)/pubd\b", rf"{self.directory}\g<0>", text)
        return text.replace("8672", str(self.port)).replace("localhost:5672", f"localhost:{self.broker.port}")

    def run(self, piece: Piece) -> subprocess.CompletedProcess[str]:
        """What a person would do who copies it."""
        program = [sys.executable, "-"] if piece.language == "python" else ["bash", "-e", "-o", "pipefail"]
        return subprocess.run(
            program,
            input=self.located(piece.text),
            cwd=self.directory,
            env={
                **os.environ,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "PUBD_SERVER": self.located("unix:/run/pubd/http.sock"),
                "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def host(shared_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    (port,) = free_ports(1)
    # Short: the path of a unix socket has 107 bytes.
    directory = tmp_path_factory.mktemp("ways")
    for name in ("run/pubd", "var/lib/pubd", "var/spool/pubd"):
        (directory / name).mkdir(parents=True)
    host = Host(directory, port, shared_node)
    (directory / "pubd.toml").write_text(host.located(CONFIGURATION.text))
    pubd = Program(directory, ["twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"])
    try:
        with_sockets = [
            directory / "run/pubd/http.sock",
            directory / "run/pubd/lines.sock",
            directory / "var/spool/pubd/new",
        ]
        until(lambda: all(path.exists() for path in with_sockets), what=lambda: pubd.output)
        yield host
        pubd.interrupt()
        assert pubd.ends() == 0, pubd.output
        assert "Traceback" not in pubd.output
    finally:
        pubd.remove()
        with channel_of(shared_node.url) as channel:
            channel.queue_delete("new-orders")
            channel.exchange_delete("orders")


@attrs.frozen
class Run:
    """What came of one piece."""

    done: subprocess.CompletedProcess[str]
    taken: list[Drained]


@pytest.fixture(scope="module")
def runs(host: Host) -> list[Run]:
    """All pieces, in the order of the page, each run once: some of them would not bring anything a second time."""
    return [Run(host.run(piece), arrived(host, len(expected))) for piece, expected in zip(LINES, EXPECTED, strict=True)]


def arrived(host: Host, count: int) -> list[Drained]:
    """What comes into the queue: so many messages, or as many as come in time."""
    taken: list[Drained] = []
    deadline = time.monotonic() + 10
    with channel_of(host.broker.url) as channel:
        while len(taken) < count and time.monotonic() < deadline:
            method, properties, body = channel.basic_get("new-orders", auto_ack=True)
            if method is None:
                time.sleep(0.02)
                continue
            taken.append(
                Drained(
                    body=body,
                    properties=properties,
                    exchange=method.exchange,
                    routing_key=method.routing_key,
                    redelivered=method.redelivered,
                )
            )
    return taken


def test_the_page_begins_with_a_configuration_and_has_every_way() -> None:
    assert CONFIGURATION.language == "toml"
    assert [piece.section for piece in LINES if piece.language in ("sh", "python")] == [
        *["pubd send"] * 3,
        *["HTTP, with curl"] * 3,
        "Lines, with nc",
        *["A directory, with mv"] * 2,
        "rabbitmqadmin",
        "CloudEvents",
    ]
    assert len(LINES) == len(EXPECTED)


@pytest.mark.parametrize("number", range(len(LINES)), ids=[re.sub(r"\W+", "-", piece.section) for piece in LINES])
def test_the_lines_deliver_with_their_properties(runs: list[Run], number: int) -> None:
    done, taken, expected = runs[number].done, runs[number].taken, EXPECTED[number]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(taken) == len(expected), done.stdout + done.stderr
    for message, wanted in zip(taken, expected, strict=True):
        assert (message.body, message.exchange, message.routing_key) == (wanted.body, "orders", wanted.routing_key)
        properties = {name: value for name, value in vars(message.properties).items() if value is not None}
        assert properties.pop("message_id") == wanted.properties.get("message_id", properties.get("message_id", ANY))
        if LINES[number].section == "CloudEvents":
            headers = properties.pop("headers")
            assert properties.pop("timestamp") > 1_700_000_000
            assert {name: value for name, value in headers.items() if name != "cloudEvents:time"} == {
                "cloudEvents:id": "13",
                "cloudEvents:source": "/shop",
                "cloudEvents:type": "order.new",
                "cloudEvents:specversion": "1.0",
            }
        given = {name: value for name, value in wanted.properties.items() if name != "message_id"}
        assert properties == {**PERSISTENT, **given}


class _Any:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # it is equal to what has other hashes


ANY = _Any()


def test_what_the_lines_print_is_what_the_page_promises(runs: list[Run]) -> None:
    said = {piece.section: run.done.stdout for piece, run in zip(LINES, runs, strict=True)}
    id = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert re.fullmatch(rf"({id}\n){{2}}", said["pubd send"])
    assert re.fullmatch(rf'(?:\{{"id":\s?"{id}",\s?"state":\s?"stored"\}}\n){{2}}', said["HTTP, with curl"])
    assert re.fullmatch(rf'\{{"id":\s?"{id}",\s?"state":\s?"stored"\}}\n', said["Lines, with nc"])
    assert said["rabbitmqadmin"].strip() == "Message published"


def test_who_is_told_to_wait_is_told_the_truth(host: Host) -> None:
    """pubd send --wait of a message that no queue gets: 4, with RabbitMQ's words."""
    done = host.run(Piece("", "sh", "pubd send -e orders -r nobody.wants.it -b x --wait"))
    assert done.returncode == 4
    assert "NO_ROUTE" in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_of_the_page_are_there(program: str) -> None:
    found = subprocess.run(["which", program], capture_output=True, check=False)
    assert found.returncode == 0, f"install {PROGRAMS[program]} (apt-get install {PROGRAMS[program]})"
