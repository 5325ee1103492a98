"""A message as JSON: the object that every textual way in takes, and that listings and exports give.

docs/messages.rst describes it, key by key. ``decode`` and ``encode_message`` are each other's inverse.
"""

from __future__ import annotations

import base64
import difflib
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs

from pubd import duration
from pubd.amqp.encode import decode_properties
from pubd.errors import InvalidMessage
from pubd.fields import MAX_DEPTH
from pubd.intake import notation, strict_json
from pubd.intake.strict_json import kind, loads, refuse
from pubd.message import MAX_SECONDS, SECONDS_RULE, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.entry import Entry

__all__ = [
    "KEYS",
    "decode",
    "decode_lines",
    "decode_object",
    "dumps",
    "encode",
    "encode_message",
    "loads",
    "remains",
    "seconds",
]

_NAMES = tuple(attribute.name for attribute in attrs.fields(Message))
#: Every key that a message may have.
KEYS = frozenset((*_NAMES, "body_base64", "body_json"))

#: A delay counts from acceptance, and so may end later than ``not_before`` may be.
_LATEST = math.nextafter(MAX_SECONDS, 0)
_TIMES = frozenset(("delay", "ttl", "not_before", "timestamp"))
#: What Message takes as it stands in JSON, and the body that is nearly always given.
_PLAIN = frozenset(_NAMES) - _TIMES - {"headers"}
#: What the other keys take; Message says it in the words of Python.
_TYPES: dict[str, tuple[type, str]] = (
    {name: (str, "a string") for name in _NAMES if name not in _TIMES | {"body", "headers"}}
    | dict.fromkeys(("priority", "delivery_mode"), (int, "a whole number"))
    | {"mandatory": (bool, "true or false")}
)


def decode(raw: bytes, *, max_body: int | None = None) -> Message:
    """The message in one JSON object; its body has at most ``max_body`` bytes. Raises InvalidMessage and nothing else.

    The field "" stands for the whole: it is no JSON, or no object.
    """
    value = loads(raw)
    if type(value) is not dict:
        raise InvalidMessage("", f"must be one JSON object, not {kind(value)}")
    message = _message(value)
    if max_body is not None:
        message.check_limits(max_body=max_body)
    return message


def decode_object(value: dict[str, Any], *, max_body: int | None = None) -> Message:
    """As :func:`decode`, of what :func:`loads` gave; ``value`` is left as it is."""
    message = _message(dict(value))
    if max_body is not None:
        message.check_limits(max_body=max_body)
    return message


def decode_lines(lines: Sequence[bytes], *, max_body: int | None = None) -> list[Message | InvalidMessage]:
    """For each line its message or what is wrong with it, in order."""
    decoded: list[Message | InvalidMessage] = []
    for line in lines:
        try:
            decoded.append(decode(line, max_body=max_body))
        except InvalidMessage as error:
            # Its frames would keep the line in memory for as long as the error.
            decoded.append(error.with_traceback(None))
    return decoded


def seconds(value: object, field: str) -> float:
    """A duration in JSON: a number of seconds, or text such as "5m"; not negative. Raises InvalidMessage."""
    if isinstance(value, str):
        try:
            return duration.seconds(value)
        except duration.NoDuration as error:
            raise InvalidMessage(field, error.sentence) from None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        refuse(field, 'a number of seconds, or a duration such as "5m"', value)
    if not 0 <= value < MAX_SECONDS:
        raise InvalidMessage(field, SECONDS_RULE)
    return float(value)


def encode_message(message: Message) -> dict[str, Any]:
    """The object that :func:`decode` makes an equal message of."""
    encoded: dict[str, Any] = {"exchange": message.exchange, "routing_key": message.routing_key}
    encoded |= _body_object(message.body)
    for name in _NAMES:
        value = getattr(message, name)
        if value is not None and name not in encoded and name != "body":
            encoded[name] = value if name != "headers" else notation.json_of(value)
    return encoded


def encode(entry: Entry) -> dict[str, Any]:
    """The object for an entry, body included; submitted again it makes the same message, with the same message_id.

    Its ``idempotency_key`` is its own or the entry's id, so that an export that is submitted twice is accepted once;
    its ``ttl`` counts from the new acceptance. Raises InvalidMessage where the stored properties are damaged.
    """
    message: dict[str, Any] = {"exchange": entry.exchange, "routing_key": entry.routing_key}
    message |= _body_object(entry.body)
    message |= {name: notation.json_of(value) for name, value in decode_properties(entry.properties).items()}
    message["mandatory"] = entry.mandatory
    message["idempotency_key"] = entry.idempotency_key or entry.id
    if entry.ordering_key is not None:
        message["ordering_key"] = entry.ordering_key
    if entry.due is not None:
        message["not_before"] = min(entry.due, _LATEST)
    if entry.expires_at is not None:
        # A ttl too short for the clock leaves no difference, and 0 is none.
        message["ttl"] = min(entry.expires_at - entry.accepted_at or 0.001, _LATEST)
    return message


