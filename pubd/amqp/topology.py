"""Exchanges, queues and bindings: declared, or only checked, at every connection.

Each declaration stands for itself: RabbitMQ closes the channel over one that it refuses, and the next goes on with a
new channel. What was refused is reported together with the exchanges that must not be published to meanwhile, since
their messages would be returned or go nowhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
from pika.exceptions import AMQPError, ChannelClosedByBroker
from twisted.logger import Logger

from pubd.amqp.encode import thaw
from pubd.amqp.reasons import Verdict, of_channel
from pubd.errors import InvalidOption, LinkLost
from pubd.message import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pika.adapters.twisted_connection import TwistedChannel

    from pubd.amqp.protocol import LinkProtocol
    from pubd.message import FieldValue
    from pubd.outcome import Reason

log = Logger()

EXCHANGE_TYPES = ("direct", "fanout", "topic", "headers")
_TYPE_NAME = re.compile(r"[A-Za-z0-9_.:-]+")


def _short_string(name: str, what: str, value: str) -> None:
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > 255:
        raise InvalidOption(f"{what} {name}: must be a string of at most 255 bytes")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidOption(f"{what} {name}: has a lone surrogate, which UTF-8 cannot carry; remove it")


def _arguments(value: Mapping[str, Any] | None) -> Mapping[str, FieldValue]:
    """Checked and frozen in the same way as a message's headers: it is the same AMQP table."""
    return Message(exchange="", headers=value or {}).headers or {}


@attrs.frozen(kw_only=True)
class Exchange:
    """An exchange to declare, or with ``passive`` only to check that it exists."""

    name: str
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    passive: bool = False
    arguments: Mapping[str, FieldValue] = attrs.field(factory=dict, converter=_arguments)

    def __attrs_post_init__(self) -> None:
        _short_string("name", "exchange", self.name)
        if not self.name:
            raise InvalidOption("exchange name: the default exchange exists always and cannot be declared")
        if not _TYPE_NAME.fullmatch(self.type):
            raise InvalidOption(f"exchange {self.name!r}: type must be one of {', '.join(EXCHANGE_TYPES)} or x-...")
        if self.type not in EXCHANGE_TYPES and not self.type.startswith("x-"):
            raise InvalidOption(
                f"exchange {self.name!r}: unknown type {self.type!r}; "
                f"RabbitMQ knows {', '.join(EXCHANGE_TYPES)}, and plugins' types start with x-"
            )

    def __str__(self) -> str:
        return f"exchange {self.name!r} ({'passive' if self.passive else self.type})"


@attrs.frozen(kw_only=True)
class Queue:
    """A queue to declare, or with ``passive`` only to check. ``arguments`` as RabbitMQ's (``x-queue-type``, ...)."""

    name: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    passive: bool = False
    arguments: Mapping[str, FieldValue] = attrs.field(factory=dict, converter=_arguments)

    def __attrs_post_init__(self) -> None:
        _short_string("name", "queue", self.name)
        if not self.name:
            raise InvalidOption("queue name: give one; a queue named by RabbitMQ would be another at each connection")

    def __str__(self) -> str:
        return f"queue {self.name!r}{' (passive)' if self.passive else ''}"


@attrs.frozen(kw_only=True)
class Binding:
    """``exchange`` routes to ``queue``, or to another exchange (``destination_exchange``), by ``routing_key``."""

    exchange: str
    queue: str | None = None
    destination_exchange: str | None = None
    routing_key: str = ""
    arguments: Mapping[str, FieldValue] = attrs.field(factory=dict, converter=_arguments)

    def __attrs_post_init__(self) -> None:
        _short_string("routing_key", "binding", self.routing_key)
        if not self.exchange:
            raise InvalidOption("binding exchange: the default exchange routes to every queue by name, bind another")
        if (self.queue is None) == (self.destination_exchange is None):
            raise InvalidOption(f"binding of exchange {self.exchange!r}: give one of queue and destination_exchange")

    def __str__(self) -> str:
        target = f"queue {self.queue!r}" if self.queue is not None else f"exchange {self.destination_exchange!r}"
        return f"binding of exchange {self.exchange!r} to {target} with {self.routing_key!r}"


