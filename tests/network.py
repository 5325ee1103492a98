"""A reactor whose TCP connections stay in memory and whose time is the test's; at their other end are peers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.base import BaseConnector
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IConsumer, IPullProducer, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.peer import Broker, Peer, PeerFactory


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of a connection in memory, with the habits of Twisted's TCP transport that matter to a publisher.

    A streaming producer is paused at every write that leaves more than 64 KiB unsent and resumed when all is sent;
    ``loseConnection`` waits for unsent bytes and for a paused producer; ``abortConnection`` waits for nothing.
    """

    _log = Logger()
    SEND_BUFFER = 65536

    def __init__(self, network: MemoryNetwork, host: IPv4Address, peer: IPv4Address) -> None:
        self.network = network
        self.protocol: Any = None
        self.connector: MemoryConnector | None = None
        self.other: MemoryTransport
        self.unsent = bytearray()
        self.disconnecting = False
        self.disconnected = False
        self.aborting = False
        self.reading = True
        self.producer: IPullProducer | IPushProducer | None = None
        self._streaming = False
        self._paused = False
        self._writing = False
        self._hangup: Exception | None = None
        self._addresses = (host, peer)
        self._options: dict[str, bool] = {}

    def write(self, data: bytes) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"Data must be bytes, not {type(data).__name__}")
        if self.disconnected or self.aborting or not data:
            return
        self.unsent += data
        self._writing = True
        if self.producer is not None and self._streaming and len(self.unsent) > self.SEND_BUFFER:
            self._paused = True
            cast(IPushProducer, self.producer).pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.disconnected:
            self.disconnecting = True
            self._writing = True

    def abortConnection(self) -> None:
        if not self.disconnected and not self.aborting:
            self.aborting = True
            self.network.callLater(0, self._lose, ConnectionAborted())

    def loseWriteConnection(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"Cannot register producer {producer!r}: {self.producer!r} was never unregistered")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer, self._streaming, self._paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        if self.disconnecting:
            self._writing = True

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def getHost(self) -> Any:
        return self._addresses[0]

    def getPeer(self) -> Any:
        return self._addresses[1]

    def getTcpNoDelay(self) -> bool:
        return self._options.get("nodelay", False)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self._options["nodelay"] = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        return self._options.get("keepalive", False)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._options["keepalive"] = bool(enabled)

    def turn(self) -> bool:
        """One turn of the reactor for this end; tells whether anything happened."""
        if self.disconnected or self.aborting:
            return False
        return self._send() or self._hang_up()

    def _send(self) -> bool:
        other = self.other
        if not self._writing:
            return False
        if self.unsent and not (other.disconnected or other.disconnecting or other.aborting):
            if not other.reading:
                return False
            chunk = bytes(self.unsent[: self.network.segment])
            del self.unsent[: self.network.segment]
            other.deliver(chunk)
        else:
            self.unsent.clear()
        if self.unsent or self.disconnected:
            return True
        self._writing = False
        if self.producer is not None and (self._paused or not self._streaming):
            self._paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._lose(ConnectionDone())
        return True

    def _hang_up(self) -> bool:
        # A FIN waits behind the bytes before it and is seen by whoever reads; so is, near enough, a RST.
        if self._hangup is None or not self.reading:
            return False
        self._lose(self._hangup)
        return True

    def deliver(self, data: bytes) -> None:
        """Bytes from the other end; an exception of the protocol is logged and ends the connection, as in Twisted."""
        try:
            self.protocol.dataReceived(data)
        except Exception as problem:
            self._log.failure("Unhandled error in dataReceived")
            self._lose(problem)

    def _lose(self, reason: Exception) -> None:
        if self.disconnected:
            return
        self.disconnected = True
        self.unsent.clear()
        if self.producer is not None:
            producer, self.producer = self.producer, None
            producer.stopProducing()
        self.other._hangup = ConnectionDone() if isinstance(reason, ConnectionDone) else ConnectionLost()
        self.protocol.connectionLost(Failure(reason))
        if self.connector is not None:
            self.connector.connectionLost(Failure(reason))


class MemoryConnector(BaseConnector):
    """One ``connectTCP``: Twisted's own connector state machine over a memory transport."""

    def __init__(self, network: MemoryNetwork, host: str, port: int, factory: Any, timeout: float) -> None:
        # BaseConnector's annotation wants a ReactorBase, of which it uses callLater only.
        super().__init__(factory, timeout, cast(Any, network))
        self.network = network
        self.host = host
        self.port = port

    def _makeTransport(self) -> Any:
        self.network.dialled.append((self.network.seconds(), self.host, self.port))
        self.network.pending.append(self)
        return self

    def failIfNotConnected(self, reason: Exception) -> None:
        """The attempt failed: refused, timed out or stopped."""
        if self in self.network.pending:
            self.network.settle(self)
            self.connectionFailed(Failure(reason))

    def getDestination(self) -> Any:
        return IPv4Address("TCP", self.host, self.port)


