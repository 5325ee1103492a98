"""Every table and key of ``pubd.toml``: what it takes, what it is without, and why it is there.

One table of facts for the reader, the environment and the documentation (docs/config.rst is made from it).
"""

from __future__ import annotations

import enum

from pubd.config.access import ACCESS, PRINCIPAL
from pubd.config.arrays import BINDING, EXCHANGE, QUEUE, SCHEDULE
from pubd.config.intakes import INTAKES
from pubd.config.key import Key, Table
from pubd.config.kinds import (
    ANY_SECONDS,
    BOOLEAN,
    COUNT,
    EXCHANGE_OR_NONE,
    FACTOR,
    HEARTBEAT,
    NAME,
    SPOOL,
    TEXT,
    URLS,
    Kind,
    choice,
    duration,
    or_unlimited,
    size,
    whole,
)
from pubd.config.log import LOG
from pubd.config.tracing import TRACING
from pubd.policy import OnNack, OnReturn

DEFAULT_URL = "amqp://guest:guest@localhost:5672/%2F"


class OnChannelClose(enum.Enum):
    """What to do when RabbitMQ closes a channel."""

    RECOVER = "recover"
    SHUTDOWN = "shutdown"


def _backoff(first: str | None, factor: int | None, longest: str | None, absent: str) -> Key:
    part = "as in [delivery]"
    return Key(
        name="backoff",
        kind=Kind("table", dict),
        absent=absent,
        why="How long a nacked or returned message waits before its next attempt: a random share of "
        "first x factor^attempts, at most max, so that many do not come back at once.",
        example='backoff = { first = "1s", factor = 2, max = "5m" }',
        keys=(
            Key(
                name="first",
                kind=duration(0.001),
                default=first,
                absent=part,
                why="The first wait.",
                example='first = "1s"',
            ),
            Key(
                name="factor",
                kind=FACTOR,
                default=factor,
                absent=part,
                why="What each further wait is multiplied by.",
                example="factor = 2",
            ),
            Key(
                name="max",
                kind=duration(0.001),
                default=longest,
                absent=part,
                why="The longest wait.",
                example='max = "5m"',
            ),
        ),
    )


def _settlement(inherited: bool) -> tuple[Key, ...]:
    """The keys that [delivery] and [[policy]] share; a policy takes from [delivery] what it does not say."""
    absent = "as in [delivery]"

    def default(value: object) -> object:
        return None if inherited else value

    return (
        Key(
            name="on_return",
            kind=choice(OnReturn),
            default=default("park"),
            absent=absent,
            why="What becomes of a message that RabbitMQ returns because no queue gets it.",
            example='on_return = "retry"',
        ),
        Key(
            name="on_nack",
            kind=choice(OnNack),
            default=default("retry"),
            absent=absent,
            why="What becomes of a message that RabbitMQ refuses to take over, as a full queue with reject-publish "
            "does; confirmed-as-duplicate is for brokers that nack what they have already.",
            example='on_nack = "park"',
        ),
        Key(
            name="max_attempts",
            kind=COUNT,
            default=default(10),
            absent=absent,
            why="After so many nacks and retried returns a message is parked. Outages do not count.",
            example="max_attempts = 3",
        ),
        _backoff(*((None, None, None, absent) if inherited else ("1s", 2, "5m", "first 1s, factor 2, max 5m"))),
        Key(
            name="lifetime",
            kind=or_unlimited(duration(0.001)),
            default=default("unlimited"),
            absent=absent,
            why="Counted from acceptance; a message that fails after it is parked instead of tried again.",
            example='lifetime = "1d"',
        ),
        Key(
            name="heal",
            kind=BOOLEAN,
            default=default(False),
            absent=absent,
            why="Release messages that were parked as unroutable when RabbitMQ routes them again.",
            example="heal = true",
        ),
        Key(
            name="heal_interval",
            kind=duration(0.1),
            default=default("30s"),
            absent=absent,
            why="How often that is probed.",
            example='heal_interval = "1m"',
        ),
        Key(
            name="park_to",
            kind=EXCHANGE_OR_NONE,
            default=default(""),
            absent=absent,
            why='Exchange that gets a copy of each parked message, with headers saying why; "" is none.',
            example='park_to = "parked"',
        ),
    )


