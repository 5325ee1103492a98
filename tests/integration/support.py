"""What the integration tests share: a publisher on a real broker, numbered loads, and a consumer that is not pubd."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import attrs
import pika
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.python.failure import Failure

from pubd.amqp.broker import LaneStatus
from pubd.amqp.lane import LaneOptions
from pubd.amqp.lane_cycle import LaneState
from pubd.errors import MessageParked, PubdError
from pubd.message import Message
from pubd.options import Options
from pubd.outcome import Reason
from pubd.publisher import Publisher
from pubd.receipt import Confirmed, Receipt
from tests.rabbitmq import HOST, Node
from tests.strictness import Logged

reactor: Any = installed_reactor

PATIENCE = 60.0
"""Seconds without any progress until a wait is given up; a slow machine may take as long as it likes otherwise."""
PREFETCH = 1000

_T = TypeVar("_T")


# Waiting


async def pause(seconds: float = 0.01) -> None:
    await deferLater(reactor, seconds, lambda: None)


async def until(
    condition: Callable[[], object], what: Callable[[], object] | str, progress: Callable[[], object] = lambda: None
) -> None:
    """Wait for ``condition``; fail with ``what`` when ``progress()`` has not changed for PATIENCE seconds."""
    last, deadline = progress(), reactor.seconds() + PATIENCE
    while not condition():
        await pause()
        if (now := progress()) != last:
            last, deadline = now, reactor.seconds() + PATIENCE
        assert reactor.seconds() < deadline, f"not in time: {what if isinstance(what, str) else what()}"


async def in_thread(call: Callable[..., _T], *arguments: Any) -> _T:
    """A blocking call, such as those of Node, while the publisher goes on."""
    result: _T = await deferToThread(call, *arguments)
    return result


# The broker, by pika's blocking client


def vhost_url(node: Node, vhost: str, user: str = "guest", password: str = "guest") -> str:
    return f"amqp://{user}:{password}@{HOST}:{node.port}/{vhost}"


@contextmanager
def channel_of(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        connection.close()


def route(url: str, exchange: str, queue: str, **arguments: Any) -> None:
    """A durable direct exchange, and a durable queue bound to it with its own name."""
    with channel_of(url) as channel:
        channel.queue_declare(queue, durable=True, arguments=arguments)
        channel.exchange_declare(exchange, "direct", durable=True)
        channel.queue_bind(queue, exchange, queue)


def depth(url: str, queue: str) -> int:
    """How many messages are in the queue, for a consumer to take."""
    with channel_of(url) as channel:
        count: int = channel.queue_declare(queue, passive=True).method.message_count
        return count


@attrs.frozen
class Taken:
    """A message as a consumer got it: the number it was submitted under, and its ``message_id``."""

    number: int
    message_id: str | None


def take(url: str, queue: str) -> list[Taken]:
    """Everything that is in the queue now, in order. Blocks."""
    taken: list[Taken] = []
    with channel_of(url) as channel:
        count = channel.queue_declare(queue, passive=True).method.message_count

        def got(_: Any, method: Any, properties: Any, body: bytes) -> None:
            taken.append(Taken(int(body), properties.message_id))
            if len(taken) == count:
                channel.basic_cancel(method.consumer_tag)

        if count:
            channel.basic_consume(queue, got, auto_ack=True)
            _consume(channel, lambda: len(taken), lambda: len(taken) == count)
    return taken


def take_stream(url: str, queue: str, last: int) -> list[Taken]:
    """What is in a stream, in order, up to the message with the number ``last``. Blocks; the stream keeps them."""
    taken: list[Taken] = []

    def got(_: Any, method: Any, properties: Any, body: bytes) -> None:
        taken.append(Taken(int(body), properties.message_id))
        channel.basic_ack(method.delivery_tag)

    with channel_of(url) as channel:
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.basic_consume(queue, got, arguments={"x-stream-offset": "first"})
        _consume(channel, lambda: len(taken), lambda: taken and taken[-1].number == last)
    return taken


def _consume(channel: Any, progress: Callable[[], int], done: Callable[[], object]) -> None:
    before, deadline = 0, time.monotonic() + PATIENCE
    while not done():
        channel.connection.process_data_events(time_limit=1)
        if progress() != before:
            before, deadline = progress(), time.monotonic() + PATIENCE
        assert time.monotonic() < deadline, f"only {before} messages came"


# The publisher


@asynccontextmanager
async def publishing(
    url: str, *, persistent: bool = True, window: int = 1000, **lanes: Any
) -> AsyncIterator[Publisher]:
    """A publisher in the test's reactor, stopped at the end; its books have to balance then."""
    publisher = Publisher.from_url(
        url,
        reactor=reactor,
        name="pubd integration test",
        options=Options(persistent=persistent, lanes=LaneOptions(window=window, **lanes)),
    )
    publisher.startService()
    try:
        yield publisher
        books = publisher.account().books
        assert books.difference == 0
        assert books.held == books.parked, "something is held, although all was settled"
        assert publisher.account().pending == 0
    finally:
        await publisher.stopService()


def lane(publisher: Publisher, exchange: str) -> LaneStatus:
    (status,) = (one for one in publisher.status().lanes if one.exchange == exchange)
    return status


def is_refused(publisher: Publisher, exchange: str, code: int) -> bool:
    status = lane(publisher, exchange)
    return status.state is LaneState.REFUSED and status.reason is not None and status.reason.code == code


