"""pubd as a client on the same host sees it: sockets that come, and connections that end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from tests.crash.ways import Gone

#: Seconds between two tries to connect, and for which a connection may be closed by a pubd that is alive still.
PAUSE, GRACE = 0.02, 5.0

_P = TypeVar("_P", bound=Protocol)


class Neighbour:
    """The daemon holds this process's standard input open: it ends when the daemon does."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._end = _End(reactor)

    async def connect(self, path: str, make: Callable[[], _P]) -> _P:
        """Try until it listens. Raises Gone."""
        while not self._end.came.called:
            try:
                connection: _P = await connectProtocol(UNIXClientEndpoint(self._reactor, path), make())
                return connection
            except ConnectError:
                await deferLater(self._reactor, PAUSE)
        raise Gone

    async def gone(self) -> None:
        """Wait for its end."""
        await self._end.wait()

    async def lost(self) -> None:
        """A connection has ended: that is right if pubd is dead, and then it raises Gone."""
        ended = self._end.wait()
        ended.addTimeout(GRACE, self._reactor, lambda *_: None)
        await ended
        if self._end.came.called:
            raise Gone
        raise ConnectionError("pubd closed a connection, and lives")


class _End(FileDescriptor):
    """Standard input, up to its end."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.came: Deferred[None] = Deferred()
        self.startReading()  # type: ignore[no-untyped-call]

    def wait(self) -> Deferred[None]:
        """Fires at the end, for each who waits."""
        waiter: Deferred[None] = Deferred()

        def tell(_: None) -> None:
            if not waiter.called:
                waiter.callback(None)

        self.came.addCallback(tell)
        return waiter

    def fileno(self) -> int:
        return 0

    def doRead(self) -> None:
        if not os.read(0, 1 << 12):
            self._ended()

    def connectionLost(self, reason: Any) -> None:  # noqa: ARG002
        # A pipe without its writer is no more than that to epoll.
        self._ended()

    def _ended(self) -> None:
        self.stopReading()  # type: ignore[no-untyped-call]
        if not self.came.called:
            self.came.callback(None)
