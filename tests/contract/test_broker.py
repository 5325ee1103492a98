"""What every broker does, the scripted one in memory and a real RabbitMQ: one suite for both.

It keeps the scripted peer honest, on which the unit tests and the state machine stand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any, Protocol

import attrs
import pika
import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.task import deferLater

from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from pubd.errors import MessageParked
from pubd.message import Message
from pubd.outcome import Cause
from pubd.publisher import Publisher
from pubd.receipt import Receipt
from tests.network import MemoryNetwork
from tests.peer import Broker
from tests.rabbitmq import Node
from tests.tampering import tamper

PATIENCE = 15.0
"""Seconds within which whatever is waited for has to come true."""


@attrs.frozen
class Arrived:
    """A message as it came out of the broker."""

    message_id: str
    headers: Any
    body: bytes


class Ground(Protocol):
    """A broker to publish to. Names of exchanges and queues are the test's own."""

    reactor: Any
    url: str

    def declare(self, exchange: str, *keys: str, kind: str = "topic") -> None:
        """An exchange that routes these keys to a queue of the same name."""

    def delete(self, exchange: str) -> None:
        """Remove the exchange."""

    def queue(self, name: str) -> None:
        """A queue, which the default exchange routes to."""

    def arrived(self, exchange: str) -> list[Arrived]:
        """What came to the queue of this name, in order; only once everything is published."""

    def force_close(self) -> None:
        """Close all connections with 320."""

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until this is true."""


class Scripted:
    """The peer of tests/peer.py, in memory and in its own time."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(Broker())
        self.reactor: Any = self.network
        self.url = "amqp://guest:guest@localhost:5672/%2F"

    def declare(self, exchange: str, *keys: str, kind: str = "topic") -> None:
        self.network.broker.exchanges[exchange] = set(keys)
        self.network.broker.types[exchange] = kind

    def delete(self, exchange: str) -> None:
        del self.network.broker.exchanges[exchange]
        self.network.broker.types.pop(exchange, None)

    def queue(self, name: str) -> None:
        self.network.broker.queues.add(name)

    def arrived(self, exchange: str) -> list[Arrived]:
        assert self.network.factory.violations == []
        return [
            Arrived(one.properties.message_id, one.properties.headers, one.body)
            for one in self.network.broker.published
            if one.routed and exchange in (one.exchange, one.routing_key)
        ]

    def force_close(self) -> None:
        self.network.peer.close_connection(320, "CONNECTION_FORCED - closed by a test")

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = self.network.seconds() + PATIENCE
        self.network.flush()
        while not condition():
            assert self.network.seconds() < deadline, "it did not come true in time"
            self.network.advance(0.1)


class Real:
    """RabbitMQ; declarations go over a connection of pika's own."""

    def __init__(self, url: str, drain: Callable[..., Sequence[Any]], node: Node | None = None) -> None:
        self.reactor: Any = installed_reactor
        self.url = url
        self._drain = drain
        self._node = node
        self._exchanges: set[str] = set()
        self._queues: set[str] = set()

    def _do(self, *calls: Callable[[Any], object]) -> None:
        with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
            channel = connection.channel()
            for call in calls:
                call(channel)

    def declare(self, exchange: str, *keys: str, kind: str = "topic") -> None:
        self._exchanges.add(exchange)
        self._queues.add(exchange)
        binds = [lambda channel, key=key: channel.queue_bind(exchange, exchange, key) for key in keys]
        self._do(
            lambda channel: channel.exchange_declare(exchange, kind, durable=True),
            lambda channel: channel.queue_declare(exchange, durable=True),
            *binds,
        )

    def delete(self, exchange: str) -> None:
        self._do(lambda channel: channel.exchange_delete(exchange))

    def queue(self, name: str) -> None:
        self._queues.add(name)
        self._do(lambda channel: channel.queue_declare(name, durable=True))

    def arrived(self, exchange: str) -> list[Arrived]:
        drained = self._drain(exchange, self.url)
        return [Arrived(one.properties.message_id, one.properties.headers, one.body) for one in drained]

    def force_close(self) -> None:
        assert self._node is not None
        self._node.close_all_connections("closed by a test")

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = self.reactor.seconds() + PATIENCE
        while not condition():
            assert self.reactor.seconds() < deadline, "it did not come true in time"
            await deferLater(self.reactor, 0.01)

    def clean(self) -> None:
        self._do(
            *[lambda channel, name=name: channel.exchange_delete(name) for name in self._exchanges],
            *[lambda channel, name=name: channel.queue_delete(name) for name in self._queues],
        )


