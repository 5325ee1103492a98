"""The command line of ``twistd pubd``: a configuration file, or pika's asynchronous publisher example."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.python import usage

from pubd._version import __version__
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from pubd.amqp.url import BrokerUrl
from pubd.config import Config, ConfigError
from pubd.errors import InvalidMessage, PubdError
from pubd.message import Message
from pubd.spool.url import check_spool_url

if TYPE_CHECKING:
    from collections.abc import Callable


#: sysexits.h, EX_CONFIG.
CONFIGURATION = 78
DEFAULT_URL = "amqp://guest:guest@localhost:5672/%2F"
FIELDS = {"headers": "header", "body": "message"}
"""Fields of a message whose option has another name."""
N = TypeVar("N", int, float)
SIZES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def _named(option: str, parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """usage.Options says neither which option was wrong nor what was given."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise usage.UsageError(f"--{option} {text!r}: {error}") from error

    return read


def _seconds(text: str) -> float:
    value = _number(float, text, "give a number of seconds such as 0.5 or 10")
    if not 0 <= value < 1e9:
        raise ValueError("give a number of seconds, 0 or more")
    return value


def _positive_seconds(text: str) -> float:
    value = _seconds(text)
    if value == 0:
        raise ValueError("give more than 0 seconds")
    return value


def _count(text: str) -> int:
    value = _number(int, text, "give a whole number, 1 or more")
    if value < 1:
        raise ValueError("give a whole number, 1 or more")
    return value


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)", text.strip().lower())
    size = int(float(found[1]) * SIZES[found[2]]) if found and found[2] in SIZES else 0
    if size < 1:
        raise ValueError("give a size such as 1048576, 64MiB or 1GiB")
    return size


def _number(kind: type[N], text: str, fix: str) -> N:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(fix) from None


def _choice(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"give one of {', '.join(choices)}")
        return text

    return read


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    return text


QUEUE_TYPE = _choice("classic", "quorum", "stream")
ON_CLOSE = _choice("recover", "shutdown")


def _row(
    name: str, letter: str | None, default: Any, text: str, parse: Callable[[str], Any] | None = None
) -> list[Any]:
    return [name, letter, default, text] + ([_named(name, parse)] if parse else [])


