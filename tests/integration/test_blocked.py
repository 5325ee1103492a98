"""A broker that has no memory left and says so: connection.blocked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from pubd import Message, Options, Publisher, Receipt, SpoolFull
from pubd.amqp.lane import LaneOptions
from pubd.amqp.lifecycle import LinkState
from pubd.amqp.topology import Queue, Topology
from pubd.spool.memory import MemorySpool
from tests.conftest import Drained
from tests.rabbitmq import Node

reactor: Any = installed_reactor

CONFIRM_TIMEOUT = 0.5
#: Seconds until something that has to come is given up.
PATIENCE = 30.0
MAX_BYTES = 1_000_000


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await deferLater(reactor, 0.02, lambda: None)


@pytest_twisted.ensureDeferred
async def test_a_memory_alarm_blocks_within_a_publish_loses_nothing_and_ends_at_once(
    own_node: Node, unique: Callable[[str], str], drain: Callable[..., list[Drained]]
) -> None:
    queue = unique("queue")
    publisher = Publisher.from_url(
        own_node.url,
        reactor=reactor,
        spool=MemorySpool(max_bytes=MAX_BYTES),
        topology=Topology(queues=[Queue(name=queue)]),
        options=Options(lanes=LaneOptions(confirm_timeout=CONFIRM_TIMEOUT)),
    )
    receipts: list[Receipt] = []

    async def submit() -> None:
        body = b"%d" % len(receipts) + bytes(50_000)
        receipts.append(await publisher.submit(Message(exchange="", routing_key=queue, body=body)))

    async def fill() -> None:
        while len(receipts) < 100:
            await submit()

    publisher.startService()
    try:
        await submit()
        await receipts[0].settled()
        await deferToThread(own_node.set_memory_alarm, True)
        await submit()
        await until(lambda: publisher.status().blocked is not None)
        assert publisher.status().link is LinkState.BLOCKED
        assert "memory" in (publisher.status().blocked or "")
        # Far beyond the time for confirms, which does not run meanwhile.
        until_when = time.monotonic() + 5 * CONFIRM_TIMEOUT
        while time.monotonic() < until_when:
            if len(receipts) < 10:
                await submit()
            await deferLater(reactor, 0.05, lambda: None)
        assert publisher.status().link is LinkState.BLOCKED
        account = publisher.account()
        assert (account.acked, account.lost, account.books.held) == (1, 0, 9)
        assert account.pending <= 1
        with pytest.raises(SpoolFull, match="max_bytes"):
            await fill()
        assert MAX_BYTES - 60_000 < publisher.account().books.bytes <= MAX_BYTES
        await deferToThread(own_node.set_memory_alarm, False)
        # By itself, long before the link would be given up and made anew.
        await gatherResults([receipt.settled() for receipt in receipts]).addTimeout(PATIENCE, reactor)
        assert publisher.status().blocked is None
        assert publisher.account().lost == 0
    finally:
        await deferToThread(own_node.set_memory_alarm, False)
        await publisher.stopService()
    taken = await deferToThread(drain, queue, own_node.url)
    assert [each.properties.message_id for each in taken] == [receipt.message_id for receipt in receipts]
    assert all(each.body.startswith(b"%d\0" % number) for number, each in enumerate(taken))
