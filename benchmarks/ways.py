"""The ways of publishing that are compared. Each publishes the same, and knows when each message is confirmed.

``stock``      ``TwistedChannel.basic_publish``, a Deferred each, of the same messages: each has its ``message_id``
``stock-bare`` the same with one properties object for all, and so without a ``message_id``: nothing to tell them by
``raw``        pika's own channel with pubd's ledger: what pubd would cost with pika's encoder and nothing around it
``pubd``       ``Publisher.submit_many`` and ``settled()`` of each receipt: submission, memory spool, lane, settlement
``pubd-last``  the same with ``settled()`` of the last receipt of each batch only; pubd still answers for all
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from pubd.amqp.lane import LaneOptions
from pubd.entry import Entry
from pubd.ledger import Ledger
from pubd.message import Message
from pubd.options import Options
from pubd.outcome import Outcome
from pubd.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.python.failure import Failure

    from pubd.observer import Traces
    from pubd.receipt import Receipt


@attrs.frozen(kw_only=True)
class Load:
    """What to publish where: ``messages`` to measure after ``warm_up`` others, ``window`` of them unconfirmed.

    ``batch`` messages go into one submission (of pubd's ways); with ``ready`` one Message, made before, is submitted
    again and again, otherwise each is made within the measured time.
    """

    url: str
    queue: str
    messages: int
    warm_up: int
    window: int
    batch: int
    body: int
    persistent: bool
    ready: bool
    spool: str = "memory:"
    ahead: int | None = None
    """Messages that the application of pubd's ways has handed in beyond the window; two batches where not said."""

    @property
    def delivery_mode(self) -> int:
        return 2 if self.persistent else 1


class Way(Protocol):
    """One way of publishing; opened once, run several times."""

    async def open(self) -> None: ...

    async def run(self, count: int) -> None:
        """Publish ``count`` messages; returns when every one of them is confirmed."""

    async def close(self) -> None: ...


class Fate(Protocol):
    """Told what became of one message."""

    def stored(self) -> None:
        """There is a receipt; pika has none."""

    def confirmed(self) -> None:
        """RabbitMQ has it, and the spool knows."""

    def failed(self, failure: Failure) -> None: ...


class SingleWay(Way, Protocol):
    """One that can publish a message by itself."""

    def single(self, fate: Fate) -> None:
        """Publish one message."""


class _Course:
    """Keeps ``room`` messages unconfirmed: as the confirms of one read have come in, ``more`` is called once."""

    def __init__(self, reactor: Any, room: int) -> None:
        self._reactor = reactor
        self.room = room
        self.unpublished = self._unconfirmed = 0
        self._scheduled = False
        self._done: Deferred[None] = Deferred()

    def start(self, count: int) -> Deferred[None]:
        self.unpublished = self._unconfirmed = count
        self._done = Deferred()
        self.more()
        return self._done

    def more(self) -> None:
        """Publish as much as there is room for."""
        raise NotImplementedError

    def confirmed(self, count: int) -> None:
        self.room += count
        self._unconfirmed -= count
        if not self._unconfirmed:
            self._done.callback(None)
        elif self.unpublished and not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._refill)

    def failed(self, failure: Failure) -> None:
        if not self._done.called:
            self._done.errback(failure)

    def _refill(self) -> None:
        self._scheduled = False
        self.more()


class _Pika(_Course):
    """A connection of pika's own and a channel in confirm mode."""

    def __init__(self, reactor: Any, load: Load) -> None:
        super().__init__(reactor, load.window)
        self._load = load
        self._body = b"x" * load.body

    async def open(self) -> None:
        parameters = pika.URLParameters(self._load.url)
        protocol = TwistedProtocolConnection(parameters, custom_reactor=self._reactor)
        await connectProtocol(HostnameEndpoint(self._reactor, parameters.host, parameters.port), protocol)
        self._protocol = await protocol.ready
        self._channel = await self._protocol.channel()
        await self._confirm_mode()

    async def _confirm_mode(self) -> None:
        await self._channel.confirm_delivery()

    async def run(self, count: int) -> None:
        await self.start(count)

    async def close(self) -> None:
        closed = self._protocol.close()
        if closed is not None:
            await closed


class Stock(_Pika):
    """As an application does that uses pika's Twisted adapter and nothing else."""

    def __init__(self, reactor: Any, load: Load, *, bare: bool) -> None:
        super().__init__(reactor, load)
        self._bare = bare

    def more(self) -> None:
        channel, queue, body, bare = self._channel, self._load.queue, self._body, self._bare
        mode = self._load.delivery_mode
        properties = pika.BasicProperties(delivery_mode=mode)
        count = min(self.room, self.unpublished)
        self.room -= count
        self.unpublished -= count
        for _ in range(count):
            if not bare:
                properties = pika.BasicProperties(delivery_mode=mode, message_id=str(uuid.uuid4()))
            published = channel.basic_publish("", queue, body, properties, mandatory=True)
            published.addCallbacks(self._one, self.failed)

    def single(self, fate: Fate) -> None:
        properties = pika.BasicProperties(delivery_mode=self._load.delivery_mode, message_id=str(uuid.uuid4()))
        published = self._channel.basic_publish("", self._load.queue, self._body, properties, mandatory=True)
        published.addCallbacks(lambda _: fate.confirmed(), fate.failed)

    def _one(self, _: Any) -> None:
        self.confirmed(1)


