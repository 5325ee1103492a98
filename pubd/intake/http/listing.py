"""Looking at messages: for principals that may operate."""

from __future__ import annotations

import re
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

from pubd.duration import LONGEST, NoDuration, seconds
from pubd.errors import InvalidMessage
from pubd.intake import wire
from pubd.intake.http.answer import Refusal, json_answer
from pubd.intake.listing import record_object
from pubd.outcome import State
from pubd.spool.base import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from twisted.internet.defer import Deferred

    from pubd.entry import Entry
    from pubd.intake.http.answer import Answer
    from pubd.intake.http.request import Request
    from pubd.spool.base import Counted, Page, Record

#: Messages on one page, and the most there can be.
PAGE, MOST = 100, 1000
#: What messages can be chosen by.
FILTERS = ("state", "exchange", "routing_key", "ordering_key", "reason", "held", "older_than", "newer_than")
#: An age, as in /openapi.json: a number, which is seconds, or numbers with their units.
AGE = r"[0-9]{1,9}(\.[0-9]{1,9})?|([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d|w)){1,5}"
#: States in which pubd still answers for a message.
OPEN = (State.READY, State.DEFERRED, State.PARKED)
#: An id as pubd writes it, or in capitals.
ID = re.compile("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Held(Protocol):
    """What is needed of :class:`pubd.Publisher`."""

    def record(self, id: str) -> Deferred[Record | None]:
        """What is known of a message."""

    def content(self, id: str) -> Deferred[Entry | None]:
        """The message itself."""

    def find(self, query: Query) -> Deferred[Page]:
        """List messages."""

    def count(self, query: Query) -> Deferred[Counted]:
        """Count them."""

    def retry(self, ids: Sequence[str], *, who: str) -> Deferred[Collection[str]]:
        """Publish them again, now; the ids of those that were changed."""

    def hold(self, ids: Sequence[str], reason: str, *, who: str) -> Deferred[Collection[str]]:
        """Do not publish them until they are released; likewise."""

    def release(self, ids: Sequence[str], *, who: str) -> Deferred[Collection[str]]:
        """Let them go on; likewise."""

    def discard(self, ids: Sequence[str], reason: str, *, who: str) -> Deferred[Collection[str]]:
        """Drop them; likewise."""


class Messages:
    """Each method answers one kind of request. ``wall`` gives epoch seconds."""

    def __init__(self, held: Held, wall: Callable[[], float]) -> None:
        self._held = held
        self._wall = wall

    async def one(self, request: Request) -> Answer:
        """``GET /messages/{id}``; with ``body=true`` or ``properties=true`` the message, whole or without its body."""
        (id,) = request.parts
        arguments = request.arguments(("body", "properties"))
        body, properties = _flag(arguments, "body"), _flag(arguments, "properties")
        shown = record_object(await known(self._held, id))
        if body or properties:
            entry = await self._held.content(id)
            if entry is not None:
                shown["message"] = content_object(entry if body else bodiless(entry))
        return json_answer(shown)

    async def list(self, request: Request) -> Answer:
        """``GET /messages``: a page, and as ``next`` what to give as ``after`` for the next one."""
        page = await self._held.find(self._query(request, ("limit",)))
        return json_answer({"messages": list(map(record_object, page.records)), "next": page.next})

    async def count(self, request: Request) -> Answer:
        """``GET /messages/count``: how many, and where to go on if there was no time for all of them."""
        counted = await self._held.count(self._query(request))
        return json_answer({"count": counted.count, "next": counted.next})

    def _query(self, request: Request, more: tuple[str, ...] = ()) -> Query:
        return _query(request.arguments((*FILTERS, "after", *more)), self._wall())


async def known(held: Held, id: str) -> Record:
    """What is known of a message. Refuses (404) where nothing is."""
    record = await held.record(id)
    if record is None:
        raise Refusal("not-found", "pubd knows no message with this id, or no more", field="id")
    return record


def bodiless(entry: Entry) -> Entry:
    """The same without its body."""
    found = copy(entry)
    found.body = b""
    return found


def content_object(entry: Entry) -> dict[str, Any]:
    """The message itself as JSON, or what is left of it."""
    try:
        return wire.encode(entry)
    except InvalidMessage:
        return wire.remains(entry)


def _query(arguments: dict[str, str], now: float) -> Query:
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
    older, newer = _age(arguments, "older_than"), _age(arguments, "newer_than")
    return Query(
        state=state,
        exchange=arguments.get("exchange"),
        routing_key=arguments.get("routing_key"),
        ordering_key=arguments.get("ordering_key"),
        reason=arguments.get("reason"),
        held=_flag(arguments, "held") if "held" in arguments else None,
        accepted_before=now - older if older is not None else None,
        accepted_after=now - newer if newer is not None else None,
        limit=int(limit),
        after=after,
    )


def after_of(arguments: dict[str, str]) -> str | None:
    """The id of a message. Refuses (400) anything else."""
    after = arguments.get("after")
    if after is not None and not ID.fullmatch(after):
        raise Refusal("malformed", "must be the id of a message, such as the next of a page", field="after")
    return after


def _age(arguments: dict[str, str], name: str) -> float | None:
    if name not in arguments:
        return None
    if not re.fullmatch(AGE, arguments[name]):
        raise Refusal("malformed", 'must be a duration such as "90s", "5m" or "1h30m"', field=name)
    try:
        return seconds(arguments[name])
    except NoDuration:
        # Longer than anything is old.
        return LONGEST


def _flag(arguments: dict[str, str], name: str) -> bool:
    value = arguments.get(name, "false")
    if value not in ("true", "false"):
        raise Refusal("malformed", "must be true or false", field=name)
    return value == "true"
