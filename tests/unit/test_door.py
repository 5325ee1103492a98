"""The door of an intake: who is let in, how much of it, and that every message is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pubd.access import LOCAL, Grant, Principal, Quotas
from pubd.errors import (
    Busy,
    IdempotencyConflict,
    InvalidMessage,
    LinkLost,
    MessageDiscarded,
    MessageExpired,
    MessageParked,
    NotAllowed,
    NotAuthenticated,
    PubdError,
    PublisherStopped,
    QuotaExceeded,
    SpoolError,
    SpoolFailed,
    SpoolFull,
)
from pubd.intake.door import Door
from pubd.intake.problem import TYPES, Problem, problem_of
from pubd.message import Message
from pubd.outcome import Cause, Reason
from tests.strictness import Logged

SHOP = Principal(name="shop", grants=(Grant(exchange="orders", routing_key="order.#"),))


@attrs.define
class Taken:
    """A publisher that takes everything but what is called "wrong"."""

    batches: list[tuple[list[str], str | None]] = attrs.Factory(list)
    broken: Exception | None = None

    def submit_each(
        self, messages: Sequence[Message], *, principal: str | None = None, carrier: object = None
    ) -> Deferred[list[Any]]:
        assert carrier is None
        self.batches.append(([message.routing_key for message in messages], principal))
        if self.broken is not None:
            return fail(self.broken)
        return succeed(
            [
                SpoolFull("max_bytes", "no room") if "wrong" in each.routing_key else each.routing_key
                for each in messages
            ]
        )


def door(publisher: Taken | None = None, *, clock: Clock | None = None, max_unanswered: int = 100) -> Door:
    return Door(publisher=publisher or Taken(), clock=clock or Clock(), quotas=Quotas(), max_unanswered=max_unanswered)


def submit(to: Door, principal: Principal, *keys: str, exchange: str = "orders") -> list[Any]:
    found: list[Any] = []
    to.submit(principal, [Message(exchange=exchange, routing_key=key) for key in keys]).addCallback(found.append)
    (answers,) = found
    return list(answers)


def test_each_message_has_its_answer_in_its_place(logged: Logged) -> None:
    taken = Taken()
    answers = submit(door(taken), SHOP, "order.a", "invoice.b", "order.wrong", "order.c", "invoice.d")
    assert [type(each) for each in answers] == [str, NotAllowed, SpoolFull, str, NotAllowed]
    assert taken.batches == [(["order.a", "order.wrong", "order.c"], "shop")]
    assert any("invoice.b" in text for text in logged.texts)
    logged.events.clear()


def test_nothing_is_handed_in_where_nothing_is_allowed(logged: Logged) -> None:
    taken = Taken()
    assert [type(each) for each in submit(door(taken), SHOP, "x", "y")] == [NotAllowed, NotAllowed]
    assert submit(door(taken), LOCAL) == []
    assert taken.batches == []
    logged.events.clear()


def test_past_its_quota_a_batch_is_refused_with_the_time_to_wait() -> None:
    clock, taken = Clock(), Taken()
    limited = attrs.evolve(SHOP, rate=2.0)
    one = door(taken, clock=clock)
    assert submit(one, limited, "order.1", "order.2") == ["order.1", "order.2"]
    (refused,) = submit(one, limited, "order.3")
    assert isinstance(refused, QuotaExceeded)
    assert 0 < refused.retry_after <= 1
    clock.advance(refused.retry_after)
    assert submit(one, limited, "order.3") == ["order.3"]
    assert len(taken.batches) == 2


def test_a_publisher_that_fails_is_answered_for_and_logged(logged: Logged) -> None:
    answers = submit(door(Taken(broken=ZeroDivisionError("!"))), LOCAL, "a", "b")
    assert [type(each) for each in answers] == [PubdError, PubdError]
    assert problem_of(answers[0]).status == 500
    assert any("was not answered" in text for text in logged.texts)
    logged.events.clear()


def test_reading_stops_at_the_budget_and_goes_on_at_half_of_it() -> None:
    one = door(max_unanswered=100)
    assert one.take(60)
    assert not one.take(41)
    assert one.take(40)
    room: list[None] = []
    one.when_room().addCallback(room.append)
    one.give(40)
    assert (one.unanswered, room) == (60, [])
    one.give(20)
    assert room == [None]
    assert one.take(60)


def test_what_is_larger_than_the_budget_is_let_in_alone() -> None:
    one = door(max_unanswered=100)
    assert one.take(1000)
    assert not one.take(1)
    one.give(1000)
    assert one.take(1)


def test_whoever_waits_no_more_is_forgotten() -> None:
    one = door(max_unanswered=100)
    one.take(100)
    waiting = one.when_room()
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    one.give(100)
    assert one.when_room().called


RETURNED = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")


@pytest.mark.parametrize(
    ("error", "type_", "status"),
    [
        (InvalidMessage("priority", "is out of range"), "invalid-message", 422),
        (InvalidMessage("", "is no JSON"), "malformed", 400),
        (IdempotencyConflict("k"), "idempotency-conflict", 409),
        (SpoolFull("max_bytes", "no room"), "spool-full", 507),
        (SpoolFailed("EIO on /secret/path"), "spool-failed", 503),
        (SpoolError("closed"), "spool-failed", 503),
        (PublisherStopped("is stopping"), "stopping", 503),
        (MessageParked("id", "m", RETURNED), "returned", 422),
        (MessageParked("id", "m", attrs.evolve(RETURNED, cause=Cause.POISON)), "parked", 422),
        (MessageExpired("id", "m"), "expired", 422),
        (MessageDiscarded("id", "m", None), "discarded", 422),
        (NotAuthenticated(), "not-authenticated", 401),
        (NotAllowed(), "not-allowed", 403),
        (QuotaExceeded(0.2), "quota", 429),
        (Busy(), "busy", 503),
        (LinkLost(RETURNED), "internal", 500),
    ],
)
def test_every_error_is_a_problem(error: PubdError, type_: str, status: int) -> None:
    found = problem_of(error)
    assert (found.type, found.status) == (type_, status)
    assert found.as_json()["title"] == TYPES[type_][1]
    assert set(found.as_line()["error"]) <= {"type", "detail", "field", "id", "retry_after"}
    assert "/secret" not in str(found.as_json())
    if status in (429, 503, 507):
        assert found.retry_after is not None
        assert found.retry_after >= 1
    if type_ in ("returned", "parked", "expired", "discarded"):
        assert found.id == "id"


def test_a_problem_names_the_field_where_there_is_one() -> None:
    assert problem_of(InvalidMessage("headers['a']", "is too long")).as_json()["field"] == "headers['a']"
    assert "field" not in Problem(type="not-found", detail="no").as_json()
