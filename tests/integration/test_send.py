"""`pubd send` with a real pubd and RabbitMQ: what arrives, and that nothing is lost or twice when processes die."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.conftest import Drained
from tests.integration.support import channel_of, depth, vhost_url
from tests.rabbitmq import Node
from tests.service.process import Program, until

CONFIG = """
[broker]
urls = ["{broker}"]
[spool]
url = "sqlite:///spool.db"
[http]
listen = ["unix:{socket}:mode=600"]
"""
#: So many that a run takes a second or two.
MANY = 40_000


@attrs.define
class Daemon:
    """A pubd that may be killed and started again."""

    directory: Path
    broker: str
    programs: list[Program] = attrs.Factory(list)

    @property
    def socket(self) -> Path:
        return self.directory / "h"

    @property
    def log(self) -> str:
        return "".join(program.output for program in self.programs)

    def start(self) -> None:
        (self.directory / "pubd.toml").write_text(CONFIG.format(broker=self.broker, socket=self.socket))
        program = Program(self.directory, ["twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"])
        self.programs.append(program)
        until(self.socket.exists, what=lambda: program.output)

    def kill(self) -> None:
        self.programs[-1].signal(signal.SIGKILL)
        self.programs[-1].ends()
        self.socket.unlink(missing_ok=True)

    def send(self, *arguments: str | Path) -> Program:
        self.programs.append(Program(self.directory, ["pubd", "send", "-s", f"unix:{self.socket}", *arguments]))
        return self.programs.pop()


@pytest.fixture
def broker(shared_node: Node, vhost: str) -> str:
    """The URL of a virtual host with a queue ``q``, bound to the exchange ``e``."""
    url = vhost_url(shared_node, vhost)
    with channel_of(url) as channel:
        channel.queue_declare("q", durable=True)
        channel.exchange_declare("e", "direct", durable=True)
        channel.queue_bind("q", "e", "k")
    return url


@pytest.fixture
def daemon(broker: str, tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, broker)
    daemon.start()
    yield daemon
    for program in daemon.programs:
        program.remove()
    assert "Traceback" not in daemon.log


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "messages.ndjson"
    with path.open("w") as lines:
        for number in range(MANY):
            lines.write(json.dumps({"exchange": "e", "routing_key": "k", "body": str(number)}) + "\n")
    return path


def arrived(drain: Callable[..., list[Drained]], broker: str, count: int) -> list[Drained]:
    """What is in the queue when ``count`` messages, or more, have come."""
    until(lambda: depth(broker, "q") >= count, 60, lambda: f"{depth(broker, 'q')} of {count} came")
    # What would be too much comes with them.
    time.sleep(0.3)
    return drain("q", broker)


def test_every_property_arrives(daemon: Daemon, broker: str, drain: Callable[..., list[Drained]]) -> None:
    sent = daemon.send(
        *("-e", "e", "-r", "k", "-b", "Grüße", "-p", "-C", "text/plain", "-E", "utf-8", "-t", "answers", "--wait"),
        *("-H", "text=v", "-H", "whole:=5", "-H", "yes:=true", "-H", 'list:=["a", {"b": null}]'),
        *("--priority", "7", "--correlation-id", "c", "--expiration", "600000", "--message-id", "m", "--type", "t"),
        *("--timestamp", "1700000000", "--user-id", "guest", "--app-id", "app", "--cluster-id", "cl"),
    )
    assert sent.ends() == 0, sent.output
    (message,) = arrived(drain, broker, 1)
    assert message.body == "Grüße".encode()
    assert {name: value for name, value in vars(message.properties).items() if value is not None} == {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {"text": "v", "whole": 5, "yes": True, "list": ["a", {"b": None}]},
        "delivery_mode": 2,
        "priority": 7,
        "correlation_id": "c",
        "reply_to": "answers",
        "expiration": "600000",
        "message_id": "m",
        "timestamp": 1700000000,
        "type": "t",
        "user_id": "guest",
        "app_id": "app",
        "cluster_id": "cl",
    }


def test_waiting_tells_confirmed_from_returned(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "f"
    route = {"exchange": "e", "body": "x"}
    path.write_text("".join(json.dumps(route | {"routing_key": key}) + "\n" for key in ["k", "nobody", "k", "nobody"]))
    sent = daemon.send("--ndjson", path, "--wait", "-o", "json")
    assert sent.ends() == 4, sent.output
    answers = [json.loads(line) for line in sent.lines("{")]
    assert [each.get("state") or each["error"]["type"] for each in answers] == ["confirmed", "returned"] * 2
    assert sent.lines("line 2: ")
    assert "NO_ROUTE" in sent.lines("line 2: ")[0]
    assert "4 sent, 2 confirmed, 2 returned or parked, 0 refused" in sent.output


def test_a_sender_that_is_killed_again_and_again_publishes_each_line_once(
    daemon: Daemon, broker: str, file: Path, drain: Callable[..., list[Drained]]
) -> None:
    chance = random.Random(4)
    killed = 0
    for _ in range(6):
        sent = daemon.send("--ndjson", file, "-o", "none")
        time.sleep(0.4 + chance.random())
        sent.signal(chance.choice([signal.SIGKILL, signal.SIGINT]))
        killed += sent.ends() != 0
    assert killed
    sent = daemon.send("--ndjson", file, "-o", "none")
    assert sent.ends(60) == 0, sent.output
    taken = arrived(drain, broker, MANY)
    assert [int(message.body) for message in taken] == list(range(MANY))


def test_a_daemon_that_is_killed_costs_no_line_and_accepts_none_twice(
    daemon: Daemon, broker: str, file: Path, drain: Callable[..., list[Drained]]
) -> None:
    sent = daemon.send("--ndjson", file, "-o", "ids", "-q")
    for _ in range(2):
        done = len(sent.output)
        until(lambda done=done: len(sent.output) > done + 100_000 or "pubd:" in sent.output, what=lambda: sent.output)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        daemon.kill()
        daemon.start()
    assert sent.ends(60) == 0, sent.output[-1000:]
    ids = [line for line in sent.output.splitlines() if not line.startswith("pubd: ")]
    assert len(ids) == len(set(ids)) == MANY
    taken = arrived(drain, broker, MANY)
    # Each killed daemon may have published its window once more; with the same message_id then.
    assert {int(message.body): message.properties.message_id for message in taken} == dict(enumerate(ids))
    assert len({(message.body, message.properties.message_id) for message in taken}) == MANY