@pytest.fixture(params=["scripted", "rabbitmq"])
def ground(request: pytest.FixtureRequest, drain: Callable[..., Sequence[Any]]) -> Any:
    if request.param == "scripted":
        yield Scripted()
        return
    real = Real(request.getfixturevalue("broker_url"), drain)
    yield real
    real.clean()


@pytest.fixture(params=["scripted", "rabbitmq"])
def forceable(request: pytest.FixtureRequest, drain: Callable[..., Sequence[Any]]) -> Any:
    """A ground whose connections the test may close: always a node of our own."""
    if request.param == "scripted":
        yield Scripted()
        return
    node = request.getfixturevalue("shared_node")
    real = Real(node.url, drain, node)
    yield real
    real.clean()


Unique = Callable[..., str]


@asynccontextmanager
async def publishing(on: Ground, query: str = "", topology: Topology | None = None) -> AsyncIterator[Publisher]:
    publisher = Publisher.from_url(
        on.url + query, reactor=on.reactor, topology=topology, wall=on.reactor.seconds, random=lambda: 0.0
    )
    publisher.startService()
    try:
        await on.until(lambda: publisher.status().link is LinkState.READY)
        yield publisher
    finally:
        stopped = publisher.stopService()
        await on.until(lambda: bool(stopped.called))


class Watched:
    """Receipts, and what they were told."""

    def __init__(self) -> None:
        self.receipts: dict[int, Receipt] = {}
        self.confirmed: list[int] = []
        self.parked: dict[int, MessageParked] = {}

    async def submit(self, publisher: Publisher, *messages: Message) -> None:
        for receipt in await publisher.submit_many(messages):
            self._watch(len(self.receipts), receipt)

    def _watch(self, number: int, receipt: Receipt) -> None:
        self.receipts[number] = receipt
        receipt.settled().addCallbacks(
            lambda _: self.confirmed.append(number),
            lambda failure: self.parked.update({number: failure.value}),
        )

    def over(self) -> bool:
        return len(self.confirmed) + len(self.parked) == len(self.receipts)


def lane(publisher: Publisher, exchange: str) -> Any:
    return next((lane for lane in publisher.status().lanes if lane.exchange == exchange), None)


