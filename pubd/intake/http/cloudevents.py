"""CloudEvents 1.0 over HTTP: requests of the HTTP binding to messages. Pure; see docs/cloudevents.rst for the mapping.

All content modes of HTTP (binary, structured JSON, JSON batch) become the binary mode of the AMQP binding, so that
consumers see one shape: the data is the body, ``datacontenttype`` the content type, every other attribute a header with
the prefix ``cloudEvents:``. Sources: cloudevents/spec 1.0.2, its HTTP and AMQP protocol bindings, its JSON format.
"""

from __future__ import annotations

import enum
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from pubd.errors import InvalidMessage
from pubd.fields import MAX_DEPTH, MAX_SHORT_STRING
from pubd.intake import notation, strict_json
from pubd.intake.http.event_attributes import (
    PREFIX,
    charset_of,
    check_attributes,
    check_media_type,
    check_name,
    epoch,
    is_json,
    media_of,
)
from pubd.intake.strict_json import kind
from pubd.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pubd.intake.http.event_attributes import Value

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


class Mode(enum.Enum):
    """Content modes of the HTTP binding; the sender chooses by the request's Content-Type."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


def mode_of(content_type: str) -> Mode | None:
    """The mode of a request with this Content-Type; None for an event format, or charset, that pubd does not know."""
    media = media_of(content_type)
    if not media.startswith("application/cloudevents"):
        return Mode.BINARY
    if charset_of(content_type) not in (None, "utf-8"):
        return None
    return {STRUCTURED: Mode.STRUCTURED, BATCH: Mode.BATCH}.get(media)


def from_headers(
    headers: Mapping[str, str],
    body: bytes,
    *,
    exchange: str,
    routing_key: str | None = None,
    idempotency_key: str | None = None,
) -> Message:
    """The message for a request in binary mode. ``headers`` have lower-case names; the values are Latin-1.

    ``routing_key`` None: the event's type. ``idempotency_key`` None: made of exchange, source and id. Raises
    InvalidMessage, whose field is the attribute.
    """
    attributes: dict[str, Value] = {}
    for header, value in headers.items():
        if not header.startswith("ce-"):
            continue
        name = header[3:]
        if name == "datacontenttype":
            raise InvalidMessage(name, "goes into Content-Type in binary mode; leave ce-datacontenttype out")
        check_name(name)
        attributes[name] = _decoded(name, value.encode("latin-1"))
    check_attributes(attributes, f" (binary mode: the header ce-{{}}; structured mode: Content-Type {STRUCTURED})")
    content_type = headers.get("content-type") or None
    if content_type is not None:
        check_media_type(content_type)
    return _message(attributes, body, content_type, exchange, routing_key, idempotency_key)


def from_object(
    event: Any, *, exchange: str, routing_key: str | None = None, idempotency_key: str | None = None
) -> Message:
    """The message for an event in the JSON format. Otherwise as :func:`from_headers`."""
    if not isinstance(event, dict):
        raise InvalidMessage("", f"an event is a JSON object, not {kind(event)}")
    attributes: dict[str, Value] = {}
    for name, value in event.items():
        if name in ("data", "data_base64") or value is None:
            continue  # null is the same as not there (JSON format, section 2.2)
        check_name(name)
        if not isinstance(value, str | int):
            raise InvalidMessage(name, f"must be a string, an integer or a boolean, not {kind(value)}")
        attributes[name] = value
    check_attributes(attributes, "")
    declared = attributes.pop("datacontenttype", None)
    body, content_type = _data(event, None if declared is None else str(declared))
    return _message(attributes, body, content_type, exchange, routing_key, idempotency_key)


def idempotency_key_of(exchange: str, source: str, id: str) -> str:
    """The same for the same event on the same exchange, and for nothing else; at most 255 bytes.

    CloudEvents: a producer makes source + id unique for each distinct event, and a re-sent one keeps both.
    """
    # Neither a URI nor a quoted name has a space in it, so that the parts cannot run into each other.
    key = f"cloudevents {quote(exchange, safe='')} {source} {id}"
    if len(key.encode()) > MAX_SHORT_STRING:
        key = f"cloudevents {sha256(key.encode()).hexdigest()}"
    return key


def _message(
    attributes: Mapping[str, Value],
    body: bytes,
    content_type: str | None,
    exchange: str,
    routing_key: str | None,
    idempotency_key: str | None,
) -> Message:
    source, id, type_ = (str(attributes[name]) for name in ("source", "id", "type"))
    fits = len(type_.encode()) <= MAX_SHORT_STRING
    if routing_key is None:
        if not fits:
            raise InvalidMessage(
                "type", f"is over {MAX_SHORT_STRING} bytes, too long for a routing key; give one: ?routing_key=..."
            )
        routing_key = type_
    time = attributes.get("time")
    return Message(
        exchange=exchange,
        routing_key=routing_key,
        body=body,
        content_type=content_type,
        headers={PREFIX + name: value for name, value in attributes.items()},
        type=type_ if fits else None,
        timestamp=None if time is None else epoch(str(time)),
        idempotency_key=idempotency_key_of(exchange, source, id) if idempotency_key is None else idempotency_key,
    )


# Data in the JSON format, section 3.1

# Those that senders use; others are rare, and some of Python's codecs take quadratic time.
_ENCODINGS = {
    "utf-8": "utf-8",
    "us-ascii": "ascii",
    "iso-8859-1": "iso-8859-1",
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "windows-1252",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}


def _data(event: Mapping[str, Any], content_type: str | None) -> tuple[bytes, str | None]:
    """The body and its content type."""
    encoded = event.get("data_base64")
    if encoded is not None:
        if "data" in event:
            raise InvalidMessage("data_base64", "is given together with data; give one of them")
        return notation.base64_of(encoded, "data_base64"), content_type
    if "data" not in event:
        return b"", content_type
    if content_type is None or is_json(content_type):
        if content_type is not None and charset_of(content_type) not in (None, "utf-8"):
            raise InvalidMessage("datacontenttype", "JSON goes out as UTF-8 (RFC 8259); leave the charset out")
        strict_json.check_depth(event["data"], "data", MAX_DEPTH)
        return strict_json.dumps(event["data"]), content_type or "application/json"
    return _text(event["data"], content_type), content_type


def _text(data: object, content_type: str) -> bytes:
    if data is None:
        return b""
    if not isinstance(data, str):
        raise InvalidMessage("data", f"must be a string, as datacontenttype is not JSON, and not {kind(data)}")
    charset = charset_of(content_type) or "utf-8"
    if charset not in _ENCODINGS:
        raise InvalidMessage("datacontenttype", "has a charset that pubd does not know; send the text as data_base64")
    try:
        return data.encode(_ENCODINGS[charset])
    except UnicodeEncodeError as error:
        raise InvalidMessage("data", f"has a character at index {error.start} that {charset} does not have") from None


# Header values: HTTP binding, section 3.1.3.2

_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_LONE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def _decoded(name: str, value: bytes) -> str:
    if b'"' in value:
        value = _QUOTED.sub(lambda found: _ESCAPED.sub(rb"\1", found[1]), value)
    if _LONE_PERCENT.search(value):
        raise InvalidMessage(name, "has a % without two hexadecimal digits after it; write a percent sign as %25")
    try:
        return unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidMessage(name, "is not UTF-8 once its percent-encoding is undone") from None
