"""Message: what an application hands in, checked when it is made.

Whatever pika 1.4 cannot encode and whatever RabbitMQ 3.10 always refuses is refused here, with the field and the fix,
so that nothing of it surfaces while publishing. What depends on the broker's state (does the exchange exist, is
``user_id`` ours) is not decided here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from typing import ClassVar

import attrs

from pubd.errors import InvalidMessage
from pubd.fields import (
    DEFAULT_FRAME_MAX,
    MAX_SHORT_STRING,
    FieldValue,
    bounded,
    copied,
    exact_int,
    frozen_headers,
    is_plain,
    kind,
    moment,
    short_string,
)

__all__ = ["DEFAULT_FRAME_MAX", "HEADER_FRAME_OVERHEAD", "MAX_BODY", "MAX_EXPIRATION", "FieldValue", "Message"]

#: Largest body in bytes: RabbitMQ's default ``max_message_size`` since 3.8 (4.0 and later: 16 MiB).
MAX_BODY = 128 * 1024 * 1024
#: What a content header frame takes beside the properties: frame header 7, class 2, weight 2, body size 8, end 1.
HEADER_FRAME_OVERHEAD = 20
#: Longest ``expiration`` in milliseconds, ten years: ``rabbit_misc:check_expiry`` refuses more.
MAX_EXPIRATION = 315_360_000_000

#: Times of pubd's own are below this, in seconds: what any clock of Python's can show.
MAX_SECONDS = 2.0**36
SECONDS_RULE = f"must be a number of seconds, 0 or more and less than {MAX_SECONDS:.0f}"

# Properties without headers are never larger: flags, ten short strings, delivery mode, priority, timestamp.
_MAX_PLAIN = 2 + 10 * (1 + MAX_SHORT_STRING) + 1 + 1 + 8
# The message_id that pubd gives: a UUID's 36 characters.
_STAMPED_ID = 36
_DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"

_OPTIONAL_STRINGS = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
    "idempotency_key",
    "ordering_key",
)
_optional_strings = attrgetter(*_OPTIONAL_STRINGS)
#: What most messages leave out. One look at all of them: each look takes as long as a test of a value.
_RARE = (
    "content_encoding",
    "headers",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
    "mandatory",
    "idempotency_key",
    "ordering_key",
    "delay",
    "not_before",
    "ttl",
)
_rare = attrgetter(*_RARE)
_NONE_OF_THEM = (None,) * len(_RARE)
#: How many of them are AMQP's; the others stay with pubd.
_PROPERTIES = len(_OPTIONAL_STRINGS) - 2
_set = object.__setattr__


def _bytes(body: bytes | bytearray | memoryview) -> bytes:
    """The body as immutable bytes; anything else than bytes is refused."""
    return body if type(body) is bytes else copied(body, "body")


def _seconds(timestamp: int | datetime | None) -> int | None:
    """A moment as whole seconds since 1970; the fraction of a datetime is cut off."""
    if timestamp is None:
        return None
    return moment(timestamp, "timestamp") if isinstance(timestamp, datetime) else exact_int(timestamp, "timestamp")


def _epoch(moment_: float | datetime | None) -> float | None:
    """A moment as seconds since 1970, fractions kept."""
    if isinstance(moment_, datetime):
        moment(moment_, "not_before")
        return moment_.timestamp()
    return moment_


def _mode(delivery_mode: int | enum.Enum | None) -> int | None:
    """The delivery mode as an int; a member of an enumeration counts as its value."""
    if delivery_mode is None or type(delivery_mode) is int:
        return delivery_mode
    return exact_int(delivery_mode.value if isinstance(delivery_mode, enum.Enum) else delivery_mode, "delivery_mode")


# Without slots attrs fills a frozen instance by its dict, at half the cost, and every submission makes one.
@attrs.frozen(kw_only=True, repr=False, unsafe_hash=False, slots=False)
class Message:
    """One message for one exchange, with all 14 basic properties of AMQP 0-9-1.

    ``body`` takes any bytes-like object and keeps a copy of a mutable one; ``timestamp`` is in seconds since 1970 or
    an aware datetime; ``expiration`` is RabbitMQ's per-message TTL in milliseconds, as digits; ``mandatory`` None
    leaves the choice to the publisher, as do ``delivery_mode`` and ``message_id``. Headers are copied and read-only
    all the way down.

    For pubd itself, not for RabbitMQ: submitting the same ``idempotency_key`` again gives the same receipt; messages of
    one exchange with the same ``ordering_key`` are published one after another, each when the former is settled;
    ``delay`` (seconds from acceptance) or ``not_before`` (epoch seconds or an aware datetime) hold a message back;
    ``ttl`` (seconds from acceptance) is how long it may wait to be published. Raises
    :class:`pubd.errors.InvalidMessage`.
    """

    exchange: str
    routing_key: str = ""
    body: bytes = attrs.field(default=b"", converter=_bytes)
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, FieldValue] | None = None
    delivery_mode: int | None = attrs.field(default=None, converter=_mode)
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = attrs.field(default=None, converter=_seconds)
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None
    mandatory: bool | None = None
    idempotency_key: str | None = None
    ordering_key: str | None = None
    delay: float | None = None
    not_before: float | None = attrs.field(default=None, converter=_epoch)
    ttl: float | None = None

    simple: ClassVar[bool] = False
    """Of an instance: it has a content type, delivery mode and message_id at most, and nothing for pubd itself."""

    # Headers are not hashable, and so no message is.
    __hash__ = None  # type: ignore[assignment]  # typeshed's object says it is a method

    def __attrs_post_init__(self) -> None:
        # Every submission comes through here: the tests below pass a usual message without a call of our own.
        exchange = self.exchange
        if not (is_plain(exchange) and exchange.isprintable()):
            _check_exchange(self)
        if not is_plain(self.routing_key):
            _set(self, "routing_key", short_string(self.routing_key, "routing_key"))
        if len(self.body) > MAX_BODY:
            _refuse_body(len(self.body), MAX_BODY)
        if self.delivery_mode is not None and self.delivery_mode not in (1, 2):
            raise InvalidMessage("delivery_mode", "must be 1 (transient) or 2 (persistent)")
        content_type, message_id = self.content_type, self.message_id
        if (
            _rare(self) == _NONE_OF_THEM
            and (content_type is None or is_plain(content_type))
            and (message_id is None or is_plain(message_id))
        ):
            _set(self, "simple", True)
        else:
            self._check_the_rest()

    def _check_the_rest(self) -> None:
        _check_optional_strings(self)
        if self.priority is not None:
            _set(self, "priority", bounded(self.priority, "priority", 0, 255))
        if self.timestamp is not None:
            bounded(self.timestamp, "timestamp", 0, 2**64 - 1)
        if self.reply_to == _DIRECT_REPLY_TO:
            # rabbit_channel:maybe_set_fast_reply_to closes the channel with 406 where nobody consumes from it.
            raise InvalidMessage("reply_to", f"{_DIRECT_REPLY_TO} needs a consumer on pubd's channel; name a queue")
        if self.expiration is not None:
            _check_expiration(self.expiration)
        if self.mandatory is not None and self.mandatory is not True and self.mandatory is not False:
            raise InvalidMessage("mandatory", f"must be True, False or None, not {kind(self.mandatory)}")
        if self.delay is not None or self.not_before is not None or self.ttl is not None:
            _check_times(self)
        if self.headers is not None:
            headers, size = frozen_headers(self.headers)
            _set(self, "headers", headers)
            _check_header_frame(self, size, DEFAULT_FRAME_MAX)

    def check_limits(self, *, max_body: int | None = None, frame_max: int | None = None) -> None:
        """Raise InvalidMessage where the message exceeds limits (bytes) stricter than those it was made under.

        ``frame_max`` 0 means no limit, as in AMQP.
        """
        if max_body is not None and len(self.body) > max_body:
            _refuse_body(len(self.body), max_body)
        if self.headers is not None and frame_max and frame_max < DEFAULT_FRAME_MAX:
            _check_header_frame(self, frozen_headers(self.headers)[1], frame_max)

    def __repr__(self) -> str:
        given = [f"body=<{len(self.body)} bytes>"]
        given += [name for name in _NAMES[3:] if getattr(self, name) is not None]
        return f"Message(exchange={self.exchange!r}, routing_key={self.routing_key!r}, {', '.join(given)})"


_NAMES = tuple(attribute.name for attribute in attrs.fields(Message))


def _check_exchange(message: Message) -> None:
    exchange = short_string(message.exchange, "exchange")
    if "\n" in exchange or "\r" in exchange:
        # exchange.declare drops CR and LF from the name, basic.publish does not: such an exchange is never found.
        raise InvalidMessage("exchange", "contains a line break, which no exchange name has in RabbitMQ; remove it")
    _set(message, "exchange", exchange)


def _check_optional_strings(message: Message) -> None:
    for name, value in zip(_OPTIONAL_STRINGS, _optional_strings(message), strict=True):
        if value is not None and not is_plain(value):
            _set(message, name, short_string(value, name))


def _check_times(message: Message) -> None:
    for name in ("delay", "not_before", "ttl"):
        seconds = getattr(message, name)
        if seconds is None:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < MAX_SECONDS:
            raise InvalidMessage(name, SECONDS_RULE)
        _set(message, name, float(seconds))
    if message.delay is not None and message.not_before is not None:
        raise InvalidMessage("not_before", "is given together with delay; give one of them")
    if message.ttl == 0:
        raise InvalidMessage("ttl", "must be more than 0 seconds")
    if message.ttl is not None and message.delay is not None and message.delay >= message.ttl:
        raise InvalidMessage("ttl", "is not longer than delay, so that the message would never be published; raise it")


def _check_expiration(expiration: str) -> None:
    """Digits only: RabbitMQ takes a sign, too, but then -1 is an error only the broker tells. Leading zeros pass."""
    if not (expiration.isascii() and expiration.isdigit()):
        raise InvalidMessage("expiration", "must be milliseconds written in the digits 0-9 only, such as '60000'")
    if int(expiration) > MAX_EXPIRATION:
        raise InvalidMessage("expiration", f"is more than ten years; give at most {MAX_EXPIRATION} milliseconds")


def _refuse_body(size: int, limit: int) -> None:
    raise InvalidMessage("body", f"is {size} bytes, over the limit of {limit}; split it or store it elsewhere")


def _check_header_frame(message: Message, headers_size: int, frame_max: int) -> None:
    """RabbitMQ closes the connection when the content header does not fit into one frame."""
    limit = frame_max - HEADER_FRAME_OVERHEAD
    if headers_size + _MAX_PLAIN <= limit:
        return
    size = 2 + headers_size + 1  # flags, headers, delivery mode: always set by the time of publishing
    size += sum(1 + len(text.encode()) for text in _optional_strings(message)[:_PROPERTIES] if text is not None)
    if message.message_id is None:
        size += 1 + _STAMPED_ID
    size += (message.priority is not None) + 8 * (message.timestamp is not None)
    if size > limit:
        raise InvalidMessage(
            "headers",
            f"make properties of {size} bytes, over the {limit} that fit into one frame; move data to the body",
        )
