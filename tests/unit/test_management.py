"""The management plugin's publish: what it takes, and what it answers, in the plugin's own shapes."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.access import LOCAL, Access, Principal
from pubd.access.tokens import hash_of, new_token
from pubd.errors import (
    Busy,
    IdempotencyConflict,
    InvalidMessage,
    MessageDiscarded,
    MessageExpired,
    MessageParked,
    NotAllowed,
    NotAuthenticated,
    PubdError,
    PublisherStopped,
    QuotaExceeded,
    SpoolFailed,
    SpoolFull,
)
from pubd.intake.http.answer import Refusal
from pubd.intake.http.identity import principal as principal_of
from pubd.intake.http.management import error_answer, message_of, outcome_answer
from pubd.message import Message
from pubd.outcome import Cause, Reason
from pubd.receipt import Confirmed

NEEDED = {"routing_key": "k", "properties": {}, "payload": "hello", "payload_encoding": "string"}


def parsed(exchange: str = "message", **given: Any) -> Message:
    return message_of(json.dumps(NEEDED | given).encode(), exchange=exchange)


def refused(raw: bytes | dict[str, Any]) -> InvalidMessage:
    if isinstance(raw, dict):
        raw = json.dumps(raw).encode()
    with pytest.raises(InvalidMessage) as caught:
        message_of(raw, exchange="message")
    return caught.value


# What it takes


def test_what_rabbitmqadmin_sends_is_a_message() -> None:
    message = parsed(vhost="/", exchange="message", payload="grüß")
    assert message == Message(exchange="message", routing_key="k", body="grüß".encode(), mandatory=True)


def test_the_default_exchange_has_the_name_that_the_plugin_gives_it() -> None:
    given = json.dumps(NEEDED).encode()
    assert message_of(given, exchange="amq.default").exchange == ""


def test_a_payload_in_base64() -> None:
    payload = bytes(range(256))
    assert parsed(payload=base64.b64encode(payload).decode(), payload_encoding="base64").body == payload


def test_all_properties_are_kept() -> None:
    properties: dict[str, Any] = {
        "content_type": "text/plain",
        "content_encoding": "identity",
        "headers": {"n": 1, "s": "x", "b": True, "l": [1, "y", None], "t": {"k": 2**40}},
        "delivery_mode": 2,
        "priority": 5,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "60000",
        "message_id": "m",
        "timestamp": 1700000000,
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
        "cluster_id": "z",
    }
    expected = Message(exchange="message", routing_key="k", body=b"hello", mandatory=True, **properties)
    assert parsed(properties=properties) == expected


def test_numbers_may_be_strings_and_an_expiration_a_number() -> None:
    message = parsed(properties={"delivery_mode": "2", "priority": "7", "timestamp": "1700000000", "expiration": 60000})
    assert (message.delivery_mode, message.priority, message.timestamp) == (2, 7, 1700000000)
    assert message.expiration == "60000"


@pytest.mark.parametrize("empty", [{"properties": []}, {"properties": {"headers": []}}, {"properties": {}}])
def test_an_empty_list_is_an_empty_table(empty: dict[str, Any]) -> None:
    assert not parsed(**empty).headers


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({"routing_key": 5}, "routing_key", "string"),
        ({"routing_key": "é" * 128}, "routing_key", "255"),
        ({"payload": 3}, "payload", "string"),
        ({"payload": None}, "payload", "string"),
        ({"payload": "@@", "payload_encoding": "base64"}, "payload", "base64"),
        ({"payload": "é", "payload_encoding": "base64"}, "payload", "base64"),
        ({"payload_encoding": "utf8"}, "payload_encoding", "base64"),
        ({"payload_encoding": None}, "payload_encoding", "base64"),
        ({"payload_encoding": []}, "payload_encoding", "base64"),
        ({"properties": None}, "properties", "object"),
        ({"properties": "x"}, "properties", "object"),
        ({"properties": [1]}, "properties", "object"),
        ({"properties": {"content-type": "x"}}, "properties.content-type", "content_type"),
        ({"properties": {"x" * 99: 1}}, f"properties.{'x' * 40}", "no property"),
        ({"properties": {"content_type": 5}}, "properties.content_type", "string"),
        ({"properties": {"delivery_mode": 3}}, "delivery_mode", "persistent"),
        ({"properties": {"delivery_mode": "two"}}, "delivery_mode", "int"),
        ({"properties": {"delivery_mode": True}}, "delivery_mode", "int"),
        ({"properties": {"priority": 256}}, "priority", "255"),
        ({"properties": {"priority": 1.5}}, "priority", "int"),
        ({"properties": {"timestamp": 2**64}}, "timestamp", "range"),
        ({"properties": {"timestamp": "-1"}}, "timestamp", "int"),
        ({"properties": {"expiration": "soon"}}, "expiration", "digits"),
        ({"properties": {"expiration": -1}}, "expiration", "digits"),
        ({"properties": {"headers": "x"}}, "headers", "object"),
        ({"properties": {"headers": {"f": 1.5}}}, "headers['f']", "fraction"),
        ({"properties": {"headers": {"CC": "x"}}}, "headers['CC']", "list"),
        ({"properties": {"headers": {"big": "x" * 140000}}}, "headers", "frame"),
        ({"properties": {"reply_to": "amq.rabbitmq.reply-to"}}, "reply_to", "consumer"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], field: str, says: str) -> None:
    error = refused(NEEDED | given)
    assert error.field == field
    assert says in error.problem


@pytest.mark.parametrize("key", sorted(NEEDED))
def test_a_missing_key_is_named(key: str) -> None:
    error = refused({name: value for name, value in NEEDED.items() if name != key})
    assert (error.field, error.problem) == (key, "is missing")


@pytest.mark.parametrize("raw", [b"", b"nojson", b"[]", b"null", b"5", b'"x"', b"{", b"\xff", b'{"a":NaN}'])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    refused(raw)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_PROPERTIES = st.sampled_from(["headers", "delivery_mode", "priority", "timestamp", "expiration", "type", "message_id"])


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NEEDED, _VALUES)), st.dictionaries(_PROPERTIES, _VALUES))
def test_whatever_comes_is_a_message_or_invalid(given: dict[str, Any], properties: dict[str, Any]) -> None:
    for tried in (given, NEEDED | given, NEEDED | {"properties": properties}):
        try:
            message = message_of(json.dumps(tried).encode(), exchange="e")
        except InvalidMessage:
            continue
        assert message.mandatory is True


# What it answers

RETURNED = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
POISON = Reason(cause=Cause.POISON, code=406, text="PRECONDITION_FAILED - user_id")


@pytest.mark.parametrize(
    ("settled", "status", "value"),
    [
        (Confirmed(id="i", message_id="m", attempts=0), 200, {"routed": True, "id": "i", "state": "confirmed"}),
        (MessageParked("i", "m", RETURNED), 200, {"routed": False, "id": "i", "state": "parked"}),
        (MessageDiscarded("i", "m", RETURNED), 200, {"routed": False, "id": "i", "state": "discarded"}),
        (
            MessageParked("i", "m", POISON),
            400,
            {
                "error": "bad_request",
                "reason": "message m is parked: poison: 406 PRECONDITION_FAILED - user_id",
                "id": "i",
            },
        ),
        (
            MessageDiscarded("i", "m", None),
            400,
            {"error": "bad_request", "reason": "message m was discarded", "id": "i"},
        ),
        (
            MessageExpired("i", "m"),
            400,
            {"error": "bad_request", "reason": "message m expired before it could be published", "id": "i"},
        ),
        (
            None,
            504,
            {
                "error": "timeout",
                "reason": "RabbitMQ has not answered yet; pubd keeps message i and will publish it: "
                "do not send it again",
                "id": "i",
            },
        ),
    ],
)
def test_outcomes(settled: Confirmed | PubdError | None, status: int, value: dict[str, Any]) -> None:
    answer = outcome_answer("i", settled)
    assert (answer.status, json.loads(answer.body), answer.content_type) == (status, value, b"application/json")


def test_an_exchange_that_rabbitmq_refuses_is_told_with_the_timeout() -> None:
    why = Reason(cause=Cause.REFUSED, code=404, text="NOT_FOUND - no exchange 'x' in vhost '/'")
    answer = outcome_answer("i", None, why)
    assert answer.status == 504
    assert "(refused: 404 NOT_FOUND - no exchange 'x' in vhost '/');" in json.loads(answer.body)["reason"]


@pytest.mark.parametrize(
    ("error", "status", "name", "reason"),
    [
        (InvalidMessage("priority", "is out of range"), 400, "bad_request", "priority: is out of range"),
        (InvalidMessage("", "not JSON"), 400, "bad_request", "not JSON"),
        (Refusal("malformed", "is given twice", field="timeout"), 400, "bad_request", "timeout: is given twice"),
        (IdempotencyConflict("k"), 400, "bad_request", "idempotency_key: idempotency_key 'k' belongs to"),
        (NotAllowed("no"), 401, "not_authorised", "Access refused."),
        (QuotaExceeded(2.5), 429, "quota", "more than your quota"),
        (Busy(1.0), 503, "busy", "too much"),
        (PublisherStopped("stopping"), 503, "stopping", "stopping"),
        (SpoolFailed("/var/lib: I/O"), 503, "spool-failed", "the spool could not store"),
        (SpoolFull("max_bytes", "x"), 507, "spool-full", "the spool is full"),
        (PubdError("?"), 500, "internal", "pubd could not say"),
    ],
)
def test_errors(error: PubdError, status: int, name: str, reason: str) -> None:
    answer = error_answer(error)
    value = json.loads(answer.body)
    assert (answer.status, value["error"]) == (status, name)
    assert value["reason"].startswith(reason)
    assert "/var/lib" not in value["reason"]
    assert (b"Retry-After" in dict(answer.headers)) == (status in (429, 503, 507))


# Who it is: rabbitmqadmin knows names and passwords only

# The same in every run: it is part of the names of tests, which several processes are to agree on.
TOKEN = new_token(random.Random(1).randbytes)
SHOP = Principal(name="shop", tokens=(hash_of(TOKEN),))


def shown(user: str, password: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


@pytest.mark.parametrize("user", ["shop", "", "anybody", "grüß"])
def test_the_password_is_a_token_whatever_the_name(user: str) -> None:
    assert principal_of(shown(user, TOKEN), Access([SHOP]), lambda: None) == (SHOP, True)


def test_what_rabbitmqadmin_sends_unasked_claims_nothing() -> None:
    assert principal_of(shown("guest", "guest"), Access(), lambda: LOCAL) == (LOCAL, False)
    with pytest.raises(NotAuthenticated):
        principal_of(shown("guest", "guest"), Access([SHOP]), lambda: None)


@pytest.mark.parametrize(
    "authorization",
    [
        shown("guest", "x")["authorization"],
        shown("shop", "")["authorization"],
        shown("shop", f"{TOKEN}x")["authorization"],
        shown("shop", f":{TOKEN}")["authorization"],
        f"Basic {base64.b64encode(TOKEN.encode()).decode()}",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic /w==",
        f"Basic {TOKEN}",
        "Bearer",
        "Bearer ",
        "Bearer guest:guest",
        f"Digest {TOKEN}",
        "",
        " ",
    ],
)
def test_a_wrong_claim_is_nobody_even_where_none_is_needed(authorization: str) -> None:
    with pytest.raises(NotAuthenticated):
        principal_of({"authorization": authorization}, Access([SHOP]), lambda: LOCAL)
