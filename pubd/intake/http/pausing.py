"""``POST /flush``, ``/pause`` and ``/resume``: decisions that are not about single messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from pubd.fields import MAX_SHORT_STRING
from pubd.intake.http.answer import Refusal, json_answer
from pubd.intake.http.decisions import MAX_REASON
from pubd.intake.http.route import Action, Route
from pubd.intake.listing import pause_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from twisted.internet.defer import Deferred

    from pubd.decision import Pause
    from pubd.intake.http.answer import Answer
    from pubd.intake.http.request import Request

#: Exchanges that can be paused at a time: all of them are shown in every status.
MOST_PAUSES = 1000


class Steered(Protocol):
    """What is needed of :class:`pubd.Publisher`."""

    def flush(self, *, who: str) -> Deferred[int]:
        """Try everything now; the number of messages that backed off."""

    def pause(self, exchange: str | None, reason: str, *, who: str) -> Deferred[bool]:
        """Publish nothing to it (None: at all); whether that is new."""

    def resume(self, exchange: str | None, *, who: str) -> Deferred[bool]:
        """Publish again; whether that is new."""

    @property
    def pauses(self) -> Sequence[Pause]:
        """Those in force."""


class Steering:
    """Each method answers one kind of request; who it was is in the log and in the spool."""

    log = Logger()

    def __init__(self, steered: Steered) -> None:
        self._steered = steered

    def routes(self) -> Iterable[Route]:
        """For principals that may operate."""
        for path, act in (("/flush", self.flush), ("/pause", self.pause), ("/resume", self.resume)):
            yield Route(path=path, actions={"POST": Action(act=act, operate=True)})

    async def flush(self, request: Request) -> Answer:
        """``{"messages": N}``."""
        request.arguments(())
        count = await self._steered.flush(who=request.who)
        self.log.info(
            "{who} flushed: everything is tried now, {count} message(s) among it", who=request.who, count=count
        )
        return json_answer({"messages": count})

    async def pause(self, request: Request) -> Answer:
        """Refuses (409) where too much is paused already."""
        arguments = request.arguments(("exchange", "reason"))
        exchange, reason = _exchange(arguments), arguments.get("reason", "")[:MAX_REASON]
        if len(self._steered.pauses) >= MOST_PAUSES:
            raise Refusal("wrong-state", f"{MOST_PAUSES} exchanges are paused already: pause all, without an exchange")
        changed = await self._steered.pause(exchange, reason, who=request.who)
        if changed:
            why = f": {reason!r}" if reason else ""
            self.log.warn("{who} paused publishing to {what}{why}", who=request.who, what=_named(exchange), why=why)
        return self._answer(changed)

    async def resume(self, request: Request) -> Answer:
        """What was not paused is as it was to be."""
        exchange = _exchange(request.arguments(("exchange",)))
        changed = await self._steered.resume(exchange, who=request.who)
        if changed:
            self.log.info("{who} resumed publishing to {what}", who=request.who, what=_named(exchange))
        return self._answer(changed)

    def _answer(self, changed: bool) -> Answer:
        return json_answer({"changed": changed, "pauses": list(map(pause_object, self._steered.pauses))})


def _exchange(arguments: dict[str, str]) -> str | None:
    exchange = arguments.get("exchange")
    if exchange is not None and len(exchange) > MAX_SHORT_STRING:
        raise Refusal("malformed", "is the name of no exchange: these are shorter", field="exchange")
    return exchange


def _named(exchange: str | None) -> str:
    return "all exchanges" if exchange is None else f"exchange {exchange!r}"
