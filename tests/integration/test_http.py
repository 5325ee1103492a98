"""The HTTP intake in front of RabbitMQ, with curl as its client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.utils import getProcessOutputAndValue

from pubd.access import Access, Quotas
from pubd.intake.door import Door
from pubd.intake.http.intake import HttpIntake
from pubd.intake.options import HttpOptions
from tests.integration.spooled import bind, declare, get, spooling
from tests.integration.support import in_thread, reactor


class Curl:
    """curl on the socket of the intake."""

    def __init__(self, socket: Path, held: Any) -> None:
        self._socket = socket
        self.held = held

    async def __call__(self, path: str, *arguments: str) -> tuple[int, Any]:
        """The status and the JSON of the answer."""
        out, errors, code = await getProcessOutputAndValue(
            "/usr/bin/curl",
            ["-sS", "--unix-socket", str(self._socket), "-w", "\n%{http_code}", f"http://localhost{path}", *arguments],
        )
        assert code == 0, errors
        body, _, status = out.rpartition(b"\n")
        return int(status), json.loads(body)


@asynccontextmanager
async def daemon(url: str, directory: Path) -> AsyncIterator[Curl]:
    """A publisher with its spool on disk, and the intake on a unix socket."""
    async with spooling(url, directory / "spool.db") as publisher:
        door = Door(publisher=publisher, clock=reactor, quotas=Quotas(), max_unanswered=64 << 20)
        intake = HttpIntake(
            reactor=reactor,
            options=HttpOptions(listen=(f"unix:{directory}/http.sock:mode=600",)),
            door=door,
            access=Access(),
            held=publisher,
        )
        intake.startService()
        try:
            yield Curl(directory / "http.sock", publisher)
        finally:
            await intake.stopService()
        assert door.unanswered == 0


@pytest_twisted.ensureDeferred
async def test_properties_arrive_intact(broker_url: str, unique: Callable[..., str], tmp_path: Path) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(declare, broker_url, exchange, "topic")
    await in_thread(bind, broker_url, exchange, queue, "#")
    message = {
        "exchange": exchange,
        "routing_key": "order/neu.ü",
        "body": "Grüße",
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {"n": 1, "list": ["a", {"b": True}], "blob": {"$binary": "AP8="}},
        "priority": 5,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "600000",
        "message_id": "m",
        "timestamp": 1700000000,
        "type": "t",
        "app_id": "a",
        "delivery_mode": 1,
    }
    async with daemon(broker_url, tmp_path) as curl:
        status, answer = await curl("/messages?wait=confirmed", "--json", json.dumps(message))
        assert (status, answer["state"]) == (200, "confirmed")
        status, answer = await curl(
            f"/publish/{exchange}/a%2Fb?wait=confirmed&priority=7&header.K=v&message_id=raw",
            "-H",
            "Content-Type: application/octet-stream",
            "--data-binary",
            "raw",
        )
        assert (status, answer["state"]) == (200, "confirmed")
        (body, first), (raw, second) = await get(broker_url, queue)
    assert body.decode() == "Grüße"
    assert first.headers == {"n": 1, "list": ["a", {"b": True}], "blob": b"\x00\xff"}
    for name in ("content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id"):
        assert getattr(first, name) == message[name], name
    for name in ("timestamp", "type", "app_id", "delivery_mode"):
        assert getattr(first, name) == message[name], name
    assert (raw, second.content_type, second.priority) == (b"raw", "application/octet-stream", 7)
    assert (second.headers, second.message_id, second.delivery_mode) == ({"K": "v"}, "raw", 2)


@pytest_twisted.ensureDeferred
async def test_returned_healed_and_discarded(broker_url: str, unique: Callable[..., str], tmp_path: Path) -> None:
    exchange = unique("exchange")
    await in_thread(declare, broker_url, exchange)
    body = json.dumps({"exchange": exchange, "routing_key": "nowhere", "body": "x"})
    async with daemon(broker_url, tmp_path) as curl:
        status, problem = await curl("/messages?wait=confirmed", "--json", body)
        assert (status, problem["type"]) == (422, "returned")
        status, record = await curl(f"/messages/{problem['id']}?body=true")
        assert (status, record["state"], record["message"]["body"]) == (200, "parked", "x")
        status, page = await curl(f"/messages?state=parked&exchange={exchange}")
        assert [each["id"] for each in page["messages"]] == [problem["id"]]
        status, answer = await curl(f"/messages/{problem['id']}", "-X", "DELETE")
        assert (status, answer["state"]) == (200, "discarded")


@pytest_twisted.ensureDeferred
async def test_a_file_of_lines(broker_url: str, unique: Callable[..., str], tmp_path: Path) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(declare, broker_url, exchange)
    await in_thread(bind, broker_url, exchange, queue, "k")
    lines = [json.dumps({"exchange": exchange, "routing_key": "k", "body": str(n)}) for n in range(3000)]
    lines[1000] = "nonsense"
    (tmp_path / "lines").write_text("\n".join(lines))
    async with daemon(broker_url, tmp_path):
        out, _, code = await getProcessOutputAndValue(
            "/usr/bin/curl",
            [
                *("-sS", "--unix-socket", str(tmp_path / "http.sock"), "-H", "Content-Type: application/x-ndjson"),
                *("-X", "POST", "-T", str(tmp_path / "lines"), "http://localhost/messages?wait=confirmed&timeout=30s"),
            ],
        )
        assert code == 0
        answers = [json.loads(line) for line in out.splitlines()]
        assert [n for n, each in enumerate(answers) if each.get("state") != "confirmed"] == [1000]
        taken = await get(broker_url, queue)
    assert [int(body) for body, _ in taken] == [n for n in range(3000) if n != 1000]
