"""Frames: octet for octet those of pika, for every message that can be made; nothing half when something is wrong."""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika.connection
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import frame
from pika.spec import Basic, BasicProperties

from pubd.amqp.encode import FrameEncoder, decode_properties, encode_properties, thaw
from pubd.entry import Entry
from pubd.errors import InvalidMessage, InvalidOption
from pubd.message import Message
from tests.tampering import tamper

# A loaded machine is no reason to fail.
unhurried = settings(deadline=None)

PROPERTIES = [
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=63)
names = texts.filter(lambda text: text not in ("CC", "BCC", "amq.rabbitmq.reply-to"))
decimals = st.builds(
    lambda mantissa, places: Decimal((mantissa < 0, tuple(map(int, str(abs(mantissa)))), -places)),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 255),
)
moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30), timezones=st.timezones())
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**31) - 1, 2**31),
    texts,
    st.binary(max_size=40),
    decimals,
    moments,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
tables = st.fixed_dictionaries({}, optional={"CC": st.lists(texts, max_size=3), "BCC": st.lists(texts, max_size=3)})
headers = st.builds(lambda table, routes: {**table, **routes}, st.dictionaries(names, values, max_size=5), tables)
valid = {
    "routing_key": texts,
    "body": st.binary(max_size=200),
    "content_type": texts,
    "content_encoding": texts,
    "headers": headers,
    "delivery_mode": st.sampled_from([1, 2]),
    "priority": st.integers(0, 255),
    "correlation_id": texts,
    "reply_to": names,
    "expiration": st.integers(0, 315_360_000_000).map(str),
    "message_id": texts,
    "timestamp": st.integers(0, 2**64 - 1),
    "type": texts,
    "user_id": texts,
    "app_id": texts,
    "cluster_id": texts,
    "mandatory": st.booleans(),
}
exchanges = texts.filter(lambda text: not set("\r\n") & set(text))
messages = st.fixed_dictionaries({"exchange": exchanges}, optional=valid)

anything = st.one_of(
    scalars,
    st.text(max_size=300),
    st.floats(),
    st.binary(max_size=300),
    st.decimals(),
    st.datetimes(),
    st.integers(),
    st.lists(st.floats() | st.text() | st.none(), max_size=3),
    st.dictionaries(st.text() | st.integers() | st.none(), st.floats() | st.text() | values, max_size=3),
    st.sampled_from([object(), {1}, 10**400, 2**64, -1, 256, Decimal("NaN"), "\ud800", "x" * 256, range(3), int]),
)


def by_pika(message: Message, message_id: str, delivery_mode: int) -> BasicProperties:
    fields = {name: thaw(getattr(message, name)) for name in PROPERTIES}
    return BasicProperties(**{**fields, "message_id": message_id, "delivery_mode": delivery_mode})


class Wire(pika.connection.Connection):  # type: ignore[misc]  # pika ships no types
    """pika's own sender of messages, with nothing behind it."""

    def __init__(self, frame_max: int) -> None:
        # Nothing of the connection but what _send_message() reads.
        self._body_max_length = frame_max - 8
        self.sent = b""

    def _output_marshaled_frames(self, marshaled_frames: list[bytes]) -> None:
        self.sent += b"".join(marshaled_frames)


for _abstract in pika.connection.Connection.__abstractmethods__:
    setattr(Wire, _abstract, None)
Wire.__abstractmethods__ = frozenset()


def entry(message: Message, *, mandatory: bool = True, message_id: str = "id-1") -> Entry:
    return Entry(
        id="1",
        exchange=message.exchange,
        routing_key=message.routing_key,
        message_id=message_id,
        mandatory=mandatory,
        properties=encode_properties(message, message_id=message_id, delivery_mode=2),
        body=message.body,
    )


@unhurried
@given(fields=messages, message_id=texts, delivery_mode=st.sampled_from([1, 2]))
def test_properties_are_octet_for_octet_those_of_pika(
    fields: dict[str, Any], message_id: str, delivery_mode: int
) -> None:
    message = Message(**fields)
    ours = encode_properties(message, message_id=message_id, delivery_mode=delivery_mode)
    assert ours == b"".join(by_pika(message, message_id, delivery_mode).encode())


