"""A scripted AMQP 0-9-1 server for what a real broker will not do on command.

``Broker`` is what outlives a connection, ``Peer`` one connection: by itself it answers as RabbitMQ does, and any test
may take over (``hold``, ``ack``, ``return_``, ``close_channel``, ``silence``, ...). A ``PeerFactory`` listens on a real
socket or answers in a :class:`tests.network.MemoryNetwork`.
"""

from __future__ import annotations

import enum
import itertools
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import attrs
import pika.frame
import pika.spec
from pika.exceptions import AMQPError
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

# pika's generated spec carries no annotations: to the type checker it is Any.
spec: Any = pika.spec
frames: Any = pika.frame

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


class Acks(enum.Enum):
    """When the peer acks by itself."""

    SINGLE = "one ack for each message, at once"
    MULTIPLE = "one multiple ack for each read"
    HELD = "only when the test says so; returns wait too"


class Confirm(enum.Enum):
    """Confirm mode of one channel."""

    OFF = "off"
    ASKED = "Select received, SelectOk not sent"
    ON = "on"


class Phase(enum.Enum):
    """Where the connection is; the value is the only frame that is legal there, beside Connection.Close."""

    HEADER = "protocol header"
    START = "Connection.StartOk"
    TUNE = "Connection.TuneOk"
    VHOST = "Connection.Open"
    OPEN = "any"
    CLOSING = "Connection.CloseOk"
    CLOSED = "none"


@attrs.frozen(kw_only=True)
class Published:
    """One message as it came in. ``tag`` is 0 outside confirm mode; ``routed`` says whether a queue took it."""

    channel: int
    tag: int
    exchange: str
    routing_key: str
    mandatory: bool
    properties: Any
    body: bytes
    routed: bool


@attrs.define(kw_only=True)
class Broker:
    """What outlives one connection: exchanges, users, limits, and how new peers behave.

    ``exchanges`` maps a name to the routing keys that route (``#`` stands for every key); the default exchange routes
    to ``queues``. ``ignore`` names what is read and never answered: ``ProtocolHeader`` or a method (``Confirm.Select``,
    ``Channel.Close``). ``on_connect`` runs first of all; ``on_publish`` returns True where it answered by itself.
    """

    exchanges: dict[str, set[str]] = attrs.Factory(dict)
    types: dict[str, str] = attrs.Factory(dict)
    queues: set[str] = attrs.Factory(set)
    users: dict[str, str] = attrs.Factory(lambda: {"guest": "guest"})
    vhosts: set[str] = attrs.Factory(lambda: {"/"})
    mechanisms: str = "AMQPLAIN PLAIN EXTERNAL"
    capabilities: dict[str, bool] = attrs.Factory(
        lambda: {
            "publisher_confirms": True,
            "basic.nack": True,
            "connection.blocked": True,
            "authentication_failure_close": True,
        }
    )
    frame_max: int = 131072
    channel_max: int = 2047
    heartbeat: int = 60
    acks: Acks = Acks.MULTIPLE
    ignore: set[str] = attrs.Factory(set)
    on_connect: Callable[[Peer], object] | None = None
    on_publish: Callable[[Peer, Published], bool] | None = None
    published: list[Published] = attrs.Factory(list)

    def routes(self, exchange: str, key: str) -> bool:
        """Whether a message to an existing exchange reaches a queue."""
        if exchange == "":
            return key in self.queues
        keys = self.exchanges[exchange]
        return key in keys or "#" in keys or (self.types.get(exchange) == "fanout" and bool(keys))


@attrs.define(kw_only=True)
class _Channel:
    number: int
    confirm: Confirm = Confirm.OFF
    tags: Iterator[int] = attrs.Factory(lambda: itertools.count(1))
    unacked: dict[int, Published] = attrs.Factory(dict)
    unreturned: dict[int, Published] = attrs.Factory(dict)
    closing: bool = False
    publish: Any = None
    header: Any = None
    body: bytearray = attrs.Factory(bytearray)


