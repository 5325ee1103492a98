"""A day in the life of a daemon: everything that happens to it is told, and nothing secret, nor any message's content.

How it fails: a body, a header's value, a token or a password in some line of some level; a line for each message at
``info``; a traceback; a line that is no JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pika
import pytest

from pubd.access.tokens import hash_of, new_token
from tests.operating import Values
from tests.rabbitmq import Node, free_ports
from tests.service.conftest import Run
from tests.service.process import Program, until

#: In each body, header value and key that only the application knows.
SECRET = "s3cret"
PASSWORD = "pa55word"
MANY = 3000

CONFIG = """\
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///pubd.db"
max_bytes = "8MiB"
min_free = 0
[delivery]
on_nack = "park"
park_to = "parked"
[[exchange]]
name = "x"
type = "direct"
[[schedule]]
name = "often"
every = "100ms"
exchange = "x"
routing_key = "nowhere"
body = "s3cret"
[http]
listen = ["tcp:{port}:interface=127.0.0.1"]
[lines]
listen = ["unix:lines.sock"]
[directory]
path = "in"
principal = "files"
[[principal]]
name = "shop"
operate = true
grants = [{{ exchange = "*" }}]
tokens = ["{hash}"]
[[principal]]
name = "files"
grants = [{{ exchange = "*" }}]
[log]
level = "{level}"
"""


class Day:
    """One daemon, and what happens to it."""

    def __init__(self, run: Run, directory: Path, node: Node, user: str, level: str) -> None:
        (self.port,) = free_ports(1)
        self.node, self.directory, self.token = node, directory, new_token()
        url = f"amqp://{user}:{PASSWORD}@{node.host}:{node.port}/%2F"
        text = CONFIG.format(url=url, port=self.port, hash=hash_of(self.token), level=level)
        (directory / "pubd.toml").write_text(text)
        self.program: Program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
        self.program.says(f"listening on tcp:{self.port}")
        until(lambda: self.ask("GET", "/readyz")[0] == 200, what=lambda: self.program.output)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        status, content = answer.status, answer.read()
        connection.close()
        return status, content

    def hand_in(self, **given: Any) -> str:
        message = {"exchange": "x", "routing_key": "q", "body": SECRET, "headers": {"k": SECRET}} | given
        status, content = self.ask("POST", "/messages", json.dumps(message))
        assert status == 202, content
        return str(json.loads(content)["id"])

    def awaits(self, id: str, state: str) -> None:
        until(lambda: self.state(id) == state, what=lambda: f"{self.state(id)}: {self.program.output}")

    def is_connected(self) -> bool:
        return Values(self.ask("GET", "/metrics")[1].decode())("pubd_link_state", state="ready") == 1

    def state(self, id: str) -> str:
        return str(json.loads(self.ask("GET", f"/messages/{id}")[1])["state"])


@pytest.mark.parametrize("level", ["info", "debug"])
def test_everything_is_told_and_no_secret(run: Run, own_node: Node, tmp_path: Path, level: str) -> None:
    user = f"shop-{level}"
    own_node.add_user(user, PASSWORD)
    own_node.set_permissions(user)
    with closing(pika.BlockingConnection(pika.URLParameters(own_node.url))) as connection:
        channel = connection.channel()
        channel.exchange_declare("x", "direct", durable=True)
        channel.exchange_declare("parked", "fanout")
        channel.queue_declare("q")
        channel.queue_bind("q", "x", "q")
        channel.queue_declare("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        channel.queue_bind("full", "x", "full")
    day = Day(run, tmp_path, own_node, user, level)
    # What goes well, by the thousand, over each way in.
    line = json.dumps({"exchange": "x", "routing_key": "q", "body": SECRET, "headers": {"k": SECRET}})
    assert day.ask("POST", "/messages", f"{line}\n" * MANY, Content_Type="application/x-ndjson")[0] == 200
    (tmp_path / "in/tmp/m.json").write_text(line)
    os.rename(tmp_path / "in/tmp/m.json", tmp_path / "in/new/m.json")
    # What RabbitMQ refuses.
    day.awaits(day.hand_in(routing_key="nowhere"), "parked")
    day.awaits(day.hand_in(routing_key="full"), "parked")
    day.hand_in(exchange="absent")
    day.awaits(parked := day.hand_in(user_id="somebody-else"), "parked")
    assert day.ask("POST", f"/messages/{parked}/retry")[0] < 300
    day.awaits(parked, "parked")
    assert day.ask("DELETE", f"/messages/{parked}")[0] < 300
    # What pubd refuses.
    assert day.ask("POST", "/messages", line, Authorization=f"Bearer pubd_{SECRET}")[0] == 401
    assert day.ask("POST", "/messages", line[:-1])[0] == 400
    assert day.ask("POST", "/messages", json.dumps({"exchange": SECRET * 99, "body": SECRET}))[0] in (400, 422)
    assert day.ask("POST", "/messages", line, Idempotency_Key=SECRET)[0] == 202
    assert day.ask("POST", "/messages", line.replace("q", "r"), Idempotency_Key=SECRET)[0] == 409
    assert day.ask("POST", "/messages", json.dumps({"exchange": "x", "body": SECRET * 2_000_000}))[0] in (413, 507)
    (tmp_path / "in/tmp/bad.json").write_text(line[:-1])
    os.rename(tmp_path / "in/tmp/bad.json", tmp_path / "in/new/bad.json")
    until(lambda: list((tmp_path / "in/rejected").glob("bad*")), what=lambda: day.program.output)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "lines.sock"))
        client.sendall(line[:-1].encode() + b"\n" + SECRET.encode() + b"\n")
        client.settimeout(20)
        client.makefile("rb").readline()
    # What happens to connections.
    own_node.close_all_connections()
    day.program.says("closed by a test")
    own_node.ctl("change_password", user, "another")
    own_node.close_all_connections()
    day.program.says("ACCESS_REFUSED")
    own_node.ctl("change_password", user, PASSWORD)
    until(day.is_connected, 90, lambda: day.program.output)
    day.awaits(day.hand_in(), "confirmed")
    own_node.set_memory_alarm(True)
    day.hand_in()
    day.program.says("blocked")
    own_node.set_memory_alarm(False)
    day.program.signal(signal.SIGTERM)
    assert day.program.ends(60) == 0

    output = day.program.output
    assert SECRET not in output
    assert PASSWORD not in output
    assert day.token not in output
    assert "Traceback" not in output
    told = [json.loads(each) for each in output.splitlines()]
    assert all({"time", "level", "namespace", "message"} <= set(each) for each in told)
    if level == "info":
        # Thousands of messages, of which dozens were parked.
        assert len(told) < 150, output
        assert len([each for each in told if each["message"].startswith("Published ")]) <= 3
