"""Deciding about many messages at once: ``POST /messages/retry`` and ``POST /messages/discard``, one commit each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import FirstError, gatherResults
from twisted.logger import Logger

from pubd.intake.http.answer import Refusal, json_answer
from pubd.intake.http.listing import MOST, OPEN, note
from pubd.intake.problem import problem
from pubd.intake.wire import loads
from pubd.outcome import State

if TYPE_CHECKING:
    from pubd.intake.http.answer import Answer
    from pubd.intake.http.listing import Held
    from pubd.intake.http.request import Request
    from pubd.spool.base import Record

JSON_MEDIA = "application/json"
#: Characters of a reason.
MAX_REASON = 1000
_WAITING = (State.DEFERRED, State.PARKED)


class Decisions:
    """Each id is answered for, in order: ``{"id", "state"}``, or ``{"error"}`` as in every batch."""

    log = Logger()

    def __init__(self, held: Held) -> None:
        self._held = held

    async def retry(self, request: Request) -> Answer:
        """What is parked or deferred is published now, its attempts counted anew; what is ready stays so."""
        ids, _ = _asked(request, ("ids",))
        records = await self._records(ids)
        waiting = [id for id in ids if (record := records[id]) is not None and record.state in _WAITING]
        if waiting:
            # Some may have changed meanwhile: the spool looks itself.
            await self._held.retry(waiting)
            note(self.log, "retried", request, len(waiting))
        return json_answer([_retried(id, records[id]) for id in ids])

    async def discard(self, request: Request) -> Answer:
        """What is not on its way to RabbitMQ is dropped; ``reason`` is kept in the records."""
        ids, reason = _asked(request, ("ids", "reason"))
        dropped = set(await self._held.discard(ids, reason or f"by {request.principal.name}"))
        note(self.log, "discarded", request, len(dropped), reason)
        records = await self._records([id for id in ids if id not in dropped])
        return json_answer([_changed(id) if id in dropped else _kept(id, records[id]) for id in ids])

    async def _records(self, ids: list[str]) -> dict[str, Record | None]:
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


def _retried(id: str, record: Record | None) -> dict[str, Any]:
    if record is None:
        return _unknown(id)
    if record.state not in OPEN:
        return _error("wrong-state", f"the message is {record.state.value}: there is nothing to retry", id)
    return {"id": id, "state": State.READY.value}


def _kept(id: str, record: Record | None) -> dict[str, Any]:
    """Why it was not discarded, or that it had been."""
    if record is None:
        return _unknown(id)
    if record.state is State.DISCARDED:
        return _changed(id)
    why = "it is on its way to RabbitMQ at this moment; try again" if record.state in OPEN else "it is settled"
    return _error("wrong-state", f"the message is {record.state.value}: {why}", id)


def _changed(id: str) -> dict[str, Any]:
    return {"id": id, "state": State.DISCARDED.value}


def _unknown(id: str) -> dict[str, Any]:
    return _error("not-found", "pubd knows no message with this id, or no more", id)


def _error(type: str, detail: str, id: str) -> dict[str, Any]:
    return problem(type, detail, id=id).as_line()
