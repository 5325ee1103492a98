"""One life of pubd under test: reads its orders from standard input, submits, and says what happens until it is killed.

It is started early, imports everything and waits for its orders, which are one line of JSON. What it says on standard
output, a line each, is written to the pipe before it goes on, so that it outlives a kill:

``ready``         the publisher has been started
``try N ...``     these numbers are about to be submitted, together
``ack N=ID ...``  they were answered with a receipt
``end N=HOW ...`` receipts that were told: confirmed or parked
``no WHY``        something that is not to be: a refused submission, another settlement, a spool that failed
``done``          everything is settled, and the publisher has stopped
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from random import Random
from typing import Any

import pika  # noqa: F401 (imported, as all the rest is, before the orders come: it takes its time)
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from pubd.amqp.lane import LaneOptions
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from pubd.errors import MessageParked, PublisherStopped
from pubd.options import Options
from pubd.publisher import Publisher
from pubd.receipt import Confirmed, Receipt
from pubd.spool import schema
from tests.crash.plan import ROUTED, Orders, Plan
from tests.rabbitmq import PR_SET_PDEATHSIG

#: Submissions without an answer at any time, and messages in one of them.
SUBMITTERS, BATCH = 16, 20


def say(line: str) -> None:
    data = f"{line}\n".encode()
    while data:
        data = data[os.write(1, data) :]


def topology(plan: Plan) -> Topology:
    return Topology(
        exchanges=tuple(Exchange(name=name) for name in plan.queues),
        queues=tuple(Queue(name=name) for name in plan.queues),
        bindings=tuple(Binding(exchange=name, queue=name, routing_key=ROUTED) for name in plan.queues),
    )


def lengthen(steps: int) -> None:
    """Make the schema's newest step a later one, as a newer pubd would."""
    own = schema.steps()
    newest = own[-1][0]
    more = [(newest + n, f"CREATE TABLE later_{n} AS SELECT seq, state FROM message;") for n in range(1, steps + 1)]
    schema.steps = lambda: own + more


class Submitter:
    """Hands in the numbers of ``orders``, in order, at a bounded rate, and says what becomes of them."""

    def __init__(self, reactor: Any, publisher: Publisher, orders: Orders) -> None:
        self._reactor = reactor
        self._publisher = publisher
        self._orders = orders
        self._numbers: Iterator[int] = chain(orders.again, range(orders.first, orders.until))
        self._random = Random(f"{orders.plan.seed}:{orders.life}")
        self._slot = reactor.seconds()
        self._ends: list[str] = []
        self.under_way = SUBMITTERS

    def start(self) -> None:
        for _ in range(SUBMITTERS):
            Deferred.fromCoroutine(self._submit()).addErrback(lambda failure: say(f"no {failure.getErrorMessage()}"))

    async def _submit(self) -> None:
        while numbers := list(islice(self._numbers, self._random.choice((1, self._random.randint(2, BATCH))))):
            messages = list(map(self._orders.plan.message, numbers))
            say(f"try {' '.join(map(str, numbers))}")
            receipts: Sequence[Receipt]
            if len(messages) == 1:
                receipts = [await self._publisher.submit(messages[0])]
            else:
                receipts = await self._publisher.submit_many(messages)
            say("ack " + " ".join(f"{n}={receipt.id}" for n, receipt in zip(numbers, receipts, strict=True)))
            for number, receipt in zip(numbers, receipts, strict=True):
                receipt.settled().addBoth(self._settled, number)
            self._slot += len(numbers) / self._orders.rate
            early = self._slot - self._reactor.seconds()
            if early > 0:
                pause: Deferred[None] = Deferred()
                self._reactor.callLater(early, pause.callback, None)
                await pause
        self.under_way -= 1

    def _settled(self, result: Confirmed | Failure, number: int) -> None:
        if isinstance(result, Confirmed):
            end = "confirmed"
        elif result.check(MessageParked):
            end = "parked"
        else:
            # A publisher that stops tells so; the message stays in the spool.
            if not result.check(PublisherStopped):
                say(f"no {number}: {result.getErrorMessage()}")
            return
        self._ends.append(f"{number}={end}")
        if len(self._ends) == 1:
            self._reactor.callLater(0, self._tell)

    def _tell(self) -> None:
        ends, self._ends = self._ends, []
        say(f"end {' '.join(ends)}")


def run(orders: Orders, reactor: Any) -> None:
    """Until everything is settled, or for good."""
    publisher = Publisher.from_url(
        orders.url,
        name=orders.plan.prefix,
        spool=f"sqlite:///{orders.spool}",
        reactor=reactor,
        topology=topology(orders.plan),
        options=Options(lanes=LaneOptions(window=orders.plan.window), retain=orders.plan.retain),
        failed=lambda error: say(f"no {error}"),
    )
    submitter = Submitter(reactor, publisher, orders)

    async def end() -> None:
        await publisher.stopService()
        say("done")
        reactor.stop()

    def look() -> None:
        books = publisher.account().books
        if orders.finish and not submitter.under_way and not (books.ready or books.deferred or books.in_flight):
            looking.stop()
            Deferred.fromCoroutine(end())

    looking = LoopingCall(look)

    def start() -> None:
        publisher.startService()
        say("ready")
        submitter.start()
        looking.start(0.05, now=False)

    reactor.callWhenRunning(start)
    reactor.run()


def main() -> None:
    # Whatever becomes of the supervisor, nothing is left running.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    line = sys.stdin.readline()
    if not line:
        return  # not needed any more
    orders = Orders.loads(line)
    lengthen(orders.steps)
    from twisted.internet import reactor

    run(orders, reactor)


if __name__ == "__main__":
    main()