BROKER = Table(
    name="broker",
    why="Where RabbitMQ is.",
    keys=(
        Key(
            name="urls",
            kind=URLS,
            default=[DEFAULT_URL],
            secret=True,
            why="Brokers of one cluster, tried in turn. amqps:// is TLS and takes ?cacertfile=, certfile=, keyfile=, "
            "verify=. Percent-encode special characters of user name, password and vhost.",
            example='urls = ["amqps://user:password@rabbit.example/%2F?cacertfile=/etc/ssl/ca.pem"]',
        ),
        Key(
            name="heartbeat",
            kind=HEARTBEAT,
            default="30s",
            why="A silent connection is given up after two of these; 0 is none. A ?heartbeat= in a URL goes first.",
            example='heartbeat = "1m"',
        ),
        Key(
            name="on_channel_close",
            kind=choice(OnChannelClose),
            default="recover",
            why="When RabbitMQ closes a channel: open another, or end pubd with exit code 1.",
            example='on_channel_close = "shutdown"',
        ),
        Key(
            name="name",
            kind=NAME,
            default="pubd",
            why="The connection's name, as RabbitMQ's management shows it.",
            example='name = "pubd-shop"',
        ),
    ),
)

SPOOL_TABLE = Table(
    name="spool",
    why="Where accepted messages are kept until they are settled, and how many.",
    keys=(
        Key(
            name="url",
            kind=SPOOL,
            default="sqlite:///pubd.db",
            restart="the messages that pubd has accepted are in the spool that is open",
            why="sqlite:///PATH is relative to the working directory (twistd's --rundir), sqlite:////PATH absolute; "
            "memory: loses the messages with the process.",
            example='url = "sqlite:////var/lib/pubd/pubd.db"',
        ),
        Key(
            name="max_bytes",
            kind=or_unlimited(size(1)),
            default="1GiB",
            why="Submissions are refused when more than this is held.",
            example='max_bytes = "10GiB"',
        ),
        Key(
            name="max_messages",
            kind=or_unlimited(COUNT),
            default="unlimited",
            why="Submissions are refused when more messages than this are held.",
            example="max_messages = 1000000",
        ),
        Key(
            name="min_free",
            kind=size(0),
            default="256MiB",
            why="Submissions are refused when the disk would have less than this left: settlements need room.",
            example='min_free = "1GiB"',
        ),
        Key(
            name="retain",
            kind=duration(0.001),
            default="1h",
            why="How long a settled message stays known, without its body, and its idempotency key with it.",
            example='retain = "1d"',
        ),
    ),
)

DELIVERY = Table(
    name="delivery",
    why="How messages are published, and what becomes of those that RabbitMQ does not confirm.",
    keys=(
        Key(
            name="window",
            kind=whole(1, 1_000_000),
            default=1000,
            why="Deliveries in flight for each exchange; a crash duplicates at most these.",
            example="window = 100",
        ),
        Key(
            name="window_bytes",
            kind=size(1),
            default="16MiB",
            why="Bytes in flight for each exchange; a larger message goes alone.",
            example='window_bytes = "64MiB"',
        ),
        Key(
            name="confirm_timeout",
            kind=duration(0.1),
            default="30s",
            why="When RabbitMQ confirms nothing for so long, pubd connects anew and publishes again.",
            example='confirm_timeout = "2m"',
        ),
        Key(
            name="mandatory",
            kind=BOOLEAN,
            default=True,
            why="Have unroutable messages returned; false lets RabbitMQ drop and confirm them. Messages may differ.",
            example="mandatory = false",
        ),
        Key(
            name="persistent",
            kind=BOOLEAN,
            default=True,
            why="Delivery mode 2: durable queues keep the message on disk. Messages may differ.",
            example="persistent = false",
        ),
        *_settlement(inherited=False),
        Key(
            name="drain_timeout",
            kind=ANY_SECONDS,
            default="10s",
            why="How long a stopping pubd waits for RabbitMQ's answers.",
            example='drain_timeout = "1m"',
        ),
        Key(
            name="expiration_counts_spool_time",
            kind=BOOLEAN,
            default=False,
            why="Lower a message's AMQP expiration by the time that it spent in the spool.",
            example="expiration_counts_spool_time = true",
        ),
    ),
)

POLICY = Table(
    name="policy",
    many=True,
    why="Other settlement rules for some exchanges and routing keys; the first that matches wins, else [delivery].",
    keys=(
        Key(
            name="exchange",
            kind=TEXT,
            default="*",
            why="Exchanges that the policy is for; * and ? stand for any characters and for one.",
            example='exchange = "orders*"',
        ),
        Key(
            name="routing_key",
            kind=TEXT,
            default="#",
            why="Routing keys that it is for, as in a topic binding: * is one word, # any number of words.",
            example='routing_key = "order.#"',
        ),
        *_settlement(inherited=True),
    ),
)

TABLES = (
    BROKER,
    SPOOL_TABLE,
    DELIVERY,
    POLICY,
    EXCHANGE,
    QUEUE,
    BINDING,
    SCHEDULE,
    *INTAKES,
    ACCESS,
    PRINCIPAL,
    LOG,
    TRACING,
)
