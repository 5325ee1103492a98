"""The scripted peer and the network in memory, driven by pika's own Twisted protocol; no real time passes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, cast

import attrs
import pika
import pika.frame
import pika.spec
import pytest
import pytest_twisted
from pika.adapters.twisted_connection import TwistedProtocolConnection
from pika.exceptions import ChannelClosedByBroker
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.error import TimeoutError as TwistedTimeoutError
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, ReconnectingClientFactory
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.network import MemoryNetwork
from tests.peer import Acks, Broker, Peer, PeerFactory, Published
from tests.strictness import Logged

# pika's generated spec carries no annotations: to the type checker it is Any.
spec: Any = pika.spec
frames: Any = pika.frame

Answers = list[tuple[Any, ...]]


@pytest.fixture
def broker() -> Broker:
    return Broker(exchanges={"message": {"example.text"}})


@pytest.fixture
def network(broker: Broker) -> MemoryNetwork:
    return MemoryNetwork(broker)


@pytest.fixture
def lawful(network: MemoryNetwork) -> Iterator[None]:
    """The client is to have broken no rule when the test is over."""
    yield
    network.flush()
    assert network.factory.violations == []


def outcome(deferred: Deferred[Any] | None) -> Any:
    """What a Deferred has come to: its value, its exception, or None while it waits."""
    assert deferred is not None
    seen: list[Any] = []
    deferred.addBoth(seen.append)
    return None if not seen else seen[0].value if isinstance(seen[0], Failure) else seen[0]


def parameters(**given: Any) -> Any:
    return pika.ConnectionParameters(**given)


def wire(endpoint: Any, protocol: Any) -> Deferred[Any]:
    connecting: Deferred[Any] = connectProtocol(endpoint, protocol)
    return connecting


def dial(network: MemoryNetwork, **given: Any) -> tuple[Any, Any]:
    """pika's protocol and what its handshake came to, once both sides are quiet."""
    protocol: Any = TwistedProtocolConnection(parameters(**given), custom_reactor=network)
    ready = protocol.ready
    connected = wire(HostnameEndpoint(network, "localhost", 5672), protocol)
    network.flush()
    assert outcome(connected) is protocol
    return protocol, outcome(ready)


def handshaken(network: MemoryNetwork, **given: Any) -> Any:
    protocol, ready = dial(network, **given)
    assert ready is protocol
    return protocol