@unhurried
@given(fields=messages, message_id=texts, delivery_mode=st.sampled_from([1, 2]))
def test_decoded_properties_are_those_that_were_encoded(
    fields: dict[str, Any], message_id: str, delivery_mode: int
) -> None:
    message = Message(**fields)
    properties = encode_properties(message, message_id=message_id, delivery_mode=delivery_mode)
    given = {name: thaw(getattr(message, name)) for name in PROPERTIES}
    given.update(message_id=message_id, delivery_mode=delivery_mode)
    assert decode_properties(properties) == {name: value for name, value in given.items() if value is not None}


@unhurried
@given(
    fields=messages,
    channel=st.integers(1, 65535),
    frame_max=st.integers(4096, 9000),
    size=st.integers(0, 30_000),
    mandatory=st.booleans(),
)
def test_frames_are_octet_for_octet_those_of_pika(
    fields: dict[str, Any], channel: int, frame_max: int, size: int, mandatory: bool
) -> None:
    message = Message(**{**fields, "body": bytes(size)})
    encoder = FrameEncoder(channel, frame_max)
    accepted = entry(message, mandatory=mandatory)
    method = Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=mandatory)
    wire = Wire(frame_max)
    wire._send_message(channel, method, (by_pika(message, "id-1", 2), message.body))
    if len(accepted.properties) > frame_max - 20:
        with pytest.raises(InvalidMessage):
            encoder.publish(accepted)
        return
    assert encoder.publish(accepted) == wire.sent
    assert encoder.publish(accepted) == wire.sent  # now from the remembered method frame


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177])
def test_bodies_are_split_at_frame_max_less_eight(size: int) -> None:
    sent = FrameEncoder(1, 4096).publish(entry(Message(exchange="x", body=bytes(size))))
    sizes = []
    while sent:
        used, decoded = frame.decode_frame(sent)
        assert used <= 4096
        if isinstance(decoded, frame.Body):
            sizes.append(len(decoded.fragment))
        sent = sent[used:]
    assert sum(sizes) == size
    assert all(part == 4088 for part in sizes[:-1])
    assert 0 not in sizes


def test_without_a_frame_max_a_body_is_one_frame() -> None:
    message = Message(exchange="x", body=bytes(1_000_000))
    wire = Wire(2_000_000)
    wire._send_message(1, Basic.Publish(exchange="x", mandatory=True), (by_pika(message, "id-1", 2), message.body))
    assert FrameEncoder(1, 0).publish(entry(message)) == wire.sent


@pytest.mark.parametrize("frame_max", [1, 4095, -1])
def test_a_frame_max_below_that_of_amqp_is_refused(frame_max: int) -> None:
    with pytest.raises(InvalidOption, match=f"frame_max is {frame_max}; .* 4096"):
        FrameEncoder(1, frame_max)


def test_a_header_frame_of_exactly_frame_max_is_sent_and_one_octet_more_is_refused() -> None:
    encoder = FrameEncoder(1, 4096)
    accepted = entry(Message(exchange="x"))
    accepted.properties = bytes(4096 - 20)
    sent = encoder.publish(accepted)
    method, _ = frame.decode_frame(sent)
    assert len(sent) - method == 4096
    accepted.properties = bytes(4096 - 19)
    with pytest.raises(InvalidMessage, match=r"4077 bytes, over the 4076 .*frame_max 4096"):
        encoder.publish(accepted)


def test_more_keys_than_are_remembered_are_all_sent_to_their_own() -> None:
    encoder = FrameEncoder(1, 4096)
    accepted = entry(Message(exchange="x"))
    for number in [*range(2000), *range(2000)]:
        accepted.routing_key = f"key.{number}"
        _, method = frame.decode_frame(encoder.publish(accepted))
        assert isinstance(method, frame.Method)
        assert method.method.routing_key == f"key.{number}"
    assert len(encoder._methods) <= 1024


@pytest.mark.parametrize("field", ["exchange", "routing_key"])
@pytest.mark.parametrize("value", ["x" * 256, "\ud800", 7])
def test_a_name_that_got_around_the_checks_is_refused_whole(field: str, value: Any) -> None:
    accepted = entry(Message(exchange="x"))
    setattr(accepted, field, value)
    with pytest.raises(InvalidMessage) as caught:
        FrameEncoder(1, 4096).publish(accepted)
    assert caught.value.field == field


