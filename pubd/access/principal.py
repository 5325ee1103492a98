"""Principals: who may hand in which messages."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import attrs

from pubd.access.routes import Covers, covering
from pubd.access.tokens import digest_in
from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pubd.message import Message

#: A name stands in logs, in the spool and before a colon in the file of tokens.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
NAME_RULE = "must be 1 to 64 letters, digits and . _ @ -, beginning with a letter or a digit"

# RabbitMQ routes a message to these keys, too (rabbit_basic:header_routes, Sender-selected Distribution). Their case
# counts there.
_MORE_KEYS = ("CC", "BCC")


@attrs.frozen(kw_only=True)
class Grant:
    """Leave to publish: ``exchange`` is a pattern as in file names, ``routing_key`` one as in a topic binding.

    Both as in :class:`pubd.policy.Policy`. The default exchange is ``""``, where the routing key is a queue's name; the
    pattern ``*`` is for it, too.
    """

    exchange: str = "*"
    routing_key: str = "#"


def _check_name(_: object, __: object, name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidOption(f"the name of a principal {NAME_RULE}; {name[:40]!r} is none")


def _check_rate(_: object, attribute: attrs.Attribute[float | None], rate: float | None) -> None:
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise InvalidOption(f"{attribute.name} must be more than 0 a second, or None for any; {rate} is not")


def _check_tokens(_: object, __: object, tokens: tuple[str, ...]) -> None:
    for token in tokens:
        try:
            digest_in(token)
        except InvalidOption as error:
            raise InvalidOption(f"one of tokens {error}") from None


# Without slots: every message comes by here, and an attribute of a plain instance is found sooner.
@attrs.frozen(kw_only=True, slots=False)
class Principal:
    """Somebody, by name. ``operate``: may look at messages and decide about them, of everybody.

    ``rate`` is in messages a second, ``byte_rate`` in bytes of bodies a second. ``tokens`` are hashes
    (:mod:`pubd.access.tokens`), ``users`` and ``groups`` Unix uids and gids, ``certificates`` names in client
    certificates. Raises :class:`pubd.errors.InvalidOption`.
    """

    name: str = attrs.field(validator=_check_name)
    grants: tuple[Grant, ...] = ()
    operate: bool = False
    rate: float | None = attrs.field(default=None, validator=_check_rate)
    byte_rate: float | None = attrs.field(default=None, validator=_check_rate)
    tokens: tuple[str, ...] = attrs.field(default=(), repr=False, validator=_check_tokens)
    users: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    certificates: tuple[str, ...] = ()
    _covers: Covers = attrs.field(init=False, repr=False, eq=False)

    @_covers.default
    def _make_covers(self) -> Covers:
        return covering((grant.exchange, grant.routing_key) for grant in self.grants)

    def may_publish(self, message: Message) -> bool:
        """Whether the grants cover every key that RabbitMQ would route the message by: CC and BCC, too."""
        if not self._covers(message.exchange, message.routing_key):
            return False
        headers = message.headers
        if not headers or ("CC" not in headers and "BCC" not in headers):
            return True
        return not any(True for _ in self._uncovered(message))

    def uncovered(self, message: Message) -> tuple[str, ...]:
        """What of the message is not granted, in words for the operator's log. Empty where it may be published."""
        return tuple(self._uncovered(message))

    def _uncovered(self, message: Message) -> Iterator[str]:
        if not self._covers(message.exchange, message.routing_key):
            yield f"routing key {message.routing_key!r}"
        for name in _MORE_KEYS:
            keys = (message.headers or {}).get(name, ())
            # A Message has been checked; whatever gets here in another way is not waved through for that.
            if not isinstance(keys, tuple | list):
                yield f"{name}, which is no list"
                continue
            for key in keys:
                if not isinstance(key, str):
                    yield f"{name} with something that is no text"
                elif not self._covers(message.exchange, key):
                    yield f"{name} {key!r}"


#: Whoever comes over loopback or a unix socket, while nothing else is configured.
LOCAL = Principal(name="local", grants=(Grant(),), operate=True)
