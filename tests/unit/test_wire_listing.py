"""Records as JSON: every key, always; moments that sort as text."""

from __future__ import annotations

import json

import pytest

from pubd.intake.listing import moment_text, record_object
from pubd.outcome import Cause, Reason, State, Via
from pubd.spool.base import Attempt, Record

NOW = 1_700_000_000.0

READY = Record(
    id="id-1",
    message_id="m-1",
    exchange="x",
    routing_key="k",
    state=State.READY,
    in_flight=True,
    attempts=0,
    accepted_at=NOW,
    principal=None,
    due=None,
    reason=None,
    settled_at=None,
    via=None,
    tag=None,
    failures=(),
)
PARKED = Record(
    id="id-1",
    message_id="m-1",
    exchange="x",
    routing_key="k",
    state=State.PARKED,
    in_flight=False,
    attempts=2,
    accepted_at=NOW,
    principal="shop",
    due=NOW + 0.25,
    reason=Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE"),
    settled_at=NOW + 1.0004,
    via=Via("rabbit@host", 3),
    tag=7,
    failures=(Attempt(1, NOW + 1, 1, "returned", "rabbit@host", 3, 7, 312, "NO_ROUTE"),),
)


def test_a_record_has_every_key_and_null_where_nothing_is_known() -> None:
    assert record_object(READY) == {
        "id": "id-1",
        "message_id": "m-1",
        "exchange": "x",
        "routing_key": "k",
        "state": "ready",
        "in_flight": True,
        "attempts": 0,
        "accepted_at": "2023-11-14T22:13:20.000Z",
        "principal": None,
        "due": None,
        "settled_at": None,
        "reason": None,
        "node": None,
        "channel": None,
        "tag": None,
        "failures": [],
        "decisions": [],
    }
    assert list(record_object(READY)) == list(record_object(PARKED))


def test_a_parked_message_tells_why_and_what_failed() -> None:
    value = json.loads(json.dumps(record_object(PARKED)))
    assert (value["state"], value["in_flight"], value["attempts"], value["principal"]) == ("parked", False, 2, "shop")
    assert value["reason"] == {"cause": "returned", "code": 312, "text": "NO_ROUTE"}
    assert (value["due"], value["settled_at"]) == ("2023-11-14T22:13:20.250Z", "2023-11-14T22:13:21.000Z")
    assert (value["node"], value["channel"], value["tag"]) == ("rabbit@host", 3, 7)
    assert value["failures"] == [
        {
            "number": 1,
            "outcome": "returned",
            "at": "2023-11-14T22:13:21.000Z",
            "times": 1,
            "node": "rabbit@host",
            "channel": 3,
            "tag": 7,
            "code": 312,
            "text": "NO_ROUTE",
        }
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (0.9999, "1970-01-01T00:00:00.999Z"), (2**36 - 1, "4147-08-20T07:32:15.000Z")],
)
def test_moments_have_one_length(seconds: float, text: str) -> None:
    assert moment_text(seconds) == text
    assert moment_text(None) is None
