"""The HTTP intake in front of a publisher on a scripted broker, and a client that writes bytes as it likes."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
from twisted.internet import reactor as installed_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pubd.access import LOCAL, Access, Principal, Quotas
from pubd.intake.door import Door
from pubd.intake.http.intake import HttpIntake
from pubd.intake.http.site import Site
from pubd.intake.options import HttpOptions
from tests.rig import Rig

reactor: Any = installed_reactor

#: Seconds until a wait is given up.
PATIENCE = 20.0
JSON = "Content-Type: application/json\r\n"
GOOD = b'{"exchange":"x","routing_key":"k","body":"hi"}'


def post(body: bytes = GOOD, path: str = "/messages", headers: str = JSON, host: str = "Host: localhost\r\n") -> bytes:
    """A request that has nothing wrong with it, unless the arguments have."""
    return f"POST {path} HTTP/1.1\r\n{host}{headers}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


def get(path: str, headers: str = "", method: str = "GET") -> bytes:
    """The same without a body."""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode("latin-1")


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def post_chunked(*chunks: bytes, headers: str = JSON) -> bytes:
    """A request whose body comes in chunks."""
    return (
        f"POST /messages HTTP/1.1\r\nHost: localhost\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode()
        + chunked(*chunks)
    )


@attrs.frozen
class Got:
    """An answer as a client reads it; ``headers`` in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


def answers(data: bytes, bodiless: bool = False) -> tuple[list[Got], bytes]:
    """The complete answers in ``data``, and what is left; ``bodiless`` as those to HEAD."""
    found: list[Got] = []
    while (end := data.find(b"\r\n\r\n")) >= 0:
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        rest = data[end + 4 :]
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while True:
                size, there, after = rest.partition(b"\r\n")
                if not there or len(after) < int(size, 16) + 2:
                    return found, data
                parts.append(after[: int(size, 16)])
                rest = after[int(size, 16) + 2 :]
                if not parts[-1]:
                    break
            body = b"".join(parts)
        else:
            length = 0 if bodiless else int(headers.get("content-length", "0"))
            if len(rest) < length:
                return found, data
            body, rest = rest[:length], rest[length:]
        found.append(Got(status, headers, body))
        data = rest
    return found, data


class Client(Protocol):
    """Keeps what comes."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.closed = False
        self._wanted: list[tuple[Callable[[], object], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # noqa: ARG002
        self.closed = True
        self._look()

    def _look(self) -> None:
        for each in list(self._wanted):
            if each[0]():
                self._wanted.remove(each)
                each[1].callback(None)

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Fires when ``condition`` holds after something came."""
        waiter: Deferred[None] = Deferred()
        self._wanted.append((condition, waiter))
        self._look()
        return waiter.addTimeout(PATIENCE, reactor)

    def until_closed(self) -> Deferred[None]:
        """Fires when the connection is closed."""
        return self.until(lambda: self.closed)

    async def answers(self, count: int = 1, *, bodiless: bool = False) -> list[Got]:
        """So many answers, taken out of what came; an assertion fails if the connection is closed before."""
        await self.until(lambda: self.closed or len(answers(self.data, bodiless)[0]) >= count)
        found, self.data = answers(self.data, bodiless)
        assert len(found) == count, f"{found} and {self.data!r}"
        return found

    async def ask(self, request: bytes, *, bodiless: bool = False) -> Got:
        """One request, one answer."""
        self.transport.write(request)
        (got,) = await self.answers(bodiless=bodiless)
        return got


