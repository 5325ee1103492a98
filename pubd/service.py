"""``twistd pubd``: the only place where the parts are put together."""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from pubd.amqp.lane import LaneOptions
from pubd.arguments import Options
from pubd.config import OnChannelClose
from pubd.errors import InvalidOption
from pubd.intake.timer import TimerIntake
from pubd.intakes import intakes
from pubd.operate.account_log import AccountLog
from pubd.operate.sd_notify import NotifySocket
from pubd.operate.sentence import sentence
from pubd.operate.systemd import CLOSING, Systemd, process_watchdog
from pubd.operate.twistd_log import give_observer
from pubd.options import Options as PublisherOptions
from pubd.publisher import Publisher
from pubd.spool.base import Limits
from pubd.spool.url import spool_from_url
from pubd.stop import ProcessEnd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.amqp.topology import Topology
    from pubd.amqp.url import BrokerUrl
    from pubd.config import Config
    from pubd.errors import SpoolError
    from pubd.observer import Traces
    from pubd.operate.otlp import Otlp
    from pubd.outcome import Reason

__all__ = ["Options", "makeService"]

log = Logger()

#: Thresholds of Python's garbage collector. Its default looks at the youngest objects every 700 of them: with some
#: objects for each of a thousand messages in flight that is a twentieth of pubd's CPU, and finds nothing.
COLLECT = (10_000, 20, 50)
#: Open files that pubd asks for; see the limits of connections in [http] and [lines].
FILES = 65536
#: Seconds between account lines: pika's example wants to be watched, a daemon to be read afterwards.
WATCHED, READ = 1.0, 60.0


class _InTurn(MultiService):
    """Starts its services in their order, and no more of them once pubd is to end: nobody is to connect to it then.

    Stops them one after the other, the last one first: each outlives what was added after it.
    """

    def __init__(self, end: ProcessEnd) -> None:
        super().__init__()
        self._end = end

    def startService(self) -> None:
        """As IService says."""
        Service.startService(self)
        for service in self:
            if self._end.stopping:
                break
            service.startService()

    def stopService(self) -> Deferred[None]:
        """Fires when the last one has stopped."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed([each for each in self if each.running]):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                log.failure("{service} did not stop; going on", service=service)


class _Logged(_InTurn):
    """Logs as its configuration has it, where twistd's own options leave that open."""

    def __init__(self, end: ProcessEnd, options: Options, config: Config, reactor: Any) -> None:
        super().__init__(end)
        self._options, self._log, self._reactor = options, config.log, reactor

    def setServiceParent(self, parent: Any) -> None:
        """twistd, which is about to begin logging, asks the application that it gives."""
        give_observer(parent, getattr(self._options, "parent", None), self._log, os.environ, self._reactor)
        super().setServiceParent(parent)


class _Shutdown:
    """``--on-channel-close=shutdown``: the example's behaviour."""

    def __init__(self, end: ProcessEnd) -> None:
        self._end = end

    def channel_closed(self, reason: Reason) -> None:
        """Stop with exit code 1 and RabbitMQ's reason; not again for what is closed while pubd stops."""
        if self._end.stopping:
            return
        log.error("shutting down, because RabbitMQ closed a channel: {reason}", reason=reason)
        self._end.stop(1)


def makeService(options: Options, reactor: Any = None) -> IService:
    """The service tree of ``twistd pubd``."""
    if reactor is None:
        from twisted.internet import reactor
    if not hasattr(reactor, "advance"):
        # Twisted's timers follow the time of day: a clock that is set would stall retries, or fire them all at once.
        reactor.seconds = time.monotonic
    gc.set_threshold(*COLLECT)
    _raise_limit_of_files()
    # pika reports by log lines, some with tracebacks, what the link logs in one sentence.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
    return _daemon(options, options.config, reactor) if options.config is not None else _example(options, reactor)


