"""Through HTTP: single messages and NDJSON over keep-alive connections, one for each session."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import h11
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from tests.crash.neighbour import Neighbour
from tests.crash.plan import Orders
from tests.crash.ways import Batch, Ear, as_json, hear

SOCKET = "http.sock"
#: One submission in so many waits for the settlement.
WAITS = 10


class Conversation(Protocol):
    """One connection; one request at a time. What is read is h11's, not pubd's."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._line: Callable[[bytes], None] = lambda _: None
        self._rest = b""
        self._status = 0
        self._answer: Deferred[int | None] | None = None
        self.lost = False

    def ask(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, line: Callable[[bytes], None]
    ) -> Deferred[int | None]:
        """Fires with the status when the answer has come as a whole, or with None when the connection ended before.

        ``line`` is called for each line of the answer's body as soon as it is there.
        """
        self._answer, self._line, self._rest = Deferred(), line, b""
        answer = self._answer
        if self.lost:
            self._done(None)
            return answer
        request = h11.Request(
            method=method,
            target=target,
            headers=[("Host", "localhost"), ("Content-Length", str(len(body))), *headers],
        )
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        assert self.transport is not None
        self.transport.write(b"".join(self._http.send(event) or b"" for event in events))
        return answer

    def dataReceived(self, data: bytes) -> None:
        self._http.receive_data(data)
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                *lines, self._rest = (self._rest + bytes(event.data)).split(b"\n")
                for line in filter(None, lines):
                    self._line(line)
            elif isinstance(event, h11.EndOfMessage):
                if self._rest:
                    self._line(self._rest)
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                self._done(self._status)
            else:
                return

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # noqa: ARG002
        self.lost = True
        self._done(None)

    def _done(self, status: int | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.callback(status)


class ThroughHttp:
    """See :class:`tests.crash.ways.Way`."""

    def __init__(self, reactor: Any, orders: Orders, neighbour: Neighbour | None = None) -> None:
        self._neighbour = neighbour or Neighbour(reactor)
        self._random = Random(f"{orders.plan.seed}:{orders.life}:http")
        self._connections: dict[int, Conversation] = {}

    async def begin(self) -> None:
        await self._connection(0)

    async def submit(self, session: int, batch: Batch, ear: Ear) -> None:
        connection = await self._connection(session)
        target, headers, body = self._request(batch)
        numbers = (number for number, _ in batch)
        status = await connection.ask("POST", target, headers, body, lambda line: _heard(line, next(numbers), ear))
        if status is None:
            await self._neighbour.lost()
        elif status not in (200, 202, 422):
            ear.wrong(f"status {status}")
        elif (left := next(numbers, None)) is not None:
            ear.wrong(f"message {left} was not answered")

    def _request(self, batch: Batch) -> tuple[str, list[tuple[str, str]], bytes]:
        objects = [as_json(message) for _, message in batch]
        target = "/messages" if self._random.randrange(WAITS) else "/messages?wait=confirmed&timeout=1s"
        if len(objects) > 1:
            lines = b"".join(json.dumps(each).encode() + b"\n" for each in objects)
            return target, [("Content-Type", "application/x-ndjson")], lines
        headers = [("Content-Type", "application/json")]
        # A key is the same key, wherever it stands; who submits again may do it the other way.
        if "idempotency_key" in objects[0] and self._random.randrange(2):
            headers.append(("Idempotency-Key", objects[0].pop("idempotency_key")))
        return target, headers, json.dumps(objects[0]).encode()

    async def settled(self) -> bool:
        connection = await self._connection(-1)
        for state in ("ready", "deferred"):
            told: list[bytes] = []
            status = await connection.ask("GET", f"/messages?state={state}&limit=1", [], b"", told.append)
            if status is None:
                await self._neighbour.lost()
            page = json.loads(b"".join(told))
            if page["messages"] or page["next"]:
                return False
        return True

    async def gone(self) -> None:
        await self._neighbour.gone()

    async def end(self) -> None:
        pass

    async def _connection(self, session: int) -> Conversation:
        found = self._connections.get(session)
        if found is None:
            found = self._connections[session] = await self._neighbour.connect(SOCKET, Conversation)
        return found


def _heard(line: bytes, number: int, ear: Ear) -> None:
    accepted = hear(json.loads(line), number, ear)
    if accepted is not None:
        ear.accepted([accepted])
