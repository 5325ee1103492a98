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
    from collections.abc import Callable, Iterator

    from twisted.application.service import IService

    from pubd.config import Config
    from pubd.errors import InvalidOption
    from pubd.outcome import Reason
    from pubd.publisher import Publisher


def intakes(
    config: Config, *, reactor: Any, publisher: Publisher, failed: Callable[[InvalidOption], None]
) -> Iterator[IService]:
    """The services of ``config``. ``failed`` is called when one cannot listen: the process should end.

    Raises :class:`pubd.errors.InvalidOption` for endpoints that cannot be used.
    """
    access = Access(config.access.principals, anonymous=config.access.anonymous)
    # One of each for all intakes: whoever uses two of them has one quota.
    quotas, refusals = Quotas(), Refusals(clock=reactor)
    readings: list[IntakeReading] = []
    ways: list[Callable[[], WayIn]] = []

    def door(max_unanswered: int) -> Door:
        return Door(publisher=publisher, clock=reactor, quotas=quotas, refusals=refusals, max_unanswered=max_unanswered)

    operating = Operating(clock=reactor, publisher=publisher, spool=config.spool, intakes=readings)
    yield operating.health
    if config.schedules:
        path = config.spool.path
        ways.append(lambda: WayIn(name="schedule", listens=[schedule.name for schedule in config.schedules]))
        yield ScheduleIntake(
            clock=reactor,
            wall=time.time,
            submit=publisher.submit,
            schedules=config.schedules,
            hostname=socket.gethostname(),
            diary=FileDiary(Path(f"{path}.schedules")) if path is not None else None,
        )
    if config.directory is not None:
        directory = str(config.directory.path)
        ways.append(lambda: WayIn(name="directory", listens=[directory]))
        named = {principal.name: principal for principal in config.access.principals}
        directory_door = door(config.directory.max_unanswered)
        readings.append(_reading("directory", directory_door, config.directory.max_unanswered))
        yield DirectoryIntake(
            reactor=reactor,
            options=config.directory,
            door=directory_door,
            principal=named[config.directory.principal] if config.directory.principal else access.anonymous,
            access=access,
        )
    if config.lines is not None:
        lines_door = door(config.lines.max_unanswered)
        lines = LinesIntake(
            reactor=reactor,
            options=config.lines,
            door=lines_door,
            access=access,
            refusals=refusals,
            failed=failed,
        )
        reading = _reading("lines", lines_door, config.lines.max_unanswered)
        readings.append(
            attrs.evolve(
                reading,
                connections=lambda: lines.connections,
                max_connections=config.lines.max_connections,
                refused=lambda: lines.refused_connections,
            )
        )
        ways.append(lambda: _way("lines", lines))
        yield lines
    if config.http is not None:
        http_door = door(config.http.max_unanswered)
        foreign = foreign_routes(
            door=http_door,
            clock=reactor,
            vhosts={url.vhost for url in config.broker.urls},
            refusal=partial(_refusal, publisher),
        )
        own = operating.routes()
        status = status_routes(
            publisher=publisher,
            spool=SpoolFacts(path=config.spool.path, limits=config.spool.limits, retain=config.spool.retain),
            ways=lambda: [way() for way in ways],
            look=operating.look,
            clock=reactor,
            wall=time.time,
        )
        http = HttpIntake(
            reactor=reactor,
            options=config.http,
            door=http_door,
            access=access,
            held=publisher,
            refusals=refusals,
            authenticated=bool(access.principals),
            routes=lambda waits: (*own, *status(waits), *foreign(waits)),
            ready=lambda: publisher.ready,
            failed=failed,
        )
        reading = _reading("http", http_door, config.http.max_unanswered)
        readings.append(
            attrs.evolve(
                reading,
                connections=lambda: http.connections,
                max_connections=config.http.max_connections,
                refused=lambda: http.refused_connections,
                answers=lambda: http.site.answers,
            )
        )
        ways.append(lambda: _way("http", http))
        yield http


def _way(name: str, intake: HttpIntake | LinesIntake) -> WayIn:
    listens = [address_text(address) for address in intake.addresses]
    return WayIn(name=name, listens=listens, connections=intake.connections)


def _reading(name: str, door: Door, max_unanswered: int) -> IntakeReading:
    return IntakeReading(name=name, unanswered=lambda: door.unanswered, max_unanswered=max_unanswered)


def _refusal(publisher: Publisher, exchange: str) -> Reason | None:
    """Why RabbitMQ takes nothing for ``exchange`` now, where that is known."""
    status = publisher.status()
    lanes = [lane.reason for lane in status.lanes if lane.exchange == exchange]
    return next((reason for reason in (*lanes, status.reason) if reason is not None), None)