def first_times(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


@pytest_twisted.ensureDeferred
async def test_a_routed_message_is_confirmed(ground: Ground, unique: Unique) -> None:
    name = unique("confirmed")
    ground.declare(name, "k")
    watched = Watched()
    async with publishing(ground) as publisher:
        await watched.submit(publisher, *[Message(exchange=name, routing_key="k", message_id=str(n)) for n in range(9)])
        await ground.until(watched.over)
        assert watched.confirmed == list(range(9))
        assert publisher.account().acked == 9
    assert [one.message_id for one in ground.arrived(name)] == [str(n) for n in range(9)]


@pytest_twisted.ensureDeferred
async def test_an_unroutable_message_is_returned_with_312_and_never_confirmed(ground: Ground, unique: Unique) -> None:
    name = unique("returned")
    ground.declare(name, "k")
    watched = Watched()
    async with publishing(ground) as publisher:
        messages = [Message(exchange=name, routing_key="nowhere" if n % 5 == 0 else "k") for n in range(50)]
        await watched.submit(publisher, *messages)
        await ground.until(watched.over)
    assert sorted(watched.parked) == list(range(0, 50, 5))
    for parked in watched.parked.values():
        assert (parked.reason.cause, parked.reason.code, parked.reason.text) == (Cause.RETURNED, 312, "NO_ROUTE")
    assert len(ground.arrived(name)) == 40


@pytest_twisted.ensureDeferred
async def test_an_unroutable_message_that_is_not_mandatory_is_confirmed(ground: Ground, unique: Unique) -> None:
    name = unique("transient")
    ground.declare(name, "k")
    watched = Watched()
    async with publishing(ground) as publisher:
        await watched.submit(publisher, Message(exchange=name, routing_key="nowhere", mandatory=False))
        await ground.until(watched.over)
    assert watched.confirmed == [0]
    assert ground.arrived(name) == []


@pytest_twisted.ensureDeferred
async def test_a_missing_exchange_stops_its_lane_only_until_it_is_declared(ground: Ground, unique: Unique) -> None:
    missing, there = unique("missing"), unique("there")
    ground.declare(there, "k")
    held, flows = Watched(), Watched()
    async with publishing(ground) as publisher:
        await held.submit(publisher, *[Message(exchange=missing, routing_key="k", message_id=str(n)) for n in range(5)])
        await flows.submit(publisher, Message(exchange=there, routing_key="k"))
        await ground.until(flows.over)
        assert flows.confirmed == [0]
        await ground.until(lambda: lane(publisher, missing).state is LaneState.REFUSED)
        reason = lane(publisher, missing).reason
        assert (reason.code, reason.text) == (404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'")
        assert not held.over()
        ground.declare(missing, "k")
        await ground.until(held.over)
        assert held.confirmed == list(range(5))
        assert lane(publisher, missing).reason is None
    assert [one.message_id for one in ground.arrived(missing)] == [str(n) for n in range(5)]


@pytest_twisted.ensureDeferred
async def test_an_exchange_that_is_deleted_and_declared_again_loses_nothing(ground: Ground, unique: Unique) -> None:
    name = unique("deleted")
    ground.declare(name, "k")
    watched = Watched()
    async with publishing(ground) as publisher:
        await watched.submit(publisher, Message(exchange=name, routing_key="k", message_id="before"))
        await ground.until(watched.over)
        ground.delete(name)
        await watched.submit(publisher, Message(exchange=name, routing_key="k", message_id="after"))
        await ground.until(lambda: lane(publisher, name).state is LaneState.REFUSED)
        assert lane(publisher, name).reason.code == 404
        ground.declare(name, "k")
        await ground.until(watched.over)
    assert watched.confirmed == [0, 1]
    assert first_times([one.message_id for one in ground.arrived(name)]) == ["before", "after"]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("expiration", "soon", "PRECONDITION_FAILED - invalid expiration 'soon': no_integer"),
        (
            "user_id",
            "somebody",
            "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_exactly_the_poison_message_is_parked_in_the_brokers_words(
    ground: Ground, unique: Unique, field: str, value: str, text: str
) -> None:
    name = unique("poison")
    ground.declare(name, "k")
    watched = Watched()
    messages = [Message(exchange=name, routing_key="k", message_id=str(n)) for n in range(40)]
    tamper(messages[17], field, value)
    async with publishing(ground) as publisher:
        await watched.submit(publisher, *messages)
        await ground.until(watched.over)
        assert publisher.account().poison == 1
    assert list(watched.parked) == [17]
    reason = watched.parked[17].reason
    assert (reason.cause, reason.code, reason.text) == (Cause.POISON, 406, text)
    # The scripted peer notes down what it refuses, too.
    ids = [one for one in first_times([one.message_id for one in ground.arrived(name)]) if one != "17"]
    assert ids == [str(n) for n in range(40) if n != 17]


@pytest_twisted.ensureDeferred
async def test_a_mismatch_of_the_topology_names_both_values_and_holds_only_its_dependants(
    ground: Ground, unique: Unique
) -> None:
    fanout, fits = unique("fanout"), unique("fits")
    ground.declare(fanout, "k", kind="fanout")
    ground.declare(fits, "k", kind="topic")
    topology = Topology(
        exchanges=[Exchange(name=fanout, type="topic"), Exchange(name=fits, type="topic")],
        queues=[Queue(name=fits)],
        bindings=[Binding(exchange=fits, queue=fits, routing_key="k")],
    )
    held, flows = Watched(), Watched()
    async with publishing(ground, topology=topology) as publisher:
        await held.submit(publisher, Message(exchange=fanout, routing_key="k"))
        await flows.submit(publisher, Message(exchange=fits, routing_key="k"))
        await ground.until(flows.over)
        assert flows.confirmed == [0]
        (refused,) = publisher.status().refused
        assert refused.declaration == topology.exchanges[0]
        assert refused.reason.code == 406
        assert refused.reason.text == (
            f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{fanout}' in vhost '/': "
            "received 'topic' but current is 'fanout'"
        )
        assert lane(publisher, fanout).state is LaneState.REFUSED
        assert not held.over()
        ground.delete(fanout)
        await ground.until(lambda: publisher.status().refused == ())
        # Declared now, but bound to nothing: RabbitMQ returns it.
        await ground.until(held.over)
    assert held.parked[0].reason.code == 312


@pytest_twisted.ensureDeferred
async def test_two_messages_with_one_message_id_are_both_confirmed(ground: Ground, unique: Unique) -> None:
    name = unique("same")
    ground.declare(name, "k")
    watched = Watched()
    async with publishing(ground) as publisher:
        await watched.submit(
            publisher,
            *[Message(exchange=name, routing_key="k", message_id="same", body=b"%d" % n) for n in range(3)],
            Message(exchange=name, routing_key="nowhere", message_id="same"),
            Message(exchange=name, routing_key="k", message_id="other", body=b"3"),
        )
        await ground.until(watched.over)
    assert watched.confirmed == [0, 1, 2, 4]
    assert watched.parked[3].reason.code == 312
    assert [one.body for one in ground.arrived(name)] == [b"0", b"1", b"2", b"3"]


@pytest_twisted.ensureDeferred
async def test_a_connection_closed_by_the_broker_is_made_again_and_everything_comes_in_order(
    forceable: Ground, unique: Unique
) -> None:
    name = unique("forced")
    forceable.declare(name, "k")
    watched = Watched()
    async with publishing(forceable) as publisher:
        for burst in range(5):
            await watched.submit(
                publisher,
                *[Message(exchange=name, routing_key="k", message_id=f"{burst}-{n:03}") for n in range(100)],
            )
            if burst % 2:
                await forceable.until(lambda: publisher.status().link is LinkState.READY)
                forceable.force_close()
                await forceable.until(lambda: publisher.status().reason is not None)
        await forceable.until(watched.over)
        reason = publisher.status().reason
        assert reason is not None
        assert reason.code == 320
        assert reason.text == "CONNECTION_FORCED - closed by a test"
    assert len(watched.confirmed) == 500
    ids = [one.message_id for one in forceable.arrived(name)]
    assert first_times(ids) == [f"{burst}-{n:03}" for burst in range(5) for n in range(100)]


@pytest_twisted.ensureDeferred
async def test_the_default_exchange_routes_by_the_name_of_the_queue(ground: Ground, unique: Unique) -> None:
    name = unique("queue")
    ground.queue(name)
    watched = Watched()
    async with publishing(ground) as publisher:
        await watched.submit(
            publisher,
            Message(exchange="", routing_key=name, message_id="a"),
            Message(exchange="", routing_key=unique("none"), message_id="b"),
        )
        await ground.until(watched.over)
    assert watched.confirmed == [0]
    assert watched.parked[1].reason.code == 312
    assert [one.message_id for one in ground.arrived(name)] == ["a"]


@pytest_twisted.ensureDeferred
async def test_bodies_and_headers_arrive_as_they_were_given(ground: Ground, unique: Unique) -> None:
    name = unique("bodies")
    ground.declare(name, "k")
    bodies = [b"", b"x", bytes(range(256)), b"y" * (4096 - 8), b"z" * (4096 - 7), b"w" * 50_000]
    headers: Any = {"text": "ä", "number": 2**40, "yes": True, "list": [1, "two"], "table": {"deep": {"er": 1}}}
    watched = Watched()
    async with publishing(ground, "?frame_max=4096") as publisher:
        await watched.submit(
            publisher, *[Message(exchange=name, routing_key="k", body=body, headers=headers) for body in bodies]
        )
        await ground.until(watched.over)
    assert len(watched.confirmed) == len(bodies)
    arrived = ground.arrived(name)
    assert [one.body for one in arrived] == bodies
    assert all(one.headers == headers for one in arrived)
