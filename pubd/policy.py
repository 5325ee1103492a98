"""Policies: what the outcomes of deliveries do to messages, by exchange and routing key. First match wins."""

from __future__ import annotations

import enum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from pubd.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Sequence


class OnReturn(enum.Enum):
    """What to do with a message that RabbitMQ returned as unroutable."""

    PARK = "park"
    RETRY = "retry"
    DROP = "drop"


class OnNack(enum.Enum):
    """What to do with a message that RabbitMQ nacked; its queues may hold it or not."""

    RETRY = "retry"
    PARK = "park"
    DUPLICATE = "confirmed-as-duplicate"
    """For brokers that nack what they have already, such as with message deduplication: count it as confirmed."""


@attrs.frozen(kw_only=True)
class Policy:
    """How outcomes are settled. ``max_attempts`` counts nacks and retried returns; outages cost nothing.

    ``exchange`` is a pattern with ``*`` and ``?`` as in file names; ``routing_key`` one as in a topic binding (``*`` is
    one word, ``#`` any number). ``lifetime``: seconds from acceptance after which a message is parked instead of tried
    once more. ``heal``: release what was returned when RabbitMQ routes it again, probed every ``heal_interval``
    seconds. ``park_to``: an exchange to which a copy of each parked message is published, with headers saying why.
    """

    exchange: str = "*"
    routing_key: str = "#"
    on_return: OnReturn = OnReturn.PARK
    on_nack: OnNack = OnNack.RETRY
    max_attempts: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    backoff: Backoff = Backoff(first=1.0, max=300.0, jitter=1.0)
    lifetime: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    heal: bool = False
    heal_interval: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    park_to: str | None = None

    def matches(self, exchange: str, routing_key: str) -> bool:
        """Whether this policy is for such a message."""
        return fnmatchcase(exchange, self.exchange) and topic_matches(self.routing_key, routing_key)


class Policies:
    """An ordered set of policies; ``default`` is for what none of them matches."""

    def __init__(self, policies: Sequence[Policy] = (), default: Policy | None = None) -> None:
        # Messages of one application have few routes, and patterns cost more than everything else about a nack.
        self.of = lru_cache(maxsize=4096)(self._of)
        self.reconfigure(policies, default or Policy())

    def reconfigure(self, policies: Sequence[Policy], default: Policy) -> None:
        """These, from the next outcome on."""
        self.default = default
        self.all = (*policies, default)
        self.of.cache_clear()

    def _of(self, exchange: str, routing_key: str) -> Policy:
        return next((each for each in self.all if each.matches(exchange, routing_key)), self.default)


def topic_matches(pattern: str, routing_key: str) -> bool:
    """As a binding of a topic exchange would (AMQP 0-9-1, 3.1.3.3): words between dots, ``*`` one, ``#`` any number."""
    if pattern == "#":
        return True
    words = routing_key.split(".")
    # reached[n]: the pattern so far can match the first n words.
    reached = [True] + [False] * len(words)
    for part in pattern.split("."):
        if part == "#":
            first = reached.index(True) if True in reached else len(reached)
            reached = [n >= first for n in range(len(reached))]
        else:
            reached = [False] + [reached[n] and part in ("*", words[n]) for n in range(len(words))]
    return reached[-1]