class Web:
    """``options`` are HttpOptions; ``room`` the bytes of the door."""

    def __init__(
        self,
        *,
        rig: Rig | None = None,
        listen: str = "tcp:0:interface=127.0.0.1",
        access: Access | None = None,
        authenticated: bool = False,
        room: int = 1 << 20,
        **options: Any,
    ) -> None:
        self.rig = rig or Rig().start()
        self.quotas = Quotas()
        self.door = Door(publisher=self.rig.publisher, clock=reactor, quotas=self.quotas, max_unanswered=room)
        self.intake = HttpIntake(
            reactor=reactor,
            options=HttpOptions(listen=(listen,), **options),
            door=self.door,
            access=access or Access(),
            held=self.rig.publisher,
            authenticated=authenticated,
        )
        self.clients: list[Client] = []

    @property
    def port(self) -> int:
        return int(self.intake.addresses[0].port)  # type: ignore[attr-defined]  # TCP

    @property
    def accepted(self) -> int:
        return self.rig.publisher.account().books.accepted

    async def client(self) -> Client:
        """One more connection."""
        return await self.connect(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port))

    async def connect(self, endpoint: Any) -> Client:
        """One more connection, by ``endpoint``."""
        client = Client()
        self.clients.append(client)
        await connectProtocol(endpoint, client)
        return client

    async def ask(self, request: bytes) -> Got:
        """One request over a connection of its own."""
        client = await self.client()
        got = await client.ask(request)
        client.transport.abortConnection()
        await client.until(lambda: client.closed)
        return got

    async def quiet(self) -> None:
        """No connection is left, and nothing in the budget."""
        for client in self.clients:
            if not client.closed:
                client.transport.abortConnection()
        await until(lambda: not self.intake.site.channels and not self.door.unanswered)


async def until(condition: Callable[[], object]) -> None:
    """Wait for ``condition``."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        await deferLater(reactor, 0.005, lambda: None)
        assert reactor.seconds() < deadline, "not in time"


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[Web]:
    """A web that listens, and is stopped at the end with nothing left of it."""
    web = Web(**given)
    web.intake.startService()
    before = descriptors()
    try:
        yield web
        await web.quiet()
        assert descriptors() <= before
    finally:
        await web.intake.stopService()
        await web.quiet()
        web.rig.stop()


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


class Wire(StringTransport):
    """A transport in memory that can be closed on one side."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))  # type: ignore[no-untyped-call]
        self.half_closed = False
        self.aborted = False

    def value(self) -> bytes:
        data: bytes = super().value()  # type: ignore[no-untyped-call]
        return data

    def clear(self) -> None:
        super().clear()  # type: ignore[no-untyped-call]

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True

    @property
    def over(self) -> bool:
        """The server has said that this is all."""
        return bool(self.half_closed or self.disconnecting or self.aborted)


class Bench:
    """Channels without sockets, in time of the test's own."""

    def __init__(self, *, access: Access | None = None, rig: Rig | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.rig = rig or Rig().start()
        options_routes = options.pop("routes", lambda _: ())
        self.door = Door(
            publisher=self.rig.publisher,
            clock=self.clock,
            quotas=Quotas(),
            max_unanswered=options.pop("room", 1 << 20),
        )
        self.intake = HttpIntake(
            reactor=self.clock,
            options=HttpOptions(listen=(), **options),
            door=self.door,
            access=access or Access(anonymous=LOCAL),
            held=self.rig.publisher,
            routes=options_routes,
            wall=self.clock.seconds,
        )

    @property
    def site(self) -> Site:
        return self.intake.site

    @property
    def accepted(self) -> int:
        return self.rig.publisher.account().books.accepted

    def connect(self) -> tuple[Any, Wire]:
        """A channel and its transport."""
        channel, wire = self.site.buildProtocol(None), Wire()
        channel.makeConnection(wire)
        wire.protocol = channel  # type: ignore[attr-defined]
        return channel, wire

    def ask(self, data: bytes) -> tuple[list[Got], Wire]:
        """What a connection of its own is answered to these bytes."""
        channel, wire = self.connect()
        channel.dataReceived(data)
        return answers(wire.value())[0], wire

    def advance(self, seconds: float) -> None:
        """Time goes on, with the ticks of the site."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.site.tick()
        self.rig.network.flush()


def reading(*, operate: bool = False, grants: Any = (), name: str = "shop", **more: Any) -> Principal:
    """A principal."""
    return Principal(name=name, grants=grants, operate=operate, **more)