# Loads


@attrs.define(eq=False)
class Submitted:
    """One message of a load, and every answer that its receipt gave."""

    number: int
    receipt: Receipt
    answers: list[Confirmed | PubdError] = attrs.Factory(list)


class Load:
    """Messages for one exchange; the body of each is its number, the ``message_id`` is pubd's."""

    def __init__(self, publisher: Publisher, exchange: str, routing_key: str) -> None:
        self.publisher = publisher
        self.exchange = exchange
        self.routing_key = routing_key
        self.messages: list[Submitted] = []
        self.answered = 0
        self._numbers = itertools.count()

    def message(self, **given: Any) -> Message:
        """The next message."""
        given = {"exchange": self.exchange, "routing_key": self.routing_key} | given
        return Message(body=b"%d" % next(self._numbers), **given)

    async def submit(self, count: int, **given: Any) -> None:
        """Hand in so many messages at once."""
        await self.submit_messages([self.message(**given) for _ in range(count)])

    async def submit_messages(self, messages: Sequence[Message]) -> None:
        for message, receipt in zip(messages, await self.publisher.submit_many(messages), strict=True):
            submitted = Submitted(int(message.body), receipt)
            self.messages.append(submitted)
            receipt.settled().addCallbacks(self._answer, self._error, (submitted,), {}, (submitted,), {})

    def _answer(self, answer: Confirmed | PubdError, submitted: Submitted) -> None:
        submitted.answers.append(answer)
        self.answered += 1

    def _error(self, failure: Failure, submitted: Submitted) -> None:
        error = failure.value
        assert isinstance(error, PubdError)
        self._answer(error, submitted)

    @property
    def open(self) -> int:
        return len(self.messages) - self.answered

    async def settled(self) -> None:
        """Wait until every message submitted so far is settled."""
        await until(
            lambda: not self.open,
            lambda: f"{self.open} of {len(self.messages)} not settled; {self.publisher.status()}",
            lambda: self.answered,
        )

    @property
    def confirmed(self) -> list[int]:
        return [one.number for one in self.messages if isinstance(one.answers[0], Confirmed)]

    @property
    def parked(self) -> dict[int, Reason]:
        return {one.number: one.answers[0].reason for one in self.messages if isinstance(one.answers[0], MessageParked)}

    def is_answered_once(self) -> bool:
        return all(len(one.answers) == 1 for one in self.messages)

    def check_ids(self, taken: Iterable[Taken]) -> None:
        """Whatever came out of a queue carries the ``message_id`` of its receipt."""
        wrong = [one for one in taken if one.message_id != self.messages[one.number].receipt.message_id]
        assert wrong == []


@asynccontextmanager
async def loaded(*loads: Load, level: int, at_most: int) -> AsyncIterator[None]:
    """Keep each load at ``level`` open messages meanwhile, until it has submitted ``at_most``."""
    going = True

    async def top_up(load: Load) -> None:
        while going:
            room = min(level - load.open, at_most - len(load.messages))
            if room > 0:
                await load.submit(room)
            await pause()

    fillers = [Deferred.fromCoroutine(top_up(load)) for load in loads]
    try:
        yield
    finally:
        going = False
        for filler in fillers:
            await filler


# What came out


def duplicates(taken: Sequence[Taken]) -> int:
    return len(taken) - len({one.number for one in taken})


def furthest_back(taken: Sequence[Taken]) -> int:
    """How many messages the longest replay went back; 0 where nothing came twice.

    Without the repetitions (the first occurrence counts) the messages have to be in the order of submission.
    """
    numbers = [one.number for one in taken]
    first = list(dict.fromkeys(numbers))
    assert first == sorted(first), "out of order"
    highest, back = -1, 0
    for number in numbers:
        back = max(back, highest - number + 1)
        highest = max(highest, number)
    return back


def operators_log(logged: Logged) -> list[str]:
    """What an operator reads at the usual level; no traceback may be in it."""
    lines = []
    for event, text in zip(logged.events, logged.texts, strict=True):
        if event.get("log_level") is not LogLevel.debug:
            assert "Traceback" not in text
            assert not event.get("log_failure")
            lines.append(text)
    return lines


# A relay that can keep RabbitMQ's answers from us


class Relay(ProxyFactory):
    """A TCP relay to the node's port; while ``silent``, whatever the node says is thrown away and only counted."""

    noisy = False

    def __init__(self, node: Node) -> None:
        super().__init__(HOST, node.port)
        self.protocol = _FromUs
        self.silent = False
        self.withheld = 0


class _ToNode(ProxyClient):
    def dataReceived(self, data: bytes) -> None:
        relay = self.peer and self.peer.factory
        assert isinstance(relay, Relay)
        if relay.silent:
            relay.withheld += len(data)
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted's portforward is annotated in part


class _ToNodeFactory(ProxyClientFactory):
    noisy = False
    protocol = _ToNode


class _FromUs(ProxyServer):
    noisy = False
    clientProtocolFactory = _ToNodeFactory


@asynccontextmanager
async def relayed(node: Node) -> AsyncIterator[tuple[Relay, str]]:
    """A relay and the URL of the node through it."""
    relay = Relay(node)
    port = reactor.listenTCP(0, relay, interface=HOST)
    try:
        yield relay, f"amqp://guest:guest@{HOST}:{port.getHost().port}/%2F"
    finally:
        await port.stopListening()
