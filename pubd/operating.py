"""What a running pubd shows of itself over HTTP: metrics, history, health, events, and what is in its spool."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from pubd import duration
from pubd.intake.http.answer import Answer, Refusal, json_answer
from pubd.intake.http.contents import Contents
from pubd.intake.http.drain import Drain
from pubd.intake.http.route import Action, Route
from pubd.intake.http.status import Look
from pubd.intake.http.tail import Tail
from pubd.operate.health import Health
from pubd.operate.history import History, columns
from pubd.operate.metrics import Metrics
from pubd.operate.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pubd.config import SpoolConfig
    from pubd.intake.http.request import Request
    from pubd.operate.health import Trouble
    from pubd.operate.reading import IntakeReading, SpanReading
    from pubd.publisher import Publisher

#: Seconds after which a probe that was told "no" may ask again.
AGAIN = 5
#: Reasons in one answer: each of thousands of exchanges may have one.
MOST = 100
#: Digits of a number in a query.
_DIGITS = 15


class Operating:
    """``health`` and ``history`` are services, to be started with the others; ``routes`` are for the HTTP intake.

    ``intakes`` are read when somebody asks: it may be a list that changes. ``stop`` ends pubd, if that is asked for.
    """

    def __init__(
        self,
        *,
        clock: Any,
        publisher: Publisher,
        spool: SpoolConfig,
        intakes: Sequence[IntakeReading],
        spans: SpanReading | None = None,
        wall: Callable[[], float] = time.time,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        free = _free_of(spool)
        tally = Tally()
        publisher.observers.add(tally)
        self.drain = Drain(publisher, clock=clock, stop=stop)
        self.contents = Contents(publisher, reactor=clock)
        self.tail = Tail(observers=publisher.observers, clock=clock, wall=wall)
        self.health = Health(clock=clock, wall=wall, publisher=publisher, limits=spool.limits, free=free)
        self.history = History(clock=clock, wall=wall, publisher=publisher, tally=tally)
        self.metrics = Metrics(
            publisher=publisher,
            tally=tally,
            health=self.health,
            limits=spool.limits,
            intakes=intakes,
            spans=spans,
            free=free,
            wall=wall,
        )

    def reconfigure(self, spool: SpoolConfig) -> None:
        """The spool has other limits."""
        self.health.limits = self.metrics.limits = spool.limits

    def routes(self) -> Iterable[Route]:
        """Health checks that a load balancer needs are for everybody; what names exchanges and brokers is not."""
        return (
            Route(path="/metrics", actions={"GET": Action(act=self._metrics)}),
            Route(path="/history", actions={"GET": Action(act=self._history, operate=True)}),
            Route(path="/livez", actions={"GET": Action(act=_live, everybody=True)}),
            Route(path="/readyz", actions={"GET": Action(act=self._ready, everybody=True)}),
            Route(path="/publishz", actions={"GET": Action(act=self._publishes)}),
            *self.tail.routes(),
            *self.contents.routes(),
            *self.drain.routes(),
        )

    async def look(self) -> Look:
        """What keeps pubd from accepting or publishing, as /readyz and /publishz have it."""
        # Both at once: then the spool does them in one turn, and what the books say is of the same moment.
        asked, why = Deferred.fromCoroutine(self.health.spool()), Deferred.fromCoroutine(self.health.parked())
        spool, parked = await asked, await why
        troubles = [_as_json(trouble) for trouble in (*self.health.accepting(), *self.health.publishing())]
        step = self.health.steps.last
        clock = {"seconds": round(step.seconds, 3), "at": _moment(step.at)} if step is not None else None
        return Look(answers=spool.answers, oldest=spool.oldest, parked=parked, troubles=troubles, clock=clock)

    async def _metrics(self, request: Request) -> Answer:
        headers = request.headers
        page = await self.metrics.page(headers.get("accept", ""), headers.get("accept-encoding", ""))
        vary = (b"Vary", b"Accept, Accept-Encoding")
        more = ((b"Content-Encoding", page.encoding), vary) if page.encoding else (vary,)
        return Answer(200, page.body, page.content_type, more)

    def _history(self, request: Request) -> Answer:
        """The object History of /openapi.json."""
        arguments = request.arguments(("last", "after"))
        try:
            last = duration.seconds(arguments.get("last", "1h"))
        except duration.NoDuration as error:
            raise Refusal("malformed", error.sentence, field="last") from None
        after = arguments.get("after")
        if after is not None and not (after.isascii() and after.isdigit() and len(after) <= _DIGITS):
            raise Refusal("malformed", "must be the last of a former answer", field="after")
        return json_answer(self.lately(last, int(after) if after is not None else None))

    def lately(self, last: float, after: int | None = None) -> dict[str, Any]:
        """What ``GET /history`` answers for the ``last`` seconds."""
        history = self.history
        series = history.series(last)
        samples = series.samples(last=last, after=after)
        return {
            "interval": series.interval,
            "last": series.next - 1,
            "time": [round(history.moment(sample.at), 3) for sample in samples],
            **dict(columns(samples)),
        }

    async def _ready(self, _: Request) -> Answer:
        await self.health.ask()
        return _said(self.health.accepting())

    def _publishes(self, _: Request) -> Answer:
        return _said(self.health.publishing())


def _live(_: Request) -> Answer:
    return json_answer({"status": "ok"})


def _said(troubles: Sequence[Trouble]) -> Answer:
    if not troubles:
        return json_answer({"status": "ok", "reasons": []})
    reasons = [_as_json(trouble) for trouble in troubles[:MOST]]
    if len(troubles) > MOST:
        reasons.append({"type": "more", "detail": f"{len(troubles) - MOST} further reasons are left out"})
    return json_answer({"status": "unavailable", "reasons": reasons}, 503, headers=((b"Retry-After", b"%d" % AGAIN),))


def _as_json(trouble: Trouble) -> dict[str, Any]:
    found: dict[str, Any] = {"type": trouble.type, "detail": trouble.detail}
    if trouble.exchange is not None:
        found["exchange"] = trouble.exchange
    if trouble.since is not None:
        found["since"] = _moment(trouble.since)
    return found


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _free_of(spool: SpoolConfig) -> Callable[[], int] | None:
    """How to ask the spool's disk for its free bytes."""
    if spool.path is None:
        return None
    # As twistd may change its directory afterwards.
    directory = os.path.dirname(os.path.abspath(spool.path))

    def free() -> int:
        disk = os.statvfs(directory)
        return disk.f_bavail * disk.f_frsize

    return free
