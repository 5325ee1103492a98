"""Through lines: a few connections, each with several submissions on their way (pipelined)."""

from __future__ import annotations

import json
from collections import deque
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from tests.crash.neighbour import Neighbour
from tests.crash.plan import Orders
from tests.crash.through_http import ThroughHttp
from tests.crash.ways import Batch, Ear, as_json, hear

SOCKET = "lines.sock"
#: One submission in so many has messages that wait for their settlement; what comes after them waits for its answer.
WAITS = 40


class Pipeline(Protocol):
    """One connection; answers belong to what was written, in order."""

    def __init__(self) -> None:
        self._rest = b""
        self._expected: deque[tuple[int, Ear]] = deque()
        self._ends: deque[tuple[int, Deferred[bool]]] = deque()
        self._answered = self._asked = 0
        self.lost = False

    def ask(self, batch: Batch, data: bytes, ear: Ear) -> Deferred[bool]:
        """Fires when each line was answered; with False if the connection ended before."""
        done: Deferred[bool] = Deferred()
        if self.lost:
            done.callback(False)
            return done
        self._expected.extend((number, ear) for number, _ in batch)
        self._asked += len(batch)
        self._ends.append((self._asked, done))
        assert self.transport is not None
        self.transport.write(data)
        return done

    def dataReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        ids, ear = [], None
        for line in lines:
            number, ear = self._expected.popleft()
            accepted = hear(json.loads(line), number, ear)
            if accepted is not None:
                ids.append(accepted)
        if ear is not None and ids:
            ear.accepted(ids)
        self._answered += len(lines)
        while self._ends and self._ends[0][0] <= self._answered:
            self._ends.popleft()[1].callback(True)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # noqa: ARG002
        self.lost = True
        while self._ends:
            self._ends.popleft()[1].callback(False)


class ThroughLines:
    """See :class:`tests.crash.ways.Way`."""

    def __init__(self, reactor: Any, orders: Orders) -> None:
        self._neighbour = Neighbour(reactor)
        self._random = Random(f"{orders.plan.seed}:{orders.life}:lines")
        self._sessions = orders.plan.sessions
        self._connections: list[Pipeline] = []
        # Lines cannot say what is unsettled.
        self._desk = ThroughHttp(reactor, orders, self._neighbour)

    async def begin(self) -> None:
        for _ in range(self._sessions):
            self._connections.append(await self._neighbour.connect(SOCKET, Pipeline))

    async def submit(self, session: int, batch: Batch, ear: Ear) -> None:
        wait = {} if self._random.randrange(WAITS) else {"wait": "confirmed", "timeout": "300ms"}
        data = b"".join(json.dumps(as_json(message) | wait).encode() + b"\n" for _, message in batch)
        if not await self._connections[session].ask(batch, data, ear):
            await self._neighbour.lost()

    async def settled(self) -> bool:
        return await self._desk.settled()

    async def gone(self) -> None:
        await self._neighbour.gone()

    async def end(self) -> None:
        pass
