"""``GET /status``: everything that somebody who looks after pubd wants to see at once; for principals that may operate.

Facts only. What they mean, and what is to be done, is said by whoever shows them (pubd/findings.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.address import UNIXAddress

from pubd._version import __version__
from pubd.intake.http.answer import json_answer
from pubd.intake.http.route import Action, Route
from pubd.intake.listing import moment_text, pause_object, reason_object

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from twisted.internet.interfaces import IAddress

    from pubd.account import Account
    from pubd.amqp.broker import BrokerStatus
    from pubd.decision import Pause
    from pubd.errors import PubdError
    from pubd.intake.http.answer import Answer
    from pubd.intake.http.request import Request
    from pubd.intake.http.waits import Waits
    from pubd.spool.base import Limits
    from pubd.spool.groups import Parked


class Watched(Protocol):
    """What is asked of :class:`pubd.Publisher`."""

    @property
    def refusal(self) -> PubdError | None:
        """Why a submission would be refused now."""

    @property
    def ready(self) -> bool:
        """Whether one would be taken."""

    @property
    def pauses(self) -> Sequence[Pause]:
        """What operators have paused."""

    def account(self) -> Account:
        """The books, and how deliveries ended."""

    def status(self) -> BrokerStatus:
        """Link and lanes."""


@attrs.frozen(kw_only=True)
class SpoolFacts:
    """``path`` is None where it is on no disk; ``retain`` in seconds."""

    path: Path | None
    limits: Limits
    retain: float


@attrs.frozen(kw_only=True)
class Look:
    """Whether the spool ``answers``, when its ``oldest`` message was accepted, and what is wrong, as /readyz has it.

    ``parked``: why messages are parked; None: the spool did not say. ``clock``: the last step of the time of day, if
    there was one.
    """

    answers: bool
    oldest: float | None = None
    parked: Parked | None = None
    troubles: Sequence[Any] = ()
    clock: Any = None


@attrs.frozen(kw_only=True)
class WayIn:
    """An intake: its table in pubd.toml, where it takes messages from, and its open connections (None: it has none)."""

    name: str
    listens: Sequence[str] = ()
    connections: int | None = None


class Status:
    """``clock`` counts seconds, ``wall`` is the time of day; ``ways`` gives the intakes as they are at the moment.

    ``look`` asks the spool whether it answers, and what else is wrong; it never fails.
    """

    def __init__(
        self,
        *,
        publisher: Watched,
        spool: Callable[[], SpoolFacts],
        ways: Callable[[], Iterable[WayIn]],
        look: Callable[[], Awaitable[Look]],
        clock: Any,
        wall: Callable[[], float],
    ) -> None:
        self._look = look
        self._publisher = publisher
        self._spool = spool
        self._ways = ways
        self._clock = clock
        self._wall = wall
        self._started = clock.seconds()
        # As twistd may change its directory afterwards.
        self._path = os.path.abspath(path) if (path := spool().path) is not None else None

    @property
    def retain(self) -> float:
        """Seconds for which settled messages stay known."""
        return self._spool().retain

    async def get(self, request: Request) -> Answer:
        """The object Status of /openapi.json."""
        request.arguments(())
        return json_answer(await self.facts())

    def routes(self) -> Iterable[Route]:
        """For the HTTP intake."""
        return (Route(path="/status", actions={"GET": Action(act=self.get, operate=True)}),)

    async def facts(self) -> dict[str, Any]:
        """The object itself."""
        look = await self._look()
        publisher = self._publisher
        refusal = publisher.refusal
        status, account = publisher.status(), publisher.account()
        books = account.books
        return {
            "version": __version__,
            "pid": os.getpid(),
            "time": moment_text(self._wall()),
            "uptime": round(self._clock.seconds() - self._started, 3),
            "accepting": publisher.ready and refusal is None and look.answers,
            "refusal": str(refusal) if refusal is not None else None,
            "troubles": list(look.troubles),
            "link": {
                "state": status.link.value,
                # Without its password: see BrokerUrl.
                "url": status.url,
                "reason": reason_object(status.reason),
                "blocked": status.blocked,
            },
            "moving": {"url": status.move.url, "reason": reason_object(status.move.reason)} if status.move else None,
            "refused": [
                {"declaration": str(each.declaration), "reason": reason_object(each.reason)} for each in status.refused
            ],
            "lanes": [
                {
                    "exchange": lane.exchange,
                    "state": lane.state.value,
                    "reason": reason_object(lane.reason),
                    "in_flight": lane.in_flight,
                    "bytes": lane.in_flight_bytes,
                    "suspects": lane.suspects,
                    "paused": lane.paused,
                }
                for lane in status.lanes
            ],
            "pauses": list(map(pause_object, publisher.pauses)),
            "books": attrs.asdict(books) | {"held": books.held, "difference": books.difference},
            "deliveries": {
                "published": account.published,
                "pending": account.pending,
                "acked": account.acked,
                "nacked": account.nacked,
                "returned": account.returned,
                "lost": account.lost,
                "poison": account.poison,
            },
            "oldest": moment_text(look.oldest),
            "parked": _parked_object(look.parked),
            "clock": look.clock,
            "spool": self._spool_object(look.answers),
            "intakes": [
                {"name": way.name, "listens": list(way.listens), "connections": way.connections} for way in self._ways()
            ],
        }

    def _spool_object(self, answers: bool) -> dict[str, Any]:
        facts = self._spool()
        limits = facts.limits
        return {
            "path": self._path,
            "answers": answers,
            "max_bytes": limits.max_bytes,
            "max_messages": limits.max_rows,
            "min_free": limits.min_free if self._path is not None else None,
            "free": _free(self._path) if self._path is not None else None,
            "retain": facts.retain,
        }


def status_routes(
    *,
    publisher: Watched,
    spool: Callable[[], SpoolFacts],
    ways: Callable[[], Iterable[WayIn]],
    look: Callable[[], Awaitable[Look]],
    clock: Any,
    wall: Callable[[], float],
) -> Callable[[Waits], Iterable[Route]]:
    """For :class:`pubd.intake.http.intake.HttpIntake`; see :class:`Status`."""
    status = Status(publisher=publisher, spool=spool, ways=ways, look=look, clock=clock, wall=wall)

    return lambda _: status.routes()


def address_text(address: IAddress) -> str:
    """``tcp:127.0.0.1:8672``, ``unix:/run/pubd/http.sock``."""
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}"
    host, port = getattr(address, "host", "?"), getattr(address, "port", "?")
    return f"tcp:[{host}]:{port}" if ":" in str(host) else f"tcp:{host}:{port}"


def _parked_object(parked: Parked | None) -> dict[str, Any] | None:
    if parked is None:
        return None
    groups = [
        {
            "exchange": group.exchange,
            "reason": reason_object(group.reason),
            "count": group.count,
            "oldest": moment_text(group.oldest),
            "id": group.id,
        }
        for group in parked.groups
    ]
    return {"groups": groups, "others": parked.others, "seen": parked.seen}


def _free(path: str) -> int | None:
    """Bytes that the spool's disk has for pubd; None: it cannot be asked."""
    try:
        disk = os.statvfs(os.path.dirname(path))
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize
