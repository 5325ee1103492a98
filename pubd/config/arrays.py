"""The arrays of tables of ``pubd.toml``: topology and schedules."""

from __future__ import annotations

import attrs

from pubd.config.key import Key, Table
from pubd.config.kinds import ARGUMENTS, BOOLEAN, EXCHANGE_TYPE, NAME, STRING, TEMPLATE, TEXT, choice, duration, whole
from pubd.schedule import Missed

_PASSIVE = Key(
    name="passive",
    kind=BOOLEAN,
    default=False,
    why="Only check that it exists, declare nothing.",
    example="passive = true",
)
_DURABLE = Key(
    name="durable", kind=BOOLEAN, default=True, why="Survives a restart of RabbitMQ.", example="durable = true"
)
_AUTO_DELETE = Key(
    name="auto_delete",
    kind=BOOLEAN,
    default=False,
    why="Goes when nothing uses it any more.",
    example="auto_delete = true",
)
_ARGUMENTS = Key(
    name="arguments",
    kind=ARGUMENTS,
    why="RabbitMQ's optional arguments.",
    example='arguments = { x-queue-type = "quorum" }',
)

EXCHANGE = Table(
    name="exchange",
    many=True,
    why="An exchange to declare at every connection; messages for it wait while RabbitMQ refuses that.",
    keys=(
        Key(name="name", kind=NAME, required=True, why="Its name.", example='name = "message"'),
        Key(
            name="type",
            kind=EXCHANGE_TYPE,
            default="direct",
            why="How it routes; a plugin's types begin with x-.",
            example='type = "topic"',
        ),
        _DURABLE,
        _AUTO_DELETE,
        Key(
            name="internal",
            kind=BOOLEAN,
            default=False,
            why="Takes no messages of clients.",
            example="internal = false",
        ),
        _PASSIVE,
        attrs.evolve(_ARGUMENTS, example='arguments = { alternate-exchange = "unrouted" }'),
    ),
)
QUEUE = Table(
    name="queue",
    many=True,
    why="A queue to declare at every connection.",
    keys=(
        Key(name="name", kind=NAME, required=True, why="Its name.", example='name = "text"'),
        _DURABLE,
        Key(
            name="exclusive",
            kind=BOOLEAN,
            default=False,
            why="Belongs to this connection and goes with it.",
            example="exclusive = false",
        ),
        _AUTO_DELETE,
        _PASSIVE,
        _ARGUMENTS,
    ),
)
BINDING = Table(
    name="binding",
    many=True,
    why="A binding to declare at every connection, to a queue or to another exchange.",
    keys=(
        Key(name="exchange", kind=NAME, required=True, why="Where messages come from.", example='exchange = "message"'),
        Key(
            name="queue",
            kind=NAME,
            absent="give this or destination_exchange",
            why="The queue that they go to.",
            example='queue = "text"',
        ),
        Key(
            name="destination_exchange",
            kind=NAME,
            absent="give this or queue",
            why="The exchange that they go to.",
            example='destination_exchange = "audit"',
        ),
        Key(
            name="routing_key",
            kind=TEXT,
            default="",
            why="Which of them, as the type of the exchange takes it.",
            example='routing_key = "example.text"',
        ),
        attrs.evolve(_ARGUMENTS, example='arguments = { x-match = "any", format = "pdf" }'),
    ),
)
SCHEDULE = Table(
    name="schedule",
    many=True,
    why="A message that pubd makes by itself, again and again.",
    keys=(
        Key(name="name", kind=NAME, required=True, why="For logs, and to know it again.", example='name = "heartbeat"'),
        Key(
            name="every",
            kind=duration(0.001),
            absent="give this or cron",
            why="The time between two runs, counted from 1970, so that restarts do not shift it.",
            example='every = "1s"',
        ),
        Key(
            name="cron",
            kind=STRING,
            absent="give this or every",
            why="Five fields: minute, hour, day of month, month, day of week; or @hourly, @daily, ...",
            example='cron = "*/5 * * * *"',
        ),
        Key(
            name="timezone",
            kind=STRING,
            absent="UTC",
            why="The time zone of cron, of the IANA database.",
            example='timezone = "Europe/Berlin"',
        ),
        Key(
            name="missed",
            kind=choice(Missed),
            default="skip",
            why="Runs whose time passed while pubd was down or too busy: drop them, or make up one for all.",
            example='missed = "once"',
        ),
        Key(
            name="exchange",
            kind=TEXT,
            required=True,
            why='Where the message goes; "" is the default exchange.',
            example='exchange = "message"',
        ),
        Key(name="routing_key", kind=TEXT, default="", why="Its routing key.", example='routing_key = "example.text"'),
        Key(
            name="body",
            kind=TEMPLATE,
            default="",
            shown=False,
            why="Its text; {epoch}, {now}, {seq} and {hostname} are filled in, {{ and }} are braces.",
            example='body = "The current epoch value is {epoch}"',
        ),
        Key(name="content_type", kind=TEXT, why="Its content type.", example='content_type = "text/plain"'),
        Key(name="headers", kind=ARGUMENTS, shown=False, why="Its headers.", example="headers = { version = 1 }"),
        Key(name="type", kind=TEXT, why="Its type.", example='type = "heartbeat"'),
        Key(name="app_id", kind=TEXT, why="Its application id.", example='app_id = "shop"'),
        Key(name="priority", kind=whole(0, 255), why="Its priority.", example="priority = 5"),
        Key(
            name="ttl",
            kind=duration(0.001),
            why="How long it may wait to be published; then it expires. Shorter than the interval, so that no old ones "
            "pile up in an outage.",
            example='ttl = "10s"',
        ),
        Key(
            name="ordering_key",
            kind=NAME,
            why="Published only when the former one with this key is settled.",
            example='ordering_key = "heartbeat"',
        ),
        Key(
            name="persistent",
            kind=BOOLEAN,
            absent="as in [delivery]",
            why="Delivery mode 2 or 1.",
            example="persistent = false",
        ),
        Key(
            name="mandatory",
            kind=BOOLEAN,
            absent="as in [delivery]",
            why="Whether it is returned when no queue gets it.",
            example="mandatory = false",
        ),
    ),
)
