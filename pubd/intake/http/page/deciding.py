"""Deciding: what the buttons of the page do. Whatever is dropped, or concerns a whole set, is asked about first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from pubd.decision import Verb
from pubd.intake.http.answer import Refusal
from pubd.intake.http.decisions import MAX_REASON
from pubd.intake.http.listing import ID
from pubd.intake.http.page.forms import check_same_site, fields_of, group_key, group_of
from pubd.intake.http.page.looking import SHOWN
from pubd.intake.http.page.render import html, see_other
from pubd.intake.listing import record_object
from pubd.outcome import State
from pubd.spool.base import Query
from pubd.wording import exchange as exchange_name
from pubd.wording import messages, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.intake.http.answer import Answer
    from pubd.intake.http.page.forms import Tokens
    from pubd.intake.http.page.looking import Held
    from pubd.intake.http.request import Request

#: Messages of a set that are decided about in one commit.
STEP = 1000
#: Seconds after which a set is left as it is, and asked whether to go on.
PATIENCE = 5.0
#: Ids in one form.
MOST = 1000
_QUESTIONS = {Verb.RETRY: "Publish again", Verb.HOLD: "Hold", Verb.RELEASE: "Release", Verb.DISCARD: "Discard"}
_ANSWERS = {verb: f"Yes, {question[0].lower()}{question[1:]}" for verb, question in _QUESTIONS.items()}
_CONSEQUENCES = {
    Verb.RETRY: "They are published now, their attempts counted anew. What RabbitMQ still refuses is parked again.",
    Verb.HOLD: "They are not published until somebody releases them.",
    Verb.RELEASE: "They go on from where they were, in their old places, with the attempts they had.",
    Verb.DISCARD: "They are not published, and their bodies are gone at once. Nobody can take that back.",
}
_FIELDS = ("token", "do", "sure", "id", "group", "after", "done", "reason")


class Verdicts(Protocol):
    """What is needed of :class:`pubd.intake.http.decisions.Decisions`."""

    async def each(self, request: Request, verb: Verb, ids: Sequence[str], reason: str) -> list[dict[str, Any]]:
        """``{"id", "state"}`` for each, or ``{"error"}``."""


@attrs.frozen(kw_only=True)
class _Asked:
    """A form: about ``ids``, or about the ``group`` of what is parked for an exchange and for a reason.

    ``after`` and ``done`` are how far a set is, and with how many.
    """

    verb: Verb
    sure: bool
    ids: list[str]
    group: tuple[str, str] | None
    after: str | None
    done: int
    text: str


class Deciding:
    """``clock`` counts seconds."""

    def __init__(
        self, *, held: Held, verdicts: Verdicts, tokens: Tokens, clock: Any, wall: Callable[[], float]
    ) -> None:
        self._held = held
        self._verdicts = verdicts
        self._tokens = tokens
        self._clock = clock
        self._wall = wall

    async def decide(self, request: Request) -> Answer:
        """``POST /page/decide``."""
        check_same_site(request)
        request.arguments(())
        fields = fields_of(request)
        self._tokens.check(request, next((value for name, value in fields if name == "token"), ""))
        asked = _asked(fields)
        if asked.group is not None:
            return await self._set(request, asked, *asked.group)
        if asked.verb is Verb.DISCARD and not asked.sure:
            return await self._are_you_sure(request, asked)
        return await self._ids(request, asked)

    async def _ids(self, request: Request, asked: _Asked) -> Answer:
        answers = await self._verdicts.each(request, asked.verb, asked.ids, asked.text)
        left = [(each["error"]["id"], each["error"]["detail"]) for each in answers if "error" in each]
        done = len(answers) - len(left)
        if not left:
            where = f"/page/messages/{asked.ids[0]}" if len(asked.ids) == 1 else "/"
            return see_other(f"{where}?did={asked.verb.value}&count={done}")
        headline = f"{messages(len(left))} left as {'it is' if len(left) == 1 else 'they are'}"
        if done:
            headline += f", {done:,} done"
        return html("outcome.html", 409, headline=headline, left=left, icon="unhealthy")

    async def _are_you_sure(self, request: Request, asked: _Asked) -> Answer:
        records = [record for id in asked.ids[:SHOWN] if (record := await self._held.record(id)) is not None]
        return self._ask(
            request,
            asked,
            f"{_QUESTIONS[asked.verb]} {messages(len(asked.ids))}?",
            [("id", id) for id in asked.ids],
            records=[record_object(record) for record in records],
            more=len(asked.ids) - len(records),
        )

    def _ask(
        self, request: Request, asked: _Asked, question: str, fields: list[tuple[str, str]], **more: Any
    ) -> Answer:
        return html(
            "sure.html",
            question=question,
            consequence=_CONSEQUENCES[asked.verb],
            answer=_ANSWERS[asked.verb],
            verb=asked.verb.value,
            fields=fields,
            token=self._tokens.new(request),
            asks_reason=asked.verb is Verb.DISCARD,
            text=asked.text,
            now=self._wall(),
            icon="unhealthy" if asked.verb is Verb.DISCARD else "healthy",
            **more,
        )

    async def _set(self, request: Request, asked: _Asked, exchange: str, why: str) -> Answer:
        """All that is parked there for that reason: counted first, then in steps, each message once."""
        fields = [("group", group_key({"exchange": exchange, "reason": why}))]
        place = f"for exchange {exchange_name(exchange)}: {why}"
        if not asked.sure:
            found, next = await self._some(exchange, why, asked.after)
            number = f"{len(found):,} or more messages" if next is not None else messages(len(found))
            question = f"{_QUESTIONS[asked.verb]} {number} parked {place}?"
            return self._ask(
                request,
                asked,
                question,
                fields,
                records=[record_object(record) for record in found[:SHOWN]],
                more=f"{len(found) - SHOWN:,}" if len(found) > SHOWN else "",
            )
        until = self._clock.seconds() + PATIENCE
        after, done = asked.after, asked.done
        while True:
            found, after = await self._some(exchange, why, after)
            if found:
                answers = await self._verdicts.each(request, asked.verb, [each.id for each in found], asked.text)
                done += sum("error" not in each for each in answers)
            if after is None:
                return see_other(f"/?did={asked.verb.value}&count={min(done, 10**9 - 1)}")
            if self._clock.seconds() >= until:
                break
        fields += [("after", after), ("done", str(done))]
        question = f"{messages(done)} done; go on with the others parked {place}?"
        return self._ask(request, asked, question, fields, records=[], more="")

    async def _some(self, exchange: str, why: str, after: str | None) -> tuple[list[Any], str | None]:
        """The next ones of a set, and where to go on; None: these are the last."""
        query = Query(state=State.PARKED, exchange=exchange, after=after, limit=STEP)
        page = await self._held.find(query)
        return [each for each in page.records if reason(record_object(each)["reason"]) == why], page.next


def _asked(fields: list[tuple[str, str]]) -> _Asked:
    for name, _ in fields:
        if name not in _FIELDS:
            raise Refusal("malformed", "is not known here", field=name[:100])
    ids = list(dict.fromkeys(value for name, value in fields if name == "id"))
    given = {name: value for name, value in fields if name != "id"}
    verb = next((each for each in _QUESTIONS if each.value == given.get("do")), None)
    if verb is None:
        raise Refusal("malformed", f"must be one of {', '.join(each.value for each in _QUESTIONS)}", field="do")
    if not ids and "group" not in given:
        raise Refusal("malformed", "choose messages first", field="id")
    after, done = given.get("after"), given.get("done", "0")
    for id in (*ids, *([after] if after is not None else [])):
        if not ID.fullmatch(id):
            raise Refusal("malformed", "must be the id of a message", field="id")
    if len(ids) > MOST:
        raise Refusal("malformed", f"choose at most {MOST:,} messages", field="id")
    if not (done.isascii() and done.isdigit() and len(done) < 10):
        raise Refusal("malformed", "must be a number", field="done")
    return _Asked(
        verb=verb,
        sure=given.get("sure") == "yes",
        ids=ids,
        group=group_of(given["group"]) if "group" in given else None,
        after=after,
        done=int(done),
        text=given.get("reason", "").strip()[:MAX_REASON],
    )
