"""From the message that was handed in to the entry that is stored."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.amqp.encode import decode_properties
from pubd.entry import Entry
from pubd.errors import InvalidMessage
from pubd.message import Message
from pubd.options import Options
from pubd.spool.ids import Ids
from pubd.submission import entry_of

NOW = 1_700_000_000.25


def entry(options: Options | None = None, now: float = NOW, **given: Any) -> Entry:
    message = Message(**{"exchange": "x", "routing_key": "k", "body": b"body"} | given)
    return entry_of(message, Ids(7, 0, lambda: now), options or Options(), now)


def test_a_message_without_an_id_carries_pubds_own() -> None:
    made = entry()
    assert made.id == made.message_id == decode_properties(made.properties)["message_id"]
    assert UUID(made.id).version == 7
    assert (made.seq > 0, made.accepted_at) == (True, NOW)
    assert entry(message_id="mine").message_id == "mine"
    assert entry(message_id="mine").id != "mine"


def test_ids_are_consecutive_in_the_order_of_acceptance() -> None:
    ids = Ids(7, 0, lambda: NOW)
    made = [entry_of(Message(exchange="x"), ids, Options(), NOW) for _ in range(100)]
    assert [one.seq for one in made] == sorted({one.seq for one in made})
    assert [one.id for one in made] == sorted({one.id for one in made})


@pytest.mark.parametrize("mandatory", [True, False])
@pytest.mark.parametrize("persistent", [True, False])
def test_what_the_message_leaves_open_the_options_decide(mandatory: bool, persistent: bool) -> None:
    options = Options(mandatory=mandatory, persistent=persistent)
    made = entry(options)
    assert made.mandatory is mandatory
    assert decode_properties(made.properties)["delivery_mode"] == (2 if persistent else 1)
    assert entry(options, mandatory=not mandatory).mandatory is not mandatory
    for mode in (1, 2):
        assert decode_properties(entry(options, delivery_mode=mode).properties)["delivery_mode"] == mode


@pytest.mark.parametrize(
    ("given", "due"),
    [
        ({}, None),
        ({"delay": 0}, None),
        ({"delay": 2.5}, NOW + 2.5),
        ({"not_before": NOW + 9}, NOW + 9),
        ({"not_before": NOW}, None),
        ({"not_before": NOW - 9}, None),
        ({"not_before": 0}, None),
    ],
    ids=str,
)
def test_a_delay_is_when_it_is_due_and_what_is_past_is_no_delay(given: dict[str, Any], due: float | None) -> None:
    assert entry(**given).due == due


def test_the_ttl_counts_from_acceptance() -> None:
    assert entry().expires_at is None
    assert entry(ttl=1.5).expires_at == NOW + 1.5


def test_a_body_over_the_limit_is_refused_and_names_the_field() -> None:
    assert entry(Options(max_body=4)).body == b"body"
    with pytest.raises(InvalidMessage) as refused:
        entry(Options(max_body=3))
    assert refused.value.field == "body"


def test_only_what_has_an_idempotency_key_is_digested() -> None:
    plain, keyed = entry(ordering_key="o"), entry(idempotency_key="i", ordering_key="o")
    assert (plain.idempotency_key, plain.fingerprint, plain.ordering_key) == (None, b"", "o")
    assert (keyed.idempotency_key, len(keyed.fingerprint), keyed.ordering_key) == ("i", 16, "o")


FULL: dict[str, Any] = {
    "exchange": "x",
    "routing_key": "k",
    "body": b"body",
    "content_type": "text/plain",
    "headers": {"a": 1, "b": ["c", {"d": None}]},
    "priority": 3,
    "expiration": "60000",
    "message_id": "m",
    "timestamp": 5,
    "mandatory": True,
    "ordering_key": "o",
    "not_before": NOW + 5,
    "ttl": 60.0,
}
OTHER: dict[str, Any] = {
    "exchange": "y",
    "routing_key": "l",
    "body": b"bodz",
    "content_type": None,
    "headers": {"a": 1, "b": ["c", {"d": False}]},
    "priority": 0,
    "expiration": "60001",
    "message_id": None,
    "timestamp": 6,
    "mandatory": False,
    "ordering_key": None,
    "not_before": None,
    "ttl": None,
    "delivery_mode": 1,
    "reply_to": "r",
    "user_id": "u",
}


def fingerprint(now: float = NOW, **given: Any) -> bytes:
    return entry(now=now, idempotency_key="i", **given).fingerprint


def test_the_same_content_has_the_same_digest_whenever_it_is_submitted() -> None:
    assert fingerprint(**FULL) == fingerprint(NOW + 3600, **FULL)
    # pubd's own id differs each time, and is no content.
    assert fingerprint() == fingerprint(NOW + 3600)
    assert fingerprint(delay=5) == fingerprint(NOW + 3600, delay=5)


@pytest.mark.parametrize("field", OTHER)
def test_other_content_has_another_digest(field: str) -> None:
    assert fingerprint(**FULL) != fingerprint(**FULL | {field: OTHER[field]})


def test_defaults_that_are_said_are_the_same_as_those_that_are_not() -> None:
    assert fingerprint() == fingerprint(mandatory=True, delivery_mode=2)


_text = st.text(max_size=5)


@given(_text.filter(str.isprintable), _text, st.binary(max_size=5), _text.filter(str.isprintable), _text, st.binary())
def test_no_two_contents_are_taken_for_one_by_how_they_are_joined(
    exchange: str, key: str, body: bytes, exchange2: str, key2: str, body2: bytes
) -> None:
    one = fingerprint(exchange=exchange, routing_key=key, body=body)
    two = fingerprint(exchange=exchange2, routing_key=key2, body=body2)
    assert (one == two) == ((exchange, key, body) == (exchange2, key2, body2))


def test_an_entry_is_as_large_as_what_is_kept_of_it() -> None:
    small, large = entry(body=b""), entry(body=b"x" * 100)
    assert large.size - small.size == 100
    assert attrs.fields_dict(Entry)["size"].init is False
