"""Looking at messages, and deciding about them: for principals that may operate."""

from __future__ import annotations

import re
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from pubd.errors import InvalidMessage
from pubd.intake import wire
from pubd.intake.http.answer import Refusal, json_answer
from pubd.intake.listing import record_object
from pubd.outcome import State
from pubd.spool.base import Query

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from twisted.internet.defer import Deferred

    from pubd.entry import Entry
    from pubd.intake.http.answer import Answer
    from pubd.intake.http.request import Request
    from pubd.spool.base import Page, Record

#: Messages on one page, and the most there can be.
PAGE, MOST = 100, 1000
#: States in which pubd still answers for a message.
OPEN = (State.READY, State.DEFERRED, State.PARKED)
_ID = re.compile("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Held(Protocol):
    """What is needed of :class:`pubd.Publisher`."""

    def record(self, id: str) -> Deferred[Record | None]:
        """What is known of a message."""

    def content(self, id: str) -> Deferred[Entry | None]:
        """The message itself."""

    def find(self, query: Query) -> Deferred[Page]:
        """List messages."""

    def retry(self, ids: Sequence[str]) -> Deferred[None]:
        """Publish them again, now."""

    def discard(self, ids: Sequence[str], reason: str) -> Deferred[Collection[str]]:
        """Drop them; the ids of those that were."""


def note(log: Logger, verb: str, request: Request, count: int, reason: str = "") -> None:
    """A line for each decision of an operator: who, what, how many, why."""
    if count:
        log.info(
            "{principal} {verb} {count} message(s){why}",
            principal=request.principal.name,
            verb=verb,
            count=count,
            why=f": {reason!r}" if reason else "",
        )


class Messages:
    """Each method answers one kind of request."""

    log = Logger()

    def __init__(self, held: Held) -> None:
        self._held = held

    async def one(self, request: Request) -> Answer:
        """``GET /messages/{id}``; with ``body=true`` or ``properties=true`` the message, whole or without its body."""
        (id,) = request.parts
        arguments = request.arguments(("body", "properties"))
        body, properties = _flag(arguments, "body"), _flag(arguments, "properties")
        shown = record_object(await self._record(id))
        if body or properties:
            entry = await self._held.content(id)
            if entry is not None:
                shown["message"] = _content(entry if body else _bodiless(entry))
        return json_answer(shown)

    async def list(self, request: Request) -> Answer:
        """``GET /messages``: a page, and as ``next`` what to give as ``after`` for the next one."""
        page = await self._held.find(_query(request.arguments(("state", "exchange", "limit", "after"))))
        return json_answer({"messages": list(map(record_object, page.records)), "next": page.next})

    async def retry(self, request: Request) -> Answer:
        """``POST /messages/{id}/retry``."""
        (id,) = request.parts
        request.arguments(())
        record = await self._record(id)
        if record.state not in OPEN:
            raise _wrong_state(record, "there is nothing to retry")
        if record.state is not State.READY:
            await self._held.retry([id])
            note(self.log, "retried", request, 1)
            record = await self._record(id)
        return json_answer({"id": id, "state": record.state.value})

    async def discard(self, request: Request) -> Answer:
        """``DELETE /messages/{id}``; ``reason`` is kept in the message's record."""
        (id,) = request.parts
        reason = request.arguments(("reason",)).get("reason") or f"by {request.principal.name}"
        record = await self._record(id)
        if record.state in OPEN:
            if await self._held.discard([id], reason[:1000]):
                note(self.log, "discarded", request, 1, reason[:1000])
            elif (record := await self._record(id)).state in OPEN:
                raise _wrong_state(record, "it is on its way to RabbitMQ at this moment; try again")
        elif record.state in (State.CONFIRMED, State.EXPIRED):
            raise _wrong_state(record, "there is nothing to discard")
        return json_answer({"id": id, "state": State.DISCARDED.value})

    async def _record(self, id: str) -> Record:
        record = await self._held.record(id)
        if record is None:
            raise Refusal("not-found", "pubd knows no message with this id, or no more", field="id")
        return record


def _bodiless(entry: Entry) -> Entry:
    found = copy(entry)
    found.body = b""
    return found


def _content(entry: Entry) -> dict[str, Any]:
    try:
        return wire.encode(entry)
    except InvalidMessage:
        return wire.remains(entry)


def _query(arguments: dict[str, str]) -> Query:
    limit = arguments.get("limit", str(PAGE))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 1 <= int(limit) <= MOST):
        raise Refusal("malformed", f"must be a whole number from 1 to {MOST}", field="limit")
    after = after_of(arguments)
    state = None
    if "state" in arguments:
        try:
            state = State(arguments["state"])
        except ValueError:
            known = ", ".join(each.value for each in State)
            raise Refusal("malformed", f"must be one of {known}", field="state") from None
    return Query(state=state, exchange=arguments.get("exchange"), limit=int(limit), after=after)


def after_of(arguments: dict[str, str]) -> str | None:
    """The id of a message. Refuses (400) anything else."""
    after = arguments.get("after")
    if after is not None and not _ID.fullmatch(after):
        raise Refusal("malformed", "must be the id of a message, such as the next of a page", field="after")
    return after


def _flag(arguments: dict[str, str], name: str) -> bool:
    value = arguments.get(name, "false")
    if value not in ("true", "false"):
        raise Refusal("malformed", "must be true or false", field=name)
    return value == "true"


def _wrong_state(record: Record, why: str) -> Refusal:
    return Refusal("wrong-state", f"the message is {record.state.value}: {why}")
