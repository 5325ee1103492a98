"""What spans are called and what they say, by OpenTelemetry's semantic conventions for RabbitMQ. Pure.

https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/; what those do not know is called ``pubd.*``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

    from pubd.entry import Entry

Attributes = dict[str, "str | int"]


def destination(exchange: str, routing_key: str) -> str:
    """``messaging.destination.name`` of a producer."""
    return ":".join(filter(None, (exchange, routing_key))) or "amq.default"


def shared(entries: Collection[Entry]) -> str | None:
    """The destination of all of these, or their exchange; None if they have neither in common."""
    if len(entries) == 1:
        (entry,) = entries
        return destination(entry.exchange, entry.routing_key)
    exchanges = {entry.exchange for entry in entries}
    if len(exchanges) > 1:
        return None
    keys = {entry.routing_key for entry in entries}
    return destination(exchanges.pop(), keys.pop() if len(keys) == 1 else "")


def facts(entries: Collection[Entry], operation: str, kind: str) -> Attributes:
    """Of a span for one or more: ``operation`` is AMQP's name for it or pubd's, ``kind`` that of the conventions."""
    found: Attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }
    if (where := shared(entries)) is not None:
        found["messaging.destination.name"] = where
    if len(entries) == 1:
        (entry,) = entries
        if entry.routing_key:
            found["messaging.rabbitmq.destination.routing_key"] = entry.routing_key
        found["messaging.message.id"] = entry.message_id
        found["messaging.message.body.size"] = len(entry.body)
        return found
    keys = {entry.routing_key for entry in entries}
    if len(keys) == 1 and (key := keys.pop()):
        found["messaging.rabbitmq.destination.routing_key"] = key
    found["messaging.batch.message_count"] = len(entries)
    return found


def name(attributes: Attributes) -> str:
    """Of a span with these."""
    operation, where = attributes["messaging.operation.name"], attributes.get("messaging.destination.name")
    return f"{operation} {where}" if where is not None else f"{operation}"


def server(url: str) -> Attributes:
    """The broker, of whose URL nothing else is told."""
    parts = urlsplit(url)
    found: Attributes = {}
    try:
        if parts.hostname:
            found["server.address"] = parts.hostname
            found["server.port"] = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError:
        return {}
    return found