class Peer(Protocol):
    """One connection of a broker. Answers by itself; everything public without underscore is for tests to call.

    ``violations`` holds each breach of the protocol by the client in words, and is to be empty at the end of a test;
    RabbitMQ's own reaction (501, 503, 504, 505) follows it. ``discarded`` counts frames dropped, as RabbitMQ does, on
    a channel whose close the client had not answered yet.
    """

    def __init__(self, broker: Broker, clock: IReactorTime | None = None) -> None:
        self.broker = broker
        self.acks = broker.acks
        self.ignore = set(broker.ignore)
        self.phase = Phase.HEADER
        self.published: list[Published] = []
        self.violations: list[str] = []
        self.discarded = 0
        self.heartbeats = 0
        self.bytes_received = 0
        self.client_properties: dict[str, Any] = {}
        self.user = ""
        self.closed_by: Any = None
        """The client's own Connection.Close."""
        self.lost: Failure | None = None
        self.address: IAddress | None = None
        self._frame_max = 0
        self._channel_max = 0
        self._channels: dict[int, _Channel] = {}
        self._due: dict[int, int] = {}
        self._buffer = bytearray()
        self._silent = False
        self._clock = clock
        self._beat: LoopingCall | None = None
        self._methods: dict[str, Callable[[int, Any], None]] = {
            "Connection.StartOk": self._on_start_ok,
            "Connection.TuneOk": self._on_tune_ok,
            "Connection.Open": self._on_open,
            "Connection.Close": self._on_close,
            "Channel.Open": self._on_channel_open,
            "Channel.Close": self._on_channel_close,
            "Exchange.Declare": self._on_exchange_declare,
            "Queue.Declare": self._on_queue_declare,
            "Queue.Bind": self._on_queue_bind,
            "Confirm.Select": self._on_select,
            "Basic.Publish": self._on_publish,
        }

    # What a test can do

    @property
    def channels(self) -> list[int]:
        """Numbers of the channels that are open (not closing), in the order of opening."""
        return [channel.number for channel in self._channels.values() if not channel.closing]

    def unacked(self, channel: int) -> list[Published]:
        """What waits for an ack or nack, oldest first."""
        return list(self._channels[channel].unacked.values())

    def confirming(self, channel: int) -> bool:
        """Whether SelectOk was sent on this channel."""
        return self._channels[channel].confirm is Confirm.ON

    def send(self, channel: int, method: Any) -> None:
        """Write any method frame, legal or not."""
        self._write(frames.Method(channel, method).marshal())

    def hold(self) -> None:
        """Send no more acks and returns until told (:meth:`release`, :meth:`ack`, ...)."""
        self.acks = Acks.HELD

    def release(self, acks: Acks = Acks.MULTIPLE) -> None:
        """Answer everything held, returns before their acks, and go on by itself."""
        self.acks = acks
        for channel in list(self._channels.values()):
            for published in list(channel.unacked.values()):
                self._answer(channel, published)
        self._ack_due()

    def ack(self, channel: int, tag: int, multiple: bool = False) -> None:
        """Ack any tag, known or not."""
        self._settle(channel, tag, multiple)
        self.send(channel, spec.Basic.Ack(tag, multiple))

    def nack(self, channel: int, tag: int, multiple: bool = False) -> None:
        """Nack any tag, known or not."""
        self._settle(channel, tag, multiple)
        self.send(channel, spec.Basic.Nack(tag, multiple))

    def return_(self, channel: int, published: Published, code: int = 312, text: str = "NO_ROUTE") -> None:
        """Return a message at any time, also long after its ack or twice."""
        if channel in self._channels:
            self._channels[channel].unreturned.pop(published.tag, None)
        self.send(channel, spec.Basic.Return(code, text, published.exchange, published.routing_key))
        self._write(frames.Header(channel, len(published.body), published.properties).marshal())
        step = (self._frame_max or self.broker.frame_max) - 8
        for at in range(0, len(published.body), step):
            self._write(frames.Body(channel, published.body[at : at + step]).marshal())

    def close_channel(self, channel: int, code: int, text: str, class_id: int = 0, method_id: int = 0) -> None:
        """Close one channel; what comes on it before CloseOk is dropped, what was unacked stays unanswered."""
        self._channels[channel].closing = True
        self._due.pop(channel, None)
        self.send(channel, spec.Channel.Close(code, text, class_id, method_id))

    def close_connection(self, code: int, text: str, class_id: int = 0, method_id: int = 0) -> None:
        """Close the connection as a broker does: Connection.Close, wait for CloseOk, then close TCP."""
        self._due.clear()
        self.send(0, spec.Connection.Close(code, text, class_id, method_id))
        self.phase = Phase.CLOSING

    def select_ok(self, channel: int) -> None:
        """Send the SelectOk that ``ignore`` held back."""
        self._channels[channel].confirm = Confirm.ON
        self.send(channel, spec.Confirm.SelectOk())

    def block(self, text: str) -> None:
        """Connection.Blocked; a real broker also stops reading: add :meth:`half_open` for that."""
        self.send(0, spec.Connection.Blocked(text))

    def unblock(self) -> None:
        """Connection.Unblocked."""
        self.send(0, spec.Connection.Unblocked())

    def silence(self) -> None:
        """Accept bytes from now on and answer nothing, not even heartbeats."""
        self._silent = True
        self._stop_beat()

    def half_open(self) -> None:
        """Stop reading: the client's bytes pile up on its side, and its close goes unnoticed."""
        cast(IPushProducer, self.transport).pauseProducing()

    def resume(self) -> None:
        """Read again after :meth:`half_open`."""
        cast(IPushProducer, self.transport).resumeProducing()

    def garbage(self, data: bytes) -> None:
        """Write bytes that are no AMQP, whatever the phase."""
        cast(ITCPTransport, self.transport).write(data)

    def heartbeat(self) -> None:
        """Send one heartbeat frame."""
        self._write(frames.Heartbeat().marshal())

    def drop(self, abort: bool = False) -> None:
        """Close TCP without a word; ``abort`` resets it (the client sees ConnectionLost)."""
        self.phase = Phase.CLOSED
        transport = cast(ITCPTransport, self.transport)
        if abort:
            transport.abortConnection()
        else:
            transport.loseConnection()

    # Protocol

    def connectionMade(self) -> None:
        if self.broker.on_connect is not None:
            self.broker.on_connect(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.phase = Phase.CLOSED
        self.lost = reason
        self._stop_beat()

    def dataReceived(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._buffer += data
        if self._live and (self.phase is not Phase.HEADER or self._greeted()):
            self._read_frames()
        if self._live:
            self._ack_due()
        else:
            self._buffer.clear()

    @property
    def _live(self) -> bool:
        return not self._silent and self.phase is not Phase.CLOSED

    def _write(self, data: bytes) -> None:
        if self._live:
            cast(ITCPTransport, self.transport).write(data)

    def _stop_beat(self) -> None:
        beat, self._beat = self._beat, None
        if beat is not None:
            beat.stop()

    def _greeted(self) -> bool:
        if len(self._buffer) < len(PROTOCOL_HEADER):
            return False
        header = bytes(self._buffer[:8])
        del self._buffer[:8]
        if header != PROTOCOL_HEADER:
            self.violations.append(f"protocol header {header!r}")
            self._write(PROTOCOL_HEADER)
            self.drop()
            return False
        self.phase = Phase.START
        if "ProtocolHeader" not in self.ignore:
            properties = {"product": "Peer", "version": "0", "capabilities": dict(self.broker.capabilities)}
            self.send(0, spec.Connection.Start(0, 9, properties, self.broker.mechanisms, "en_US"))
        return True

    def _read_frames(self) -> None:
        at = 0
        while self._live and len(self._buffer) - at >= 7:
            kind, channel, size = struct.unpack_from(">BHI", self._buffer, at)
            if self._frame_max and size + 8 > self._frame_max:
                problem = f"type {kind}, channel {channel}: frame of {size + 8} bytes, frame_max is {self._frame_max}"
                self._violated(problem, 501, "FRAME_ERROR - " + problem)
                at = len(self._buffer)
                break
            end = at + size + 8
            if len(self._buffer) < end:
                break
            try:
                frame = frames.decode_frame(bytes(self._buffer[at:end]))[1]
            # pika's decoder lets anything out: struct.error, KeyError, UnicodeDecodeError, its own.
            except (AMQPError, ValueError, LookupError, struct.error, TypeError) as problem_:
                self._violated(f"malformed frame: {problem_!r}", 501, "FRAME_ERROR - cannot decode")
                at = len(self._buffer)
                break
            at = end
            self._on_frame(frame)
        del self._buffer[:at]

    def _violated(self, problem: str, code: int, text: str, class_id: int = 0, method_id: int = 0) -> None:
        self.violations.append(problem)
        if self.phase is not Phase.CLOSING:
            self.close_connection(code, text[:255], class_id, method_id)

    def _unexpected(self, channel: _Channel, problem: str) -> None:
        expected, publishing = "method", channel.publish is not None
        if publishing:
            expected = "content header" if channel.header is None else "content body"
        of_class = " for class 60" if expected == "content header" else " frame" if expected == "method" else ""
        text = f"UNEXPECTED_FRAME - expected {expected}{of_class}, got non {expected} frame instead"
        self._violated(f"{problem} channel {channel.number}", 505, text, *((60, 40) if publishing else (0, 0)))

    def _on_frame(self, frame: Any) -> None:
        if isinstance(frame, pika.frame.Heartbeat):
            self.heartbeats += 1
            return
        name = frame.method.NAME if isinstance(frame, pika.frame.Method) else frame.NAME
        number = frame.channel_number
        if self.phase is Phase.CLOSING:
            if name == "Connection.CloseOk":
                self.drop()
            elif name == "Connection.Close":
                self.send(0, spec.Connection.CloseOk())
            return
        if self.phase is not Phase.OPEN and name not in (self.phase.value, "Connection.Close"):
            self._violated(f"{name} instead of {self.phase.value}", 503, "COMMAND_INVALID - unexpected in handshake")
            return
        if number == 0:
            if name not in self._methods or not name.startswith("Connection."):
                self._violated(f"{name} on channel 0", 503, "COMMAND_INVALID - unexpected on channel 0")
            elif name not in self.ignore:
                self._methods[name](0, frame.method)
            return
        channel = self._channels.get(number)
        if channel is None:
            if name == "Channel.Open":
                self._channels[number] = _Channel(number=number)
                if number > self._channel_max:
                    self._violated(f"channel {number}, channel_max is {self._channel_max}", 504, "CHANNEL_ERROR - max")
                elif name not in self.ignore:
                    self._on_channel_open(number, frame.method)
            else:
                text = "CHANNEL_ERROR - expected 'channel.open'"
                index = getattr(getattr(frame, "method", None), "INDEX", 0)
                self._violated(f"{name} on channel {number}, which is not open", 504, text, index >> 16, index & 0xFFFF)
        elif channel.closing:
            if name == "Channel.CloseOk":
                del self._channels[number]
            elif name == "Channel.Close":
                self.send(number, spec.Channel.CloseOk())
            else:
                self.discarded += 1
        elif isinstance(frame, (pika.frame.Header, pika.frame.Body)):
            self._on_content(channel, frame)
        elif channel.publish is not None:
            self._unexpected(channel, f"{name} within the content of a publish on")
        elif name not in self._methods or name.startswith("Connection.") or name == "Channel.Open":
            self._violated(f"{name} on open channel {number}", 503, f"COMMAND_INVALID - {name} is not expected here")
        elif name == "Confirm.Select":
            channel.confirm = Confirm.ON if channel.confirm is Confirm.ON else Confirm.ASKED
            if name not in self.ignore:
                self._on_select(number, frame.method)
        elif name not in self.ignore:
            self._methods[name](number, frame.method)

    # Connection and channels

    def _on_start_ok(self, _: int, method: Any) -> None:
        self.client_properties = method.client_properties
        response = method.response.encode() if isinstance(method.response, str) else method.response
        known = method.mechanism in self.broker.mechanisms.split()
        if known and method.mechanism == "PLAIN":
            self.user, password = response.decode().split("\0")[1:]
            known = self.broker.users.get(self.user) == password
        if known:
            self.phase = Phase.TUNE
            self.send(0, spec.Connection.Tune(self.broker.channel_max, self.broker.frame_max, self.broker.heartbeat))
            return
        text = f"Login was refused using authentication mechanism {method.mechanism}."
        self.close_connection(403, f"ACCESS_REFUSED - {text} For details see the broker logfile.")

    def _on_tune_ok(self, _: int, method: Any) -> None:
        for name in ("frame_max", "channel_max"):
            asked, limit = getattr(method, name), getattr(self.broker, name)
            if limit and (asked == 0 or asked > limit):
                text = f"negotiated {name} = {asked} is higher than the maximum allowed value ({limit})"
                self._violated(f"{name} {asked} asked for, {limit} is the limit", 530, f"NOT_ALLOWED - {text}", 10, 31)
                return
        self._frame_max = method.frame_max
        self._channel_max = method.channel_max or 65535
        self.phase = Phase.VHOST
        if method.heartbeat and self._clock is not None:
            self._beat = LoopingCall(self.heartbeat)
            self._beat.clock = self._clock
            self._beat.start(method.heartbeat / 2, now=False)

    def _on_open(self, _: int, method: Any) -> None:
        if method.virtual_host in self.broker.vhosts:
            self.phase = Phase.OPEN
            self.send(0, spec.Connection.OpenOk())
        else:
            self.close_connection(530, f"NOT_ALLOWED - vhost {method.virtual_host} not found", 10, 40)

    def _on_close(self, _: int, method: Any) -> None:
        self.closed_by = method
        self.send(0, spec.Connection.CloseOk())
        self.drop()

    def _on_channel_open(self, number: int, _: Any) -> None:
        self.send(number, spec.Channel.OpenOk())

    def _on_channel_close(self, number: int, _: Any) -> None:
        del self._channels[number]
        self._due.pop(number, None)
        self.send(number, spec.Channel.CloseOk())

    def _on_select(self, number: int, method: Any) -> None:
        if method.nowait:
            self._channels[number].confirm = Confirm.ON
        else:
            self.select_ok(number)

    # Topology

    def _on_exchange_declare(self, number: int, method: Any) -> None:
        name, broker = method.exchange, self.broker
        current = broker.types.get(name, method.type)
        if method.passive and name and name not in broker.exchanges:
            self.close_channel(number, 404, f"NOT_FOUND - no exchange '{name}' in vhost '/'", 40, 10)
            return
        if not method.passive and current != method.type:
            text = f"inequivalent arg 'type' for exchange '{name}' in vhost '/': "
            text += f"received '{method.type}' but current is '{current}'"
            self.close_channel(number, 406, f"PRECONDITION_FAILED - {text}", 40, 10)
            return
        if not method.passive:
            broker.exchanges.setdefault(name, set())
            broker.types[name] = method.type
        if not method.nowait:
            self.send(number, spec.Exchange.DeclareOk())

    def _on_queue_declare(self, number: int, method: Any) -> None:
        if method.passive and method.queue not in self.broker.queues:
            self.close_channel(number, 404, f"NOT_FOUND - no queue '{method.queue}' in vhost '/'", 50, 10)
            return
        self.broker.queues.add(method.queue)
        if not method.nowait:
            self.send(number, spec.Queue.DeclareOk(method.queue, 0, 0))

    def _on_queue_bind(self, number: int, method: Any) -> None:
        kind, name = "queue", method.queue
        if name in self.broker.queues:
            kind, name = "exchange", method.exchange
        if name not in (self.broker.queues if kind == "queue" else self.broker.exchanges):
            self.close_channel(number, 404, f"NOT_FOUND - no {kind} '{name}' in vhost '/'", 50, 20)
            return
        self.broker.exchanges[method.exchange].add(method.routing_key)
        if not method.nowait:
            self.send(number, spec.Queue.BindOk())

    # Publishing

    def _on_publish(self, number: int, method: Any) -> None:
        channel = self._channels[number]
        channel.publish, channel.header = method, None
        channel.body = bytearray()
        if channel.confirm is Confirm.ASKED:
            self.violations.append(f"published on channel {number} before SelectOk")
        elif channel.confirm is Confirm.OFF:
            self.violations.append(f"published on channel {number} outside confirm mode")

    def _on_content(self, channel: _Channel, frame: Any) -> None:
        expected = channel.publish is not None and (channel.header is None) == isinstance(frame, pika.frame.Header)
        if not expected:
            self._unexpected(channel, f"{frame.NAME} frame out of order on")
            return
        if channel.header is None:
            channel.header = frame
        else:
            channel.body += frame.fragment
        if len(channel.body) > channel.header.body_size:
            self._violated(f"body longer than its header says on channel {channel.number}", 501, "FRAME_ERROR - body")
        elif len(channel.body) == channel.header.body_size:
            self._on_message(channel)

    def _on_message(self, channel: _Channel) -> None:
        method, properties, body = channel.publish, channel.header.properties, bytes(channel.body)
        channel.publish = channel.header = None
        exists = method.exchange == "" or method.exchange in self.broker.exchanges
        refusal = None if exists else f"NOT_FOUND - no exchange '{method.exchange}' in vhost '/'"
        refusal = refusal or self._unfit(properties)
        published = Published(
            channel=channel.number,
            tag=next(channel.tags) if channel.confirm is Confirm.ON else 0,
            exchange=method.exchange,
            routing_key=method.routing_key,
            mandatory=method.mandatory,
            properties=properties,
            body=body,
            routed=refusal is None and self.broker.routes(method.exchange, method.routing_key),
        )
        self.published.append(published)
        self.broker.published.append(published)
        if published.tag and refusal is None:
            channel.unacked[published.tag] = published
        if published.mandatory and not published.routed and refusal is None:
            channel.unreturned[published.tag] = published
        if self.broker.on_publish is not None and self.broker.on_publish(self, published):
            return
        if refusal is not None:
            self.close_channel(channel.number, 406 if exists else 404, refusal, 60, 40)
        elif not channel.closing and (self.acks is not Acks.HELD or not published.tag):
            self._answer(channel, published)

    def _unfit(self, properties: Any) -> str | None:
        """Why RabbitMQ closes the channel for these properties; texts as measured with 3.10.8."""
        given = properties.expiration
        # Erlang's string:to_integer, which takes a sign
        number = re.match(r"[+-]?[0-9]+", given or "")
        if given is not None and (number is None or number[0] != given or int(given) < 0):
            why = "no_integer" if number is None else f'{{leftover_string,"{given[number.end() :]}"}}'
            if number is not None and number[0] == given:
                why = f"{{value_negative,{int(given)}}}"
            return f"PRECONDITION_FAILED - invalid expiration '{given}': {why}"
        if properties.user_id is not None and properties.user_id != self.user:
            return (
                f"PRECONDITION_FAILED - user_id property set to '{properties.user_id}' "
                f"but authenticated user was '{self.user}'"
            )
        return None

    def _answer(self, channel: _Channel, published: Published) -> None:
        if published.tag in channel.unreturned:
            self.return_(channel.number, published)
        if published.tag and self.acks is Acks.SINGLE:
            self.ack(channel.number, published.tag)
        elif published.tag:
            self._due[channel.number] = published.tag

    def _ack_due(self) -> None:
        due, self._due = self._due, {}
        for number, tag in due.items():
            self.ack(number, tag, multiple=True)

    def _settle(self, number: int, tag: int, multiple: bool) -> None:
        channel = self._channels.get(number)
        if channel is None:
            return
        unacked = channel.unacked
        done = [one for one in unacked if one <= tag or tag == 0] if multiple else [tag]
        for one in done:
            unacked.pop(one, None)
            channel.unreturned.pop(one, None)


class PeerFactory(ServerFactory):
    """Builds a :class:`Peer` for each connection, in memory or on a real socket; ``peers`` keeps them all."""

    noisy = False

    def __init__(self, broker: Broker | None = None, clock: IReactorTime | None = None) -> None:
        self.broker = Broker() if broker is None else broker
        self.clock = clock
        self.peers: list[Peer] = []

    def buildProtocol(self, addr: IAddress | None) -> Peer:
        peer = Peer(self.broker, self.clock)
        peer.factory = self
        peer.address = addr
        self.peers.append(peer)
        return peer

    @property
    def peer(self) -> Peer:
        """The newest connection."""
        return self.peers[-1]

    @property
    def violations(self) -> list[str]:
        """Of all connections."""
        return [violation for peer in self.peers for violation in peer.violations]
