"""Lines to a real RabbitMQ: what a client is told is what a consumer finds."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_twisted

from pubd.access import Access, Quotas
from pubd.intake.door import Door
from pubd.intake.lines import LinesIntake
from pubd.intake.options import LinesOptions
from pubd.publisher import Publisher
from tests.conftest import Drained
from tests.integration.support import in_thread, reactor, route, vhost_url
from tests.lines import answers, connect, line, said, talk
from tests.rabbitmq import Node

Drain = Callable[..., list[Drained]]


def encoded(**given: Any) -> bytes:
    return json.dumps(given).encode() + b"\n"


@asynccontextmanager
async def lines_to(url: str, tmp_path: Path) -> AsyncIterator[tuple[Publisher, LinesIntake, Path]]:
    """A publisher with a durable spool, and its lines intake on a unix socket."""
    path = tmp_path / "lines.sock"
    publisher = Publisher.from_url(url, reactor=reactor, spool=f"sqlite:///{tmp_path}/pubd.db", name="lines test")
    options = LinesOptions(listen=(f"unix:{path}:mode=660",))
    door = Door(publisher=publisher, clock=reactor, quotas=Quotas(), max_unanswered=options.max_unanswered)
    intake = LinesIntake(reactor=reactor, options=options, door=door, access=Access())
    publisher.startService()
    intake.startService()
    try:
        yield publisher, intake, path
        assert publisher.account().books.difference == 0
        assert door.unanswered == 0
    finally:
        await intake.stopService()
        await publisher.stopService()


@pytest_twisted.ensureDeferred
async def test_properties_arrive_as_they_were_given(
    shared_node: Node, vhost: str, drain: Drain, tmp_path: Path
) -> None:
    url = vhost_url(shared_node, vhost)
    await in_thread(route, url, "orders", "new")
    given = {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {"k": 1, "deep": {"list": ["a", 2]}},
        "priority": 5,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "60000",
        "message_id": "m",
        "timestamp": 1700000000,
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
        "delivery_mode": 2,
    }
    async with lines_to(url, tmp_path) as (_, _, path):
        got = await in_thread(
            talk,
            path,
            encoded(exchange="orders", routing_key="new", body="grüß", wait="confirmed", **given),
        )
        assert said(got) == ["confirmed"]
    (taken,) = await in_thread(drain, "new", url)
    assert taken.body == "grüß".encode()
    assert {name: getattr(taken.properties, name) for name in given} == given


@pytest_twisted.ensureDeferred
async def test_many_lines_pipelined_arrive_in_order(
    shared_node: Node, vhost: str, drain: Drain, tmp_path: Path
) -> None:
    url = vhost_url(shared_node, vhost)
    await in_thread(route, url, "orders", "new")
    count = 10_000
    data = b"".join(encoded(exchange="orders", routing_key="new", body=str(n)) for n in range(count))
    last = encoded(exchange="orders", routing_key="new", body=str(count), wait="confirmed")
    async with lines_to(url, tmp_path) as (_, _, path):
        got = await in_thread(talk, path, data + last)
        assert said(got) == ["stored"] * count + ["confirmed"]
        assert len({each["id"] for each in got}) == count + 1
    taken = await in_thread(drain, "new", url)
    assert [int(each.body) for each in taken] == list(range(count + 1))


@pytest_twisted.ensureDeferred
async def test_returned_and_again_with_the_same_key(shared_node: Node, vhost: str, tmp_path: Path) -> None:
    url = vhost_url(shared_node, vhost)
    await in_thread(route, url, "orders", "new")
    lost = encoded(exchange="orders", routing_key="nowhere", body="x", idempotency_key="k", wait="confirmed")
    good = encoded(exchange="orders", routing_key="new", body="x", idempotency_key="g")
    other = encoded(exchange="orders", routing_key="new", body="y", idempotency_key="g")
    async with lines_to(url, tmp_path) as (publisher, _, path):
        (first,) = await in_thread(talk, path, lost)
        assert said([first]) == ["returned"]
        assert "NO_ROUTE" in first["error"]["detail"]
        # The answer was lost, say: the same line again tells the same, and nothing is published twice.
        assert await in_thread(talk, path, lost) == [first]
        got = await in_thread(talk, path, good + good + other + good.replace(b"}", b', "wait": "confirmed"}'))
        assert said(got) == ["stored", "stored", ("idempotency-conflict", "idempotency_key"), "confirmed"]
        assert len({each["id"] for each in got if "id" in each}) == 1
        assert publisher.account().books.accepted == 2


@pytest_twisted.ensureDeferred
async def test_the_publisher_stops_before_its_lines(shared_node: Node, vhost: str, tmp_path: Path) -> None:
    url = vhost_url(shared_node, vhost)
    await in_thread(route, url, "orders", "new")
    good = encoded(exchange="orders", routing_key="new", body="x")
    async with lines_to(url, tmp_path) as (publisher, _, path):
        with connect(path) as client:
            client.sendall(good)
            assert (await in_thread(line, client))["state"] == "stored"
            await publisher.stopService()
            client.sendall(good)
            client.shutdown(socket.SHUT_WR)
            assert said(await in_thread(answers, client)) == ["stopping"]
