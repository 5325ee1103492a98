"""Ways in, put together as the configuration says, and otherwise when a new one says so."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import maybeDeferred

from pubd.access import Access, Quotas, Refusals
from pubd.intake.diary import FileDiary
from pubd.intake.directory import DirectoryIntake
from pubd.intake.door import Door
from pubd.intake.http.decisions import Decisions
from pubd.intake.http.foreign import foreign_routes
from pubd.intake.http.intake import HttpIntake
from pubd.intake.http.page.routes import page_routes
from pubd.intake.http.status import SpoolFacts, Status, WayIn, address_text
from pubd.intake.lines import LinesIntake
from pubd.intake.prepared import Prepared, together
from pubd.intake.schedule import ScheduleIntake
from pubd.operate.reading import IntakeReading
from pubd.operating import Operating
from pubd.stop import InTurn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pubd.access import Principal
    from pubd.config import Config
    from pubd.errors import InvalidOption
    from pubd.intake.http.route import Route
    from pubd.intake.options import DirectoryOptions, HttpOptions, LinesOptions
    from pubd.operate.reading import SpanReading
    from pubd.outcome import Reason
    from pubd.publisher import Publisher
    from pubd.stop import ProcessEnd


@attrs.define(kw_only=True, eq=False)
class _Way:
    """One way in at work: its service, what it was told, and what it shows of itself in metrics and in the status."""

    name: str
    door: Door
    service: DirectoryIntake | LinesIntake | HttpIntake
    options: DirectoryOptions | LinesOptions | HttpOptions
    principal: Principal | None = None
    """Whose files those are whose owner nobody knows."""

    @property
    def reading(self) -> IntakeReading:
        door, service, options = self.door, self.service, self.options
        reading = IntakeReading(
            name=self.name, unanswered=lambda: door.unanswered, max_unanswered=options.max_unanswered
        )
        if isinstance(service, DirectoryIntake) or not hasattr(options, "max_connections"):
            return reading
        reading = attrs.evolve(
            reading,
            connections=lambda: service.connections,
            max_connections=options.max_connections,
            refused=lambda: service.refused_connections,
        )
        if isinstance(service, HttpIntake):
            reading = attrs.evolve(reading, answers=lambda: service.site.answers)
        return reading

    @property
    def way_in(self) -> WayIn:
        service = self.service
        if isinstance(service, DirectoryIntake):
            return WayIn(name=self.name, listens=[service.path])
        listens = [address_text(address) for address in service.addresses]
        return WayIn(name=self.name, listens=listens, connections=service.connections)


class Intakes(InTurn):
    """The services of ``config``. ``failed`` is called when one cannot listen: the process should end; ``stop`` when an
    operator has it end. ``spans``: of tracing, where there is any.

    ``routes`` are further ones of the HTTP intake. Raises :class:`pubd.errors.InvalidOption` for endpoints that cannot
    be used.
    """

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        end: ProcessEnd,
        publisher: Publisher,
        failed: Callable[[InvalidOption], None],
        spans: SpanReading | None = None,
        stop: Callable[[], None] = lambda: None,
        routes: Iterable[Route] = (),
    ) -> None:
        super().__init__(end)
        self._config = config
        self._reactor = reactor
        self._publisher = publisher
        self._failed = failed
        self._routes = tuple(routes)
        self._access = Access(config.access.principals, anonymous=config.access.anonymous)
        # One of each for all intakes: whoever uses two of them has one quota.
        self._quotas, self._refusals = Quotas(), Refusals(clock=reactor)
        self._readings: list[IntakeReading] = []
        self._vhosts: set[str] = set()
        self._operating = Operating(
            clock=reactor,
            publisher=publisher,
            spool=config.spool,
            intakes=self._readings,
            spans=spans,
            stop=stop,
        )
        self._schedules = self._make_schedules()
        self._ways: dict[str, _Way] = {}
        self._operating.health.setServiceParent(self)
        self._operating.history.setServiceParent(self)
        self._schedules.setServiceParent(self)
        self._take(config)
        for name in _WAYS:
            if _options(config, name) is not None:
                self._add(self._make(name, config))

    def prepare(self, config: Config) -> Prepared:
        """Get ready for another configuration, whose certificates are read and whose sockets are opened.

        Raises :class:`pubd.errors.InvalidOption`, and then nothing has changed.
        """
        prepared = [Prepared(apply=partial(self._take, config))]
        try:
            for name in _WAYS:
                prepared += self._prepare(name, config)
        except BaseException:
            together(prepared).drop()
            raise
        return together([*prepared, Prepared(apply=self._show)])

    def _prepare(self, name: str, config: Config) -> Iterator[Prepared]:
        """One way in: it comes, goes, or goes on otherwise."""
        way, options = self._ways.get(name), _options(config, name)
        if options is None:
            if way is not None:
                yield Prepared(apply=partial(self._remove, way))
            return
        if way is None:
            new = self._make(name, config)
            if not isinstance(new.service, DirectoryIntake):
                yield self._prepared(new, options, config)
            yield Prepared(apply=partial(self._add, new))
        elif not isinstance(way.service, DirectoryIntake):
            yield self._prepared(way, options, config)
            yield Prepared(apply=partial(setattr, way, "options", options))
        elif (options, _principal(config, options)) != (way.options, way.principal):
            yield Prepared(apply=partial(self._replace, way, self._make(name, config)))

    def _prepared(self, way: _Way, options: Any, config: Config) -> Prepared:
        assert not isinstance(way.service, DirectoryIntake)
        return way.service.prepare(options, authenticated=bool(config.access.principals))

    def _take(self, config: Config) -> None:
        """What they have in common."""
        self._config = config
        self._access.reconfigure(config.access.principals, anonymous=config.access.anonymous)
        self._operating.reconfigure(config.spool)
        self._schedules.reconfigure(config.schedules)
        self._vhosts.clear()
        self._vhosts.update(url.vhost for url in config.broker.urls)

    def _add(self, way: _Way) -> None:
        self._ways[way.name] = way
        way.service.setServiceParent(self)
        self._show()

    def _remove(self, way: _Way) -> Any:
        """Fires when it has stopped; what it accepted is answered first."""
        del self._ways[way.name]
        self._show()
        return maybeDeferred(way.service.disownServiceParent).addErrback(
            lambda failure: self.log.failure("[{name}] did not stop; going on", failure, name=way.name)
        )

    def _replace(self, way: _Way, new: _Way) -> None:
        """Files are one's at a time."""

        def add(_: object) -> None:
            if self.running and new.name not in self._ways:
                self._add(new)

        self._remove(way).addCallback(add)

    def _show(self) -> None:
        """In metrics."""
        self._readings[:] = [self._ways[name].reading for name in _WAYS if name in self._ways]

    def _ways_in(self) -> list[WayIn]:
        """In the status."""
        schedules = self._schedules.names
        ways = [self._ways[name].way_in for name in _WAYS if name in self._ways]
        return [WayIn(name="schedule", listens=schedules), *ways] if schedules else ways

    # How each of them is made

    def _make(self, name: str, config: Config) -> _Way:
        options = _options(config, name)
        assert options is not None
        door = Door(
            publisher=self._publisher,
            clock=self._reactor,
            quotas=self._quotas,
            refusals=self._refusals,
            max_unanswered=options.max_unanswered,
        )
        if name == "directory":
            assert config.directory is not None
            principal = _principal(config, config.directory)
            service: Any = DirectoryIntake(
                reactor=self._reactor,
                options=config.directory,
                door=door,
                principal=principal,
                access=self._access,
            )
            return _Way(name=name, door=door, service=service, options=options, principal=principal)
        make = self._make_lines if name == "lines" else self._make_http
        service = make(options, door, config)
        return _Way(name=name, door=door, service=service, options=options)

    def _make_schedules(self) -> ScheduleIntake:
        path = self._config.spool.path
        return ScheduleIntake(
            clock=self._reactor,
            wall=time.time,
            submit=self._publisher.submit,
            schedules=self._config.schedules,
            hostname=socket.gethostname(),
            diary=FileDiary(Path(f"{path}.schedules")) if path is not None else None,
        )

    def _make_lines(self, options: Any, door: Door, config: Config) -> LinesIntake:
        return LinesIntake(
            reactor=self._reactor,
            options=options,
            door=door,
            access=self._access,
            authenticated=bool(config.access.principals),
            refusals=self._refusals,
            failed=self._failed,
        )

    def _make_http(self, options: Any, door: Door, config: Config) -> HttpIntake:
        publisher = self._publisher
        own = (*self._routes, *self._operating.routes())
        foreign = foreign_routes(
            door=door, clock=self._reactor, vhosts=self._vhosts, refusal=partial(_refusal, publisher)
        )
        status = Status(
            publisher=publisher,
            spool=self._facts,
            ways=self._ways_in,
            look=self._operating.look,
            clock=self._reactor,
            wall=time.time,
        )
        page = page_routes(
            status=status,
            held=publisher,
            verdicts=Decisions(publisher),
            history=self._operating.lately,
            clock=self._reactor,
            wall=time.time,
        )
        return HttpIntake(
            reactor=self._reactor,
            options=options,
            door=door,
            access=self._access,
            held=publisher,
            refusals=self._refusals,
            authenticated=bool(config.access.principals),
            routes=lambda waits: (*own, *status.routes(), *page, *foreign(waits)),
            ready=lambda: publisher.ready,
            failed=self._failed,
        )

    def _facts(self) -> SpoolFacts:
        spool = self._config.spool
        return SpoolFacts(path=spool.path, limits=spool.limits, retain=spool.retain)


#: In this order they start; and stop, in the other one.
_WAYS = ("directory", "lines", "http")


def _options(config: Config, name: str) -> DirectoryOptions | LinesOptions | HttpOptions | None:
    found: DirectoryOptions | LinesOptions | HttpOptions | None = getattr(config, name)
    return found


def _principal(config: Config, options: Any) -> Principal | None:
    """Whose the files are that are nobody's."""
    named = {principal.name: principal for principal in config.access.principals}
    return named[options.principal] if options.principal else config.access.anonymous


def _refusal(publisher: Publisher, exchange: str) -> Reason | None:
    """Why RabbitMQ takes nothing for ``exchange`` now, where that is known."""
    status = publisher.status()
    lanes = [lane.reason for lane in status.lanes if lane.exchange == exchange]
    return next((reason for reason in (*lanes, status.reason) if reason is not None), None)