class MemoryNetwork(MemoryReactorClock):
    """A reactor whose TCP connections stay in memory and whose time is the test's.

    ``factory`` answers on every port that ``listenTCP`` was not called for, so that any URL reaches a peer. Nothing
    moves but in :meth:`flush` and :meth:`advance`. ``dialled`` holds (time, host, port) of every attempt to connect;
    ``down`` refuses them all; ``segment`` is how many bytes one read delivers.
    """

    def __init__(self, broker: Broker | None = None, factory: Any = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # MemoryReactorClock has no annotations
        self.factory: Any = PeerFactory(broker, self) if factory is None else factory
        self.connections: list[tuple[MemoryTransport, MemoryTransport]] = []
        self.pending: list[MemoryConnector] = []
        self.dialled: list[tuple[float, str, int]] = []
        self.down = False
        self.segment = 65536
        self._verdicts: list[str] = []
        self._swallowed: list[MemoryConnector] = []
        self._flushing = False
        self._ports = itertools.count(40000)

    @property
    def peer(self) -> Peer:
        """The newest peer of the default factory."""
        return cast(PeerFactory, self.factory).peer

    @property
    def broker(self) -> Broker:
        """The broker of the default factory."""
        return cast(PeerFactory, self.factory).broker

    def settle(self, connector: MemoryConnector) -> None:
        """The attempt is over, one way or the other."""
        self.pending.remove(connector)
        if connector in self._swallowed:
            self._swallowed.remove(connector)

    def refuse_next(self, times: int = 1) -> None:
        """Refuse the next attempts to connect."""
        self._verdicts += ["refuse"] * times

    def swallow_next(self, times: int = 1) -> None:
        """Never answer the next attempts to connect, as a firewall does: they end by their own timeout."""
        self._verdicts += ["swallow"] * times

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        self.tcpClients.append((host, port, factory, cast(int, timeout), bindAddress))
        connector = MemoryConnector(self, host, port, factory, timeout)
        self.connectors.append(connector)
        connector.connect()
        return connector

    def callFromThread(self, callable: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """As IReactorFromThreads, for callers on the only thread there is."""
        self.callLater(0, callable, *args, **kwargs)

    def flush(self) -> None:
        """Run what is due and move bytes until nothing happens any more; time stands still."""
        if self._flushing:
            return
        self._flushing = True
        try:
            for _ in range(100_000):
                if not self._turn():
                    return
            raise AssertionError("the network does not come to rest")
        finally:
            self._flushing = False

    def advance(self, amount: float) -> None:
        """Let seconds pass from timer to timer, flushing after each, as a reactor would."""
        until = self.rightNow + amount
        self.flush()
        for _ in range(100_000):
            due = min((call.getTime() for call in self.getDelayedCalls()), default=math.inf)
            if due > until:
                break
            self.rightNow = max(self.rightNow, due)
            self.flush()
        else:
            raise AssertionError("timers do not come to rest")
        self.rightNow = until

    def _turn(self) -> bool:
        due = any(call.getTime() <= self.rightNow for call in self.getDelayedCalls())
        super().advance(0)
        answered = [self._answer(connector) for connector in list(self.pending)]
        self.connections = [(a, b) for a, b in self.connections if not (a.disconnected and b.disconnected)]
        moved = [end.turn() for connection in list(self.connections) for end in connection]
        return due or any(answered) or any(moved)

    def _answer(self, connector: MemoryConnector) -> bool:
        if connector not in self.pending or connector in self._swallowed:
            return False
        verdict = self._verdicts.pop(0) if self._verdicts else "refuse" if self.down else "accept"
        if verdict == "swallow":
            self._swallowed.append(connector)
        elif verdict == "refuse":
            connector.failIfNotConnected(ConnectionRefusedError())
        else:
            self.settle(connector)
            self._establish(connector)
        return True

    def _establish(self, connector: MemoryConnector) -> None:
        listening = (factory for port, factory, *_ in reversed(self.tcpServers) if port == connector.port)
        theirs, ours = connector.getDestination(), IPv4Address("TCP", "127.0.0.1", next(self._ports))
        client, server = MemoryTransport(self, ours, theirs), MemoryTransport(self, theirs, ours)
        client.other, server.other = server, client
        client.connector, connector.transport = connector, cast(Any, client)
        self.connections.append((client, server))
        for end, protocol in (
            (server, next(listening, self.factory).buildProtocol(ours)),
            (client, connector.buildProtocol(theirs)),
        ):
            # A factory may decline with None: Twisted then closes the connection.
            end.protocol = Protocol() if protocol is None else protocol
            end.protocol.makeConnection(end)
            if protocol is None:
                end.loseConnection()
