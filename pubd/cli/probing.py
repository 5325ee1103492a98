"""``pubd check --probe``: what the configuration names, looked at: brokers, exchanges, the spool and its disk."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from pubd.amqp.probe import Finding, fail, ok, probe, untested
from pubd.cli.failure import INTERRUPTED, Failure
from pubd.errors import SpoolError, SpoolInUse
from pubd.spool import offline, traces
from pubd.spool.sqlite import RESERVE
from pubd.wording import messages, octets, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pubd.config import Config, SpoolConfig

_WILD = frozenset("*?[")


def probed(config: Config, *, timeout: float, tell: Callable[[Finding], None]) -> None:
    """All checks, each told as it is made. Raises Failure when interrupted."""
    for finding in spool_findings(config.spool):
        tell(finding)
    patterns = sorted(_patterns(config))
    if patterns:
        tell(
            untested(
                "exchanges", f"which ones {', '.join(map(plain, patterns))} will be is not known; grants name them"
            )
        )
    from twisted.internet import reactor

    run = _Run(reactor)
    run.run(lambda reactor: _brokers(reactor, config, timeout, lambda found: None if run.interrupted else tell(found)))


class _Run:
    """One on the reactor of this process, which is started for it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ended: list[Any] = []
        self.interrupted = False

    def run(self, work: Callable[[Any], Any]) -> None:
        """To the end of ``work``. Raises Failure when interrupted."""
        from twisted.internet.defer import Deferred

        def begin() -> None:
            Deferred.fromCoroutine(work(self._reactor)).addBoth(self._ended.append).addBoth(self._stop)

        self._reactor.callWhenRunning(begin)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._shutting_down)
        self._reactor.run()
        if self.interrupted:
            raise Failure("interrupted; not everything was looked at", INTERRUPTED)
        if self._ended[0] is not None:
            self._ended[0].raiseException()

    def _stop(self, _: object) -> None:
        if not self.interrupted:
            self._reactor.stop()

    def _shutting_down(self) -> None:
        """Ctrl-C, if it comes before the end: what breaks from now on, breaks by that."""
        self.interrupted = not self._ended


async def _brokers(reactor: Any, config: Config, timeout: float, tell: Callable[[Finding], None]) -> None:
    """Each one is connected to; what is declared and permitted is the same in a cluster, and looked at once."""
    exchanges = exchanges_of(config)
    looked = False
    for url in config.broker.urls:
        reached = await probe(
            reactor,
            url,
            name=f"{config.broker.name} check",
            timeout=timeout,
            exchanges=exchanges,
            topology=None if looked else config.topology,
            tell=tell,
        )
        looked = looked or reached
    if not looked and (exchanges or [*config.topology]):
        tell(untested("exchanges, queues, permissions", "no broker was reached"))


def exchanges_of(config: Config) -> dict[str, str]:
    """Those that the configuration names to publish to, each with a routing key where it has one."""
    found: dict[str, str] = {each.name: "" for each in config.topology.exchanges if not each.internal}
    for grant in (grant for principal in config.access.principals for grant in principal.grants):
        if not _WILD.intersection(grant.exchange):
            found.setdefault(grant.exchange, "")
    for policy in config.policies:
        if not _WILD.intersection(policy.exchange):
            found.setdefault(policy.exchange, "")
    for policy in (*config.policies, config.delivery.policy):
        if policy.park_to is not None:
            found.setdefault(policy.park_to, "")
    if config.directory is not None and config.directory.exchange is not None:
        found[config.directory.exchange] = found.get(config.directory.exchange) or config.directory.routing_key
    for schedule in config.schedules:
        found[schedule.exchange] = found.get(schedule.exchange) or schedule.routing_key
    return found


def _patterns(config: Config) -> set[str]:
    grants = [grant.exchange for principal in config.access.principals for grant in principal.grants]
    return {pattern for pattern in grants if _WILD.intersection(pattern)}


def spool_findings(spool: SpoolConfig) -> Iterator[Finding]:
    """The file, its lock and directory, and its disk."""
    path = spool.path
    if path is None:
        yield ok("spool", "in memory: what it holds ends with pubd")
        return
    path = path.absolute()
    what = f"spool {path}"
    if path.exists() or traces.is_orphan(path):
        yield _opened(what, path)
    else:
        yield _makeable(what, path)
    yield _disk(spool, path)


def _opened(what: str, path: Path) -> Finding:
    try:
        books = offline.books(path)
    except SpoolInUse as error:
        return ok(what, f"in use by process {error.pid or '?'}: pubd runs with it")
    except SpoolError as error:
        return fail(what, str(error), "do what it says; 'pubd verify' tells more of a damaged one")
    if not os.access(path, os.W_OK):
        return fail(what, "you may read it, and not write", "run this as pubd's user; if you do, give the file to it")
    return ok(what, f"opens; {messages(books.held)} held{_as_root(path)}")


def _makeable(what: str, path: Path) -> Finding:
    directory = path.parent
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"pubd")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return fail(
            what,
            f"{directory} cannot be written: {error.strerror}",
            f"make it, as pubd's own: 'install -d -o USER -m 700 {directory}'; run this as pubd's user",
        )
    return ok(what, f"can be made{_as_root(directory)}")


def _as_root(path: Path) -> str:
    """What root may says nothing about others."""
    return f" (by you, root; it belongs to uid {path.stat().st_uid})" if os.geteuid() == 0 else ""


def _disk(spool: SpoolConfig, path: Path) -> Finding:
    what = f"disk of {path.parent}"
    try:
        disk = os.statvfs(path.parent)
    except OSError as error:
        return fail(what, f"cannot be asked: {error.strerror}", "make the directory")
    free, reserve = disk.f_bavail * disk.f_frsize, spool.limits.min_free
    least = RESERVE if reserve is None else reserve
    if free < least:
        return fail(what, f"{octets(free)} free, and {octets(least)} are kept in reserve", "make room on it")
    most = spool.limits.max_bytes
    if most is not None and free - least < most and not path.exists():
        detail = f"{octets(free)} free: it is full before the spool holds its {octets(most)} (max_bytes)"
        return fail(what, detail, "make room on it, or lower [spool] max_bytes")
    return ok(what, f"{octets(free)} free")