class Raw(_Pika):
    """pika's encoder and pika's channel below its Twisted adapter, with pubd's ledger."""

    async def _confirm_mode(self) -> None:
        self._ledger = Ledger()
        opened: Deferred[Any] = Deferred()
        self._raw = self._channel.connection.channel(on_open_callback=opened.callback)
        await opened
        selected: Deferred[Any] = Deferred()
        self._raw.confirm_delivery(self._answer, callback=selected.callback)
        await selected

    def more(self) -> None:
        load, body, ledger, channel = self._load, self._body, self._ledger, self._raw
        now = self._reactor.seconds()
        count = min(self.room, self.unpublished)
        self.room -= count
        self.unpublished -= count
        for _ in range(count):
            id = str(uuid.uuid4())
            entry = Entry(
                id=id, exchange="", routing_key=load.queue, message_id=id, mandatory=True, properties=b"", body=body
            )
            ledger.add(entry, now)
            properties = pika.BasicProperties(message_id=id, delivery_mode=load.delivery_mode)
            channel.basic_publish("", load.queue, body, properties, mandatory=True)

    def _answer(self, frame: Any) -> None:
        answered = self._ledger.ack(frame.method.delivery_tag, frame.method.multiple)
        assert all(delivery.outcome is Outcome.CONFIRMED for delivery in answered)
        self.confirmed(len(answered))


class Pubd(_Course):
    """The whole of pubd's path; the application keeps ``ahead`` more than the window in its hands."""

    def __init__(
        self,
        reactor: Any,
        load: Load,
        *,
        each: bool,
        traces: Traces | None = None,
        carrier: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reactor, load.window + (2 * load.batch if load.ahead is None else load.ahead))
        self._load = load
        self._each = each
        self._carrier = carrier
        self._body = b"x" * load.body
        self._message = self._make()
        self._publisher = Publisher.from_url(
            load.url,
            spool=load.spool,
            reactor=reactor,
            options=Options(mandatory=True, lanes=LaneOptions(window=load.window)),
            traces=traces,
        )

    async def open(self) -> None:
        self._publisher.startService()

    async def run(self, count: int) -> None:
        before = self._publisher.account().acked
        await self.start(count)
        acked = self._publisher.account().acked - before
        if acked != count:
            raise RuntimeError(f"{acked} of {count} messages were confirmed")

    async def close(self) -> None:
        await self._publisher.stopService()

    def more(self) -> None:
        load = self._load
        while self.unpublished and self.room >= min(load.batch, self.unpublished):
            count = min(load.batch, self.unpublished)
            self.room -= count
            self.unpublished -= count
            messages = [self._message] * count if load.ready else [self._make() for _ in range(count)]
            if load.batch == 1:
                self._publisher.submit(messages[0], carrier=self._carrier).addCallbacks(self._accepted_one, self.failed)
            else:
                self._publisher.submit_many(messages, carrier=self._carrier).addCallbacks(self._accepted, self.failed)

    def single(self, fate: Fate) -> None:
        def accepted(receipt: Receipt) -> None:
            fate.stored()
            receipt.settled().addCallbacks(lambda _: fate.confirmed(), fate.failed)

        self._publisher.submit(self._make()).addCallbacks(accepted, fate.failed)

    def _make(self) -> Message:
        load = self._load
        return Message(exchange="", routing_key=load.queue, body=self._body, delivery_mode=load.delivery_mode)

    def _accepted(self, receipts: list[Receipt]) -> None:
        if self._each:
            for receipt in receipts:
                receipt.settled().addCallbacks(self._one, self.failed)
        else:
            receipts[-1].settled().addCallbacks(self._all, self.failed, callbackArgs=(len(receipts),))

    def _accepted_one(self, receipt: Receipt) -> None:
        receipt.settled().addCallbacks(self._one, self.failed)

    def _one(self, _: Any) -> None:
        self.confirmed(1)

    def _all(self, _: Any, count: int) -> None:
        self.confirmed(count)


def way(name: str, reactor: Any, load: Load) -> Way:
    """The way of that name; KeyError for any other."""
    return Raw(reactor, load) if name == "raw" else single_way(name, reactor, load)


def single_way(name: str, reactor: Any, load: Load) -> SingleWay:
    """The same for those that can publish a message by itself: ``raw`` knows its messages by count only."""
    ways: dict[str, Callable[[], SingleWay]] = {
        "stock": lambda: Stock(reactor, load, bare=False),
        "stock-bare": lambda: Stock(reactor, load, bare=True),
        "pubd": lambda: Pubd(reactor, load, each=True),
        "pubd-last": lambda: Pubd(reactor, load, each=False),
    }
    return ways[name]()
