"""Hands in what the orders say, whichever way, and says what becomes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from pubd.message import Message
from tests.crash.life import say
from tests.crash.plan import Orders
from tests.crash.ways import Gone, Way

#: Submissions without an answer at any time, of all sessions together, and messages in one of them.
SUBMITTERS, BATCH = 16, 20


class Submitter:
    """Hands in the numbers of ``orders``, in order for each session, at a bounded rate."""

    def __init__(self, reactor: Any, way: Way, orders: Orders) -> None:
        self._reactor = reactor
        self._way = way
        self._orders = orders
        self._numbers: Iterator[int] = chain(orders.again, range(orders.first, orders.until))
        self._waiting: list[deque[tuple[int, Message]]] = [deque() for _ in range(orders.plan.sessions)]
        self._random = Random(f"{orders.plan.seed}:{orders.life}")
        self._slot = reactor.seconds()
        self._ends: list[str] = []

    async def run(self) -> None:
        """Until everything is answered, or pubd is gone."""
        sessions = self._orders.plan.sessions
        await DeferredList(
            [
                Deferred.fromCoroutine(self._submit(number % sessions)).addErrback(
                    lambda failure: say(f"no {failure.getErrorMessage()}")
                )
                for number in range(SUBMITTERS)
            ]
        )

    async def _submit(self, session: int) -> None:
        while batch := self._take(session, self._random.choice((1, self._random.randint(2, BATCH)))):
            say(f"try {' '.join(str(number) for number, _ in batch)}")
            try:
                await self._way.submit(session, batch, self)
            except Gone:
                return
            self._slot += len(batch) / self._orders.rate
            early = self._slot - self._reactor.seconds()
            if early > 0:
                await deferLater(self._reactor, early)

    def _take(self, session: int, count: int) -> list[tuple[int, Message]]:
        plan, waiting = self._orders.plan, self._waiting[session]
        while len(waiting) < count and (number := next(self._numbers, None)) is not None:
            message = plan.message(number)
            self._waiting[plan.session(number, message.ordering_key)].append((number, message))
        return [waiting.popleft() for _ in range(min(count, len(waiting)))]

    # What the way hears

    def accepted(self, ids: Iterable[tuple[int, str]]) -> None:
        say("ack " + " ".join(f"{number}={id}" for number, id in ids))

    def ended(self, number: int, how: str) -> None:
        self._ends.append(f"{number}={how}")
        if len(self._ends) == 1:
            self._reactor.callLater(0, self._tell)

    def wrong(self, what: str) -> None:
        say(f"no {what}")

    def _tell(self) -> None:
        ends, self._ends = self._ends, []
        say(f"end {' '.join(ends)}")
