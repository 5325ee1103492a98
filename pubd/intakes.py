"""Ways in, put together as the configuration says."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from pubd.access import Access, Quotas, Refusals
from pubd.intake.diary import FileDiary
from pubd.intake.directory import DirectoryIntake
from pubd.intake.door import Door
from pubd.intake.http.foreign import foreign_routes
from pubd.intake.http.intake import HttpIntake
from pubd.intake.http.status import SpoolFacts, WayIn, address_text, status_routes
from pubd.intake.lines import LinesIntake
from pubd.intake.schedule import ScheduleIntake
from pubd.operate.reading import IntakeReading
from pubd.operating import Operating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted.application.service import IService

    from pubd.config import Config
    from pubd.errors import InvalidOption
    from pubd.intake.options import DirectoryOptions, HttpOptions, LinesOptions
    from pubd.operate.reading import SpanReading
    from pubd.outcome import Reason
    from pubd.publisher import Publisher
    from pubd.schedule import Schedule


def intakes(
    config: Config,
    *,
    reactor: Any,
    publisher: Publisher,
    failed: Callable[[InvalidOption], None],
    spans: SpanReading | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[IService]:
    """The services of ``config``. ``failed`` is called when one cannot listen: the process should end; ``stop`` when an
    operator has it end.

    ``spans``: of tracing, where there is any. Raises :class:`pubd.errors.InvalidOption` for endpoints that cannot be
    used.
    """
    return _Intakes(config, reactor, publisher, failed, spans, stop).services()


class _Intakes:
    """What they have in common, and for each of them how it is made and what it shows of itself."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        publisher: Publisher,
        failed: Callable[[InvalidOption], None],
        spans: SpanReading | None,
        stop: Callable[[], None],
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._publisher = publisher
        self._failed = failed
        self._access = Access(config.access.principals, anonymous=config.access.anonymous)
        # One of each for all intakes: whoever uses two of them has one quota.
        self._quotas, self._refusals = Quotas(), Refusals(clock=reactor)
        self._readings: list[IntakeReading] = []
        self._ways: list[Callable[[], WayIn]] = []
        self._operating = Operating(
            clock=reactor,
            publisher=publisher,
            spool=config.spool,
            intakes=self._readings,
            spans=spans,
            stop=stop,
        )

    def services(self) -> Iterator[IService]:
        config = self._config
        yield self._operating.health
        if config.schedules:
            yield self._schedules(config.schedules)
        if config.directory is not None:
            yield self._directory(config.directory)
        if config.lines is not None:
            yield self._lines(config.lines)
        if config.http is not None:
            # Nobody could ask for it otherwise.
            yield self._operating.history
            yield self._http(config.http)

    def _schedules(self, schedules: Sequence[Schedule]) -> ScheduleIntake:
        path = self._config.spool.path
        self._ways.append(lambda: WayIn(name="schedule", listens=[schedule.name for schedule in schedules]))
        return ScheduleIntake(
            clock=self._reactor,
            wall=time.time,
            submit=self._publisher.submit,
            schedules=schedules,
            hostname=socket.gethostname(),
            diary=FileDiary(Path(f"{path}.schedules")) if path is not None else None,
        )

    def _directory(self, options: DirectoryOptions) -> DirectoryIntake:
        self._ways.append(lambda: WayIn(name="directory", listens=[str(options.path)]))
        door, reading = self._door("directory", options.max_unanswered)
        self._readings.append(reading)
        named = {principal.name: principal for principal in self._access.principals}
        return DirectoryIntake(
            reactor=self._reactor,
            options=options,
            door=door,
            principal=named[options.principal] if options.principal else self._access.anonymous,
            access=self._access,
        )

    def _lines(self, options: LinesOptions) -> LinesIntake:
        door, reading = self._door("lines", options.max_unanswered)
        intake = LinesIntake(
            reactor=self._reactor,
            options=options,
            door=door,
            access=self._access,
            refusals=self._refusals,
            failed=self._failed,
        )
        self._shown(intake, reading, options.max_connections)
        return intake

    def _http(self, options: HttpOptions) -> HttpIntake:
        door, reading = self._door("http", options.max_unanswered)
        config, publisher = self._config, self._publisher
        own = self._operating.routes()
        foreign = foreign_routes(
            door=door,
            clock=self._reactor,
            vhosts={url.vhost for url in config.broker.urls},
            refusal=partial(_refusal, publisher),
        )
        status = status_routes(
            publisher=publisher,
            spool=SpoolFacts(path=config.spool.path, limits=config.spool.limits, retain=config.spool.retain),
            ways=lambda: [way() for way in self._ways],
            look=self._operating.look,
            clock=self._reactor,
            wall=time.time,
        )
        intake = HttpIntake(
            reactor=self._reactor,
            options=options,
            door=door,
            access=self._access,
            held=publisher,
            refusals=self._refusals,
            authenticated=bool(self._access.principals),
            routes=lambda waits: (*own, *status(waits), *foreign(waits)),
            ready=lambda: publisher.ready,
            failed=self._failed,
        )
        reading = attrs.evolve(reading, answers=lambda: intake.site.answers)
        self._shown(intake, reading, options.max_connections)
        return intake

    def _door(self, name: str, max_unanswered: int) -> tuple[Door, IntakeReading]:
        """A door of its own for each, and how full it is."""
        door = Door(
            publisher=self._publisher,
            clock=self._reactor,
            quotas=self._quotas,
            refusals=self._refusals,
            max_unanswered=max_unanswered,
        )
        return door, IntakeReading(name=name, unanswered=lambda: door.unanswered, max_unanswered=max_unanswered)

    def _shown(self, intake: HttpIntake | LinesIntake, reading: IntakeReading, max_connections: int) -> None:
        """In metrics and in the status."""
        name = reading.name
        self._readings.append(
            attrs.evolve(
                reading,
                connections=lambda: intake.connections,
                max_connections=max_connections,
                refused=lambda: intake.refused_connections,
            )
        )
        self._ways.append(
            lambda: WayIn(
                name=name,
                listens=[address_text(address) for address in intake.addresses],
                connections=intake.connections,
            )
        )


def _refusal(publisher: Publisher, exchange: str) -> Reason | None:
    """Why RabbitMQ takes nothing for ``exchange`` now, where that is known."""
    status = publisher.status()
    lanes = [lane.reason for lane in status.lanes if lane.exchange == exchange]
    return next((reason for reason in (*lanes, status.reason) if reason is not None), None)
