"""The trace context in encoded properties: whatever they hold, it is found, and only headers are added.

How it fails: an offset that is wrong for one of the properties that may stand before the headers; a value of the
application's that looks like it; a header that makes the properties too large for a frame, and a good message poison.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pubd.amqp.encode import FRAME_MIN, decode_properties, encode_properties
from pubd.amqp.trace_headers import is_sampled, trace_of, traceparent_of, with_trace
from pubd.message import HEADER_FRAME_OVERHEAD, Message

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = {"traceparent": PARENT, "tracestate": "congo=t61rcWkgMzE"}
SHORT = st.none() | st.text(max_size=20)


def encoded(**given: Any) -> bytes:
    return encode_properties(Message(exchange="x", **given), message_id="m", delivery_mode=2)


@given(
    content_type=SHORT,
    content_encoding=SHORT,
    headers=st.none() | st.dictionaries(st.text(min_size=1, max_size=10), st.text(max_size=30) | st.integers(0, 99)),
    correlation_id=SHORT,
    type=SHORT,
    app_id=SHORT,
    priority=st.none() | st.integers(0, 255),
)
def test_only_the_headers_change(headers: dict[str, Any] | None, **given: Any) -> None:
    before = encoded(headers=headers, **given)
    after = decode_properties(with_trace(before, TRACE))
    assert after.pop("headers") == {**(headers or {}), **TRACE}
    others = decode_properties(before)
    others.pop("headers", None)
    assert after == others
    assert traceparent_of(with_trace(before, TRACE)) == PARENT
    assert trace_of(with_trace(before, TRACE)) == TRACE
    assert traceparent_of(before) is None


def test_one_that_the_application_gave_is_found() -> None:
    assert traceparent_of(encoded(headers={"a": 1, "traceparent": PARENT, "b": {}})) == PARENT
    assert trace_of(encoded(headers={"traceparent": PARENT})) == {"traceparent": PARENT}
    assert traceparent_of(encoded(headers={"traceparent": "short"})) is None
    assert traceparent_of(encoded()) is None
    assert trace_of(encoded()) == {}
    assert trace_of(b"damaged") == {}
    assert trace_of(encoded(headers={"traceparent": 7})) == {}


def test_a_body_of_a_header_that_looks_like_it_is_seen_through() -> None:
    looks = encoded(headers={"text": "\x0btraceparentS\x00\x00\x007" + PARENT})
    assert traceparent_of(looks) == PARENT
    assert trace_of(looks) == {}


def test_the_flag_counts() -> None:
    assert is_sampled(PARENT)
    assert is_sampled(PARENT[:-2] + "03")
    assert not is_sampled(PARENT[:-2] + "00")
    assert not is_sampled(PARENT.upper())
    assert not is_sampled("x" * 55)
    assert not is_sampled("\ufffd" * 55)


def test_properties_that_a_small_frame_just_takes_are_left_alone() -> None:
    for size in range(3800, 4000):
        before = encoded(headers={"h": "x" * size})
        after = with_trace(before, TRACE)
        assert after == before or len(after) <= FRAME_MIN - HEADER_FRAME_OVERHEAD
    assert with_trace(encoded(headers={"h": "x" * 4000}), TRACE) == encoded(headers={"h": "x" * 4000})
