"""Looking: the page itself, one message, and the search for one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from pubd.body_text import body_lines
from pubd.errors import SpoolError
from pubd.findings import findings
from pubd.grouping import groups
from pubd.intake.http.answer import Refusal
from pubd.intake.http.listing import ID, OPEN, after_of, bodiless, content_object
from pubd.intake.http.page.overview import overview
from pubd.intake.http.page.render import html, see_other
from pubd.intake.listing import moment_text, record_object
from pubd.outcome import Cause, State
from pubd.spool.base import Query
from pubd.wording import SETTLED, messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from pubd.entry import Entry
    from pubd.intake.http.answer import Answer
    from pubd.intake.http.page.forms import Tokens
    from pubd.intake.http.request import Request
    from pubd.intake.http.status import Status
    from pubd.spool.base import Page, Record

#: Seconds after which a browser without JavaScript loads the page again.
REFRESH = 10
#: Parked messages that are shown one by one.
SHOWN = 20
#: Groups of them that are shown.
_GROUPS = 10
_SILENT = {"parked_problem": "The spool does not answer, so that it cannot be said which they are."}
#: Characters of an id or message_id.
_LONGEST = 255
_BODY = ("body", "body_base64", "body_json", "exchange", "routing_key", "message_id")
#: What was done, by the word for it in the address that a browser is sent to.
_DONE = {"retry": "published again", "hold": "held", "release": "released", "discard": "discarded"}


class Held(Protocol):
    """What is needed of :class:`pubd.Publisher`."""

    def record(self, id: str) -> Deferred[Record | None]:
        """What is known of a message."""

    def content(self, id: str) -> Deferred[Entry | None]:
        """The message itself."""

    def find(self, query: Query) -> Deferred[Page]:
        """List messages."""

    def search(self, message_id: str, before: str | None = None) -> Deferred[Page]:
        """Those with this message_id of the application's, the last one first."""


class Looking:
    """Each method answers one kind of request. ``history`` gives what ``GET /history`` answers for so many seconds."""

    def __init__(
        self,
        *,
        status: Status,
        held: Held,
        history: Callable[[float], dict[str, Any]],
        tokens: Tokens,
        wall: Callable[[], float],
    ) -> None:
        self._status = status
        self._held = held
        self._history = history
        self._tokens = tokens
        self._wall = wall

    async def page(self, request: Request) -> Answer:
        """``GET /``. ``exchange`` and ``after`` are for what is parked; ``did`` and ``count`` tell what a form did."""
        arguments = request.arguments(("after", "exchange", "paused", "did", "count"))
        after = after_of(arguments)
        facts = await self._status.facts()
        parked: dict[str, Any] = {"parked_problem": "", "records": [], "groups": []}
        if facts["books"]["parked"]:
            try:
                # Of a spool that hangs an answer would be waited for in vain.
                parked |= await self._parked(facts, after, arguments.get("exchange")) if facts["parked"] else _SILENT
            except SpoolError:
                parked |= _SILENT
        return html(
            "overview.html",
            **overview(facts, findings(facts), self._history(3600.0)),
            **parked,
            token=self._tokens.new(request),
            paused=arguments.get("paused") == "true",
            refresh=REFRESH,
            did=_did(arguments),
            chosen_exchange=arguments.get("exchange"),
            paging=after is not None,
        )

    async def _parked(self, facts: dict[str, Any], after: str | None, exchange: str | None) -> dict[str, Any]:
        # One more than are shown, to know whether there is a next page.
        page = await self._held.find(Query(state=State.PARKED, exchange=exchange, after=after, limit=SHOWN + 1))
        shown = [record_object(record) for record in page.records[:SHOWN]]
        more = len(page.records) > SHOWN or page.next is not None
        last = shown[-1]["id"] if len(page.records) > SHOWN else page.next
        found = groups(facts) if after is None and exchange is None else []
        return {
            "records": shown,
            "groups": found[:_GROUPS],
            "more_groups": max(0, len(found) - _GROUPS) + facts["parked"]["others"],
            "seen": facts["parked"]["seen"],
            "next": {"after": last, **({"exchange": exchange} if exchange is not None else {})} if more else None,
        }

    async def message(self, request: Request) -> Answer:
        """``GET /page/messages/{id}``."""
        (id,) = request.parts
        arguments = request.arguments(("did", "count"))
        record = await self._held.record(id)
        if record is None:
            raise Refusal("not-found", "pubd knows no message with this id, or no more")
        entry = await self._held.content(id)
        content = content_object(bodiless(entry)) if entry is not None else {}
        body = None if record.state.value in SETTLED or entry is None else entry.body
        return html(
            "message.html",
            record=record_object(record),
            verbs=_verbs(record),
            properties=[*_properties(content)],
            body="\n".join(body_lines(body, record.id)),
            now=self._wall(),
            token=self._tokens.new(request),
            did=_did(arguments),
        )

    async def search(self, request: Request) -> Answer:
        """``GET /page/search?q=``: by pubd's id, or by the application's message_id."""
        arguments = request.arguments(("q", "before"))
        wanted, before = arguments.get("q", "").strip(), arguments.get("before")
        if not 1 <= len(wanted) <= _LONGEST:
            raise Refusal("malformed", f"must be an id or a message_id of 1 to {_LONGEST} characters", field="q")
        if before is not None and not ID.fullmatch(before):
            raise Refusal("malformed", "must be the id of a message", field="before")
        record = await self._held.record(wanted) if before is None else None
        if record is not None:
            return see_other(f"/page/messages/{record.id}")
        found = await self._held.search(wanted, before)
        reached = None
        if found.next is not None and (last := await self._held.record(found.next)) is not None:
            reached = moment_text(last.accepted_at)
        return html(
            "search.html",
            q=wanted,
            records=[record_object(record) for record in found.records],
            next=found.next if reached is not None else None,
            reached=reached,
            retain=self._status.retain,
            now=self._wall(),
        )


def _verbs(record: Record) -> list[str]:
    """What can be decided about it."""
    if record.state not in OPEN or record.in_flight:
        return []
    if record.state is not State.PARKED:
        return [*(["retry"] if record.state is State.DEFERRED else []), "hold", "discard"]
    held = record.reason is not None and record.reason.cause is Cause.HELD
    return ["release" if held else "retry", "discard"]


def _properties(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values, headers one by one."""
    found = []
    for name, value in content.items():
        if name == "headers" and isinstance(value, dict):
            found += [(f"header {header}", _text(each)) for header, each in value.items()]
        elif name not in _BODY:
            found.append((name, _text(value)))
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _did(arguments: dict[str, str]) -> str:
    """What a form did; only what pubd itself writes into an address makes a sentence."""
    count, did = arguments.get("count", ""), arguments.get("did", "")
    if did not in _DONE or not (count.isascii() and count.isdigit() and len(count) < 10):
        return ""
    return f"{messages(int(count))} {_DONE[did]}."
