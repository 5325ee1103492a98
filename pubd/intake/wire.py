"""A message as JSON: the object that every textual way in takes, and that listings and exports give.

What JSON lacks is written as an object with one key that begins with ``$``: ``{"$binary": BASE64}``,
``{"$timestamp": SECONDS}``, ``{"$decimal": "1.50"}``. A table that has such keys is wrapped: ``{"$table": ...}``.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pubd.amqp.encode import decode_properties

if TYPE_CHECKING:
    from pubd.entry import Entry


def encode(entry: Entry) -> dict[str, Any]:
    """The object for an entry, body included; submitted again it makes the same message, with the same message_id.

    Its ``idempotency_key`` is its own or the entry's id, so that an export that is submitted twice is accepted once;
    its ``ttl`` counts from the new acceptance.
    """
    message: dict[str, Any] = {"exchange": entry.exchange, "routing_key": entry.routing_key}
    try:
        message["body"] = entry.body.decode("utf-8")
    except UnicodeDecodeError:
        message["body_base64"] = base64.b64encode(entry.body).decode("ascii")
    message |= {name: _json(value) for name, value in decode_properties(entry.properties).items()}
    message["mandatory"] = entry.mandatory
    message["idempotency_key"] = entry.idempotency_key or entry.id
    if entry.ordering_key is not None:
        message["ordering_key"] = entry.ordering_key
    if entry.due is not None:
        message["not_before"] = entry.due
    if entry.expires_at is not None:
        message["ttl"] = entry.expires_at - entry.accepted_at
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


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$binary": base64.b64encode(value).decode("ascii")}
    if isinstance(value, datetime):
        return {"$timestamp": int(value.timestamp())}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    if isinstance(value, dict):
        table = {_text(name): _json(item) for name, item in value.items()}
        return {"$table": table} if any(name.startswith("$") for name in table) else table
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "replace")
