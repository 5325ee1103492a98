"""Copies of parked messages: what they say, and of which messages there are any."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pubd.amqp.encode import decode_properties
from pubd.message import Message
from pubd.options import Options
from pubd.outcome import Cause, Reason, Settlement, State
from pubd.parking import HEADER, copies
from pubd.policy import Policies, Policy
from pubd.spool.ids import Ids
from pubd.submission import entry_of

NOW = 1_700_000_000.0
IDS = Ids(7, 0, lambda: NOW)
NO_ROUTE = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
POLICIES = Policies([Policy(exchange="x", park_to="graves")])


def parked(reason: Reason | None = NO_ROUTE, attempts: int = 1, **given: Any) -> Settlement:
    message = Message(**{"exchange": "x", "routing_key": "k", "body": b"body"} | given)
    entry = entry_of(message, IDS, Options(), NOW - 60)
    return Settlement(entry=entry, state=State.PARKED, attempts=attempts, reason=reason)


def headers(properties: bytes) -> Any:
    return decode_properties(properties)["headers"]


def test_a_copy_says_why_when_how_often_and_where_from() -> None:
    change = parked(attempts=3, headers={"mine": [1, {"a": b"b"}]}, content_type="text/plain", priority=4)
    (copy,) = copies([change], POLICIES, IDS, NOW)
    assert (copy.exchange, copy.routing_key, copy.body) == ("graves", "k", b"body")
    assert copy.message_id == change.entry.message_id
    assert copy.id != change.entry.id
    assert copy.seq > change.entry.seq
    assert (copy.accepted_at, copy.attempts, copy.mandatory) == (NOW, 0, True)
    properties = decode_properties(copy.properties)
    assert (properties["content_type"], properties["priority"], properties["delivery_mode"]) == ("text/plain", 4, 2)
    assert headers(copy.properties) == {
        "mine": [1, {"a": b"b"}],
        HEADER: [
            {
                "reason": "returned",
                "code": 312,
                "text": "NO_ROUTE",
                "exchange": "x",
                "routing-keys": ["k"],
                "time": datetime.fromtimestamp(NOW, UTC),
                "count": 3,
                "id": change.entry.id,
            }
        ],
    }
    assert headers(change.entry.properties) == {"mine": [1, {"a": b"b"}]}, "the original is as it was"


def test_a_copy_does_not_expire_but_says_when_the_original_would_have() -> None:
    (copy,) = copies([parked(expiration="5000", ttl=9, ordering_key="o", delay=1)], POLICIES, IDS, NOW)
    assert "expiration" not in decode_properties(copy.properties)
    assert headers(copy.properties)[HEADER][0]["original-expiration"] == "5000"
    assert (copy.expires_at, copy.due, copy.ordering_key) == (None, None, None)


def test_a_message_has_one_copy_whatever_crashes_and_however_often_it_is_parked() -> None:
    change = parked()
    (first,), (again,) = (copies([change], POLICIES, IDS, now) for now in (NOW, NOW + 5))
    assert first.idempotency_key == again.idempotency_key
    assert first.fingerprint == again.fingerprint
    later = Settlement(entry=change.entry, state=State.PARKED, attempts=2, reason=NO_ROUTE)
    (other,) = copies([later], POLICIES, IDS, NOW)
    assert other.idempotency_key == first.idempotency_key, "until the spool forgets it, when a person retries"


def test_only_policies_that_say_so_make_copies() -> None:
    changes = [parked(exchange="y"), parked(body=b"1"), parked(exchange="y"), parked(body=b"2")]
    assert [copy.body for copy in copies(changes, POLICIES, IDS, NOW)] == [b"1", b"2"]
    assert copies(changes, Policies(), IDS, NOW) == []


def test_a_copy_that_is_parked_in_its_turn_is_not_copied_again() -> None:
    policies = Policies((), Policy(park_to="graves"))
    assert copies([parked(exchange="graves")], policies, IDS, NOW) == []


def test_a_message_parked_without_a_reason_is_copied_all_the_same() -> None:
    (copy,) = copies([parked(None)], POLICIES, IDS, NOW)
    death = headers(copy.properties)[HEADER][0]
    assert (death["reason"], death["code"], death["text"]) == ("", None, "")
