"""JSON to messages: what is taken, what is refused with which field and words, and that no error tells a payload."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from pubd.errors import InvalidMessage
from pubd.fields import MAX_DEPTH
from pubd.intake import strict_json, wire
from pubd.message import Message

PAYLOAD = "s3cret-payload"


def refused(raw: bytes | str, **limits: int) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as caught:
        wire.decode(raw if isinstance(raw, bytes) else raw.encode(), **limits)
    assert PAYLOAD not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def decoded(**given: Any) -> Message:
    return wire.decode(json.dumps({"exchange": "x"} | given).encode())


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


# the JSON text, the field in the error, words of the error
NO_JSON: list[tuple[bytes, list[str]]] = [
    (b"", ["empty", "one JSON object"]),
    (b" \n", ["empty"]),
    (b"{", ["ends too early"]),
    (b'{"exchange":"x"', ["ends too early"]),
    (b'{"exchange":"x', ["ends too early"]),
    (b'{"exchange":"x"}}', ["trailing characters (byte"]),
    (b'{"exchange":"x"}{"exchange":"y"}', ["trailing characters"]),
    (b'{"exchange":"x",}', ["trailing comma"]),
    (b"{'exchange':'x'}", ["object keys must be strings"]),
    (b'{"exchange":"x"} // so', ["trailing characters"]),
    (b'{"exchange" "x"}', ["expected ':'"]),
    (b'{"priority":NaN}', ["invalid character (byte 12)"]),
    (b'{"priority":Infinity}', ["invalid character"]),
    (b'{"priority":-Infinity}', ["invalid character"]),
    (b'{"priority":01}', ["invalid number"]),
    (b'{"priority":+1}', ["invalid character"]),
    (b'{"priority":' + b"9" * 5000 + b"}", ["4300 digits", "string"]),
    (b'{"ttl":1e99999999999999999999}', ["too large", "string"]),
    (b'{"exchange":"a\nb"}', ["invalid character"]),
    (b'{"exchange":"a\x00b"}', ["invalid character"]),
    (b'{"exchange":"\\x41"}', ["invalid escape"]),
    (b'\xef\xbb\xbf{"exchange":"x"}', ["byte order mark", "without"]),
    ('{"exchange":"x"}'.encode("utf-16-le"), ["is no JSON"]),
    (b'{"exchange":"\xff"}', ["UTF-8", "base64"]),
    (b'{"exchange":"x","body":"s3cret-payload\xe4"}', ["UTF-8"]),
    (b'{"exchange":"\xed\xa0\x80"}', ["UTF-8"]),
    (b'{"exchange":"\xc0\xaf"}', ["UTF-8"]),
    (b'{"\xff":1}', ["UTF-8"]),
    (b'{"exchange":"\\ud800"}', ["surrogate"]),
    (b'{"exchange":"\\udc00\\ud800"}', ["surrogate"]),
    (b'{"\\ud800":1}', ["surrogate"]),
    (b"null", ["one JSON object, not null"]),
    (b"[]", ["one JSON object, not an array"]),
    (b'"text"', ["not a string"]),
    (b"1", ["not a number"]),
    (b"true", ["not a boolean"]),
    (b"[" * 100_000, ["deeper than 32"]),
    (b'{"a":' * 100_000, ["deeper than 32"]),
    (nested(strict_json.MAX_LEVELS + 1).encode(), ["deeper than 32"]),
    (b'{"a":' + nested(strict_json.MAX_LEVELS).encode() + b"}", ["deeper than 32"]),
    (b'{"a":' * 200 + b"1" + b"}" * 200, ["deeper than 32"]),
]


@pytest.mark.parametrize(("raw", "words"), NO_JSON, ids=lambda value: repr(value)[:40])
def test_what_is_no_json_object_is_refused_as_a_whole(raw: bytes, words: list[str]) -> None:
    error = refused(raw)
    assert error.field == ""
    for word in words:
        assert word in error.problem


X = '"exchange":"x",'
REFUSED: list[tuple[str, str, list[str]]] = [
    ("{}", "exchange", ["missing", "default exchange"]),
    ('{"body":"a"}', "exchange", ["missing"]),
    # Unknown keys.
    (f'{{{X}"exchnage":"y"}}', "exchnage", ["did you mean exchange?"]),
    (f'{{{X}"Routing-Key":"y"}}', "Routing-Key", ["did you mean routing_key?"]),
    (f'{{{X}"payload":"y"}}', "payload", ["no key of a message", "remove"]),
    (f'{{{X}"wait":"confirmed"}}', "wait", ["no key of a message"]),
    (f'{{{X}"":1}}', "", ["no key of a message"]),
    (f'{{{X}"{"n" * 300}":1}}', "n" * 40 + "...", ["no key of a message"]),
    (f'{{{X}"a\\nb":1}}', "'a\\nb'", ["no key of a message"]),
    (f'{{{X}"self":1}}', "self", ["no key of a message"]),
    # The same key again, at every depth; also where colons in strings would hide it.
    (f'{{{X}"exchange":"x"}}', "exchange", ["twice"]),
    (f'{{{X}"exchange":"a\\u003a"}}', "exchange", ["twice"]),
    (f'{{{X}"exchange":"a\\u003A:"}}', "exchange", ["twice"]),
    (f'{{{X}"ex\\u0063hange":"y"}}', "exchange", ["twice"]),
    (f'{{{X}"body":"a:b:c","body":"{PAYLOAD}"}}', "body", ["twice"]),
    (f'{{{X}"headers":{{"a":1,"a":1}}}}', "headers['a']", ["twice"]),
    (f'{{{X}"headers":{{"b":[0,{{"a":1,"a":1}}]}}}}', "headers['b'][1]['a']", ["twice"]),
    (f'{{{X}"body_json":[{{"a:b":{{"a":1,"a":1}}}}]}}', "body_json[0]['a:b']['a']", ["twice"]),
    (f'{{{X}"body_json":{{"":1,"":2}}}}', "body_json['']", ["twice"]),
    (f'{{{X}"headers":{{"{"n" * 99}":1,"{"n" * 99}":1}}}}', f"headers['{'n' * 40}...']", ["twice"]),
    (f'{{{X}"a b":1,"a b":1}}', "['a b']", ["twice"]),
    # Types, in the words of JSON.
    ('{"exchange":null}', "exchange", ["must be a string, not null"]),
    ('{"exchange":1}', "exchange", ["must be a string, not a number"]),
    ('{"exchange":["x"]}', "exchange", ["must be a string, not an array"]),
    (f'{{{X}"routing_key":null}}', "routing_key", ["must be a string, not null"]),
    (f'{{{X}"routing_key":true}}', "routing_key", ["must be a string, not a boolean"]),
    (f'{{{X}"content_type":{{}}}}', "content_type", ["must be a string, not an object"]),
    (f'{{{X}"message_id":7}}', "message_id", ["must be a string, not a number"]),
    (f'{{{X}"expiration":60000}}', "expiration", ["must be a string, not a number"]),
    (f'{{{X}"expiration":"1m"}}', "expiration", ["digits", "'60000'"]),
    (f'{{{X}"idempotency_key":7}}', "idempotency_key", ["must be a string, not a number"]),
    (f'{{{X}"mandatory":"true"}}', "mandatory", ["must be true or false, not a string"]),
    (f'{{{X}"mandatory":1}}', "mandatory", ["must be true or false, not a number"]),
    (f'{{{X}"priority":"5"}}', "priority", ["must be a whole number, not a string"]),
    (f'{{{X}"priority":true}}', "priority", ["must be a whole number, not a boolean"]),
    (f'{{{X}"priority":5.0}}', "priority", ["must be a whole number"]),
    (f'{{{X}"priority":256}}', "priority", ["0 to 255"]),
    (f'{{{X}"priority":-1}}', "priority", ["0 to 255"]),
    (f'{{{X}"priority":{"9" * 4000}}}', "priority", ["0 to 255"]),
    (f'{{{X}"delivery_mode":3}}', "delivery_mode", ["1 (transient)"]),
    (f'{{{X}"delivery_mode":true}}', "delivery_mode", ["a whole number, not a boolean"]),
    (f'{{{X}"headers":[]}}', "headers", ["must be an object, not an array"]),
    (f'{{{X}"headers":"a=b"}}', "headers", ["must be an object, not a string"]),
    (f'{{"exchange":"{"x" * 256}"}}', "exchange", ["256 bytes"]),
    ('{"exchange":"a\\nb"}', "exchange", ["line break"]),
    (f'{{{X}"reply_to":"amq.rabbitmq.reply-to"}}', "reply_to", ["consumer"]),
    # Times.
    (f'{{{X}"timestamp":1.5}}', "timestamp", ["whole seconds"]),
    (f'{{{X}"timestamp":1700000000.0}}', "timestamp", ["whole seconds"]),
    (f'{{{X}"timestamp":true}}', "timestamp", ["whole seconds", "not a boolean"]),
    (f'{{{X}"timestamp":-1}}', "timestamp", ["out of range"]),
    (f'{{{X}"timestamp":18446744073709551616}}', "timestamp", ["out of range"]),
    (f'{{{X}"timestamp":"1700000000"}}', "timestamp", ["RFC 3339"]),
    (f'{{{X}"timestamp":"2026-11-23T12:00:00"}}', "timestamp", ["offset from UTC"]),
    (f'{{{X}"timestamp":"2026-11-23T12:00:60Z"}}', "timestamp", ["RFC 3339"]),
    (f'{{{X}"timestamp":"2026-02-30T12:00:00Z"}}', "timestamp", ["RFC 3339"]),
    (f'{{{X}"timestamp":"2026-W01-1T12:00:00Z"}}', "timestamp", ["RFC 3339"]),
    (f'{{{X}"timestamp":"1969-12-31T23:59:59Z"}}', "timestamp", ["1970"]),
    (f'{{{X}"timestamp":"0001-01-01T00:00:00+23:59"}}', "timestamp", ["1970"]),
    (f'{{{X}"not_before":"soon"}}', "not_before", ["RFC 3339"]),
    (f'{{{X}"not_before":-1}}', "not_before", ["out of range"]),
    (f'{{{X}"not_before":1e300}}', "not_before", ["out of range"]),
    (f'{{{X}"not_before":99999999999}}', "not_before", ["number of seconds", "less than 68719476736"]),
    (f'{{{X}"ttl":1e308}}', "ttl", ["number of seconds", "less than 68719476736"]),
    (f'{{{X}"not_before":false}}', "not_before", ["not a boolean"]),
    (f'{{{X}"not_before":1,"delay":1}}', "not_before", ["together with delay"]),
    (f'{{{X}"delay":"5 parsecs"}}', "delay", ["unknown unit", "ms, s, m, h, d, w"]),
    (f'{{{X}"delay":"m5"}}', "delay", ["duration", '"5m"']),
    (f'{{{X}"delay":""}}', "delay", ["duration"]),
    (f'{{{X}"delay":"-5m"}}', "delay", ["duration"]),
    (f'{{{X}"delay":"{"1s" * 200}"}}', "delay", ["duration"]),
    (f'{{{X}"delay":"99999w"}}', "delay", ["11574 days"]),
    (f'{{{X}"delay":-1}}', "delay", ["0 or more"]),
    (f'{{{X}"delay":1e400}}', "delay", ["0 or more"]),
    (f'{{{X}"delay":[]}}', "delay", ["duration", "not an array"]),
    (f'{{{X}"ttl":true}}', "ttl", ["duration", "not a boolean"]),
    (f'{{{X}"ttl":0}}', "ttl", ["more than 0"]),
    (f'{{{X}"ttl":"1m","delay":"1h"}}', "ttl", ["not longer than delay"]),
    # Bodies.
    (f'{{{X}"body":1}}', "body", ["must be a string", "body_json", "not a number"]),
    (f'{{{X}"body":{{"a":"{PAYLOAD}"}}}}', "body", ["body_json", "not an object"]),
    (f'{{{X}"body":"{PAYLOAD}","body_base64":"YQ=="}}', "body_base64", ["beside another body"]),
    (f'{{{X}"body":"","body_base64":""}}', "body_base64", ["beside another body"]),
    (f'{{{X}"body":"","body_json":null}}', "body_json", ["beside another body"]),
    (f'{{{X}"body_base64":"YQ==","body_json":1}}', "body_json", ["beside another body"]),
    (f'{{{X}"body_base64":1}}', "body_base64", ["must be a string of base64, not a number"]),
    *(
        (f'{{{X}"body_base64":"{text}"}}', "body_base64", ["no base64", "RFC 4648"])
        for text in (
            "YQ",
            "YQ=",
            "YQ===",
            "Y",
            "=",
            "====",
            "YQ==YQ==",
            "YQ==\\n",
            "Y Q=",
            "-_-_",
            "Yé==",
            "s3cret-payload",
        )
    ),
    (f'{{{X}"body_json":{nested(MAX_DEPTH + 1)}}}', "body_json", ["deeper than 32"]),
    # Headers.
    (f'{{{X}"headers":{{"a":1.5}}}}', "headers['a']", ["fraction", "$decimal"]),
    (f'{{{X}"headers":{{"a":[1e3]}}}}', "headers['a'][0]", ["exponent"]),
    (f'{{{X}"headers":{{"a":9223372036854775808}}}}', "headers['a']", ["out of range", "9223372036854775807"]),
    (f'{{{X}"headers":{{"a":{{"b":[-9223372036854775809]}}}}}}', "headers['a']['b'][0]", ["out of range"]),
    (f'{{{X}"headers":{{"CC":"a"}}}}', "headers['CC']", ["list of routing keys"]),
    (f'{{{X}"headers":{{"BCC":["a",1]}}}}', "headers['BCC'][1]", ["must be a string"]),
    (f'{{{X}"headers":{{"{"n" * 256}":1}}}}', "headers", ["256 bytes"]),
    (f'{{{X}"headers":{{"a":"{"x" * 131072}"}}}}', "headers", ["one frame"]),
    (f'{{{X}"headers":{{"a":{nested(MAX_DEPTH + 1)}}}}}', "headers", ["deeper than 32"]),
    (f'{{{X}"headers":{{"$binary":"YQ=="}}}}', "headers", ["not one value"]),
    (f'{{{X}"headers":{{"$x":1}}}}', "headers['$x']", ["not known", "$binary, $timestamp, $decimal, $table"]),
    (f'{{{X}"headers":{{"a":{{"$x":1}}}}}}', "headers['a']['$x']", ["not known", "$table"]),
    (f'{{{X}"headers":{{"a":{{"$binary":"YQ==","b":1}}}}}}', "headers['a']", ["beside others", "$table"]),
    (f'{{{X}"headers":{{"a":{{"$table":[]}}}}}}', "headers['a']['$table']", ["an object, not an array"]),
    (f'{{{X}"headers":{{"a":{{"$binary":"YQ"}}}}}}', "headers['a']['$binary']", ["no base64"]),
    (f'{{{X}"headers":{{"a":{{"$binary":null}}}}}}', "headers['a']['$binary']", ["base64, not null"]),
    (f'{{{X}"headers":{{"a":{{"$timestamp":1.5}}}}}}', "headers['a']['$timestamp']", ["whole seconds"]),
    (f'{{{X}"headers":{{"a":{{"$timestamp":-1}}}}}}', "headers['a']['$timestamp']", ["out of range"]),
    (f'{{{X}"headers":{{"a":{{"$timestamp":253402300800}}}}}}', "headers['a']['$timestamp']", ["9999", "milliseconds"]),
    (f'{{{X}"headers":{{"a":{{"$timestamp":"today"}}}}}}', "headers['a']['$timestamp']", ["RFC 3339"]),
    (f'{{{X}"headers":{{"a":{{"$decimal":1.5}}}}}}', "headers['a']['$decimal']", ["a string", "not a number"]),
    *(
        (f'{{{X}"headers":{{"a":{{"$decimal":"{text}"}}}}}}', "headers['a']['$decimal']", ["no decimal number"])
        for text in (
            "",
            "NaN",
            "Infinity",
            "1,5",
            "1_0",
            " 1",
            ".5",
            "1.",
            "1e",
            "0x1",
            "\u0661",
            "1e9999999999",
            "1" * 5000,
        )
    ),
    *(
        (f'{{{X}"headers":{{"a":{{"$decimal":"{text}"}}}}}}', "headers['a']['$decimal']", ["does not fit", "string"])
        for text in ("2147483648", "1e10", "1e-256", "1e999999999", "1.0000000001")
    ),
]


@pytest.mark.parametrize(("raw", "field", "words"), REFUSED, ids=lambda value: repr(value)[:60])
def test_what_breaks_a_rule_is_refused_with_its_field(raw: str, field: str, words: list[str]) -> None:
    error = refused(raw)
    assert error.field == field
    for word in words:
        assert word in error.problem
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    "whole", ['{"exchange":"x","headers":{"a":[1,{"b":"c"}]},"body":"\\u00e9\\n"}', '{"exchange":"x"}']
)
def test_half_a_message_is_none(whole: str) -> None:
    raw = whole.encode()
    wire.decode(raw)
    for end in range(len(raw)):
        assert refused(raw[:end]).field == ""


def test_all_keys_are_taken() -> None:
    message = wire.decode(
        b'{"exchange": "orders", "routing_key": "order.new", "body": "text", "content_type": "application/json",'
        b'"headers": {"k": 1}, "priority": 5, "correlation_id": "c", "reply_to": "r", "expiration": "60000",'
        b'"message_id": "m", "timestamp": 1700000000, "type": "t", "user_id": "u", "app_id": "a", "cluster_id": "l",'
        b'"content_encoding": "e", "delivery_mode": 2, "mandatory": true,'
        b'"idempotency_key": "i", "delay": "5m", "ttl": "1h", "ordering_key": "o"}'
    )
    assert message == Message(
        exchange="orders",
        routing_key="order.new",
        body=b"text",
        content_type="application/json",
        headers={"k": 1},
        priority=5,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        user_id="u",
        app_id="a",
        cluster_id="l",
        content_encoding="e",
        delivery_mode=2,
        mandatory=True,
        idempotency_key="i",
        delay=300,
        ttl=3600,
        ordering_key="o",
    )


def test_null_is_as_if_the_key_were_not_there() -> None:
    optional = sorted(wire.KEYS - {"exchange", "routing_key", "body_json"})
    assert decoded(**dict.fromkeys(optional)) == Message(exchange="x")


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("null", b"null"),
        ('{ "a" : [ 1 , 2.50 , 1E400 , -0.0 ] }', b'{"a":[1,2.50,1E+400,-0.0]}'),
        ("123456789012345678901234567890", b"123456789012345678901234567890"),
        ("0.1000000000000000055511151231257827", b"0.1000000000000000055511151231257827"),
        ('"\\u00e4\\ud83d\\ude00\\u0000\\/"', '"ä😀\\u0000/"'.encode()),
        (nested(MAX_DEPTH), nested(MAX_DEPTH).encode()),
        ('{"$binary": 1, "exchange": {"a:b": "c:d"}}', b'{"$binary":1,"exchange":{"a:b":"c:d"}}'),
    ],
)
def test_body_json_is_sent_compact_with_numbers_as_they_were_written(text: str, body: bytes) -> None:
    message = wire.decode(f'{{"exchange":"x","body_json":{text}}}'.encode())
    assert message.body == body
    assert message.content_type == "application/json"


def test_body_json_keeps_another_content_type() -> None:
    assert decoded(body_json={}, content_type="application/problem+json").content_type == "application/problem+json"
    assert decoded(body_json={}, content_type=None).content_type == "application/json"
    assert decoded(body="{}").content_type is None


@pytest.mark.parametrize(("given", "body"), [("", b""), ("YQ==", b"a"), ("/+8=", b"\xff\xef"), ("AAAA", b"\0\0\0")])
def test_base64_is_decoded(given: str, body: bytes) -> None:
    assert decoded(body_base64=given).body == body


def test_text_is_sent_as_utf8() -> None:
    assert decoded(body="ä\0\U0001f600").body == "ä\0\U0001f600".encode()
    assert decoded().body == b""


@pytest.mark.parametrize(
    ("value", "seconds"), [(0, 0), (1.5, 1.5), ("90", 90), ("5m", 300), ("1h 30M", 5400), ("100ms", 0.1), ("0s", 0)]
)
def test_durations_are_numbers_or_text_with_units(value: object, seconds: float) -> None:
    assert decoded(delay=value).delay == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-15T00:13:20.25+02:00", 1_700_000_000.25),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_moments_are_numbers_or_rfc3339(value: object, seconds: float) -> None:
    assert decoded(not_before=value).not_before == seconds
    assert decoded(timestamp=value).timestamp == int(seconds)
    assert decoded(headers={"t": {"$timestamp": value}}).headers == {"t": datetime.fromtimestamp(int(seconds), UTC)}


def test_not_before_keeps_its_fraction_and_timestamp_its_64_bits() -> None:
    assert decoded(not_before=1_700_000_000.123).not_before == 1_700_000_000.123
    assert decoded(timestamp=2**64 - 1).timestamp == 2**64 - 1


def test_headers_have_the_types_of_amqp() -> None:
    message = wire.decode(
        b'{"exchange":"x","headers":{"text":"t","true":true,"int":2147483647,"long":2147483648,"null":null,'
        b'"list":[1,[],{}],"table":{"a":{"b":"c:d"}},"binary":{"$binary":"/w=="},"moment":{"$timestamp":1},'
        b'"decimal":{"$decimal":"-1.50"},"wrapped":{"$table":{"$binary":"t","n":{"$binary":""}}}}}'
    )
    assert message.headers == {
        "text": "t",
        "true": True,
        "int": 2**31 - 1,
        "long": 2**31,
        "null": None,
        "list": (1, (), {}),
        "table": {"a": {"b": "c:d"}},
        "binary": b"\xff",
        "moment": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        "decimal": Decimal("-1.50"),
        "wrapped": {"$binary": "t", "n": b""},
    }
    assert message.headers is not None
    assert message.headers["true"] is True


def test_the_limit_of_the_body_is_that_of_the_body_and_not_of_the_json() -> None:
    raw = b'{"exchange":"x","body_base64":"YWFhYQ=="}'
    assert wire.decode(raw, max_body=4).body == b"aaaa"
    for error in (refused(raw, max_body=3), *wire.decode_lines([raw], max_body=3)):
        assert isinstance(error, InvalidMessage)
        assert error.field == "body"
        assert "4 bytes, over the limit of 3" in error.problem
    with pytest.raises(InvalidMessage, match="over the limit"):
        wire.decode_object({"exchange": "x", "body": "aaaa"}, max_body=3)


def test_an_object_is_decoded_and_left_as_it_is() -> None:
    value = wire.loads(b'{"exchange":"x","body_json":{"a":1.50},"headers":{"a":{"$binary":"YQ=="}},"ttl":"1m"}')
    before = dict(value)
    assert wire.decode_object(value) == wire.decode_object(value)
    assert value == before
    assert wire.decode_object(value).body == b'{"a":1.50}'


def test_each_line_is_a_message_or_its_error() -> None:
    lines = [b'{"exchange":"a"}', b"", b'{"exchange":"b"}\r', b'{"exchange":1}', b'{"exchange":"c"']
    first, empty, second, wrong, half = wire.decode_lines(lines)
    assert (first, second) == (Message(exchange="a"), Message(exchange="b"))
    assert isinstance(wrong, InvalidMessage)
    assert wrong.field == "exchange"
    for error in (empty, wrong, half):
        assert isinstance(error, InvalidMessage)
        assert error.__traceback__ is None
    assert wire.decode_lines([]) == []


def test_values_of_the_configuration_are_refused_where_json_has_none_such() -> None:
    with pytest.raises(InvalidMessage, match=r"headers\['a'\]: is of type datetime"):
        wire.decode_object({"exchange": "x", "headers": {"a": datetime(2026, 1, 1, tzinfo=UTC)}})
    with pytest.raises(InvalidMessage, match=r"headers\['a'\]: is a number with a fraction"):
        wire.decode_object({"exchange": "x", "headers": {"a": 1.5}})
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(InvalidMessage, match="deeper"):
        wire.decode_object({"exchange": "x", "headers": deep})


@pytest.mark.parametrize(
    "piece",
    [b"[],", b"{},", b'"ab",', b"0,", b'{"a":0},', b'["a\\"",'],
    ids=["arrays", "objects", "texts", "numbers", "members", "deep"],
)
def test_memory_is_bounded_whatever_sixteen_mebibytes_of_json_hold(piece: bytes) -> None:
    raw = b'{"exchange":"x","body_json":[' + piece * (2**24 // len(piece)) + b"0]}"
    tracemalloc.start()
    try:
        error = refused(raw)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "1,000,000 values" in error.problem
    assert most < 3 * len(raw)


def test_a_large_text_may_have_as_many_commas_as_it_likes() -> None:
    body = ',[{"\\' * 400_000
    assert decoded(body=body).body == body.encode()


@pytest.mark.parametrize("piece", [b'"', b'\\"', b"\\", b'"\\'])
def test_a_text_without_an_end_is_refused_in_time_that_grows_with_its_size_only(piece: bytes) -> None:
    """If it grew with the square, this would not end within the patience that any test has."""
    refused(b'{"exchange":"' + b"," * 1_100_000 + piece * (2_000_000 // len(piece)))