def remains(entry: Entry) -> dict[str, Any]:
    """What is left of a damaged entry: nothing in it can be relied on, so its bytes are given as they are."""
    return {
        "exchange": entry.exchange,
        "routing_key": entry.routing_key,
        "properties_base64": base64.b64encode(entry.properties).decode("ascii"),
        "body_base64": base64.b64encode(entry.body).decode("ascii"),
        "idempotency_key": entry.id,
    }


def dumps(message: dict[str, Any]) -> str:
    """One line of NDJSON."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _message(given: dict[str, Any]) -> Message:
    """``given`` is used up."""
    if _PLAIN.issuperset(given) and type(body := given.get("body", "")) is str:
        given["body"] = _encoded(body)
    else:
        _read(given)
    if "exchange" not in given:
        raise InvalidMessage("exchange", 'is missing; name the exchange ("" is the default exchange)')
    try:
        return Message(**given)
    except InvalidMessage as error:
        raise _in_words_of_json(given, error) from None


def _read(given: dict[str, Any]) -> None:
    """What JSON has, replaced by what Message takes."""
    if not given.keys() <= KEYS:
        _refuse_unknown(given)
    _read_body(given)
    if given.get("headers") is not None:
        given["headers"] = notation.headers(given["headers"])
    if not _TIMES.isdisjoint(given):
        _read_times(given)


def _refuse_unknown(given: dict[str, Any]) -> None:
    # In order of appearance, so that the same text always gives the same error.
    name = next(name for name in given if name not in KEYS)
    near = difflib.get_close_matches(name[:40].lower().replace("-", "_"), KEYS, 1)
    hint = f"did you mean {near[0]}?" if near else "remove it; docs/messages.rst lists the keys"
    field = name if len(name) <= 40 else name[:40] + "..."
    # A line break in it would break the lines of a log.
    raise InvalidMessage(field if field.isprintable() else repr(field), f"is no key of a message; {hint}")


def _read_body(given: dict[str, Any]) -> None:
    """``null`` is as if it were not there, but in ``body_json``, where it is a value."""
    text = given.pop("body", None)
    if "body_base64" not in given and "body_json" not in given:
        if text is not None:
            given["body"] = _encoded(text)
        return
    encoded, is_json, value = given.pop("body_base64", None), "body_json" in given, given.pop("body_json", None)
    if (text is not None) + (encoded is not None) + is_json > 1:
        second = "body_json" if is_json else "body_base64"
        raise InvalidMessage(second, "is given beside another body; give one of body, body_base64 and body_json")
    if text is not None:
        given["body"] = _encoded(text)
    elif encoded is not None:
        given["body"] = notation.base64_of(encoded, "body_base64")
    elif is_json:
        strict_json.check_depth(value, "body_json", MAX_DEPTH)
        given["body"] = strict_json.dumps(value)
        if given.get("content_type") is None:
            given["content_type"] = "application/json"


def _encoded(text: object) -> bytes:
    if not isinstance(text, str):
        refuse("body", "a string; other JSON goes into body_json", text)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidMessage("body", "has a lone surrogate, which UTF-8 cannot carry; remove it") from None


def _read_times(given: dict[str, Any]) -> None:
    for name in ("delay", "ttl"):
        if given.get(name) is not None:
            given[name] = seconds(given[name], name)
    if (moment := given.get("not_before")) is not None:
        given["not_before"] = notation.seconds_of(moment, "not_before")
    if (moment := given.get("timestamp")) is not None and type(moment) is not int:
        if not isinstance(moment, str):
            refuse("timestamp", 'whole seconds since 1970 or text such as "2026-11-23T12:00:00Z"', moment)
        given["timestamp"] = int(notation.seconds_of(moment, "timestamp"))


def _body_object(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode("ascii")}


def _in_words_of_json(given: dict[str, Any], error: InvalidMessage) -> InvalidMessage:
    """Message's own sentence, unless it is about types, which have other names in JSON."""
    name = error.field
    if name in _TYPES:
        of, expected = _TYPES[name]
        if type(value := given.get(name)) is not of:
            return InvalidMessage(name, f"must be {expected}, not {kind(value)}")
    elif "must be a str" in error.problem:
        # A routing key among CC or BCC.
        return InvalidMessage(name, "must be a string")
    return error
