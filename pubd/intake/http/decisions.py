"""Deciding about messages: retry, hold, release and discard, one message or many at once, one commit each.

One: ``POST /messages/{id}/retry`` and the like, ``DELETE /messages/{id}``; what cannot be done is a problem. Many:
``POST /messages/retry`` and the like with ``{"ids": [...]}``; each is answered for, in order, as in every batch.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import FirstError, gatherResults
from twisted.logger import Logger

from pubd.decision import Verb
from pubd.intake.http.answer import Refusal, json_answer
from pubd.intake.http.listing import MOST, OPEN, known
from pubd.intake.http.route import Action, Route
from pubd.intake.problem import problem
from pubd.intake.wire import loads
from pubd.outcome import Cause, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pubd.intake.http.answer import Answer
    from pubd.intake.http.listing import Held
    from pubd.intake.http.request import Request
    from pubd.spool.base import Record

JSON_MEDIA = "application/json"
#: Characters of a reason.
MAX_REASON = 1000
_DONE = {Verb.RETRY: "retried", Verb.HOLD: "held", Verb.RELEASE: "released", Verb.DISCARD: "discarded"}
#: What is known of a message by the decision alone; a released one may be ready or deferred.
_STATES = {Verb.RETRY: State.READY, Verb.HOLD: State.PARKED, Verb.DISCARD: State.DISCARDED}
#: Those that say why.
_REASONED = (Verb.HOLD, Verb.DISCARD)


class Decisions:
    """Who decided is in the log and, with the spool's commit, in the record of each message."""

    log = Logger()

    def __init__(self, held: Held) -> None:
        self._held = held

    def routes(self) -> Iterable[Route]:
        """All but ``DELETE``, which has its path in common with others."""
        for verb in _DONE:
            many = Action(act=partial(self.many, verb=verb), media=(JSON_MEDIA,), operate=True)
            yield Route(path=f"/messages/{verb.value}", actions={"POST": many})
            if verb is not Verb.DISCARD:
                one = Action(act=partial(self.one, verb=verb), operate=True)
                yield Route(path=f"/messages/{{id}}/{verb.value}", actions={"POST": one})

    async def discard(self, request: Request) -> Answer:
        """``DELETE /messages/{id}``."""
        return await self.one(request, verb=Verb.DISCARD)

    async def one(self, request: Request, *, verb: Verb) -> Answer:
        """The state that it has now. Refuses what is not known (404), and what cannot be done (409)."""
        (id,) = request.parts
        reason = request.arguments(("reason",) if verb in _REASONED else ()).get("reason", "")[:MAX_REASON]
        if await self._decided(request, verb, [id], reason):
            if verb in _STATES:
                return json_answer(_changed(id, _STATES[verb]))
            record = await self._held.record(id)
            return json_answer(_changed(id, record.state if record is not None else State.READY))
        record = await known(self._held, id)
        if (why := _why_not(verb, record)) is not None:
            raise Refusal("wrong-state", why)
        return json_answer(_changed(id, record.state))

    async def many(self, request: Request, *, verb: Verb) -> Answer:
        """``{"id", "state"}`` for each, or ``{"error"}``."""
        ids, reason = _asked(request, ("ids", "reason") if verb in _REASONED else ("ids",))
        return json_answer(await self.each(request, verb, ids, reason))

    async def each(self, request: Request, verb: Verb, ids: Sequence[str], reason: str) -> list[dict[str, Any]]:
        """The same for ids that are all different; who decides is whoever sent ``request``."""
        done = set(await self._decided(request, verb, ids, reason))
        told = dict.fromkeys(done, _STATES[verb]) if verb in _STATES else {}
        records = await self._records([id for id in ids if id not in told])
        return [_changed(id, told[id]) if id in told else _left(verb, id, records[id], done) for id in ids]

    async def _decided(self, request: Request, verb: Verb, ids: Sequence[str], reason: str) -> Collection[str]:
        held, who = self._held, request.who
        text = reason or f"by {request.principal.name}"
        match verb:
            case Verb.RETRY:
                done = await held.retry(ids, who=who)
            case Verb.HOLD:
                done = await held.hold(ids, text, who=who)
            case Verb.RELEASE:
                done = await held.release(ids, who=who)
            case _:
                done = await held.discard(ids, text, who=who)
        if done:
            why = f": {reason!r}" if reason else ""
            self.log.info("{who} {verb} {count} message(s){why}", who=who, verb=_DONE[verb], count=len(done), why=why)
        return done

    async def _records(self, ids: Sequence[str]) -> dict[str, Record | None]:
        try:
            found = await gatherResults([self._held.record(id) for id in ids], consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        return dict(zip(ids, found, strict=True))


def _asked(request: Request, keys: tuple[str, ...]) -> tuple[list[str], str]:
    """Distinct ids in order, and the reason."""
    request.arguments(())
    asked = loads(request.body) if request.body else None
    if not isinstance(asked, dict):
        raise Refusal("malformed", 'must be a JSON object such as {"ids": ["..."]}', field="body")
    for name in asked:
        if name not in keys:
            raise Refusal("malformed", f"is not known here; the object takes {' and '.join(keys)}", field=str(name))
    ids, reason = asked.get("ids"), asked.get("reason", "")
    if not isinstance(ids, list) or not 1 <= len(ids) <= MOST or not all(isinstance(id, str) for id in ids):
        raise Refusal("malformed", f"must be an array of 1 to {MOST} ids", field="ids")
    if not isinstance(reason, str) or len(reason) > MAX_REASON:
        raise Refusal("malformed", f"must be a text of at most {MAX_REASON} characters", field="reason")
    return list(dict.fromkeys(ids)), reason


def _why_not(verb: Verb, record: Record) -> str | None:
    """Why it could not be done; None: the message was as it was to be."""
    state, held = record.state, record.reason is not None and record.reason.cause is Cause.HELD
    if verb is Verb.DISCARD and state is State.DISCARDED:
        return None
    if state not in OPEN:
        return f"the message is {state.value}: there is nothing to {verb.value}"
    parked = state is State.PARKED
    if verb is Verb.RETRY:
        return "the message is held by an operator: release it, or discard it" if held else None
    if verb is Verb.RELEASE:
        return "the message is parked, but nobody holds it: retry it" if parked and not held else None
    if verb is Verb.HOLD and parked:
        return None if held else "the message is parked: it waits for a person already"
    return f"the message is {state.value}: it is on its way to RabbitMQ at this moment; try again"


def _left(verb: Verb, id: str, record: Record | None, done: Collection[str]) -> dict[str, Any]:
    """The answer for one whose state had to be looked at."""
    if id in done:
        return _changed(id, record.state if record is not None else State.READY)
    if record is None:
        return _error("not-found", "pubd knows no message with this id, or no more", id)
    why = _why_not(verb, record)
    return _changed(id, record.state) if why is None else _error("wrong-state", why, id)


def _changed(id: str, state: State) -> dict[str, Any]:
    return {"id": id, "state": state.value}


def _error(type: str, detail: str, id: str) -> dict[str, Any]:
    return problem(type, detail, id=id).as_line()
