"""The W3C trace context of a message, in its encoded properties: found, and put there, without decoding them.

``traceparent`` and ``tracestate`` are AMQP headers of type long string, as the instrumentations of OpenTelemetry for
RabbitMQ write and read them (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import re
import struct

from pubd.amqp.encode import FRAME_MIN, decode_properties
from pubd.errors import InvalidMessage
from pubd.message import HEADER_FRAME_OVERHEAD

#: Name, type and length of the header, in front of its 55 characters.
_MARK = b"\x0btraceparentS\x00\x00\x00\x37"
_FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})")
_LENGTH = 55
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS = 1 << 15, 1 << 14, 1 << 13
_u16 = struct.Struct(">H")
_u32 = struct.Struct(">I")
#: Larger properties are left alone: every frame_max that a broker may ask for takes these.
LARGEST = FRAME_MIN - HEADER_FRAME_OVERHEAD


def traceparent_of(properties: bytes) -> str | None:
    """The ``traceparent`` that is seen in these; None if there is none, or none of version 00's length.

    A glance, for every message that is published: :func:`trace_of` looks properly.
    """
    place = properties.find(_MARK)
    if place < 0:
        return None
    start = place + len(_MARK)
    return properties[start : start + _LENGTH].decode("ascii", "replace")


def is_sampled(traceparent: str) -> bool:
    """Whether it is well formed, and whoever wrote it records its trace."""
    found = _FORM.fullmatch(traceparent)
    return found is not None and bool(int(found[1], 16) & 1)


def trace_of(properties: bytes) -> dict[str, str]:
    """The headers ``traceparent`` and ``tracestate``, those that there are."""
    try:
        headers = decode_properties(properties).get("headers")
    except InvalidMessage:
        return {}
    found = headers if isinstance(headers, dict) else {}
    return {name: found[name] for name in ("traceparent", "tracestate") if isinstance(found.get(name), str)}


def with_trace(properties: bytes, headers: dict[str, str]) -> bytes:
    """``properties`` with these headers (ASCII) more; unchanged where that could be too much for a frame."""
    added = b"".join(
        bytes((len(name),)) + name.encode("ascii") + b"S" + _u32.pack(len(text)) + text.encode("ascii")
        for name, text in headers.items()
    )
    if len(properties) + 4 + len(added) > LARGEST:
        return properties
    (flags,) = _u16.unpack_from(properties)
    # Headers come third, after two short strings.
    place = 2
    for flag in (_CONTENT_TYPE, _CONTENT_ENCODING):
        if flags & flag:
            place += 1 + properties[place]
    if not flags & _HEADERS:
        return b"".join(
            (_u16.pack(flags | _HEADERS), properties[2:place], _u32.pack(len(added)), added, properties[place:])
        )
    (size,) = _u32.unpack_from(properties, place)
    end = place + 4 + size
    return b"".join(
        (properties[:place], _u32.pack(size + len(added)), properties[place + 4 : end], added, properties[end:])
    )
