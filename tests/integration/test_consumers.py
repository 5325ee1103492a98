"""What other programs take out of the queue is what went in, with its properties."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.threads import deferToThread

from pubd import Message, Options, Publisher
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from tests.conftest import Drained

reactor: Any = installed_reactor

HEADERS: dict[str, Any] = {
    "text": "grün",
    "bytes": b"\x00\xff",
    "yes": True,
    "small": 1,
    "large": 1 << 62,
    "below": -(1 << 40),
    "money": Decimal("12.34"),
    "when": datetime(2026, 11, 23, 10, 0, tzinfo=UTC),
    "nothing": None,
    "table": {"list": [1, "two", {"three": 3}]},
}


@pytest_twisted.ensureDeferred
async def test_a_consumer_gets_all_14_properties_headers_of_every_type_and_the_body(
    broker_url: str, unique: Callable[[str], str], drain: Callable[..., list[Drained]]
) -> None:
    queue = unique("queue")
    publisher = Publisher.from_url(broker_url, reactor=reactor, topology=Topology(queues=[Queue(name=queue)]))
    given: dict[str, Any] = {
        "content_type": "application/octet-stream",
        "content_encoding": "identity",
        "delivery_mode": 1,
        "priority": 7,
        "correlation_id": "correlation",
        "reply_to": "amq.rabbitmq.nowhere",
        "expiration": "600000",
        "message_id": "mine",
        "timestamp": 1_700_000_000,
        "type": "kind",
        "user_id": "guest",
        "app_id": "shop",
        "cluster_id": "cluster",
    }
    body = bytes(range(256)) * 2000
    publisher.startService()
    try:
        receipt = await publisher.submit(Message(exchange="", routing_key=queue, body=body, headers=HEADERS, **given))
        assert (await receipt.settled()).message_id == "mine"
    finally:
        await publisher.stopService()
    (taken,) = await deferToThread(drain, queue, broker_url)
    assert taken.body == body
    assert {name: getattr(taken.properties, name) for name in given} == given
    assert taken.properties.headers == HEADERS | {"when": taken.properties.headers["when"]}
    assert taken.properties.headers["when"].timestamp() == HEADERS["when"].timestamp()


@pytest_twisted.ensureDeferred
async def test_debians_consumer_gets_the_bodies_in_order(broker_url: str, unique: Callable[[str], str]) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    publisher = Publisher.from_url(
        broker_url,
        reactor=reactor,
        options=Options(persistent=False),
        topology=Topology(
            exchanges=[Exchange(name=exchange, type="topic")],
            queues=[Queue(name=queue)],
            bindings=[Binding(exchange=exchange, queue=queue, routing_key="a.*")],
        ),
    )
    publisher.startService()
    try:
        messages = [Message(exchange=exchange, routing_key="a.b", body=b"%d\n" % n) for n in range(20)]
        receipts = await publisher.submit_many(messages)
        for receipt in receipts:
            assert uuid.UUID((await receipt.settled()).message_id).version == 7
    finally:
        await publisher.stopService()
    taken = await deferToThread(
        subprocess.run,
        ["amqp-consume", "--url", broker_url, "--queue", queue, "--count", "20", "cat"],
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert taken.stdout == b"".join(b"%d\n" % n for n in range(20))
