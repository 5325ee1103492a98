"""Health: whether pubd can accept and whether it can publish, and if not, why and since when.

Two questions with two answers: while RabbitMQ is away pubd accepts and cannot publish, on a full disk it publishes and
cannot accept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.entry import OVERHEAD
from pubd.errors import PubdError, PublisherDraining, PublisherStopped, SpoolError, SpoolFull
from pubd.operate.clock import StepWatch
from pubd.spool.base import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted.python.failure import Failure

    from pubd.account import Account
    from pubd.amqp.broker import BrokerStatus
    from pubd.decision import Pause
    from pubd.outcome import Reason
    from pubd.spool.base import Record
    from pubd.spool.groups import Parked

#: Seconds between looks at what is wrong: how exact "since" is.
LOOK = 1.0
#: Seconds that the spool may take to answer.
PATIENCE = 2.0
#: Seconds without it after which a trouble is told to be over: a spool at its limit is full and not full in turn.
CALM = 60.0


class Watched(Protocol):
    """What is asked of :class:`pubd.Publisher`."""

    @property
    def refusal(self) -> PubdError | None:
        """Why a submission would be refused now."""

    @property
    def ready(self) -> bool:
        """Whether one would be taken."""

    def account(self) -> Account:
        """The books."""

    def status(self) -> BrokerStatus:
        """Link and lanes."""

    @property
    def pauses(self) -> Sequence[Pause]:
        """What operators have paused."""

    def record(self, id: str) -> Deferred[Record | None]:
        """What is known of a message."""

    def oldest(self) -> Deferred[float | None]:
        """When the oldest message that is ready or in flight was accepted."""

    def parked(self) -> Deferred[Parked]:
        """Why messages are parked."""


@attrs.frozen(kw_only=True)
class Trouble:
    """Something that keeps pubd from accepting or publishing. ``detail`` is in RabbitMQ's words where it gave any.

    ``since`` is in epoch seconds. ``exchange``: only messages for it wait.
    """

    type: str
    detail: str
    since: float | None = None
    exchange: str | None = None


@attrs.frozen
class SpoolAnswer:
    """``answers``: the spool did, in time. ``oldest``: when its oldest message was accepted (epoch seconds)."""

    answers: bool
    oldest: float | None = None


class Health(Service):
    """``clock`` counts seconds, ``wall`` is the time of day.

    ``limits`` are those of the spool, ``free`` asks for the bytes that its disk has free; None: it is on no disk.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        wall: Callable[[], float],
        publisher: Watched,
        limits: Limits,
        free: Callable[[], int] | None = None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._publisher = publisher
        self.limits = limits
        self._free = free
        self._answer = SpoolAnswer(True)
        self._full_since: float | None = None
        """Since when (seconds of the clock) the spool is full, which was logged."""
        self._room_since: float | None = None
        self._since: dict[tuple[str, str | None], float] = {}
        self.steps = StepWatch()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        """Look from now on."""
        super().startService()
        self._loop.start(LOOK).addErrback(self._broken)

    def stopService(self) -> None:
        """Look no more; what is asked then has no memory."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    async def spool(self) -> SpoolAnswer:
        """Ask the spool for its oldest message."""
        try:
            asked = self._publisher.oldest()
            self._answer = SpoolAnswer(True, await asked.addTimeout(PATIENCE, self._clock))
        except (TimeoutError, SpoolError):
            self._answer = SpoolAnswer(False)
        return self._answer

    async def parked(self) -> Parked | None:
        """Ask it why messages are parked; None: it does not say so in time."""
        try:
            return await self._publisher.parked().addTimeout(PATIENCE, self._clock)
        except (TimeoutError, SpoolError):
            return None

    async def ask(self) -> None:
        """Find out whether the spool answers, by a question that costs it nothing: it may be asked each second."""
        try:
            await self._publisher.record("").addTimeout(PATIENCE, self._clock)
            self._answer = SpoolAnswer(True)
        except (TimeoutError, SpoolError):
            self._answer = SpoolAnswer(False)

    def accepting(self, spool: SpoolAnswer | None = None) -> list[Trouble]:
        """What keeps pubd from accepting, as far as is known; nothing: a submission would be taken.

        Whether the spool answers is known by ``spool``, or else by what it did when it was last asked.
        """
        self._answer = spool or self._answer
        kinds = {"stopping", "draining", "spool-failed", "spool-full", "starting"}
        return list(self._noted([*self._not_accepting()], kinds, frozenset()))

    def publishing(self) -> list[Trouble]:
        """What keeps it from publishing, or from publishing to some exchange."""
        status = self._publisher.status()
        # A refused lane tries again now and then; that ends its trouble only when it succeeds.
        trying = frozenset(("lane", lane.exchange) for lane in status.lanes if lane.state is LaneState.OPENING)
        found = [*_not_publishing(status), *_paused(self._publisher.pauses)]
        return list(self._noted(found, {"link", "blocked", "moving", "declared", "lane"}, trying))

    @property
    def accepts(self) -> bool:
        """Whether nothing is known that would keep pubd from accepting."""
        return not [*self._not_accepting()]

    @property
    def publishes(self) -> bool:
        """Whether nothing keeps pubd from publishing to any exchange."""
        return not [*_not_publishing(self._publisher.status()), *self._publisher.pauses]

    def _not_accepting(self) -> Iterator[tuple[str, Trouble]]:
        refusal = self._publisher.refusal
        if isinstance(refusal, PublisherStopped):
            yield "stopping", Trouble(type="stopping", detail=str(refusal))
        elif isinstance(refusal, PublisherDraining):
            yield "draining", Trouble(type="draining", detail=str(refusal))
        elif isinstance(refusal, SpoolFull):
            yield "spool-full", Trouble(type="spool-full", detail=str(refusal))
        elif refusal is not None:
            yield "spool-failed", Trouble(type="spool-failed", detail=str(refusal))
        elif not self._publisher.ready:
            yield "starting", Trouble(type="starting", detail="the spool is being opened; submissions wait until it is")
        elif not self._answer.answers:
            sentence = f"the spool did not answer within {PATIENCE:g} s; see the log, and the disk that it is on"
            yield "spool-failed", Trouble(type="spool-failed", detail=sentence)
        else:
            books = self._publisher.account().books
            try:
                self.limits.check(held=books.held, bytes=books.bytes, rows=1, size=OVERHEAD, free=self._free)
            except SpoolFull as full:
                yield "spool-full", Trouble(type="spool-full", detail=str(full))
            except OSError as error:
                detail = f"the spool's disk cannot be asked for free space: {error.strerror}"
                yield "spool-failed", Trouble(type="spool-failed", detail=detail)

    def _noted(
        self, found: list[tuple[str, Trouble]], kinds: set[str], lasting: frozenset[tuple[str, str]]
    ) -> Iterator[Trouble]:
        """The troubles with the moment each began; of these ``kinds`` those neither found nor ``lasting`` are over."""
        now = self._wall()
        keys = {(kind, trouble.exchange) for kind, trouble in found} | lasting
        for gone in [key for key in self._since if key[0] in kinds and key not in keys]:
            del self._since[gone]
        for kind, trouble in found:
            if trouble.since is not None:
                yield trouble
                continue
            # A clock that was set back is not to give moments that are still to come.
            key = (kind, trouble.exchange)
            since = self._since[key] = min(self._since.get(key, now), now)
            yield attrs.evolve(trouble, since=since)

    def _look(self) -> None:
        try:
            self._look_at_the_clock()
            # The spool is asked only when somebody wants to know.
            self._tell(next((each for each in self.accepting() if each.type == "spool-full"), None))
            self.publishing()
        except Exception:
            self.log.failure("the state of health was not looked at this time; going on")

    def _look_at_the_clock(self) -> None:
        step = self.steps.look(clock=self._clock.seconds(), wall=self._wall())
        if step is not None:
            self.log.warn(
                "{step}: what is deferred, expires or is forgotten goes by it; nothing else does",
                step=str(step),
                seconds=round(step.seconds, 1),
            )

    def _tell(self, full: Trouble | None) -> None:
        """Log that applications are refused, and that it is over; nobody else does, and not for each of them."""
        now = self._clock.seconds()
        if full is not None:
            self._room_since = None
            if self._full_since is None:
                self._full_since = now
                self.log.warn("submissions are refused: {detail}", detail=full.detail)
        elif self._full_since is not None:
            if self._room_since is None:
                self._room_since = now
            elif now - self._room_since >= CALM:
                seconds = self._room_since - self._full_since
                self.log.info("submissions are accepted again; the spool was full for {seconds:.0f} s", seconds=seconds)
                self._full_since = self._room_since = None

    def _broken(self, failure: Failure) -> None:
        self.log.failure("the state of health is not looked at any more", failure)


def _not_publishing(status: BrokerStatus) -> Iterator[tuple[str, Trouble]]:
    link = status.link
    if link is LinkState.BLOCKED:
        yield "blocked", Trouble(type="blocked", detail=f"RabbitMQ blocks the connection: {status.blocked}")
    elif link is not LinkState.READY:
        why = f": {_said(status.reason)}" if status.reason is not None else ""
        yield "link", Trouble(type=f"link-{link.value}", detail=f"{status.url}{why}")
    move = status.move
    if move is not None and move.reason is not None:
        yield "moving", Trouble(type="moving", detail=f"{move.url}: {_said(move.reason)}")
    for refused in status.refused:
        yield "declared", Trouble(type="declaration-refused", detail=str(refused))
    for lane in status.lanes:
        if lane.state is LaneState.REFUSED:
            detail = _said(lane.reason) if lane.reason is not None else "RabbitMQ refuses it"
            yield "lane", Trouble(type="exchange-refused", detail=detail, exchange=lane.exchange)


def _paused(pauses: Sequence[Pause]) -> Iterator[tuple[str, Trouble]]:
    for pause in pauses:
        about = "publishing" if pause.exchange is None else "publishing to it"
        detail = f"{about} is paused by {pause.who}{': ' if pause.text else ''}{pause.text}"
        yield "paused", Trouble(type="paused", detail=detail, since=pause.at, exchange=pause.exchange)


def _said(reason: Reason) -> str:
    return reason.text if reason.code is None else f"{reason.code} {reason.text}"