Declaration = Exchange | Queue | Binding


@attrs.frozen(kw_only=True)
class Refused:
    """A declaration that RabbitMQ refused, with its words; for a mismatch (406) these name both values."""

    declaration: Declaration
    reason: Reason

    def __str__(self) -> str:
        return f"{self.declaration}: {self.reason}"


@attrs.frozen
class Topology:
    """What is declared at every connection, in this order."""

    exchanges: tuple[Exchange, ...] = attrs.field(default=(), converter=tuple[Exchange, ...])
    queues: tuple[Queue, ...] = attrs.field(default=(), converter=tuple[Queue, ...])
    bindings: tuple[Binding, ...] = attrs.field(default=(), converter=tuple[Binding, ...])

    def __iter__(self) -> Iterator[Declaration]:
        yield from self.exchanges
        yield from self.queues
        yield from self.bindings

    def dependants(self, refused: Declaration) -> frozenset[str]:
        """Exchanges that must not be published to while ``refused`` stands."""
        if isinstance(refused, Exchange):
            return frozenset({refused.name})
        if isinstance(refused, Binding):
            return frozenset({refused.exchange})
        return frozenset(binding.exchange for binding in self.bindings if binding.queue == refused.name)


async def declare(connection: LinkProtocol, topology: Topology) -> list[Refused]:
    """Declare or check everything; what RabbitMQ refused. Raises LinkLost when the connection goes meanwhile
    or has no channel to spare."""
    refused: list[Refused] = []
    channel: TwistedChannel | None = None
    for declaration in topology:
        if not connection.usable:
            # Nothing is asked on a channel that is being closed: pika would keep a Deferred that nobody has.
            raise LinkLost(connection.reason or Verdict.lost("the connection is being closed").reason)
        try:
            if channel is None:
                channel = await connection.channel()
            await _ask(channel, declaration)
        except Exception as error:
            # What pika lets out when the connection ends is Twisted's or OpenSSL's as often as its own.
            if connection.usable and not isinstance(error, AMQPError):
                raise
            channel = None
            reason = of_channel(error)
            if not isinstance(error, ChannelClosedByBroker):
                raise LinkLost(connection.reason or reason) from error
            refused.append(Refused(declaration=declaration, reason=reason))
            log.error("{declaration} refused: {reason}", declaration=str(declaration), reason=reason)
        else:
            done = "checked" if getattr(declaration, "passive", False) else "declared"
            log.info("{done} {declaration}", done=done, declaration=str(declaration))
    if channel is not None and connection.usable:
        channel.close()
    return refused


async def _ask(channel: TwistedChannel, declaration: Declaration) -> None:
    arguments = thaw(declaration.arguments)
    if isinstance(declaration, Exchange):
        await channel.exchange_declare(
            exchange=declaration.name,
            exchange_type=declaration.type,
            passive=declaration.passive,
            durable=declaration.durable,
            auto_delete=declaration.auto_delete,
            internal=declaration.internal,
            arguments=arguments,
        )
    elif isinstance(declaration, Queue):
        await channel.queue_declare(
            queue=declaration.name,
            passive=declaration.passive,
            durable=declaration.durable,
            exclusive=declaration.exclusive,
            auto_delete=declaration.auto_delete,
            arguments=arguments,
        )
    elif declaration.queue is not None:
        await channel.queue_bind(
            queue=declaration.queue,
            exchange=declaration.exchange,
            routing_key=declaration.routing_key,
            arguments=arguments,
        )
    else:
        await channel.exchange_bind(
            destination=declaration.destination_exchange,
            source=declaration.exchange,
            routing_key=declaration.routing_key,
            arguments=arguments,
        )
