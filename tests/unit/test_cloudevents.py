"""CloudEvents to messages: the mapping, and everything that a sender can get wrong."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.errors import InvalidMessage
from pubd.intake.http.cloudevents import (
    Mode,
    from_headers,
    from_object,
    idempotency_key_of,
    mode_of,
)
from pubd.intake.http.event_attributes import epoch
from pubd.message import Message

REQUIRED = {"specversion": "1.0", "id": "A234-1234-1234", "source": "/mycontext", "type": "com.example.someevent"}
HEADERS = {f"ce-{name}": value for name, value in REQUIRED.items()}


def structured(**more: Any) -> Message:
    return from_object(REQUIRED | more, exchange="events")


def binary(body: bytes = b"", **more: str) -> Message:
    headers = HEADERS | {name.replace("_", "-"): value for name, value in more.items()}
    return from_headers(headers, body, exchange="events")


def refused(field: str, make: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(InvalidMessage) as caught:
        make(*arguments, **more)
    assert caught.value.field == field
    return caught.value.problem


# The content modes


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [
        ("", Mode.BINARY),
        ("application/json", Mode.BINARY),
        ("text/plain; charset=application/cloudevents+json", Mode.BINARY),
        ("application/cloudevents+json", Mode.STRUCTURED),
        ("Application/CloudEvents+JSON ; charset=UTF-8", Mode.STRUCTURED),
        ("application/cloudevents-batch+json", Mode.BATCH),
        ('application/cloudevents-batch+json;charset="utf-8"', Mode.BATCH),
        ("application/cloudevents+json; charset=utf-16", None),
        ("application/cloudevents", None),
        ("application/cloudevents+avro", None),
        ("application/cloudevents+protobuf", None),
        ("application/cloudevents-batch+xml", None),
    ],
)
def test_the_content_type_tells_the_mode(content_type: str, mode: Mode | None) -> None:
    assert mode_of(content_type) is mode


def test_binary_mode_is_the_binary_mode_of_amqp() -> None:
    message = binary(
        b"\x00\xff",
        content_type="application/vnd.apache.thrift.binary",
        ce_time="2018-04-05T17:31:00Z",
        ce_subject="larger%20context",
        ce_comexampleothervalue="5",
        x_other="not an attribute",
    )
    assert message == Message(
        exchange="events",
        routing_key="com.example.someevent",
        body=b"\x00\xff",
        content_type="application/vnd.apache.thrift.binary",
        headers={
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": "A234-1234-1234",
            "cloudEvents:source": "/mycontext",
            "cloudEvents:type": "com.example.someevent",
            "cloudEvents:time": "2018-04-05T17:31:00Z",
            "cloudEvents:subject": "larger context",
            "cloudEvents:comexampleothervalue": "5",
        },
        type="com.example.someevent",
        timestamp=1522949460,
        idempotency_key="cloudevents events /mycontext A234-1234-1234",
    )


def test_structured_mode_gives_the_same_message_as_binary_mode() -> None:
    data = {"appinfoA": "abc", "appinfoB": 123, "ä": [True, None]}
    attributes = {"time": "2018-04-05T17:31:00.123+02:00", "dataschema": "https://example.com/s#1", "comext": "value"}
    one = structured(**attributes, datacontenttype="application/json", data=data)
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {f"ce_{name}": value for name, value in attributes.items()}
    assert one == binary(body, content_type="application/json", **headers)


def test_typed_attributes_stay_typed_in_structured_mode() -> None:
    message = structured(number=-5, flag=True, text="5", unset=None, subject=None)
    assert message.headers is not None
    assert message.headers["cloudEvents:number"] == -5
    assert message.headers["cloudEvents:flag"] is True
    assert message.headers["cloudEvents:text"] == "5"
    assert {"cloudEvents:unset", "cloudEvents:subject"}.isdisjoint(message.headers)


@pytest.mark.parametrize(
    ("event", "body", "content_type"),
    [
        ({}, b"", None),
        ({"datacontenttype": "text/plain"}, b"", "text/plain"),
        ({"data": {"a": 1}}, b'{"a":1}', "application/json"),
        ({"data": "I'm just a string"}, b'"I\'m just a string"', "application/json"),
        ({"data": None}, b"null", "application/json"),
        ({"data": "<a/>", "datacontenttype": "application/xml"}, b"<a/>", "application/xml"),
        ({"data": "1", "datacontenttype": "application/vnd.x+json; v=1"}, b'"1"', "application/vnd.x+json; v=1"),
        ({"data": "é", "datacontenttype": "text/plain"}, "é".encode(), "text/plain"),
        ({"data": "é", "datacontenttype": "text/plain;charset=ISO-8859-1"}, b"\xe9", "text/plain;charset=ISO-8859-1"),
        ({"data": None, "datacontenttype": "text/plain"}, b"", "text/plain"),
        ({"data_base64": "AP8="}, b"\x00\xff", None),
        ({"data_base64": "", "datacontenttype": "image/png"}, b"", "image/png"),
        ({"data_base64": None, "data": 1}, b"1", "application/json"),
    ],
)
def test_data_becomes_the_body_as_its_type_says(event: dict[str, Any], body: bytes, content_type: str | None) -> None:
    message = structured(**event)
    assert (message.body, message.content_type) == (body, content_type)


# Routing key and idempotency key


def test_the_routing_key_can_be_given() -> None:
    message = from_headers(HEADERS, b"", exchange="", routing_key="a.b", idempotency_key="mine")
    assert (message.exchange, message.routing_key, message.idempotency_key) == ("", "a.b", "mine")
    assert from_object(REQUIRED, exchange="e", routing_key="").routing_key == ""


def test_a_type_too_long_for_a_routing_key_needs_one() -> None:
    long = REQUIRED | {"type": "é" * 128}
    assert "routing_key" in refused("type", from_object, long, exchange="e")
    message = from_object(long, exchange="e", routing_key="k")
    assert message.type is None
    assert message.headers is not None
    assert message.headers["cloudEvents:type"] == "é" * 128


@given(st.lists(st.tuples(st.text(max_size=5), st.text("/ab%20", max_size=300), st.text(max_size=300)), max_size=5))
def test_idempotency_keys_tell_events_apart(events: list[tuple[str, str, str]]) -> None:
    events = [(exchange, source.replace(" ", ""), id or "1") for exchange, source, id in events]
    keys = [idempotency_key_of(*event) for event in events]
    assert len(set(keys)) == len(set(events))
    assert all(len(key.encode()) <= 255 for key in keys)


def test_idempotency_keys_do_not_run_into_each_other() -> None:
    keys = [("e", "a", "b c"), ("e a", "b", "c"), ("e", "a/b", "c"), ("", "e", "a c"), ("e%20a", "b", "c")]
    assert len({idempotency_key_of(*one) for one in keys}) == len(keys)


# What a sender can get wrong


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_required_attribute_is_missing_or_empty(name: str) -> None:
    without = {key: value for key, value in REQUIRED.items() if key != name}
    assert "missing" in refused(name, from_object, without, exchange="e")
    assert "missing" in refused(name, from_object, without | {name: None}, exchange="e")
    assert "empty" in refused(name, from_object, without | {name: ""}, exchange="e")
    headers = {f"ce-{key}": value for key, value in without.items()}
    assert f"ce-{name}" in refused(name, from_headers, headers, b"", exchange="e")
    assert "empty" in refused(name, from_headers, headers | {f"ce-{name}": ""}, b"", exchange="e")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("specversion", "0.3", "1.0"),
        ("specversion", 1.0, "a number"),
        ("specversion", 1, "a number"),
        ("id", 7, "a number"),
        ("id", "a\nb", "U+000A"),
        ("id", "\x85", "U+0085"),
        ("id", "\ufffe", "U+FFFE"),
        ("id", "\U0010ffff", "U+10FFFF"),
        ("id", "x" * 131073, "longer than one frame"),
        ("source", "has space", "URI"),
        ("source", "ünïcode", "URI"),
        ("source", "a%2", "URI"),
        ("source", "a#b#c", "URI"),
        ("source", "1:2", "URI"),
        ("source", "http://[::1", "URI"),
        ("source", "<x>", "URI"),
        ("type", ["a"], "an array"),
        ("subject", "", "empty"),
        ("subject", True, "a boolean"),
        ("dataschema", "", "empty"),
        ("dataschema", "/relative", "URI"),
        ("datacontenttype", "", "empty"),
        ("datacontenttype", "json", "media type"),
        ("datacontenttype", "text/plain; charset", "media type"),
        ("datacontenttype", "text/plain\u00e4", "media type"),
        ("datacontenttype", "a/" + "b" * 254, "media type"),
        ("time", "", "empty"),
        ("time", 1522949460, "a number"),
        ("time", "yesterday", "RFC 3339"),
        ("time", "2018-04-05 17:31:00Z", "RFC 3339"),
        ("time", "2018-04-05T17:31:00", "RFC 3339"),
        ("time", "2018-04-05T17:31Z", "RFC 3339"),
        ("time", "2018-02-30T00:00:00Z", "calendar"),
        ("time", "2018-04-05T24:00:00Z", "calendar"),
        ("time", "2018-04-05T17:31:61Z", "calendar"),
        ("time", "2018-04-05T17:31:00+24:00", "offset"),
        ("time", "٢٠١٨-04-05T17:31:00Z", "RFC 3339"),
        ("ext", 2**31, "out of range"),
        ("ext", -(2**31) - 1, "out of range"),
        ("ext", 1.5, "a number"),
        ("ext", {"a": 1}, "an object"),
        ("Ext", "x", "lower-case"),
        ("e_t", "x", "lower-case"),
        ("é", "x", "lower-case"),
        ("x" * 50, 1.5, ""),
        ("data_base64", 5, "a number"),
        ("data_base64", "AP8", "base64"),
        ("data_base64", "AP8=\n", "base64"),
        ("data_base64", "AP9=x", "base64"),
        ("data_base64", "é", "base64"),
    ],
)
def test_an_attribute_is_wrong_in_structured_mode(name: str, value: Any, says: str) -> None:
    assert says in refused(name, structured, **{name: value})


@pytest.mark.parametrize(
    ("event", "field", "says"),
    [
        ({"data": 1, "data_base64": ""}, "data_base64", "together"),
        ({"data": None, "data_base64": ""}, "data_base64", "together"),
        ({"data": {}, "datacontenttype": "text/plain"}, "data", "must be a string"),
        ({"data": "€", "datacontenttype": "text/plain; charset=us-ascii"}, "data", "index 0"),
        ({"data": "x", "datacontenttype": "text/plain; charset=idna"}, "datacontenttype", "charset"),
        ({"data": {}, "datacontenttype": "application/json; charset=latin-1"}, "datacontenttype", "UTF-8"),
        ({"x" * 300: "a"}, "x" * 40 + "...", "at most"),
        ({"": "a"}, "attributes", "lower-case"),
    ],
)
def test_an_event_is_wrong_in_structured_mode(event: dict[str, Any], field: str, says: str) -> None:
    assert says in refused(field, from_object, REQUIRED | event, exchange="e")


@pytest.mark.parametrize("event", [None, 1, "x", [], True, [REQUIRED]])
def test_what_is_no_object_is_no_event(event: Any) -> None:
    assert "JSON object" in refused("", from_object, event, exchange="e")


@pytest.mark.parametrize(
    ("header", "value", "field", "says"),
    [
        ("ce-datacontenttype", "text/plain", "datacontenttype", "Content-Type"),
        ("ce-data", "x", "data", "'data'"),
        ("ce-", "x", "attributes", "lower-case"),
        ("ce-my-ext", "x", "my-ext", "lower-case"),
        ("ce-id", "100%", "id", "%25"),
        ("ce-id", "%C0%A0", "id", "UTF-8"),
        ("ce-id", "\xe9", "id", "UTF-8"),
        ("ce-id", "%00", "id", "U+0000"),
        ("ce-specversion", "1.0, 1.0", "specversion", "1.0"),
        ("content-type", "nonsense", "datacontenttype", "media type"),
        ("content-type", "text/pl\xe4in", "datacontenttype", "media type"),
        ("ce-time", "now", "time", "RFC 3339"),
    ],
)
def test_a_header_is_wrong_in_binary_mode(header: str, value: str, field: str, says: str) -> None:
    assert says in refused(field, from_headers, HEADERS | {header: value}, b"", exchange="e")


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41", "A"),
        ("%2541", "%41"),
        ('"quoted \\"string\\" %22"', 'quoted "string" "'),
        ('a "b c" d', "a b c d"),
        ("â\x82¬", "€"),  # UTF-8 as it came, read as Latin-1
        ("with space, comma", "with space, comma"),
    ],
)
def test_header_values_are_decoded_as_the_binding_says(value: str, meant: str) -> None:
    message = binary(ce_ext=value)
    assert message.headers is not None
    assert message.headers["cloudEvents:ext"] == meant


@pytest.mark.parametrize(
    "source",
    [
        "https://github.com/cloudevents",
        "mailto:cncf-wg-serverless@lists.cncf.io",
        "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "/cloudevents/spec/pull/123",
        "1-555-123-4567",
        "//host/path",
        "http://user:pw@[2001:db8::1]:8080/a?b=c/d?e#f?g",
        "?only=query",
        "#fragment",
        "a/b:c",
        "%41",
    ],
)
def test_any_uri_reference_is_a_source(source: str) -> None:
    assert structured(source=source).headers is not None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("2018-04-05t17:31:00.999999999z", 1522949460),
        ("2018-04-05T17:31:00+02:30", 1522940460),
        ("2018-04-05T17:31:00-00:30", 1522951260),
        ("2016-12-31T23:59:60Z", 1483228800),
        ("9999-12-31T23:59:59-23:59", 253402387139),
    ],
)
def test_times_become_seconds(text: str, seconds: int | None) -> None:
    assert epoch(text) == seconds
    assert structured(time=text).timestamp == seconds


@pytest.mark.parametrize("part", ["a", "%41", "/", ":", "a:", "//", "@", "?", "%4", "[", "a@"])
def test_no_uri_takes_long(part: str) -> None:
    """If it grew with the square, this would not end within the patience that any test has."""
    refused("source", structured, source=part * (2_000_000 // len(part)) + " ")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from([*REQUIRED, "subject", "time", "datacontenttype", "dataschema", "data", "data_base64", "ext"])


@given(st.dictionaries(_NAMES | st.text(max_size=6), _JSON | st.just("1.0"), max_size=8))
def test_whatever_comes_is_a_message_or_invalid_in_structured_mode(event: dict[str, Any]) -> None:
    for tried in (event, REQUIRED | event, {**event, **REQUIRED}):
        with contextlib.suppress(InvalidMessage):
            assert isinstance(from_object(tried, exchange="e"), Message)


_LATIN = st.text(st.characters(max_codepoint=255), max_size=20)


@given(st.dictionaries(_NAMES.map("ce-{}".format) | _LATIN.map("ce-{}".format) | st.just("content-type"), _LATIN))
def test_whatever_comes_is_a_message_or_invalid_in_binary_mode(headers: dict[str, str]) -> None:
    for tried in (headers, HEADERS | headers, {**headers, **HEADERS}):
        with contextlib.suppress(InvalidMessage):
            assert isinstance(from_headers(tried, b"", exchange="e"), Message)


def test_base64_data_comes_through_as_it_was() -> None:
    data = bytes(range(256))
    assert structured(data_base64=base64.b64encode(data).decode()).body == data
