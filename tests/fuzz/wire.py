"""The codec against any bytes: ``python -m tests.fuzz.wire --seconds 300``, with atheris where it is installed.

Without it (``--hypothesis`` says so, too) hypothesis makes the inputs. Exit code 0 means that nothing was found; what
was found is shown, and with atheris written to a file ``crash-...``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.engine import Found, command

# What the inputs are made of: structure, every key and notation, and what parsers stumble over.
_WORDS = rb"""
    { } [ ] , : " \ \\ \" \u003a \u003A \ud800 \udc00 \ud83d\ude00 \u0000 \u003 \/ \n null true false NaN Infinity
    -Infinity nan 0 -0 1 -1 01 1. .5 1.5 -0.0 1e5 1E400 1e-400 1e99999999999999999999 1e 9007199254740993 2147483648
    9223372036854775808 18446744073709551615 18446744073709551616 "exchange": "routing_key": "body": "body_base64":
    "body_json": "headers": "priority": "timestamp": "not_before": "delay": "ttl": "mandatory": "delivery_mode":
    "expiration": "message_id": "reply_to": "content_type": "user_id": "ordering_key": "idempotency_key": "CC": "BCC":
    "$binary": "$timestamp": "$decimal": "$table": "$x": "a:b": "x" "" "5m" "1h30m" "60000" "YQ==" "YQ" "Y===" "1.50"
    "1e-255" "2026-11-23T12:00:00Z" "2026-11-23T12:00:60Z" "0001-01-01T00:00:00+23:59" "amq.rabbitmq.reply-to" // /* #
    {"exchange":"x" {"exchange":"x","headers":{ {"exchange":"x","body_json": {"$table":{ {"a":{ [[ ]] }} ]}}"""
_OCTETS = (
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\n",
    b" ",
)
FRAGMENTS: tuple[bytes, ...] = (*_WORDS.split(), *_OCTETS)


def check(raw: bytes) -> bool:
    """Whether ``raw`` is a message. Raises Found, or what the codec raised, if it broke one of its promises.

    A message or InvalidMessage; never a message of what the standard library, set to be strict, refuses; what was
    decoded comes back from its own encoding; lines are decoded as each one alone.
    """
    from pubd.errors import InvalidMessage
    from pubd.intake import wire

    lines = raw.split(b"\n")
    alone: list[Any] = []
    for line in lines:
        try:
            alone.append(wire.decode(line))
        except InvalidMessage as error:
            _check_error(error, line)
            alone.append(str(error))
    together = wire.decode_lines(lines)
    if [str(each) if isinstance(each, InvalidMessage) else each for each in together] != alone:
        raise Found("lines differ from each one alone", raw)
    try:
        value = wire.loads(raw)
    except InvalidMessage as error:
        _check_error(error, raw)
        return False
    if not strict(raw):
        raise Found("the standard library refuses it", raw)
    try:
        message = wire.decode(raw)
    except InvalidMessage as error:
        _check_error(error, raw)
        return False
    again = wire.dumps(wire.encode_message(message)).encode()
    if not isinstance(value, dict) or wire.decode(again) != message or wire.decode_object(value) != message:
        raise Found("it does not come back", raw)
    return True


def _check_error(error: Any, raw: bytes) -> None:
    text = str(error)
    if not error.problem or len(text) > 1000 or not text.isprintable() or type(error).__name__ != "InvalidMessage":
        raise Found("its error is of no use", raw)


def strict(raw: bytes) -> bool:
    """Whether the standard library reads it, with nothing that JSON does not have and no key twice."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    def constant(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(raw.decode(), object_pairs_hook=members, parse_constant=constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**66), 2**66),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["5m", "60000", "YQ==", "1.50", "2026-11-23T12:00:00Z", "$table", "a:b"]),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "a:b", "CC"]) | st.text(max_size=3), inner, max_size=3),
        st.sampled_from(["$binary", "$timestamp", "$decimal", "$table", "$x"]).flatmap(
            lambda name: st.fixed_dictionaries({name: inner})
        ),
    ),
    max_leaves=6,
)
_FITTING: dict[str, st.SearchStrategy[Any]] = {
    "headers": st.dictionaries(st.text(max_size=3), _values, max_size=3),
    "body_json": _values,
    "body": st.text(max_size=5),
    "ttl": st.sampled_from([1, 1.5, "1h"]),
    "priority": st.integers(0, 256),
    "timestamp": st.integers(0, 2**64) | st.just("2026-11-23T12:00:00Z"),
}
_KEYS = ("routing_key", "body_base64", "delivery_mode", "mandatory", "expiration", "not_before", "delay", "type", "x")


@st.composite
def _objects(draw: st.DrawFn) -> bytes:
    """Messages, or nearly; some with a piece of the text once more, or lost, or escaped."""
    value = draw(st.fixed_dictionaries({"exchange": st.text(max_size=3)}, optional=_FITTING))
    value |= draw(st.dictionaries(st.sampled_from([*_KEYS, *_FITTING]), _values, max_size=1))
    raw = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        start = draw(st.integers(0, len(raw)))
        end = draw(st.integers(start, min(len(raw), start + 20)))
        raw = raw[:end] + draw(st.sampled_from([b"", raw[start:end], b",", *FRAGMENTS])) + raw[end:]
    if draw(st.booleans()):
        # A key of the text again, in one of its objects.
        key = draw(st.sampled_from(re.findall(rb'"[^"]*" *:', raw) or [b'"a":']))
        start = draw(st.sampled_from([found.end() for found in re.finditer(b"{", raw)] or [0]))
        raw = raw[:start] + key + b'"a:b",' + raw[start:]
    return raw.replace(b"a:b", draw(st.sampled_from([b"a:b", rb"a\u003ab", rb"a\u003Ab"])))


inputs: st.SearchStrategy[bytes] = st.one_of(
    _objects(),
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=3)), max_size=30).map(b"".join),
    st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(lambda parts: b'{"exchange":"x",' + b"".join(parts) + b"}"),
)


def _seeds() -> list[bytes]:
    """Messages with everything that there is, and what is next to them."""
    notation = (
        b'{"$table":{"$a":{"$binary":"YQ=="},"t":{"$timestamp":1},"d":[{"$decimal":"1.50"},null,true,2147483648]}}'
    )
    return [
        b'{"exchange":"x","routing_key":"k","body":"text: \\u003a","priority":5,"mandatory":true}',
        b'{"exchange":"","body_base64":"YQ==","delivery_mode":2,"timestamp":"2026-11-23T12:00:00Z","ttl":"1h"}',
        b'{"exchange":"x","body_json":{"a":[1.50,{"b":1e400}]},"delay":1.5,"expiration":"60000"}',
        b'{"exchange":"x","headers":' + notation + b',"not_before":1700000000.25}',
        b'{"exchange":"x","headers":{"CC":["a","b"],"a:b":"c"},"idempotency_key":"i","ordering_key":"o"}',
        b'{"exchange":"x","exchange":"y"}\n{"exchange":"x"}\nNaN\n',
        b"[" * 100,
    ]


main = command(
    check,
    inputs=inputs,
    seeds=_seeds(),
    fragments=FRAGMENTS,
    instrument=("pubd.intake", "pubd.message", "pubd.fields", "pubd.duration"),
    load=("pubd.intake.wire",),
    doc="Look for inputs on which the codec breaks its promises.",
)

if __name__ == "__main__":
    main()
