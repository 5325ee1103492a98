"""Through Python: the publisher is in the worker's own process, and dies with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pika  # noqa: F401 (imported, as all the rest is, before the orders come: it takes its time)
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pubd.amqp.lane import LaneOptions
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from pubd.errors import MessageParked, PublisherStopped
from pubd.options import Options
from pubd.publisher import Publisher
from pubd.receipt import Confirmed, Receipt
from tests.crash.life import say
from tests.crash.plan import ROUTED, Orders, Plan
from tests.crash.ways import Batch, Ear


class ThroughPython:
    """See :class:`tests.crash.ways.Way`."""

    def __init__(self, reactor: Any, orders: Orders) -> None:
        self._publisher = Publisher.from_url(
            orders.url,
            name=orders.plan.prefix,
            spool=f"sqlite:///{orders.spool}",
            reactor=reactor,
            topology=topology(orders.plan),
            options=Options(lanes=LaneOptions(window=orders.plan.window), retain=orders.plan.retain),
            failed=lambda error: say(f"no {error}"),
        )

    async def begin(self) -> None:
        self._publisher.startService()

    async def submit(self, session: int, batch: Batch, ear: Ear) -> None:  # noqa: ARG002
        messages = [message for _, message in batch]
        receipts: Sequence[Receipt]
        if len(messages) == 1:
            receipts = [await self._publisher.submit(messages[0])]
        else:
            receipts = await self._publisher.submit_many(messages)
        ear.accepted((number, receipt.id) for (number, _), receipt in zip(batch, receipts, strict=True))
        for (number, _), receipt in zip(batch, receipts, strict=True):
            receipt.settled().addBoth(_settled, number, ear)

    async def settled(self) -> bool:
        books = self._publisher.account().books
        # Before the spool is open the books are empty.
        return self._publisher.ready and not (books.ready or books.deferred or books.in_flight)

    async def gone(self) -> None:
        await Deferred()

    async def end(self) -> None:
        await self._publisher.stopService()


def topology(plan: Plan) -> Topology:
    return Topology(
        exchanges=tuple(Exchange(name=name) for name in plan.queues),
        queues=tuple(Queue(name=name) for name in plan.queues),
        bindings=tuple(Binding(exchange=name, queue=name, routing_key=ROUTED) for name in plan.queues),
    )


def _settled(result: Confirmed | Failure, number: int, ear: Ear) -> None:
    if isinstance(result, Confirmed):
        ear.ended(number, "confirmed")
    elif result.check(MessageParked):
        ear.ended(number, "parked")
    elif not result.check(PublisherStopped):
        # A publisher that stops tells so; the message stays in the spool.
        ear.wrong(f"{number}: {result.getErrorMessage()}")