@settings(max_examples=300, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(sorted(valid)), anything, max_size=3), exchange=anything | exchanges)
def test_whatever_is_handed_in_is_refused_or_can_be_encoded(fields: dict[str, Any], exchange: Any) -> None:
    try:
        message = Message(exchange=exchange, **fields)
    except InvalidMessage:
        return
    accepted = entry(message)
    assert FrameEncoder(1, 131072).publish(accepted)
    assert accepted.properties == b"".join(by_pika(message, "id-1", 2).encode())
    assert repr(message)


@unhurried
@given(decimal_value=decimals, precision=st.integers(1, 6))
def test_the_applications_decimal_context_changes_nothing(decimal_value: Decimal, precision: int) -> None:
    message = Message(exchange="x", headers={"d": decimal_value})
    expected = b"".join(by_pika(message, "", 1).encode())
    with decimal.localcontext(decimal.Context(prec=precision, traps=[decimal.Inexact, decimal.Rounded])):
        assert encode_properties(message, message_id="", delivery_mode=1) == expected


def smuggled(field: str, value: Any) -> Message:
    message = Message(exchange="x", app_id="a", headers={"a": 1})
    tamper(message, field, value)
    return message


@pytest.mark.parametrize(("field", "value"), [("expiration", "soon"), ("user_id", "other"), ("headers", {"CC": "a"})])
def test_what_got_around_the_checks_is_encoded_as_it_is(field: str, value: Any) -> None:
    properties = encode_properties(smuggled(field, value), message_id="m", delivery_mode=2)
    assert decode_properties(properties)[field] == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expiration", "x" * 256),
        ("expiration", 5),
        ("content_type", "\ud800"),
        ("priority", 256),
        ("priority", "high"),
        ("timestamp", -1),
        ("timestamp", 2**64),
        ("headers", {"f": 1.5}),
        ("headers", {"list": [1]}),
        ("headers", {"n": 2**63}),
        ("headers", {"d": Decimal("NaN")}),
        ("headers", {1: 1}),
        ("headers", 7),
    ],
)
def test_what_got_around_the_checks_and_cannot_be_encoded_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidMessage, match="cannot be encoded") as caught:
        encode_properties(smuggled(field, value), message_id="m", delivery_mode=2)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "stamp"),
    [
        ("message_id", {"message_id": "x" * 256, "delivery_mode": 2}),
        ("message_id", {"message_id": None, "delivery_mode": 2}),
        ("delivery_mode", {"message_id": "m", "delivery_mode": 256}),
        ("delivery_mode", {"message_id": "m", "delivery_mode": -1}),
        ("delivery_mode", {"message_id": "m", "delivery_mode": None}),
    ],
)
def test_a_stamp_that_cannot_be_encoded_is_refused_by_name(field: str, stamp: Any) -> None:
    with pytest.raises(InvalidMessage) as caught:
        encode_properties(Message(exchange="x"), **stamp)
    assert caught.value.field == field


class Fickle(Mapping[str, Any]):
    """Fails at the first look and never again."""

    def __init__(self) -> None:
        self.asked = 0

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError
        return iter(())

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)


def test_a_failure_that_does_not_repeat_is_still_a_refusal() -> None:
    with pytest.raises(InvalidMessage, match=r"properties: cannot be encoded for AMQP \(RuntimeError\)"):
        encode_properties(smuggled("headers", Fickle()), message_id="m", delivery_mode=2)


@unhurried
@given(st.binary(max_size=60))
def test_octets_that_are_no_properties_are_refused_when_decoded(octets: bytes) -> None:
    try:
        decoded = decode_properties(octets)
    except InvalidMessage:
        return
    assert set(decoded) <= set(PROPERTIES)


def test_the_fourteen_properties_are_decoded_by_their_names() -> None:
    message = Message(
        exchange="x",
        content_type="text/plain",
        content_encoding="gzip",
        headers={"a": (1, {"b": b"c"}), "t": datetime(2026, 1, 1, tzinfo=UTC)},
        priority=0,
        correlation_id="c",
        reply_to="r",
        expiration="0",
        timestamp=0,
        type="t",
        user_id="u",
        app_id="",
        cluster_id="i",
    )
    decoded = decode_properties(encode_properties(message, message_id="m", delivery_mode=1))
    assert list(decoded) == PROPERTIES
    assert decoded["headers"] == {"a": [1, {"b": b"c"}], "t": datetime(2026, 1, 1, tzinfo=UTC)}
    assert (decoded["priority"], decoded["timestamp"], decoded["app_id"], decoded["delivery_mode"]) == (0, 0, "", 1)
