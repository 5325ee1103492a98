"""What programs are written against, on the real daemon and RabbitMQ: paths, fields, statuses, exit codes.

Each row of the tables here is one of the contract; how it behaves beyond that is for the other tests.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.conftest import Drained
from tests.integration.support import channel_of, route
from tests.lines import connect, line
from tests.rabbitmq import free_ports
from tests.service.bad_input import first_answer, listens
from tests.service.conftest import Run
from tests.service.process import BIN, Program, until
from tests.web import Got, get, post

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TOKEN, LOOKER, SLOW = ("pubd_" + letter * 43 for letter in "abc")
#: Of every property; those that pubd itself makes no use of come out of the queue as they went in.
PROPERTIES: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {"k": 1},
    "priority": 5,
    "correlation_id": "c",
    "reply_to": "r",
    "expiration": "60000",
    "message_id": "m",
    "timestamp": 1700000000,
    "type": "t",
    "user_id": "guest",
    "app_id": "a",
    "cluster_id": "z",
    "delivery_mode": 2,
}
EVERY_KEY: dict[str, Any] = {
    "exchange": "orders",
    "routing_key": "orders",
    "body": "text",
    **PROPERTIES,
    "mandatory": True,
    "idempotency_key": "i",
    "delay": "100ms",
    "ttl": "1h",
    "ordering_key": "o",
}
ORDER = {"exchange": "orders", "routing_key": "orders", "body": "x"}


@attrs.frozen
class Daemon:
    program: Program
    directory: Path
    port: int
    broker: str

    @property
    def lines(self) -> Path:
        return self.directory / "lines.sock"

    def ask(self, request: bytes, token: str | None = LOOKER) -> Got:
        """The answer; a head without Authorization gets it."""
        if token is not None:
            request = request.replace(b"\r\n", f"\r\nAuthorization: Bearer {token}\r\n".encode(), 1)
        with connect(self.port) as client:
            return first_answer(client, request)

    def post(self, message: Any, path: str = "/messages", token: str | None = LOOKER, headers: str = "") -> Got:
        headers = f"Content-Type: application/json\r\n{headers}"
        return self.ask(post(json.dumps(message).encode(), path=path, headers=headers), token)

    def send(self, *arguments: str, stdin: str = "", token: str = LOOKER) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "pubd"), "send", "-s", f"http://127.0.0.1:{self.port}", "--token", token, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def drained(self, queue: str = "orders") -> list[Drained]:
        with channel_of(self.broker) as channel:
            found = []
            while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
                method, properties, body = got
                found.append(
                    Drained(
                        body=body,
                        properties=properties,
                        exchange=method.exchange,
                        routing_key=method.routing_key,
                        redelivered=method.redelivered,
                    )
                )
            return found


@pytest.fixture
def pubd(run: Run, tmp_path: Path, url: str) -> Iterator[Daemon]:
    route(url, "orders", "orders")
    (port,) = free_ports(1)
    hashes = {token: sha256(token.encode()).hexdigest() for token in (TOKEN, LOOKER, SLOW)}
    (tmp_path / "pubd.toml").write_text(
        f'[broker]\nurls = ["{url}"]\n[spool]\nurl = "sqlite:///pubd.db"\nmax_bytes = "256KiB"\n'
        "[delivery]\ndrain_timeout = 0\n"
        f'[http]\nlisten = ["tcp:{port}:interface=127.0.0.1"]\nmax_body = "64KiB"\nheader_timeout = "500ms"\n'
        f'[lines]\nlisten = ["unix:{tmp_path}/lines.sock"]\n'
        f'[[principal]]\nname = "shop"\ntokens = ["sha256:{hashes[TOKEN]}"]\ngrants = [{{ exchange = "orders" }}]\n'
        f'[[principal]]\nname = "looker"\ntokens = ["sha256:{hashes[LOOKER]}"]\noperate = true\nusers = [0]\n'
        'grants = [{ exchange = "*" }]\n'
        f'[[principal]]\nname = "slow"\ntokens = ["sha256:{hashes[SLOW]}"]\ngrants = [{{ exchange = "*" }}]\n'
        "rate = 0.01\n"
    )
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
    started = Daemon(program, tmp_path, port, url)
    until(lambda: listens(port) and listens(started.lines), what=lambda: program.output)
    yield started
    assert "Traceback" not in program.output


def is_problem(got: Got, status: int, type: str, field: str | None = None) -> None:
    assert got.status == status, got
    assert got.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail"} <= got.json.keys()
    assert (got.json["type"], got.json["status"], got.json.get("field")) == (type, status, field)
    if status in (429, 503, 507):
        assert got.headers["retry-after"].isdigit()


def test_a_message_has_every_key(pubd: Daemon) -> None:
    got = pubd.post(EVERY_KEY, "/messages?wait=confirmed&timeout=20s")
    assert (got.status, got.json["state"]) == (200, "confirmed")
    (drained,) = pubd.drained()
    assert {name: getattr(drained.properties, name) for name in PROPERTIES} == PROPERTIES
    assert (drained.body, drained.exchange, drained.routing_key) == (b"text", "orders", "orders")
    for body, wanted in (
        ({"body_base64": "AP8="}, b"\x00\xff"),
        ({"body_json": {"a": [1.50, None]}}, b'{"a":[1.5,null]}'),
    ):
        route = {"exchange": "orders", "routing_key": "orders"}
        assert pubd.post(route | body, "/messages?wait=confirmed").status == 200
        assert pubd.drained()[0].body == wanted
    is_problem(pubd.post(ORDER | {"colour": 1}), 422, "invalid-message", "colour")


def test_submissions_over_http(pubd: Daemon) -> None:
    got = pubd.post(ORDER)
    assert (got.status, got.json.keys(), got.json["state"]) == (202, {"id", "state"}, "stored")
    assert ID.fullmatch(got.json["id"])
    got = pubd.post(ORDER, "/messages?wait=confirmed&timeout=20s")
    assert (got.status, got.json.keys(), got.json["state"]) == (200, {"id", "state"}, "confirmed")
    returned = pubd.post(ORDER | {"routing_key": "nowhere"}, "/messages?wait=confirmed&timeout=20s")
    is_problem(returned, 422, "returned")
    assert ID.fullmatch(returned.json["id"])
    late = pubd.post(ORDER | {"exchange": "missing"}, "/messages?wait=confirmed&timeout=200ms")
    assert (late.status, late.json["state"]) == (202, "stored")

    lines = b"\n".join([json.dumps(ORDER).encode(), b"nonsense", json.dumps(ORDER).encode()])
    got = pubd.ask(post(lines, headers="Content-Type: application/x-ndjson\r\n"))
    assert got.status == 200
    assert [each.get("state") for each in got.lines] == ["stored", None, "stored"]
    assert got.lines[1]["error"]["type"] == "malformed"

    for path, wanted in (("/publish/orders/orders", "orders"), ("/publish/amq.default/orders", "")):
        pubd.drained()
        got = pubd.ask(post(b"raw", path=f"{path}?wait=confirmed", headers="Content-Type: text/plain\r\n"))
        assert (got.status, got.json["state"]) == (200, "confirmed")
        (drained,) = pubd.drained()
        assert (drained.exchange, drained.body, drained.properties.content_type) == (wanted, b"raw", "text/plain")


def test_looking_and_deciding_over_http(pubd: Daemon) -> None:
    lost = ORDER | {"routing_key": "nowhere"}
    first, second = (pubd.post(lost, "/messages?wait=confirmed").json["id"] for _ in range(2))
    got = pubd.ask(get(f"/messages/{first}"))
    assert got.status == 200
    assert {"id", "state", "attempts", "reason", "failures"} <= got.json.keys()
    assert (got.json["state"], "message" in got.json) == ("parked", False)
    assert pubd.ask(get(f"/messages/{first}?body=true")).json["message"]["body"] == "x"
    page = pubd.ask(get("/messages?state=parked&exchange=orders&limit=1")).json
    assert ([each["id"] for each in page["messages"]], page["next"]) == ([first], first)
    page = pubd.ask(get(f"/messages?state=parked&exchange=orders&limit=1&after={first}")).json
    assert [each["id"] for each in page["messages"]] == [second]
    assert pubd.ask(get(f"/messages/{first}/retry", method="POST")).status == 200
    until(lambda: pubd.ask(get(f"/messages/{first}")).json["state"] == "parked")
    assert pubd.ask(get(f"/messages/{first}", method="DELETE")).status == 200
    assert pubd.ask(get(f"/messages/{first}")).json["state"] == "discarded"
    is_problem(pubd.ask(get(f"/messages/{first}/retry", method="POST")), 409, "wrong-state")

    assert pubd.ask(get("/metrics")).headers["content-type"].startswith("text/plain; version=0.0.4")
    for path in ("/livez", "/readyz"):
        assert pubd.ask(get(path), None).status == 200
    document = pubd.ask(get("/openapi.json"), None).json
    assert document["openapi"].startswith("3.1")
    assert {"/messages", "/publish/{exchange}/{routing_key}", "/messages/{id}", "/messages/{id}/retry"} <= set(
        document["paths"]
    )


def test_every_status_of_the_contract(pubd: Daemon) -> None:
    is_problem(pubd.ask(post(b"{")), 400, "malformed")
    unknown = pubd.post(ORDER, token="pubd_" + "x" * 43)
    is_problem(unknown, 401, "not-authenticated")
    assert unknown.headers["www-authenticate"].startswith("Bearer")
    is_problem(pubd.post(ORDER, token=None), 401, "not-authenticated")
    is_problem(pubd.post(ORDER | {"exchange": "others"}, token=TOKEN), 403, "not-allowed")
    is_problem(pubd.ask(get("/messages"), TOKEN), 403, "not-allowed")
    is_problem(pubd.ask(get("/messages/00000000-0000-7000-8000-000000000000")), 404, "not-found", "id")
    is_problem(pubd.ask(get("/messages", method="PUT")), 405, "method-not-allowed")
    with connect(pubd.port) as client:
        is_problem(first_answer(client, b"POST /mess"), 408, "request-timeout")
    keyed = "Idempotency-Key: once\r\n"
    first = pubd.post(ORDER, headers=keyed).json["id"]
    assert pubd.post(ORDER, headers=keyed).json["id"] == first
    is_problem(pubd.post(ORDER | {"body": "y"}, headers=keyed), 409, "idempotency-conflict", "idempotency_key")
    is_problem(pubd.post(ORDER | {"body": "x" * 65536}), 413, "too-large")
    is_problem(
        pubd.ask(post(b"x", headers="Content-Type: text/xml\r\n")), 415, "unsupported-media-type", "content-type"
    )
    is_problem(pubd.post(ORDER | {"priority": 256}), 422, "invalid-message", "priority")
    assert pubd.post(ORDER, token=SLOW).status == 202
    is_problem(pubd.post(ORDER, token=SLOW), 429, "quota")
    held = ORDER | {"exchange": "missing", "body": "x" * 60_000}
    answers = [pubd.post(held) for _ in range(6)]
    assert answers[0].status == 202
    is_problem(answers[-1], 507, "spool-full")
    # Whose request has begun when pubd is told to stop.
    with connect(pubd.port) as client:
        request = post(json.dumps(ORDER).encode())
        client.sendall(request[:-1])
        until(lambda: pubd.ask(get("/livez"), None).status == 200)
        pubd.program.signal(signal.SIGTERM)
        is_problem(first_answer(client, b""), 503, "stopping")
    assert pubd.program.ends() == 0


def test_lines(pubd: Daemon) -> None:
    asked = [ORDER, {"colour": 1}, ORDER | {"wait": "confirmed"}, ORDER]
    with connect(pubd.lines) as client:
        client.sendall("".join(json.dumps(each) + "\n" for each in asked).encode())
        said = [line(client) for _ in asked]
    assert [each.get("state") for each in said] == ["stored", None, "confirmed", "stored"]
    assert said[0].keys() == {"id", "state"}
    assert said[1].keys() == {"error"}
    assert {"type", "detail", "field"} <= said[1]["error"].keys()
    assert len({each["id"] for each in said if "id" in each}) == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-e", "orders", "-r", "orders", "-b", "x"], 0),
        (["-e", "orders", "-r", "orders", "-b", "x", "-C", "text/plain", "--wait"], 0),
        (["-e", "orders", "-r", "orders", "-b", "x", "--expiration", "soon"], 1),
        (["-b", "x"], 2),
        (["-e", "orders", "-r", "orders", "-b", "x", "-s", "unix:/nonexistent"], 3),
        (["-e", "orders", "-r", "nowhere", "-b", "x", "--wait"], 4),
        (["-e", "missing", "-r", "k", "-b", "x", "--wait", "--timeout", "500ms"], 75),
        (["-e", "orders", "-r", "orders", "-b", "x", "--token-file", "/nonexistent"], 78),
    ],
)
def test_exit_codes(arguments: Sequence[str], code: int, pubd: Daemon) -> None:
    done = pubd.send(*arguments)
    assert done.returncode == code, done.stderr
    # An id where there is a message, and nothing else.
    assert re.fullmatch(f"({ID.pattern}\n)?", done.stdout)
    assert bool(done.stdout) == (code in (0, 4, 75))
    assert "Traceback" not in done.stderr


def test_an_exit_code_for_a_full_spool(pubd: Daemon) -> None:
    large = "x" * 60_000
    codes = [pubd.send("-e", "missing", "-r", "k", "--timeout", "500ms", stdin=large).returncode for _ in range(6)]
    assert (codes[0], codes[-1]) == (0, 75)