class Options(usage.Options):
    """What was given; ``config`` is None for the example."""

    synopsis = "[options]"
    longdesc = (
        "Publishes to RabbitMQ with publisher confirms and answers for every message. With --config everything stands "
        "in a file (pubd check FILE says whether it is right). The other options are the short way in: they declare "
        "an exchange, a queue and a binding, and publish a message every --interval seconds until stopped. SIGINT and "
        "SIGTERM stop publishing, wait for the outstanding confirmations and exit 0; a second signal ends pubd at once."
    )

    optFlags = [  # noqa: RUF012 (usage.Options wants lists)
        [
            "mandatory",
            None,
            "Ask RabbitMQ to return messages that no queue gets; they are parked, not confirmed. [default]",
        ],
        ["no-mandatory", None, "Let RabbitMQ drop messages that no queue gets: they count as confirmed."],
        ["persistent", None, "Publish with delivery mode 2: durable queues write messages to disk. [default]"],
        ["transient", None, "Publish with delivery mode 1."],
        ["passive", None, "Only check that exchange and queue exist, declare neither."],
        ["no-publish", None, "Declare and connect, but publish nothing."],
    ]

    optParameters = [  # noqa: RUF012
        _row(
            "exchange", "e", "message", "The exchange to publish to; '' is the default exchange, which is not declared."
        ),
        _row("exchange-type", None, "topic", "Its type: direct, fanout, topic, headers, or a plugin's x-..."),
        _row("queue", "q", "text", "The queue to declare and bind; '' declares none."),
        _row(
            "queue-type",
            None,
            None,
            "Its type: classic, quorum or stream; RabbitMQ's default if not given.",
            QUEUE_TYPE,
        ),
        _row("routing-key", "r", "example.text", "The routing key of messages and binding."),
        _row("interval", "i", 1.0, "Seconds between messages.", _positive_seconds),
        _row("count", "n", None, "Stop, with exit code 0, when this many messages have been confirmed.", _count),
        _row(
            "message", "m", "The current epoch value is {epoch}", "The text to publish; {epoch} is the time in seconds."
        ),
        _row("content-type", "C", "text/plain", "The content type of the messages."),
        _row("app-id", None, "pubd", "The application id of the messages."),
        _row(
            "spool",
            None,
            "memory:",
            "Where accepted messages are kept: sqlite:///spool.db outlives the process, memory: does not.",
        ),
        _row("spool-max-bytes", None, 1 << 30, "Submissions past this size are refused, e.g. 64MiB.", _size),
        _row("window", None, 1000, "Deliveries in flight for each exchange.", _count),
        _row("window-bytes", None, 16 << 20, "Bytes in flight for each exchange, e.g. 16MiB.", _size),
        _row(
            "confirm-timeout",
            None,
            30.0,
            "Seconds that RabbitMQ may owe confirms before pubd reconnects.",
            _positive_seconds,
        ),
        _row("drain-timeout", None, 10.0, "Seconds to wait for outstanding confirms when stopping.", _seconds),
        _row(
            "on-channel-close",
            None,
            "recover",
            "When RabbitMQ closes a channel: recover, or shutdown (exit code 1).",
            ON_CLOSE,
        ),
        _row("name", None, "pubd", "The connection's name, as RabbitMQ's management shows it.", _text),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.config: Config | None = None
        self.config_path = ""
        self.urls: list[str] = []
        self.headers: dict[str, str] = {}

    def opt_config(self, path: str) -> None:
        """The configuration, pubd.toml. It stands for all other options. Exit code 78 if it is wrong."""
        try:
            self.config = Config.load(path, os.environ)
            # As twistd may change its directory afterwards.
            self.config_path = os.path.abspath(path)
        except ConfigError as error:
            print(error, file=sys.stderr)
            raise SystemExit(CONFIGURATION) from None

    opt_c = opt_config

    def opt_url(self, url: str) -> None:
        try:
            BrokerUrl.parse(_text(url))
        except ValueError as error:
            # InvalidOption is one; neither repeats the URL, which has a password in it.
            raise usage.UsageError(f"--url: {error}") from error
        self.urls.append(url)

    # Set from here, because usage.Options keeps the line breaks and indentation of a docstring.
    opt_url.__doc__ = (
        "The broker, amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://... (TLS, verified). "
        f"Give it several times for several brokers, tried in turn. [default: {DEFAULT_URL}]"
    )
    opt_u = opt_url

    def opt_header(self, header: str) -> None:
        """A header of the messages, NAME=VALUE (a string). Give it several times for several headers."""
        name, equals, value = header.partition("=")
        if not equals or not name:
            raise usage.UsageError(f"--header {header!r}: give it as NAME=VALUE")
        self.headers[name] = value

    opt_H = opt_header

    def opt_version(self) -> None:
        """Print the version of pubd and exit."""
        print(f"pubd {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Check what only fits together; an error here ends with a sentence and exit code 1 (twistd's usage error)."""
        if self.config is not None:
            self._refuse_beside_config()
            return
        for one, other in (("mandatory", "no-mandatory"), ("persistent", "transient")):
            if self[one] and self[other]:
                raise usage.UsageError(f"give one of --{one} and --{other}, not both")
        if self["no-publish"] and self["count"]:
            raise usage.UsageError(
                "--count waits for confirmed messages, which --no-publish never makes: give one of them"
            )
        if self["passive"] and self["queue-type"]:
            raise usage.UsageError("--queue-type is for declaring a queue, --passive declares none: give one of them")
        self.urls = self.urls or [DEFAULT_URL]
        try:
            self.make_message(time.time())()
            self.topology()
            check_spool_url(self["spool"])
        except InvalidMessage as error:
            field = error.field.partition("[")[0].replace("_", "-")
            raise usage.UsageError(f"--{FIELDS.get(field, field)}: {error.problem}") from error
        except PubdError as error:
            raise usage.UsageError(str(error)) from error

    def _refuse_beside_config(self) -> None:
        given = ["url"] * bool(self.urls) + ["header"] * bool(self.headers)
        rows: list[list[Any]] = [[name, letter, 0] for name, letter, _ in self.optFlags] + self.optParameters
        given += [name for name, _, default, *_ in rows if self[name] != default]
        if given:
            raise usage.UsageError(f"--config and --{given[0]}: with a configuration everything stands in its file")

    def topology(self) -> Topology:
        """What the example declares: an exchange, a queue, and the binding between the two."""
        exchange, queue, passive = self["exchange"], self["queue"], bool(self["passive"])
        arguments = {"x-queue-type": self["queue-type"]} if self["queue-type"] else {}
        return Topology(
            exchanges=[Exchange(name=exchange, type=self["exchange-type"], passive=passive)] if exchange else [],
            queues=[Queue(name=queue, passive=passive, arguments=arguments)] if queue else [],
            bindings=[Binding(exchange=exchange, queue=queue, routing_key=self["routing-key"])]
            if exchange and queue and not passive
            else [],
        )

    def make_message(self, now: float | None = None) -> Callable[[], Message]:
        """What the timer submits each time; the example's text, with the time in it."""

        def make() -> Message:
            epoch = int(time.time() if now is None else now)
            return Message(
                exchange=self["exchange"],
                routing_key=self["routing-key"],
                body=self["message"].replace("{epoch}", str(epoch)).encode("utf-8", "surrogateescape"),
                content_type=self["content-type"],
                app_id=self["app-id"],
                headers=self.headers or None,
            )

        return make
