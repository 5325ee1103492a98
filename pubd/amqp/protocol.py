"""One AMQP connection: pika's Twisted protocol, with its silences, leaks and endless closes disarmed."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from typing import TYPE_CHECKING, Any, Protocol

import pika
import pika.exceptions
import pika.frame
import pika.spec
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from pubd import failpoints
from pubd._version import __version__
from pubd.amqp import reasons
from pubd.amqp.acks import ANSWER, AnswerReader
from pubd.amqp.reasons import Verdict
from pubd.amqp.url import Authentication
from pubd.errors import LinkLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from pika.channel import Channel

    from pubd.amqp.acks import Listener
    from pubd.amqp.url import BrokerUrl
    from pubd.outcome import Reason

# pika logs with the standard library, tracebacks included; without any handler Python prints them on stderr.
logging.getLogger("pika").addHandler(logging.NullHandler())

#: Bytes handed to pika at a time. It copies the rest of what it was given after every frame, so that 64 KiB of
#: small frames (returns, single acks) cost 100 MB of copying; 4 KiB cost a fiftieth of it.
_BITE = 4096


class ConnectionEvents(Protocol):
    """What a LinkProtocol tells its link; an exception in one of these is logged and goes no further."""

    def connection_made(self, connection: LinkProtocol) -> None: ...

    def connection_opened(self, connection: LinkProtocol) -> None: ...

    def connection_blocked(self, connection: LinkProtocol, text: str) -> None: ...

    def connection_unblocked(self, connection: LinkProtocol) -> None: ...

    def connection_resumed(self, connection: LinkProtocol) -> None: ...

    def connection_flush(self, connection: LinkProtocol) -> None: ...

    def connection_ended(self, connection: LinkProtocol, verdict: Verdict) -> None: ...


def parameters(url: BrokerUrl, connection_name: str) -> pika.ConnectionParameters:
    """pika's parameters for a broker; host, port and TLS are only names to pika, the endpoint is what connects."""
    given = {
        name: value
        for name, value in (("channel_max", url.channel_max), ("frame_max", url.frame_max))
        if value is not None
    }
    credentials: Any
    if url.authentication is Authentication.EXTERNAL:
        credentials = pika.credentials.ExternalCredentials()
    else:
        credentials = pika.PlainCredentials(url.username, url.password)
    return pika.ConnectionParameters(
        host=url.host,
        port=url.port,
        virtual_host=url.vhost,
        credentials=credentials,
        heartbeat=url.heartbeat,
        client_properties={
            "product": "pubd",
            "version": __version__,
            "platform": f"Python {platform.python_version()}, Twisted {_version('Twisted')}, pika {_version('pika')}",
            "information": "publishes to RabbitMQ and answers for every message",
            "connection_name": connection_name,
        },
        **given,
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@implementer(IHandshakeListener)
class LinkProtocol(TwistedProtocolConnection):  # type: ignore[misc]  # pika carries no types
    """One connection, from the first byte to its end, which always comes.

    ``handshake_timeout`` seconds are given from the transport to :meth:`established`; after ``close_grace`` seconds
    any close becomes an abort. Whatever ends the connection is reported once, as ``connection_ended``, with the
    broker's or OpenSSL's reason.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        url: BrokerUrl,
        connection_name: str,
        events: ConnectionEvents,
        handshake_timeout: float,
        close_grace: float,
    ) -> None:
        super().__init__(parameters(url, connection_name), custom_reactor=reactor)
        self.url = url
        self.paused = False
        """The transport has more than 64 KiB to send: write no more until ``connection_resumed``."""
        self._reactor = reactor
        self._events = events
        self._handshake_timeout = handshake_timeout
        self._close_grace = close_grace
        self._wire: Any = None
        self._secured = False
        self._opened = False
        self._leaving = False
        self._deaf = False
        self._aborted = False
        self._ended = False
        self._verdict: Verdict | None = None
        self._head = b""
        self._greeted = False
        self._received = 0
        self._reader = AnswerReader(self._to_pika)
        self._handshake_timer: Any = None
        self._abort_timer: Any = None
        self._close_waiters: list[Deferred[None]] = []
        # pika fails this Deferred when the connection ends before it was open; that end is reported by our own way.
        self.ready.addErrback(lambda _: None)
        self._impl.add_on_connection_blocked_callback(self._blocked)
        self._impl.add_on_connection_unblocked_callback(self._unblocked)

    # What lanes and the link use

    @property
    def usable(self) -> bool:
        """Whether frames may be written: open, and neither side has begun to close."""
        return bool(self._impl.is_open) and not self._leaving

    @property
    def frame_max(self) -> int:
        """The negotiated size of a frame in bytes, its 8 bytes of framing included."""
        return int(self._impl.params.frame_max)

    @property
    def server_properties(self) -> dict[str, Any]:
        """What the broker said about itself (product, version, cluster_name, ...); empty before it did."""
        return dict(self._impl.server_properties or {})

    @property
    def node(self) -> str:
        """The broker's name for itself (of the cluster, which by default is its first node's), and its address."""
        name = self.server_properties.get("cluster_name", b"")
        return f"{name.decode('utf-8', 'replace') if isinstance(name, bytes) else name} {self.url.peer}".strip()

    @property
    def reason(self) -> Reason | None:
        """Why the connection is ending, once it is known."""
        return None if self._verdict is None else self._verdict.reason

    def open_channel(self) -> Deferred[Channel]:
        """A raw pika channel, once it is open; fails with :class:`pubd.errors.LinkLost`.

        The channel's own close callbacks tell of its end afterwards.
        """
        if not self.usable:
            return fail(self._lost())
        opened: Deferred[Channel] = Deferred()

        def on_open(channel: Channel) -> None:
            if opened.called:
                # Cancelled meanwhile: nobody else will close it.
                channel.close()
            else:
                opened.callback(channel)

        def on_close(_: Channel, problem: Exception) -> None:
            if not opened.called:
                reason = self.reason or reasons.of_channel(problem)
                opened.errback(LinkLost(reason))

        try:
            self._impl.channel(on_open_callback=on_open).add_on_close_callback(on_close)
        except pika.exceptions.NoFreeChannels:
            text = f"no free channel: the connection has its channel_max of {self._impl.params.channel_max} open"
            return fail(LinkLost(Verdict.lost(text).reason))
        return opened

    def listen(self, channel_number: int, listener: Listener) -> None:
        """Give ``listener`` every ``basic.ack`` and ``basic.nack`` on this channel, past pika, until it is forgotten.

        Called with delivery tag, multiple, and whether it is an ack.
        """
        self._reader.listen(channel_number, listener)

    def forget(self, channel_number: int) -> None:
        """Listen no more: the channel is gone."""
        self._reader.forget(channel_number)

    def write_frames(self, data: bytes) -> None:
        """Write whole frames in one go; raises :class:`pubd.errors.LinkLost` once the connection is ending.

        The caller sees to it that the channel is open and that no frame exceeds :attr:`frame_max`.
        """
        if not self.usable:
            raise self._lost()
        self._impl.bytes_sent += len(data)
        self._wire.write(data)

    def established(self) -> None:
        """The handshake is done in the link's eyes: the time for it no longer counts."""
        self._cancel("_handshake_timer")

    def close_gracefully(self, grace: float | None = None) -> Deferred[None]:
        """Close as AMQP does, abort after ``grace`` seconds; fires (never fails) once the connection is gone."""
        if self._ended:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._close_waiters_remove)
        self._close_waiters.append(waiter)
        if not self._leaving:
            usable = self.usable
            self._leave(self._close_grace if grace is None else grace)
            if usable:
                self._guarded(self._impl.close)
            else:
                self._record(Verdict.lost("closed by pubd before it was open"))
                self._wire_abort()
        return waiter

    def abort(self, why: str) -> None:
        """Drop the connection now, with everything unsent; ``why`` becomes its reason unless there is one."""
        self.give_up(Verdict.lost(why))

    def give_up(self, verdict: Verdict) -> None:
        """Drop the connection now, for the reason in ``verdict`` unless there is one."""
        if self._ended or self._wire is None:
            return
        self._record(verdict)
        if not self._leaving:
            self._leave(self._close_grace)
        self._wire_abort()

    # IProtocol and IHandshakeListener

    def makeConnection(self, transport: Any) -> None:
        """The transport stands: start the clock, greet the broker through a transport that pika cannot hang on."""
        self._wire = transport
        self._secured = not isinstance(transport, TLSMemoryBIOProtocol)
        self._handshake_timer = self._reactor.callLater(self._handshake_timeout, self._handshake_overdue)
        super().makeConnection(_PikaTransport(self, transport))
        self._tell(self._events.connection_made)

    def handshakeCompleted(self) -> None:
        """TLS stands."""
        self._secured = True

    def dataReceived(self, data: bytes) -> None:
        """Let pika read; garbage ends the connection, not the reactor's patience. Ends with ``connection_flush``."""
        if self._deaf:
            return
        if not self._greeted:
            self._greet(data)
            return
        try:
            self._feed(data)
        except Exception as problem:
            self.give_up(reasons.garbage(problem, self.url.peer))
        if self._opened and not self._ended:
            self._tell(self._events.connection_flush)

    def connectionLost(self, reason: Failure) -> None:
        """The end: channels are told by pika, the link by us, and no timer is left."""
        self._ended = self._leaving = self._deaf = True
        self._cancel("_handshake_timer")
        self._cancel("_abort_timer")
        verdict = self._record(reasons.of_exception(reasons.exception_of(reason), self.url, opened=self._opened))
        self._guarded(super().connectionLost, reason)
        self._tell(self._events.connection_ended, verdict)
        waiters, self._close_waiters = self._close_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    # What pika tells

    def connectionReady(self) -> LinkProtocol:
        """pika has seen Connection.OpenOk."""
        self._opened = True
        self._wire.registerProducer(_Valve(self), True)
        self._tell(self._events.connection_opened)
        return self

    def _blocked(self, _: pika.connection.Connection, method: Any) -> None:
        self._tell(self._events.connection_blocked, str(method.method.reason))

    def _unblocked(self, _: pika.connection.Connection, __: Any) -> None:
        self._tell(self._events.connection_unblocked)

    def _pika_disconnects(self) -> None:
        """pika has done with the connection: after Connection.Close(Ok), a missed heartbeat, a failed handshake."""
        # pika replaces this by ConnectionDone a moment later and has no other place where it tells.
        problem = self._impl._error
        if isinstance(problem, pika.exceptions.ConnectionClosedByBroker):
            # pika leaves the answer out, which RabbitMQ waits for.
            self._wire.write(pika.frame.Method(0, pika.spec.Connection.CloseOk()).marshal())
        if problem is not None:
            self._record(reasons.of_exception(problem, self.url, opened=self._opened))
        self._leave(self._close_grace)
        self._deaf = True
        self._wire.loseConnection()

    # The ways out

    def _leave(self, grace: float) -> None:
        """From here on nothing is written, and after ``grace`` seconds the connection is dropped."""
        self._leaving = True
        self._cancel("_handshake_timer")
        # A paused producer keeps a transport from closing.
        if self._opened:
            self._wire.unregisterProducer()
        if self._abort_timer is None and not self._ended:
            self._abort_timer = self._reactor.callLater(grace, self._close_overdue, grace)

    def _wire_abort(self) -> None:
        self._deaf = True
        if not self._aborted:
            self._aborted = True
            self._wire.abortConnection()

    def _close_overdue(self, grace: float) -> None:
        self._abort_timer = None
        self._record(Verdict.lost(f"{self.url.peer} did not close within {grace:g} s"))
        self._wire_abort()

    def _handshake_overdue(self) -> None:
        self._handshake_timer = None
        protocol = "AMQP" if self._secured else "TLS"
        self.give_up(reasons.no_handshake(self.url.peer, self._handshake_timeout, protocol=protocol))

    def _record(self, verdict: Verdict) -> Verdict:
        """Keep the first reason: what comes after it is its consequence."""
        if self._verdict is None:
            self._verdict = verdict
        return self._verdict

    def _lost(self) -> LinkLost:
        return LinkLost(self.reason or Verdict.lost("the connection is not open").reason)

    # Reading

    def _greet(self, data: bytes) -> None:
        """Look at the peer's first bytes; pika would wait for a gigabyte of an HTTP server's answer."""
        self._head += data
        verdict = reasons.foreign_greeting(self._head[:40], self.url.peer, tls=self.url.tls)
        if verdict is not None:
            self.give_up(verdict)
        elif len(self._head) >= 8:
            self._greeted, data, self._head = True, self._head, b""
            self.dataReceived(data)

    def _feed(self, data: bytes) -> None:
        failpoints.reach("after-write")
        self._received += len(data)
        before = self._reader.answers
        self._reader.feed(data)
        # pika judges by this count whether the peer lives.
        self._impl.bytes_received += ANSWER * (self._reader.answers - before)
        waiting = self._received - self._impl.bytes_received
        if waiting > max(self.frame_max, pika.spec.FRAME_MAX_SIZE):
            raise pika.exceptions.InvalidFrameError(f"a frame of more than {self.frame_max} bytes")

    def _to_pika(self, data: bytes) -> None:
        for start in range(0, len(data), _BITE):
            super().dataReceived(data[start : start + _BITE])

    # Small things

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        self._guarded(event, self, *arguments)

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call what must not take the connection down with it."""
        try:
            call(*arguments)
        except Exception as problem:
            name = getattr(call, "__name__", "callback")
            self._log.error("mistake in {name}: {problem!r}; please report it", name=name, problem=problem)
            self._log.debug("{traceback}", traceback=Failure().getTraceback())

    def _cancel(self, name: str) -> None:
        timer = getattr(self, name)
        setattr(self, name, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _close_waiters_remove(self, waiter: Deferred[None]) -> None:
        if waiter in self._close_waiters:
            self._close_waiters.remove(waiter)


class _PikaTransport:
    """The transport as pika sees it, so that its loseConnection cannot wait for ever."""

    def __init__(self, connection: LinkProtocol, wire: Any) -> None:
        self._connection = connection
        self.write = wire.write

    def loseConnection(self) -> None:
        self._connection._pika_disconnects()


@implementer(IPushProducer)
class _Valve:
    """Turns the transport's calls, of which pauseProducing comes at every write, into one flag and one event."""

    def __init__(self, connection: LinkProtocol) -> None:
        self._connection = connection

    def pauseProducing(self) -> None:
        self._connection.paused = True

    def resumeProducing(self) -> None:
        connection = self._connection
        if connection.paused:
            connection.paused = False
            connection._tell(connection._events.connection_resumed)

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost tells more."""