@attrs.define
class Client:
    """One confirm-mode channel of pika and what came back on it, in order."""

    network: MemoryNetwork
    protocol: Any
    channel: Any
    answers: Answers = attrs.Factory(list)

    def publish(self, key: str = "example.text", body: bytes = b"", exchange: str = "message", **given: Any) -> None:
        properties = pika.BasicProperties(**given)
        self.channel.basic_publish(exchange, key, body, properties, mandatory=True)

    def answered(self, frame: Any) -> None:
        method = frame.method
        self.answers.append((method.NAME.removeprefix("Basic.").lower(), method.delivery_tag, method.multiple))

    def returned(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        self.answers.append(("return", method.reply_code, method.reply_text, properties.message_id, body))

    def closed(self, _: Any, reason: Any) -> None:
        if isinstance(reason, ChannelClosedByBroker):
            self.answers.append(("closed", reason.reply_code, reason.reply_text))


def open_channel(network: MemoryNetwork, protocol: Any) -> Client:
    opened: list[Any] = []
    protocol._impl.channel(on_open_callback=opened.append)
    network.flush()
    client = Client(network, protocol, opened[0])
    client.channel.add_on_return_callback(client.returned)
    client.channel.add_on_close_callback(client.closed)
    return client


def confirming(network: MemoryNetwork, **given: Any) -> Client:
    protocol = handshaken(network, **given)
    client = open_channel(network, protocol)
    client.channel.confirm_delivery(client.answered)
    network.flush()
    return client


@pytest.mark.usefixtures("lawful")
class TestPeerByItself:
    def test_a_handshake_ends_open_and_knows_the_client(self, network: MemoryNetwork) -> None:
        protocol = handshaken(network)
        assert protocol.is_open
        assert network.peer.user == "guest"
        assert network.peer.client_properties["product"].startswith("Pika")

    @pytest.mark.parametrize("segment", [1, 7, 65536])
    def test_frames_may_arrive_in_any_pieces(self, network: MemoryNetwork, segment: int) -> None:
        network.segment = segment
        client = confirming(network)
        client.publish(body=b"hello", message_id="m1")
        network.flush()
        assert client.answers == [("ack", 1, True)]

    def test_a_message_is_recorded_whole(self, network: MemoryNetwork, broker: Broker) -> None:
        client = confirming(network)
        body = bytes(range(256)) * 2000
        client.publish(body=body, message_id="m1", headers={"a": [1, {"b": None}]})
        network.flush()
        [published] = network.peer.published
        assert published.body == body
        assert (published.channel, published.tag, published.routed, published.mandatory) == (1, 1, True, True)
        assert (published.exchange, published.routing_key) == ("message", "example.text")
        assert published.properties.headers == {"a": [1, {"b": None}]}
        assert broker.published == [published]

    def test_one_read_gets_one_multiple_ack(self, network: MemoryNetwork) -> None:
        client = confirming(network)
        for _ in range(5):
            client.publish()
        network.flush()
        assert client.answers == [("ack", 5, True)]

    def test_single_acks_come_one_by_one(self, network: MemoryNetwork, broker: Broker) -> None:
        broker.acks = Acks.SINGLE
        client = confirming(network)
        for _ in range(3):
            client.publish()
        network.flush()
        assert client.answers == [("ack", 1, False), ("ack", 2, False), ("ack", 3, False)]

    @pytest.mark.parametrize("acks", [Acks.SINGLE, Acks.MULTIPLE])
    def test_an_unroutable_message_is_returned_before_its_ack(
        self, network: MemoryNetwork, broker: Broker, acks: Acks
    ) -> None:
        broker.acks = acks
        client = confirming(network)
        client.publish(key="nowhere", body=b"x" * 300_000, message_id="lost")
        network.flush()
        assert client.answers == [
            ("return", 312, "NO_ROUTE", "lost", b"x" * 300_000),
            ("ack", 1, acks is Acks.MULTIPLE),
        ]

    def test_a_missing_exchange_closes_the_channel_with_404(self, network: MemoryNetwork) -> None:
        client = confirming(network)
        client.publish(exchange="gone")
        client.publish()
        network.flush()
        assert client.answers == [("closed", 404, "NOT_FOUND - no exchange 'gone' in vhost '/'")]
        assert network.peer.channels == []
        assert network.peer.discarded == 2
        assert [published.routed for published in network.peer.published] == [False]

    def test_a_passive_declare_finds_the_exchange_or_404(self, network: MemoryNetwork) -> None:
        client = open_channel(network, handshaken(network))
        found: list[Any] = []
        client.channel.exchange_declare("message", passive=True, callback=found.append)
        network.flush()
        assert len(found) == 1
        client.channel.exchange_declare("gone", passive=True, callback=found.append)
        network.flush()
        assert len(found) == 1
        assert client.answers == [("closed", 404, "NOT_FOUND - no exchange 'gone' in vhost '/'")]

    def test_declared_topology_routes(self, network: MemoryNetwork, broker: Broker) -> None:
        client = confirming(network)
        done: list[Any] = []
        client.channel.exchange_declare("orders", "topic", callback=done.append)
        client.channel.queue_declare("text", callback=done.append)
        client.channel.queue_bind("text", "orders", "new", callback=done.append)
        network.flush()
        assert len(done) == 3
        client.publish(exchange="orders", key="new")
        client.publish(exchange="", key="text")
        client.publish(exchange="orders", key="old", message_id="m3")
        network.flush()
        assert [published.routed for published in broker.published] == [True, True, False]

    def test_another_type_of_exchange_is_refused_with_406(self, network: MemoryNetwork, broker: Broker) -> None:
        broker.types["message"] = "topic"
        client = open_channel(network, handshaken(network))
        client.channel.exchange_declare("message", "fanout")
        network.flush()
        [(_, code, text)] = client.answers
        assert code == 406
        assert "received 'fanout' but current is 'topic'" in text

    @pytest.mark.parametrize(
        ("properties", "text"),
        [
            ({"expiration": "soon"}, "invalid expiration 'soon': no_integer"),
            ({"expiration": "10s"}, "invalid expiration '10s': {leftover_string,\"s\"}"),
            ({"expiration": ""}, "invalid expiration '': no_integer"),
            ({"expiration": "-1"}, "invalid expiration '-1': {value_negative,-1}"),
            ({"user_id": "root"}, "user_id property set to 'root' but authenticated user was 'guest'"),
        ],
    )
    def test_a_poison_message_closes_the_channel_with_406(
        self, network: MemoryNetwork, broker: Broker, properties: dict[str, Any], text: str
    ) -> None:
        broker.acks = Acks.SINGLE
        client = confirming(network)
        client.publish()
        client.publish(**properties)
        client.publish()
        network.flush()
        assert client.answers == [("ack", 1, False), ("closed", 406, f"PRECONDITION_FAILED - {text}")]

    def test_a_closed_channel_number_can_be_opened_again(self, network: MemoryNetwork) -> None:
        client = confirming(network)
        client.channel.close()
        network.flush()
        again = open_channel(network, client.protocol)
        again.channel.confirm_delivery(again.answered)
        network.flush()
        again.publish()
        network.flush()
        assert again.channel.channel_number == client.channel.channel_number
        assert again.answers == [("ack", 1, True)]

    def test_the_client_may_close_the_connection(self, network: MemoryNetwork) -> None:
        client = confirming(network)
        closed = client.protocol.close()
        network.flush()
        assert isinstance(outcome(closed), ConnectionDone)
        assert network.peer.closed_by.reply_text == "Normal shutdown"
        assert network.peer.lost is not None

    def test_heartbeats_keep_the_connection_both_ways(self, network: MemoryNetwork) -> None:
        protocol = handshaken(network)
        network.advance(600)
        assert protocol.is_open
        assert network.peer.heartbeats == 20

    @pytest.mark.parametrize(
        ("given", "code", "text"),
        [
            ({"credentials": pika.PlainCredentials("guest", "wrong")}, 403, "ACCESS_REFUSED - Login was refused"),
            ({"virtual_host": "nope"}, 530, "NOT_ALLOWED - vhost nope not found"),
        ],
    )
    def test_refusals_are_said_in_rabbitmqs_words(
        self, network: MemoryNetwork, given: dict[str, Any], code: int, text: str
    ) -> None:
        _, ready = dial(network, **given)
        # pika keeps code and text to itself: read them off the wire of the next attempt.
        assert isinstance(ready, pika.exceptions.AMQPConnectionError)
        closes = raw_closes(network, given.get("credentials"), given.get("virtual_host", "/"))
        assert closes[0].reply_code == code
        assert closes[0].reply_text.startswith(text)

    def test_limits_are_negotiated_down_to_the_brokers(self, network: MemoryNetwork, broker: Broker) -> None:
        broker.frame_max, broker.channel_max, broker.heartbeat = 4096, 3, 0
        client = confirming(network)
        client.publish(body=b"x" * 10_000)
        network.flush()
        assert client.answers == [("ack", 1, True)]
        assert client.protocol._impl.params.channel_max == 3
        assert network.getDelayedCalls() == []

    def test_a_broker_without_confirms_says_so(self, network: MemoryNetwork, broker: Broker) -> None:
        broker.capabilities["publisher_confirms"] = False
        client = open_channel(network, handshaken(network))
        with pytest.raises(pika.exceptions.MethodNotImplemented):
            client.channel.confirm_delivery(client.answered)


def raw_closes(network: MemoryNetwork, credentials: Any, vhost: str) -> list[Any]:
    """The Connection.Close frames a client is sent that does the handshake by hand."""
    client = attach(network)
    password = "guest" if credentials is None else credentials.password
    client.shake(network, password, vhost)
    return [method for method in client.methods if method.NAME == "Connection.Close"]


class Raw(Protocol):
    """A client that writes whatever frames it likes."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's has a default
        self.lost = reason

    @property
    def methods(self) -> list[Any]:
        found, rest = [], self.received
        while rest:
            consumed, frame = frames.decode_frame(rest)
            rest = rest[consumed:]
            found.append(frame.method)
        return found

    def write(self, network: MemoryNetwork, *given: bytes) -> None:
        transport: Any = self.transport
        transport.write(b"".join(given))
        network.flush()

    def send(self, network: MemoryNetwork, channel: int, *methods: Any) -> None:
        self.write(network, *[frames.Method(channel, method).marshal() for method in methods])

    def shake(self, network: MemoryNetwork, password: str = "guest", vhost: str = "/") -> None:
        self.write(network, frames.ProtocolHeader().marshal())
        self.send(network, 0, spec.Connection.StartOk({}, "PLAIN", f"\0guest\0{password}", "en_US"))
        if self.methods[-1].NAME == "Connection.Tune":
            self.send(network, 0, spec.Connection.TuneOk(10, 4096, 0), spec.Connection.Open(vhost))


def attach(network: MemoryNetwork, port: int = 5672) -> Raw:
    raw = Raw()
    wire(TCP4ClientEndpoint(network, "127.0.0.1", port), raw)
    network.flush()
    return raw


def content(channel: int, body: bytes = b"", size: int | None = None, exchange: str = "message") -> list[bytes]:
    """The frames of one publish."""
    return [
        frames.Method(channel, spec.Basic.Publish(exchange=exchange, routing_key="example.text")).marshal(),
        frames.Header(channel, len(body) if size is None else size, pika.BasicProperties()).marshal(),
        *([frames.Body(channel, body).marshal()] if body else []),
    ]


@pytest.mark.usefixtures("lawful")
class TestScript:
    @pytest.fixture
    def client(self, network: MemoryNetwork) -> Client:
        return confirming(network)

    @pytest.fixture
    def peer(self, client: Client) -> Peer:
        return client.network.peer

    def test_held_acks_are_given_in_any_order(self, client: Client, peer: Peer) -> None:
        peer.hold()
        for _ in range(4):
            client.publish()
        client.network.flush()
        assert client.answers == []
        peer.ack(1, 3)
        peer.nack(1, 1)
        peer.ack(1, 4, multiple=True)
        client.network.flush()
        assert client.answers == [("ack", 3, False), ("nack", 1, False), ("ack", 4, True)]
        assert peer.unacked(1) == []

    def test_unknown_tags_can_be_acked(self, client: Client, peer: Peer) -> None:
        peer.ack(1, 99)
        peer.nack(1, 2**63, multiple=True)
        client.network.flush()
        assert client.answers == [("ack", 99, False), ("nack", 2**63, True)]

    def test_release_returns_and_acks_what_was_held(self, client: Client, peer: Peer) -> None:
        peer.hold()
        client.publish()
        client.publish(key="nowhere", message_id="m2")
        client.network.flush()
        assert client.answers == []
        peer.release()
        client.network.flush()
        assert client.answers == [("return", 312, "NO_ROUTE", "m2", b""), ("ack", 2, True)]

    def test_a_return_may_come_long_after_the_ack(self, client: Client, peer: Peer) -> None:
        client.publish(message_id="m1", body=b"late")
        client.network.flush()
        peer.return_(1, peer.published[0], 313, "NO_CONSUMERS")
        client.network.flush()
        assert client.answers == [("ack", 1, True), ("return", 313, "NO_CONSUMERS", "m1", b"late")]

    def test_a_scripted_return_is_not_repeated(self, client: Client, peer: Peer) -> None:
        peer.hold()
        client.publish(key="nowhere", message_id="m1")
        client.network.flush()
        peer.return_(1, peer.published[0])
        peer.release()
        client.network.flush()
        assert [answer[0] for answer in client.answers] == ["return", "ack"]

    def test_a_closed_channel_drops_what_is_under_way(self, client: Client, peer: Peer) -> None:
        peer.hold()
        client.publish()
        client.network.flush()
        peer.close_channel(1, 403, "ACCESS_REFUSED - no")
        client.publish()
        client.network.flush()
        assert client.answers == [("closed", 403, "ACCESS_REFUSED - no")]
        assert peer.channels == []
        assert len(peer.published) == 1

    def test_a_closed_connection_gives_its_reason(self, client: Client, peer: Peer) -> None:
        closed, heard = client.protocol.closed, []
        client.protocol._impl.callbacks.add(0, spec.Connection.Close, lambda frame: heard.append(frame.method))
        peer.close_connection(320, "CONNECTION_FORCED - Closed via management plugin")
        client.network.flush()
        assert [(close.reply_code, close.reply_text) for close in heard] == [
            (320, "CONNECTION_FORCED - Closed via management plugin")
        ]
        assert isinstance(outcome(closed), ConnectionDone), "pika drops the reason on its way to `closed`"
        assert client.network.connections == []

    def test_blocked_and_unblocked_reach_the_client(self, client: Client, peer: Peer) -> None:
        heard: list[Any] = []
        impl = client.protocol._impl
        impl.add_on_connection_blocked_callback(lambda _, frame: heard.append(frame.method.reason))
        impl.add_on_connection_unblocked_callback(lambda _, frame: heard.append(frame.method.NAME))
        peer.block("low on memory")
        peer.unblock()
        client.network.flush()
        assert heard == ["low on memory", "Connection.Unblocked"]

    def test_a_silent_peer_reads_and_says_nothing(self, client: Client, peer: Peer) -> None:
        peer.silence()
        before = peer.bytes_received
        client.publish()
        client.network.flush()
        assert client.answers == []
        assert peer.bytes_received > before
        closed = client.protocol.closed
        client.network.advance(200)
        assert outcome(closed) is not None, "pika's heartbeat timeout gives a silent peer up"

    def test_ignored_methods_get_no_answer(self, client: Client, peer: Peer) -> None:
        peer.ignore |= {"Channel.Close", "Connection.Close"}
        client.channel.close()
        client.network.flush()
        assert client.channel.is_closing
        closed = client.protocol.close()
        client.network.flush()
        assert outcome(closed) is None
        assert peer.lost is None

    def test_select_ok_can_be_kept_back(self, network: MemoryNetwork, client: Client, peer: Peer) -> None:
        peer.ignore.add("Confirm.Select")
        other = open_channel(network, client.protocol)
        selected: list[Any] = []
        other.channel.confirm_delivery(other.answered, callback=selected.append)
        network.flush()
        assert (selected, peer.confirming(2)) == ([], False)
        peer.select_ok(2)
        network.flush()
        assert (len(selected), peer.confirming(2)) == (1, True)

    def test_a_drop_is_a_clean_close_and_an_abort_a_reset(self, network: MemoryNetwork) -> None:
        for abort, expected in ((False, ConnectionDone), (True, ConnectionLost)):
            raw = attach(network)
            network.peer.drop(abort=abort)
            network.flush()
            assert raw.lost is not None
            assert raw.lost.type is expected

    def test_garbage_is_written_as_it_is(self, network: MemoryNetwork, broker: Broker) -> None:
        broker.on_connect = lambda peer: peer.garbage(b"HTTP/1.1 400 Bad Request\r\n")
        raw = attach(network)
        assert raw.received == b"HTTP/1.1 400 Bad Request\r\n"

    def test_a_hook_may_answer_instead(self, network: MemoryNetwork, broker: Broker, client: Client) -> None:
        def nack(peer: Peer, published: Published) -> bool:
            peer.nack(published.channel, published.tag)
            return True

        broker.on_publish = nack
        client.publish()
        network.flush()
        assert client.answers == [("nack", 1, False)]


class TestViolations:
    @pytest.fixture
    def raw(self, network: MemoryNetwork) -> Raw:
        raw = attach(network)
        raw.shake(network)
        raw.send(network, 1, spec.Channel.Open(), spec.Confirm.Select())
        assert network.peer.violations == []
        return raw

    def close_code(self, raw: Raw) -> int:
        return int(next(method.reply_code for method in raw.methods if method.NAME == "Connection.Close"))

    def test_publishing_outside_confirm_mode(self, network: MemoryNetwork, raw: Raw) -> None:
        raw.send(network, 2, spec.Channel.Open())
        raw.write(network, *content(2))
        assert network.peer.violations == ["published on channel 2 outside confirm mode"]

    def test_publishing_before_select_ok(self, network: MemoryNetwork, raw: Raw) -> None:
        network.peer.ignore.add("Confirm.Select")
        raw.send(network, 2, spec.Channel.Open(), spec.Confirm.Select())
        raw.write(network, *content(2))
        assert network.peer.violations == ["published on channel 2 before SelectOk"]

    def test_publishing_on_a_channel_closed_by_the_client(self, network: MemoryNetwork, raw: Raw) -> None:
        raw.send(network, 1, spec.Channel.Close(200, "", 0, 0))
        raw.write(network, *content(1))
        assert network.peer.violations == ["Basic.Publish on channel 1, which is not open"]
        assert self.close_code(raw) == 504

    def test_publishing_after_close_ok(self, network: MemoryNetwork, raw: Raw) -> None:
        raw.write(network, *content(1, exchange="gone"))
        raw.write(network, *content(1))
        assert network.peer.violations == [], "before CloseOk it may have been under way"
        raw.send(network, 1, spec.Channel.CloseOk())
        raw.write(network, *content(1))
        assert network.peer.violations == ["Basic.Publish on channel 1, which is not open"]

    def test_a_frame_beyond_frame_max(self, network: MemoryNetwork, raw: Raw) -> None:
        raw.write(network, *content(1, b"x" * 4088))
        assert network.peer.violations == []
        assert len(network.peer.published) == 1
        raw.write(network, *content(1, b"x" * 4089))
        assert network.peer.violations == ["type 3, channel 1: frame of 4097 bytes, frame_max is 4096"]
        assert self.close_code(raw) == 501

    def test_a_method_within_content(self, network: MemoryNetwork, raw: Raw) -> None:
        raw.write(network, *content(1, b"ab", size=4), *content(1))
        assert network.peer.violations == ["Basic.Publish within the content of a publish on channel 1"]
        assert self.close_code(raw) == 505

    def test_contents_of_two_channels_may_interleave(self, network: MemoryNetwork, raw: Raw) -> None:
        raw.send(network, 2, spec.Channel.Open(), spec.Confirm.Select())
        one, two = content(1, b"one"), content(2, b"two")
        raw.write(network, *[frame for pair in zip(one, two, strict=True) for frame in pair])
        assert network.peer.violations == []
        assert [published.body for published in network.peer.published] == [b"one", b"two"]

    @pytest.mark.parametrize(
        ("indices", "kind", "expected"),
        [
            ([1], "Header", "method frame, got non method frame"),
            ([2], "Body", "method frame, got non method frame"),
            ([0, 2], "Body", "content header for class 60, got non content header frame"),
            ([0, 1, 1], "Header", "content body, got non content body frame"),
        ],
    )
    def test_content_out_of_order(
        self, network: MemoryNetwork, raw: Raw, indices: list[int], kind: str, expected: str
    ) -> None:
        frames_ = content(1, b"x")
        raw.write(network, *[frames_[index] for index in indices])
        assert network.peer.violations == [f"{kind} frame out of order on channel 1"]
        assert raw.methods[-1].reply_text == f"UNEXPECTED_FRAME - expected {expected} instead"

    def test_more_body_than_announced(self, network: MemoryNetwork, raw: Raw) -> None:
        raw.write(network, *content(1, b"xyz", size=2))
        assert network.peer.violations == ["body longer than its header says on channel 1"]

    @pytest.mark.parametrize(
        "data",
        [
            struct.pack(">BHI", 1, 1, 1) + b"xx",
            struct.pack(">BHI", 1, 1, 4) + b"\xff\xff\xff\xff\xce",
            struct.pack(">BHI", 9, 1, 0) + b"\xce",
            struct.pack(">BHI", 2, 1, 3) + b"abc\xce",
        ],
        ids=["no frame end", "unknown method", "unknown type", "short header"],
    )
    def test_a_malformed_frame(self, network: MemoryNetwork, raw: Raw, data: bytes) -> None:
        raw.write(network, data)
        [violation] = network.factory.violations
        assert violation.startswith("malformed frame")
        assert self.close_code(raw) == 501

    def test_a_wrong_protocol_header_is_answered_with_the_right_one(self, network: MemoryNetwork) -> None:
        raw = attach(network)
        raw.write(network, b"GET / HTTP/1.1\r\n")
        assert raw.received == b"AMQP\x00\x00\x09\x01"
        assert raw.lost is not None
        assert network.peer.violations == ["protocol header b'GET / HT'"]

    def test_a_frame_before_its_turn(self, network: MemoryNetwork) -> None:
        raw = attach(network)
        raw.write(network, frames.ProtocolHeader().marshal())
        raw.send(network, 1, spec.Channel.Open())
        assert network.peer.violations == ["Channel.Open instead of Connection.StartOk"]

    def test_a_channel_beyond_channel_max(self, network: MemoryNetwork, raw: Raw) -> None:
        raw.send(network, 11, spec.Channel.Open())
        assert network.peer.violations == ["channel 11, channel_max is 10"]

    def test_more_than_the_limits_asked_for(self, network: MemoryNetwork, broker: Broker) -> None:
        broker.channel_max = 5
        raw = attach(network)
        raw.shake(network)
        assert network.peer.violations == ["channel_max 10 asked for, 5 is the limit"]


@implementer(IPushProducer)
class Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class TestMemoryNetwork:
    @pytest.fixture
    def raw(self, network: MemoryNetwork) -> Raw:
        return attach(network)

    @pytest.fixture
    def transport(self, raw: Raw) -> Any:
        return raw.transport

    def test_its_transport_provides_what_tcp_does(self, transport: Any) -> None:
        assert verifyObject(ITCPTransport, transport)
        assert verifyObject(IConsumer, transport)
        assert verifyObject(IPushProducer, transport)
        assert (transport.getPeer().host, transport.getPeer().port) == ("127.0.0.1", 5672)

    def test_a_producer_is_paused_at_every_write_above_64_kib_and_resumed_once_sent(
        self, network: MemoryNetwork, transport: Any
    ) -> None:
        producer = Producer()
        transport.registerProducer(producer, True)
        network.peer.half_open()
        transport.write(b"x" * 65536)
        assert producer.calls == []
        transport.write(b"x")
        transport.write(b"x")
        network.flush()
        assert producer.calls == ["pause", "pause"]
        assert network.peer.bytes_received == 0
        network.peer.silence()
        network.peer.resume()
        network.flush()
        assert producer.calls == ["pause", "pause", "resume"]
        assert network.peer.bytes_received == 65538

    def test_a_close_waits_for_a_frozen_peer_and_an_abort_does_not(
        self, network: MemoryNetwork, raw: Raw, transport: Any
    ) -> None:
        network.peer.half_open()
        transport.write(b"AMQP")
        transport.loseConnection()
        network.advance(3600)
        assert raw.lost is None
        transport.abortConnection()
        network.flush()
        assert raw.lost is not None
        assert raw.lost.type is ConnectionAborted
        assert network.peer.lost is None, "a peer that does not read does not notice"
        network.peer.resume()
        network.flush()
        assert network.peer.lost.type is ConnectionLost

    def test_a_paused_producer_blocks_the_close_until_unregistered(
        self, network: MemoryNetwork, raw: Raw, transport: Any
    ) -> None:
        transport.registerProducer(Producer(), True)
        network.peer.silence()
        transport.write(b"x" * 70_000)
        transport.loseConnection()
        network.flush()
        assert raw.lost is None
        transport.unregisterProducer()
        network.flush()
        assert raw.lost is not None
        assert raw.lost.type is ConnectionDone

    def test_a_lost_connection_stops_the_producer(self, network: MemoryNetwork, transport: Any) -> None:
        producer = Producer()
        transport.registerProducer(producer, True)
        network.peer.drop(abort=True)
        network.flush()
        assert producer.calls == ["stop"]

    def test_an_exception_in_data_received_ends_the_connection(
        self, network: MemoryNetwork, raw: Raw, monkeypatch: pytest.MonkeyPatch, logged: Logged
    ) -> None:
        def fail(data: bytes) -> None:
            raise ValueError(len(data))

        monkeypatch.setattr(raw, "dataReceived", fail)
        network.peer.garbage(b"four")
        network.flush()
        assert raw.lost is not None
        assert raw.lost.type is ValueError
        assert len(logged.flush(ValueError)) == 1
        assert network.peer.lost is not None

    def test_refusals_and_timeouts_end_as_twisted_ends_them(self, network: MemoryNetwork) -> None:
        network.refuse_next()
        network.swallow_next()
        refused, swallowed, fine = (
            TCP4ClientEndpoint(network, "127.0.0.1", 5672, timeout=10).connect(Factory.forProtocol(Raw))
            for _ in range(3)
        )
        network.flush()
        assert isinstance(outcome(refused), ConnectionRefusedError)
        assert isinstance(outcome(fine), Raw)
        network.advance(9)
        assert outcome(swallowed) is None
        network.advance(1)
        timed_out: list[Any] = []
        swallowed.addErrback(timed_out.append)
        assert network.pending == []
        assert network.dialled == [(0.0, "127.0.0.1", 5672)] * 3

    def test_a_swallowed_attempt_can_be_cancelled(self, network: MemoryNetwork) -> None:
        network.swallow_next()
        connecting = HostnameEndpoint(network, "localhost", 5672).connect(Factory.forProtocol(Raw))
        failed: list[Failure] = []
        connecting.addErrback(failed.append)
        network.flush()
        connecting.cancel()
        network.flush()
        assert len(failed) == 1
        assert (network.pending, network.getDelayedCalls()) == ([], [])

    def test_a_hostname_that_does_not_answer_times_out(self, network: MemoryNetwork) -> None:
        network.swallow_next()
        connecting = HostnameEndpoint(network, "localhost", 5672, timeout=5).connect(Factory.forProtocol(Raw))
        failed: list[Failure] = []
        connecting.addErrback(failed.append)
        network.advance(5)
        assert [failure.type for failure in failed] == [TwistedTimeoutError]

    def test_a_reconnecting_factory_dials_again_by_the_clock(self, network: MemoryNetwork) -> None:
        factory: Any = ReconnectingClientFactory()
        factory.protocol, factory.clock, factory.noisy, factory.jitter = Raw, network, False, 0
        network.down = True
        network.connectTCP("broker", 5672, factory)
        network.advance(10)
        times = [time for time, _, _ in network.dialled]
        assert len(times) == 3
        assert times[1] == 1.0
        network.down = False
        network.advance(60)
        assert len(network.connections) == 1
        network.peer.drop()
        network.advance(60)
        assert len(network.factory.peers) == 2
        factory.stopTrying()

    def test_each_port_may_have_its_own_listener(self, network: MemoryNetwork) -> None:
        other = PeerFactory(Broker(), network)
        cast(Any, network).listenTCP(5673, other)
        for port in (5672, 5673, 5673):
            TCP4ClientEndpoint(network, "127.0.0.1", port).connect(Factory.forProtocol(Raw))
        network.flush()
        assert (len(network.factory.peers), len(other.peers)) == (1, 2)

    def test_a_listener_that_declines_hangs_up(self, network: MemoryNetwork) -> None:
        class Declining(Factory):
            def buildProtocol(self, addr: Any) -> None:
                assert addr.port >= 40000

        cast(Any, network).listenTCP(5674, Declining())
        raw = attach(network, 5674)
        assert raw.lost is not None


@pytest_twisted.ensureDeferred
async def test_the_peer_serves_real_tcp_too() -> None:
    real: Any = reactor
    factory = PeerFactory(Broker(queues={"text"}))
    port = real.listenTCP(0, factory, interface="127.0.0.1")
    try:
        protocol: Any = TwistedProtocolConnection(parameters(heartbeat=0), custom_reactor=real)
        await wire(TCP4ClientEndpoint(real, "127.0.0.1", port.getHost().port), protocol)
        await protocol.ready
        channel = await protocol.channel()
        await channel.confirm_delivery()
        await channel.basic_publish("", "text", b"hello")
        with pytest.raises(ChannelClosedByBroker):
            await channel.basic_publish("gone", "text", b"hello")
        await protocol.close()
    finally:
        await port.stopListening()
    assert [published.body for published in factory.peer.published] == [b"hello", b"hello"]
    assert factory.violations == []