def _raise_limit_of_files() -> None:
    """Each connection is one: the soft limit is for programs that use select(), which pubd does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.debug("the limit of open files stays at {soft}: {error}", soft=soft, error=str(error))


def _example(options: Options, reactor: Any) -> IService:
    end = ProcessEnd(reactor=reactor)
    tree = _InTurn(end)
    publisher = _publisher(
        reactor,
        end,
        urls=options.urls,
        spool=options["spool"],
        limits=Limits(max_bytes=options["spool-max-bytes"]),
        name=options["name"],
        topology=options.topology(),
        shutdown=options["on-channel-close"] == "shutdown",
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
    )
    _plant(tree, end, publisher, reactor, WATCHED)
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


def _daemon(options: Options, config: Config, reactor: Any) -> IService:
    for hint in config.hints:
        log.warn("{hint}", hint=str(hint))
    end = ProcessEnd(reactor=reactor)
    tree = _Logged(end, options, config, reactor)
    spans = _spans(tree, config, reactor)
    delivery, spool = config.delivery, config.spool
    publisher = _publisher(
        reactor,
        end,
        urls=config.broker.urls,
        spool=spool.url,
        limits=spool.limits,
        name=config.broker.name,
        topology=config.topology,
        shutdown=config.broker.on_channel_close is OnChannelClose.SHUTDOWN,
        options=PublisherOptions(
            mandatory=delivery.mandatory,
            persistent=delivery.persistent,
            lanes=delivery.lanes,
            policies=config.policies,
            policy=delivery.policy,
            expiration_counts_spool_time=delivery.expiration_counts_spool_time,
            retain=spool.retain,
            drain_timeout=delivery.drain_timeout,
        ),
        traces=spans.tracing if spans is not None else None,
    )
    _plant(tree, end, publisher, reactor, READ)

    def cannot_listen(_: InvalidOption) -> None:
        # Logged where it happened. A daemon that nobody reaches is not to look as if it worked.
        end.stop(1)

    try:
        for intake in intakes(
            config, reactor=reactor, publisher=publisher, failed=cannot_listen, spans=spans, stop=end.stop
        ):
            intake.setServiceParent(tree)
    except InvalidOption as error:
        # A certificate that cannot be read, say: what the configuration alone does not show.
        print(f"pubd: {error}", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from None
    if (socket := NotifySocket.from_environment(os.environ)) is not None:
        # Last, and so the first to stop: systemd is to hear of a stop when it begins.
        Systemd(
            clock=reactor,
            socket=socket,
            ready=lambda: publisher.ready and not end.stopping,
            oldest=publisher.oldest,
            sentence=lambda oldest: sentence(
                publisher.status(),
                publisher.account(),
                oldest=oldest,
                brokers=len(config.broker.urls),
                pauses=publisher.pauses,
                now=time.time(),
            ),
            watchdog=process_watchdog(),
            stopping=delivery.drain_timeout + CLOSING,
        ).setServiceParent(tree)
    return tree


def _spans(tree: MultiService, config: Config, reactor: Any) -> Otlp | None:
    """First, and so the last to stop: the spans of the last messages are to get out as well."""
    if config.tracing is None:
        return None
    # Only here: OpenTelemetry is an extra, and takes a while to import.
    from pubd.operate.otlp import Otlp
    from pubd.operate.tracing import Tracing

    spans = Otlp(config.tracing, Tracing(ratio=config.tracing.ratio), reactor=reactor)
    spans.setServiceParent(tree)
    return spans


def _publisher(
    reactor: Any,
    end: ProcessEnd,
    *,
    urls: Sequence[str | BrokerUrl],
    spool: str,
    limits: Limits,
    name: str,
    topology: Topology,
    shutdown: bool,
    options: PublisherOptions,
    traces: Traces | None = None,
) -> Publisher:
    def failed(_: SpoolError) -> None:
        # Logged by whom it happened to; the process is started again by its supervisor, or a person repairs the cause.
        end.stop(1)

    publisher = Publisher.from_url(
        urls,
        spool=spool_from_url(spool, reactor=reactor, limits=limits, failed=failed),
        reactor=reactor,
        name=name,
        topology=topology,
        options=options,
        events=_Shutdown(end) if shutdown else None,
        failed=failed,
        traces=traces,
    )
    publisher.setName("publisher")
    return publisher


def _plant(tree: MultiService, end: ProcessEnd, publisher: Publisher, reactor: Any, interval: float) -> None:
    """In this order: intakes end before what they submit to, and the account is told once more after that."""
    end.setServiceParent(tree)
    AccountLog(clock=reactor, account=publisher.account, interval=interval).setServiceParent(tree)
    publisher.setServiceParent(tree)
