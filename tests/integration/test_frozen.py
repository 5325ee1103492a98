"""A broker that stops in the middle (SIGSTOP): connections stay open, nothing is read, nothing is answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from pubd import Message, Options, Publisher
from pubd.amqp.lane import LaneOptions
from pubd.amqp.lifecycle import LinkState
from pubd.amqp.topology import Queue, Topology
from tests.conftest import Drained
from tests.rabbitmq import Node

reactor: Any = installed_reactor

MESSAGES, SIZE = 500, 100_000
WINDOW_BYTES = 4 << 20
CONFIRM_TIMEOUT = 3.0


async def until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await deferLater(reactor, 0.02, lambda: None)


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    """The most that a publisher had in flight and that this process had in memory, looked at 50 times a second."""

    def __init__(self, publisher: Publisher) -> None:
        self.in_flight = self.memory = 0
        self._publisher = publisher
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def __enter__(self) -> Peak:
        self._loop.start(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.stop()

    def _look(self) -> None:
        self.memory = max(self.memory, resident())
        self.in_flight = max(self.in_flight, sum(lane.in_flight_bytes for lane in self._publisher.status().lanes))


@pytest_twisted.ensureDeferred
async def test_a_frozen_broker_is_given_up_in_time_and_in_bounded_memory_and_nothing_is_lost(
    own_node: Node, unique: Callable[[str], str], drain: Callable[..., list[Drained]]
) -> None:
    queue = unique("queue")
    publisher = Publisher.from_url(
        own_node.url,
        reactor=reactor,
        topology=Topology(queues=[Queue(name=queue)]),
        options=Options(
            persistent=False,
            lanes=LaneOptions(window_bytes=WINDOW_BYTES, confirm_timeout=CONFIRM_TIMEOUT),
        ),
    )

    def message(number: int) -> Message:
        return Message(exchange="", routing_key=queue, message_id=str(number), body=number.to_bytes(4) * (SIZE // 4))

    publisher.startService()
    try:
        await (await publisher.submit(message(0))).settled()
        await deferToThread(own_node.freeze)
        receipts = await publisher.submit_many([message(number) for number in range(1, MESSAGES + 1)])
        before, began = resident(), time.monotonic()
        with Peak(publisher) as peak:
            await until(lambda: publisher.status().link is not LinkState.READY, CONFIRM_TIMEOUT + 3)
            # The connection is dropped, not closed in good order: its unsent megabytes would keep it for good.
            gone = time.monotonic() - began
            assert gone >= CONFIRM_TIMEOUT - 0.1
            reason = publisher.status().reason
            assert reason is not None
            assert "has not answered" in reason.text
            assert publisher.account().pending == 0
            # Tried again and again, the kernel of a frozen broker still accepts: nothing may grow by that either.
            await deferLater(reactor, 2, lambda: None)
        assert 1 << 20 < peak.in_flight <= WINDOW_BYTES
        assert peak.memory - before < 3 * WINDOW_BYTES
        own_node.thaw()
        await gatherResults([receipt.settled() for receipt in receipts])
        account = publisher.account()
        assert account.books.confirmed == MESSAGES + 1
        assert 0 < account.lost <= WINDOW_BYTES // SIZE
    finally:
        if own_node.is_frozen:
            own_node.thaw()
        await publisher.stopService()
    taken = await deferToThread(drain, queue, own_node.url)
    assert {each.properties.message_id for each in taken} == {str(number) for number in range(MESSAGES + 1)}
    assert len(taken) <= MESSAGES + 1 + account.lost
    assert all(each.body == int(each.properties.message_id).to_bytes(4) * (SIZE // 4) for each in taken)
