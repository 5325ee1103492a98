"""``twistd pubd``: the options, and the only place where the parts are put together."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.logger import Logger
from twisted.python import usage

from pubd._version import __version__
from pubd.amqp.lane import LaneOptions
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from pubd.amqp.url import BrokerUrl
from pubd.errors import InvalidMessage, InvalidOption, PubdError
from pubd.intake.timer import TimerIntake
from pubd.message import Message
from pubd.operate.account_log import AccountLog
from pubd.publisher import Options as PublisherOptions
from pubd.publisher import Publisher
from pubd.spool.url import spool_from_url
from pubd.stop import ProcessEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.application.service import IService

    from pubd.outcome import Reason

log = Logger()

DEFAULT_URL = "amqp://guest:guest@localhost:5672/%2F"
SIZES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError("must be a number of seconds, 0 or more")
    return value


def _positive_seconds(text: str) -> float:
    value = _seconds(text)
    if value == 0:
        raise ValueError("must be more than 0 seconds")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("must be a whole number, 1 or more")
    return value


def _size(text: str) -> int:
    digits = text.rstrip("BbGgIiKkMm ")
    unit = text[len(digits) :].strip().lower()
    if unit not in SIZES:
        raise ValueError("must be a size such as 1048576, 64MiB or 1GiB")
    return int(float(digits) * SIZES[unit])


def _channel_close(text: str) -> str:
    if text not in ("recover", "shutdown"):
        raise ValueError("must be recover or shutdown")
    return text


class Options(usage.Options):
    """The command line: pika's asynchronous publisher example, as a service."""

    synopsis = "[options]"
    longdesc = (
        "Publishes to RabbitMQ with publisher confirms and answers for every message. "
        "These options are the short way in: they declare an exchange, a queue and a binding, and publish a message "
        "every --interval seconds until stopped. SIGINT and SIGTERM stop publishing, wait for the outstanding "
        "confirmations and exit 0; a second signal ends pubd at once."
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
        ["exchange", "e", "message", "The exchange to publish to; '' is the default exchange, which is not declared."],
        ["exchange-type", None, "topic", "Its type: direct, fanout, topic, headers, or a plugin's x-..."],
        ["queue", "q", "text", "The queue to declare and bind; '' declares none."],
        ["routing-key", "r", "example.text", "The routing key of messages and binding."],
        ["interval", "i", 1.0, "Seconds between messages.", _positive_seconds],
        ["count", "n", None, "Stop, with exit code 0, when this many messages have been confirmed.", _count],
        ["message", "m", "The current epoch value is {epoch}", "The text to publish; {epoch} is the time in seconds."],
        ["content-type", "C", "text/plain", "The content type of the messages."],
        ["app-id", None, "pubd", "The application id of the messages."],
        ["spool", None, "memory:", "Where accepted messages are kept: memory: loses them with the process."],
        ["spool-max-bytes", None, 1 << 30, "Submissions past this size are refused, e.g. 64MiB.", _size],
        ["window", None, 1000, "Deliveries in flight for each exchange.", _count],
        ["window-bytes", None, 16 << 20, "Bytes in flight for each exchange, e.g. 16MiB.", _size],
        [
            "confirm-timeout",
            None,
            30.0,
            "Seconds to wait for RabbitMQ's confirms before reconnecting.",
            _positive_seconds,
        ],
        ["drain-timeout", None, 10.0, "Seconds to wait for outstanding confirms when stopping.", _seconds],
        [
            "on-channel-close",
            None,
            "recover",
            "When RabbitMQ closes a channel: recover, or shutdown with code 1.",
            _channel_close,
        ],
        ["name", None, "pubd", "The connection's name, as RabbitMQ's management shows it."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.headers: dict[str, str] = {}

    def opt_url(self, url: str) -> None:
        """The broker, amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://... (TLS, verified). Give it several times for
        several brokers, tried in turn. [default: amqp://guest:guest@localhost:5672/%2F]
        """
        try:
            BrokerUrl.parse(url)
        except InvalidOption as error:
            raise usage.UsageError(f"--url: {error}") from error
        self.urls.append(url)

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
        for one, other in (("mandatory", "no-mandatory"), ("persistent", "transient")):
            if self[one] and self[other]:
                raise usage.UsageError(f"give one of --{one} and --{other}, not both")
        self.urls = self.urls or [DEFAULT_URL]
        try:
            self.topology()
            self.make_message(time.time())()
            spool_from_url(self["spool"])
        except InvalidMessage as error:
            raise usage.UsageError(f"--{error.field.partition('[')[0].replace('_', '-')}: {error.problem}") from error
        except PubdError as error:
            raise usage.UsageError(str(error)) from error

    def topology(self) -> Topology:
        """What the example declares: an exchange, a queue, and the binding between the two."""
        exchange, queue, passive = self["exchange"], self["queue"], bool(self["passive"])
        return Topology(
            exchanges=[Exchange(name=exchange, type=self["exchange-type"], passive=passive)] if exchange else [],
            queues=[Queue(name=queue, passive=passive)] if queue else [],
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


class _Shutdown:
    """``--on-channel-close=shutdown``: the example's behaviour."""

    def __init__(self, end: ProcessEnd) -> None:
        self._end = end

    def channel_closed(self, reason: Reason) -> None:
        """Stop with exit code 1 and RabbitMQ's reason."""
        log.error("shutting down, because RabbitMQ closed a channel: {reason}", reason=reason)
        self._end.stop(1)


def makeService(options: Options, reactor: Any = None) -> IService:
    """The service tree of ``twistd pubd``."""
    if reactor is None:
        from twisted.internet import reactor
    # pika reports by log lines, some with tracebacks, what the link logs in one sentence.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
    tree = MultiService()
    end = ProcessEnd(reactor=reactor)
    publisher = Publisher.from_url(
        options.urls,
        spool=spool_from_url(options["spool"], max_bytes=options["spool-max-bytes"]),
        reactor=reactor,
        name=options["name"],
        topology=options.topology(),
        options=PublisherOptions(
            mandatory=not options["no-mandatory"],
            persistent=not options["transient"],
            drain_timeout=options["drain-timeout"],
            lanes=LaneOptions(
                window=options["window"],
                window_bytes=options["window-bytes"],
                confirm_timeout=options["confirm-timeout"],
            ),
        ),
        events=_Shutdown(end) if options["on-channel-close"] == "shutdown" else None,
    )
    publisher.setName("publisher")
    # In this order, so that the intake exists no longer than what it submits to.
    end.setServiceParent(tree)
    publisher.setServiceParent(tree)
    AccountLog(clock=reactor, account=publisher.account).setServiceParent(tree)
    if not options["no-publish"]:
        TimerIntake(
            clock=reactor,
            submit=publisher.submit,
            make=options.make_message(),
            interval=options["interval"],
            count=options["count"],
            finished=end.stop,
        ).setServiceParent(tree)
    return tree
