"""From what a file holds to its message. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from pubd.errors import InvalidMessage
from pubd.intake.directory.keys import idempotency_key, message_id
from pubd.intake.strict_json import loads
from pubd.intake.wire import decode_object

if TYPE_CHECKING:
    from pubd.intake.options import DirectoryOptions
    from pubd.message import Message

_BODIES = ("body", "body_base64", "body_json")


def stamped(message: Message, key: bytes, body: bytes | None = None) -> tuple[Message, bool]:
    """The message with the file's key where it has none of its own, and whether it has not; it has a message_id."""
    own = message.idempotency_key is None
    return attrs.evolve(
        message,
        body=message.body if body is None else body,
        idempotency_key=idempotency_key(key) if message.idempotency_key is None else message.idempotency_key,
        message_id=message_id(key) if message.message_id is None else message.message_id,
    ), own


class Template:
    """Route and properties of raw bodies, checked once for all files that share them."""

    def __init__(self, message: Message | None) -> None:
        self._message = message

    @property
    def routed(self) -> bool:
        """Whether there is a route: without one no message can be made."""
        return self._message is not None

    def fill(self, body: bytes, key: bytes) -> tuple[Message, bool]:
        """The message with this body, as :func:`stamped` gives it."""
        assert self._message is not None
        return stamped(self._message, key, body)


def configured(options: DirectoryOptions) -> Template:
    """What is configured for raw files. Raises InvalidMessage naming the property."""
    if options.exchange is None:
        return Template(None)
    return Template(decode_object(_object(options, {})))


def beside(raw: bytes, options: DirectoryOptions) -> Template:
    """What a ``.meta.json`` says, over what is configured. Raises InvalidMessage."""
    meta = loads(raw)
    if not isinstance(meta, dict):
        raise InvalidMessage("", "must be a JSON object with the route and the properties")
    for name in _BODIES:
        if name in meta:
            raise InvalidMessage(name, "is the file itself; leave it out of the .meta.json")
    if "exchange" not in meta and options.exchange is None:
        raise InvalidMessage("exchange", "is missing, and the directory has none configured; name it in the .meta.json")
    return Template(decode_object(_object(options, meta)))


def _object(options: DirectoryOptions, meta: dict[str, Any]) -> dict[str, Any]:
    found = {**options.properties, "routing_key": options.routing_key}
    if options.exchange is not None:
        found["exchange"] = options.exchange
    # A route is one thing: the configured key belongs to the configured exchange.
    if "exchange" in meta:
        del found["routing_key"]
    return {**found, **meta, "body": ""}
