"""A message as JSON: whatever AMQP can carry survives it, and every line is JSON that others can read."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.entry import Entry
from pubd.fields import scaled
from pubd.intake import wire
from pubd.message import Message
from pubd.options import Options
from pubd.spool.ids import Ids
from pubd.submission import entry_of

NOW = 1_700_000_000.0


def entry(**given: Any) -> Entry:
    message = Message(**{"exchange": "x", "routing_key": "k"} | given)
    return entry_of(message, Ids(7, 0, lambda: NOW), Options(), NOW)


def encoded(**given: Any) -> dict[str, Any]:
    """As a reader of the line sees it, who is strict about JSON."""
    line = wire.dumps(wire.encode(entry(**given)))
    assert "\n" not in line
    assert line.encode("utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return read


def decoded(value: Any) -> Any:
    """What is meant by a value of a header: the rules of the module's docstring, and nothing else."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, dict):
        match list(value.items()):
            case [("$binary", text)]:
                return base64.b64decode(text, validate=True)
            case [("$timestamp", seconds)]:
                return datetime.fromtimestamp(seconds, UTC)
            case [("$decimal", text)]:
                return Decimal(text)
            case [("$table", table)]:
                return {name: decoded(item) for name, item in table.items()}
        assert not any(name.startswith("$") for name in value)
        return {name: decoded(item) for name, item in value.items()}
    return value


def test_a_plain_message_is_a_plain_object() -> None:
    one = entry(body=b"text")
    assert wire.encode(one) == {
        "exchange": "x",
        "routing_key": "k",
        "body": "text",
        "delivery_mode": 2,
        "message_id": one.id,
        "mandatory": True,
        "idempotency_key": one.id,
    }


@pytest.mark.parametrize("body", [b"", b"\x00", 'Grüße \u2028\n\r"'.encode(), b"{}"])
def test_text_is_given_as_text(body: bytes) -> None:
    message = encoded(body=body)
    assert message["body"].encode() == body
    assert "body_base64" not in message


@pytest.mark.parametrize("body", [b"\xff", b"ok\x80", "\ud800".encode("utf-8", "surrogatepass")])
def test_what_is_no_text_is_given_in_base64(body: bytes) -> None:
    message = encoded(body=body)
    assert base64.b64decode(message["body_base64"], validate=True) == body
    assert "body" not in message


def test_what_only_pubd_knows_of_a_message_is_there_too() -> None:
    message = encoded(idempotency_key="i", ordering_key="o", not_before=NOW + 5, ttl=60, mandatory=False)
    assert (message["idempotency_key"], message["ordering_key"], message["mandatory"]) == ("i", "o", False)
    assert (message["not_before"], message["ttl"]) == (NOW + 5, 60)


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-9999, max_value=9999)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | _text
    | st.binary(max_size=8)
    | _decimals.filter(lambda value: scaled(value) is not None)
    | st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "$binary", "$table", "$x", "ä"]), values, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(_text.filter(lambda name: name not in ("CC", "BCC")), _values, max_size=4))
def test_headers_come_through_with_their_types(headers: dict[str, Any]) -> None:
    read = decoded(encoded(headers=headers)["headers"])
    assert read == headers
    assert repr(shape(read)) == repr(shape(headers))


def shape(value: Any) -> Any:
    """Types, because True == 1 and Decimal(1) == 1."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in sorted(value.items())}
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__


@given(st.sets(st.sampled_from(["content_type", "correlation_id", "type", "app_id", "reply_to"])), _text)
def test_properties_come_through(names: set[str], text: str) -> None:
    message = encoded(**dict.fromkeys(names, text))
    assert {name for name in message if name in ("content_type", "correlation_id", "type", "app_id", "reply_to")} == (
        names
    )
    assert all(message[name] == text for name in names)


def test_what_is_left_of_a_damaged_message_is_given_as_it_is() -> None:
    damaged = entry(body=b"text")
    damaged.properties = b"\xff no properties"
    remains = json.loads(wire.dumps(wire.remains(damaged)))
    assert base64.b64decode(remains["properties_base64"]) == b"\xff no properties"
    assert base64.b64decode(remains["body_base64"]) == b"text"
    assert (remains["exchange"], remains["routing_key"], remains["idempotency_key"]) == ("x", "k", damaged.id)
