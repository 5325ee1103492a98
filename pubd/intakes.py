"""Ways in, put together as the configuration says."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pubd.access import Access, Quotas, Refusals
from pubd.intake.diary import FileDiary
from pubd.intake.directory import DirectoryIntake
from pubd.intake.door import Door
from pubd.intake.http.foreign import foreign_routes
from pubd.intake.http.intake import HttpIntake
from pubd.intake.lines import LinesIntake
from pubd.intake.schedule import ScheduleIntake

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

    def door(max_unanswered: int) -> Door:
        return Door(publisher=publisher, clock=reactor, quotas=quotas, refusals=refusals, max_unanswered=max_unanswered)

    if config.schedules:
        path = config.spool.path
        yield ScheduleIntake(
            clock=reactor,
            wall=time.time,
            submit=publisher.submit,
            schedules=config.schedules,
            hostname=socket.gethostname(),
            diary=FileDiary(Path(f"{path}.schedules")) if path is not None else None,
        )
    if config.directory is not None:
        named = {principal.name: principal for principal in config.access.principals}
        yield DirectoryIntake(
            reactor=reactor,
            options=config.directory,
            door=door(config.directory.max_unanswered),
            principal=named[config.directory.principal] if config.directory.principal else access.anonymous,
            access=access,
        )
    if config.lines is not None:
        yield LinesIntake(
            reactor=reactor,
            options=config.lines,
            door=door(config.lines.max_unanswered),
            access=access,
            refusals=refusals,
            failed=failed,
        )
    if config.http is not None:
        http_door = door(config.http.max_unanswered)
        yield HttpIntake(
            reactor=reactor,
            options=config.http,
            door=http_door,
            access=access,
            held=publisher,
            refusals=refusals,
            authenticated=bool(access.principals),
            routes=foreign_routes(
                door=http_door,
                clock=reactor,
                vhosts={url.vhost for url in config.broker.urls},
                refusal=partial(_refusal, publisher),
            ),
            ready=lambda: publisher.ready,
            failed=failed,
        )


def _refusal(publisher: Publisher, exchange: str) -> Reason | None:
    """Why RabbitMQ takes nothing for ``exchange`` now, where that is known."""
    status = publisher.status()
    lanes = [lane.reason for lane in status.lanes if lane.exchange == exchange]
    return next((reason for reason in (*lanes, status.reason) if reason is not None), None)
