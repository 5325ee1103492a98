"""``twistd pubd``: the only place where the parts are put together."""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from pubd.amqp.broker import Target
from pubd.amqp.lane import LaneOptions
from pubd.amqp.tls import check_files
from pubd.arguments import Options
from pubd.config import Config, OnChannelClose
from pubd.errors import InvalidOption
from pubd.intake.http.reloading import reload_routes
from pubd.intake.prepared import Prepared
from pubd.intake.timer import TimerIntake
from pubd.intakes import Intakes
from pubd.operate.account_log import AccountLog
from pubd.operate.sd_notify import NotifySocket
from pubd.operate.sentence import sentence
from pubd.operate.systemd import CLOSING, Systemd, process_watchdog
from pubd.operate.twistd_log import give_observer
from pubd.options import Options as PublisherOptions
from pubd.publisher import Publisher, connection_name
from pubd.reload import Reload, in_time
from pubd.spool.base import Limits
from pubd.spool.url import spool_from_url
from pubd.stop import InTurn, ProcessEnd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.amqp.topology import Topology
    from pubd.amqp.url import BrokerUrl
    from pubd.errors import SpoolError
    from pubd.observer import Traces
    from pubd.operate.logs import Log
    from pubd.operate.otlp import Otlp
    from pubd.outcome import Reason
    from pubd.reload import Part

__all__ = ["Options", "makeService"]

log = Logger()

#: Thresholds of Python's garbage collector. Its default looks at the youngest objects every 700 of them: with some
#: objects for each of a thousand messages in flight that is a twentieth of pubd's CPU, and finds nothing.
COLLECT = (10_000, 20, 50)
#: Open files that pubd asks for; see the limits of connections in [http] and [lines].
FILES = 65536
#: Seconds between account lines: pika's example wants to be watched, a daemon to be read afterwards.
WATCHED, READ = 1.0, 60.0


class _Logged(InTurn):
    """Logs as its configuration has it, where twistd's own options leave that open."""

    def __init__(self, end: ProcessEnd, options: Options, config: Config, reactor: Any) -> None:
        super().__init__(end)
        self._options, self._log_options, self._reactor = options, config.log, reactor
        self._log: Log | None = None
        self.on_channel_close = _OnChannelClose(end, config.broker.on_channel_close)

    def setServiceParent(self, parent: Any) -> None:
        """twistd, which is about to begin logging, asks the application that it gives."""
        twistd = getattr(self._options, "parent", None)
        self._log = give_observer(parent, twistd, self._log_options, os.environ, self._reactor)
        super().setServiceParent(parent)

    def prepare(self, config: Config) -> Prepared:
        """What the process as a whole is told by a new configuration. The log's file is opened anew where need be."""

        def apply() -> None:
            self.on_channel_close.what = config.broker.on_channel_close
            if self._log is not None:
                self._log.reopen()
                self._log.reconfigure(config.log)

        return Prepared(apply=apply)


class _OnChannelClose:
    """``on_channel_close``: with ``shutdown`` pubd ends, as pika's example does."""

    def __init__(self, end: ProcessEnd, what: OnChannelClose) -> None:
        self._end = end
        self.what = what

    def channel_closed(self, reason: Reason) -> None:
        """Stop with exit code 1 and RabbitMQ's reason; not again for what is closed while pubd stops."""
        if self._end.stopping or self.what is not OnChannelClose.SHUTDOWN:
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
    tree = InTurn(end)
    publisher = _publisher(
        reactor,
        end,
        urls=options.urls,
        spool=options["spool"],
        limits=Limits(max_bytes=options["spool-max-bytes"]),
        name=options["name"],
        topology=options.topology(),
        events=_OnChannelClose(end, OnChannelClose(options["on-channel-close"])),
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
    publisher = _publisher(
        reactor,
        end,
        urls=config.broker.urls,
        spool=config.spool.url,
        limits=config.spool.limits,
        name=config.broker.name,
        topology=config.topology,
        events=tree.on_channel_close,
        options=_publisher_options(config),
        traces=spans.tracing if spans is not None else None,
    )
    _plant(tree, end, publisher, reactor, READ)
    parts: list[Part] = []
    path = options.config_path
    reload = Reload(
        config,
        where=path,
        load=lambda: Config.load(path, os.environ),
        parts=parts,
        in_thread=lambda read: deferToThreadPool(reactor, reactor.getThreadPool(), read),
    )

    def cannot_listen(_: InvalidOption) -> None:
        # Logged where it happened. A daemon that nobody reaches is not to look as if it worked.
        end.stop(1)

    try:
        intakes = Intakes(
            config,
            reactor=reactor,
            end=end,
            publisher=publisher,
            failed=cannot_listen,
            spans=spans,
            stop=end.stop,
            routes=reload_routes(reload.reload),
        )
    except InvalidOption as error:
        # A certificate that cannot be read, say: what the configuration alone does not show.
        print(f"pubd: {error}", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from None
    intakes.setServiceParent(tree)
    parts += [tree, _Publishing(publisher, reload, reactor), intakes]
    reload.setServiceParent(tree)
    end.reload = lambda: reload.reload().addErrback(lambda _: None)
    if (socket := NotifySocket.from_environment(os.environ)) is not None:
        # Last, and so the first to stop: systemd is to hear of a stop when it begins.
        systemd = Systemd(
            clock=reactor,
            socket=socket,
            ready=lambda: publisher.ready and not end.stopping,
            oldest=publisher.oldest,
            sentence=lambda oldest: sentence(
                publisher.status(),
                publisher.account(),
                oldest=oldest,
                brokers=len(reload.config.broker.urls),
                pauses=publisher.pauses,
                now=time.time(),
                draining=publisher.draining,
            ),
            watchdog=process_watchdog(),
            stopping=lambda: reload.config.delivery.drain_timeout + CLOSING,
        )
        systemd.setServiceParent(tree)
        reload.supervisors.append(systemd)
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


def _publisher_options(config: Config) -> PublisherOptions:
    delivery = config.delivery
    return PublisherOptions(
        mandatory=delivery.mandatory,
        persistent=delivery.persistent,
        lanes=delivery.lanes,
        policies=config.policies,
        policy=delivery.policy,
        expiration_counts_spool_time=delivery.expiration_counts_spool_time,
        retain=config.spool.retain,
        drain_timeout=delivery.drain_timeout,
    )


class _Publishing:
    """The publisher as a part of a reload, which waits for what it declares."""

    def __init__(self, publisher: Publisher, reload: Reload, reactor: Any) -> None:
        self._publisher = publisher
        self._reload = reload
        self._reactor = reactor

    def prepare(self, config: Config) -> Prepared:
        """Certificates of brokers are read at each connection; here, to see that they can be."""
        for url in config.broker.urls:
            check_files(url)
        target = Target(
            urls=config.broker.urls, connection_name=connection_name(config.broker.name), topology=config.topology
        )

        def apply() -> None:
            declared = self._publisher.reconfigure(
                _publisher_options(config), target=target, limits=config.spool.limits
            )
            self._reload.wait_for(in_time(self._reactor, declared))

        return Prepared(apply=apply)


def _publisher(
    reactor: Any,
    end: ProcessEnd,
    *,
    urls: Sequence[str | BrokerUrl],
    spool: str,
    limits: Limits,
    name: str,
    topology: Topology,
    events: _OnChannelClose,
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
        events=events,
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
