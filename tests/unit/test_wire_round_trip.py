"""Every message comes back from its JSON, and every stored one too, with all types of AMQP."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pubd.amqp.encode import thaw
from pubd.fields import MAX_DEPTH, scaled
from pubd.intake import wire
from pubd.message import MAX_EXPIRATION, MAX_SECONDS, Message
from pubd.options import Options
from pubd.spool.ids import Ids
from pubd.submission import entry_of

NOW = 1_700_000_000.0

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_names = st.one_of(_text, st.sampled_from(["a", "a:b", "$binary", "$timestamp", "$decimal", "$table", "$x"]))
_decimals = st.decimals(allow_nan=False, allow_infinity=False).filter(lambda value: scaled(value) is not None)
_moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), _text, st.binary(max_size=8), _decimals, _moments
    ),
    lambda values: st.one_of(st.lists(values, max_size=3), st.dictionaries(_names, values, max_size=3)),
    max_leaves=8,
)
_keys = st.lists(_text, max_size=2)
_headers = st.builds(
    lambda one, two: one | two,
    st.dictionaries(_names.filter(lambda name: name not in ("CC", "BCC")), _values, max_size=4),
    st.fixed_dictionaries({}, optional={"CC": _keys, "BCC": _keys}),
)
_seconds = st.floats(0, MAX_SECONDS, exclude_max=True)
_strings = [
    "routing_key",
    "content_type",
    "content_encoding",
    "correlation_id",
    "message_id",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
    "idempotency_key",
    "ordering_key",
]
_given = st.fixed_dictionaries(
    {"exchange": _text.filter(lambda name: "\n" not in name and "\r" not in name)},
    optional={
        **dict.fromkeys(_strings, _text),
        "reply_to": _text,
        "body": st.binary(max_size=20) | _text.map(str.encode),
        "headers": _headers,
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 255),
        "expiration": st.integers(0, MAX_EXPIRATION).map(str),
        "timestamp": st.integers(0, 2**64 - 1),
        "mandatory": st.booleans(),
    },
)
_times = st.one_of(
    st.fixed_dictionaries({}, optional={"not_before": _seconds, "ttl": st.floats(1e-9, 1e9)}),
    st.fixed_dictionaries({"delay": _seconds}),
    st.fixed_dictionaries({"delay": st.floats(0, 1e3), "ttl": st.floats(1e3, 1e9, exclude_min=True)}),
)


def shape(value: Any) -> Any:
    """Types, and the digits of decimals, because True == 1 and Decimal("1.0") == 1."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return str(value) if isinstance(value, Decimal) else type(value)


def line(value: dict[str, Any]) -> bytes:
    text = wire.dumps(value)
    assert "\n" not in text
    return text.encode()


def deepest() -> dict[str, Any]:
    """As deep as headers may be, each table one that has to be wrapped."""
    value: Any = {"$binary": Decimal("1.5")}
    for _ in range(MAX_DEPTH - 1):
        value = {"$binary": value}
    return {"$table": value}


@settings(deadline=None)
@given(_given, _times)
@example({"exchange": "x", "headers": deepest()}, {})
@example({"exchange": "x", "headers": {"": {}, "a": [], "b": {"": {"": []}}}}, {"delay": 5e-324})
def test_each_message_comes_back(given: dict[str, Any], times: dict[str, Any]) -> None:
    message = Message(**given, **times)
    raw = line(wire.encode_message(message))
    again = wire.decode(raw)
    assert again == message
    for name in (attribute.name for attribute in attrs.fields(Message)):
        assert shape(thaw(getattr(again, name))) == shape(thaw(getattr(message, name)))
    assert wire.decode_lines([raw, raw]) == [message, message]
    assert wire.decode_object(wire.loads(raw)) == message


@settings(deadline=None)
@given(_given, _times)
@example({"exchange": "x"}, {"delay": MAX_SECONDS - 1})
@example({"exchange": "x"}, {"ttl": MAX_SECONDS - 1e-5})
@example({"exchange": "x"}, {"ttl": 5e-324})
def test_each_stored_message_can_be_submitted_again(given: dict[str, Any], times: dict[str, Any]) -> None:
    ids = Ids(7, 0, lambda: NOW)
    entry = entry_of(Message(**given, **times), ids, Options(), NOW)
    again = entry_of(wire.decode(line(wire.encode(entry))), ids, Options(), NOW)
    for name in ("exchange", "routing_key", "message_id", "mandatory", "properties", "body", "ordering_key"):
        assert getattr(again, name) == getattr(entry, name), name
    assert again.idempotency_key == (entry.idempotency_key or entry.id)
    # What is due in the year 4147 and later is due in 4147.
    assert again.due == (entry.due and min(entry.due, math.nextafter(MAX_SECONDS, 0)))
    assert (again.expires_at is None) == (entry.expires_at is None)
    if entry.expires_at is not None and entry.expires_at - NOW > 1:
        assert again.expires_at == pytest.approx(entry.expires_at)


@pytest.mark.parametrize("text", ["1." + "0" * 5000, "0E-999999999999999", "-0.00E+99", "0e5", "-2147483648E-255"])
def test_decimals_that_nobody_writes_keep_their_value(text: str) -> None:
    message = Message(exchange="x", headers={"a": Decimal(text)})
    assert wire.decode(line(wire.encode_message(message))) == message
