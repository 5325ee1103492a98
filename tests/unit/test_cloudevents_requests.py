"""Requests with CloudEvents, and with the management API, at the intake: answers beside those of the mapping."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pubd.access import Access, Grant, Principal
from pubd.intake.http.batch import MAX_ARRAY, SLICE
from pubd.intake.http.foreign import foreign_routes
from pubd.intake.http.route import Routes
from tests.web import Bench, Got, post

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
BINARY = "".join(f"ce-{name}: {value}\r\n" for name, value in EVENT.items())
STRUCTURED = "Content-Type: application/cloudevents+json\r\n"
BATCH = "Content-Type: application/cloudevents-batch+json\r\n"
PUBLISH = {"routing_key": "k", "properties": {}, "payload": "x", "payload_encoding": "string"}


def bench_of(**given: Any) -> Bench:
    bench = Bench(**given)
    site = bench.intake.site
    more = foreign_routes(door=bench.door, clock=bench.clock, vhosts={"/", "other"})
    site.routes = Routes([*more(bench.intake.waits), *site.routes])
    return bench


@pytest.fixture
def bench() -> Bench:
    return bench_of()


def one(bench: Bench, request: bytes) -> Got:
    (got,), _ = bench.ask(request)
    return got


def events(bench: Bench, body: bytes | object, headers: str, query: str = "", exchange: str = "x") -> Got:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return one(bench, post(raw, f"/cloudevents/{exchange}{query}", headers))


def publish(bench: Bench, path: str = "/api/exchanges/%2F/x/publish", **given: Any) -> Got:
    return one(bench, post(json.dumps(PUBLISH | given).encode(), path, ""))


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"data", BINARY), (b"", BINARY), (EVENT, STRUCTURED), (EVENT, STRUCTURED.replace("json", "json; charset=UTF-8"))],
)
def test_an_event_is_stored(bench: Bench, body: Any, headers: str) -> None:
    got = events(bench, body, headers)
    assert (got.status, got.json["state"]) == (202, "stored")
    bench.rig.network.flush()
    assert bench.rig.broker.published[-1].routing_key == "t"


def test_the_default_exchange_is_amq_default(bench: Bench) -> None:
    assert events(bench, EVENT, STRUCTURED, "?routing_key=q", "amq.default").status == 202
    bench.rig.network.flush()
    published = bench.rig.broker.published[-1]
    assert (published.exchange, published.routing_key) == ("", "q")


@pytest.mark.parametrize(
    ("query", "headers", "body", "status", "field"),
    [
        ("?wait=later", STRUCTURED, EVENT, 400, "wait"),
        ("?timeout=5s", STRUCTURED, EVENT, 400, "timeout"),
        ("?exchange=y", STRUCTURED, EVENT, 400, "exchange"),
        ("?routing_key=%ff", STRUCTURED, EVENT, 400, "routing_key"),
        ("?routing_key=" + "x" * 256, STRUCTURED, EVENT, 422, "routing_key"),
        ("", STRUCTURED + "Idempotency-Key:\r\n", EVENT, 400, "idempotency-key"),
        ("", "Content-Type: application/cloudevents\r\n", EVENT, 415, "content-type"),
        ("", STRUCTURED, b"", 400, None),
        ("", STRUCTURED, b'{"id":1,"id":2}', 422, "id"),
        ("", STRUCTURED, b"[" * 200, 400, None),
        ("", STRUCTURED, EVENT | {"data": 1, "data_base64": "AA=="}, 422, "data_base64"),
        ("", BATCH, EVENT, 400, None),
        ("", BATCH, b"nonsense", 400, None),
        ("", BATCH, [0] * (MAX_ARRAY + 1), 413, None),
        ("", "", b"{}", 422, "specversion"),
        ("", BINARY + "ce-x_y: 1\r\n", b"", 422, "x_y"),
        ("", BINARY + "Content-Encoding: br\r\n", b"x", 415, None),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_stored(
    bench: Bench, query: str, headers: str, body: Any, status: int, field: str | None
) -> None:
    got = events(bench, body, headers, query)
    assert (got.status, got.json.get("field")) == (status, field)
    assert got.headers["content-type"] == "application/problem+json"
    assert bench.rig.publisher.account().books.accepted == 0


def test_an_idempotency_key_of_the_request_wins(bench: Bench) -> None:
    key = STRUCTURED + "Idempotency-Key: mine\r\n"
    first, again = events(bench, EVENT, key), events(bench, EVENT, key)
    own = events(bench, EVENT, STRUCTURED)
    assert first.json["id"] == again.json["id"] != own.json["id"]


def test_a_batch_with_a_key_gives_each_event_its_own(bench: Bench) -> None:
    batch = [EVENT, EVENT | {"id": "2"}]
    key = BATCH + "Idempotency-Key: mine\r\n"
    first, again = events(bench, batch, key).json, events(bench, batch, key).json
    assert first == again
    assert first[0]["id"] != first[1]["id"]


def test_the_same_event_twice_in_a_batch_is_one_message(bench: Bench) -> None:
    first, second = events(bench, [EVENT, EVENT], BATCH).json
    assert first == second
    assert bench.rig.publisher.account().books.accepted == 1


def test_a_large_batch_lets_others_have_their_turns(bench: Bench) -> None:
    batch = [EVENT | {"id": str(number)} for number in range(SLICE * 2 + 1)]
    channel, wire = bench.connect()
    channel.dataReceived(post(json.dumps(batch).encode(), "/cloudevents/x", BATCH))
    assert wire.value() == b""
    assert bench.rig.publisher.account().books.accepted == SLICE
    bench.clock.advance(0)
    assert wire.value().count(b'"state":"stored"') == len(batch)


def test_who_may_not_publish_there_is_told_so() -> None:
    may = Principal(name="some", grants=(Grant(exchange="y"),))
    bench = bench_of(access=Access(anonymous=may))
    assert events(bench, EVENT, STRUCTURED).status == 403
    assert events(bench, [EVENT], BATCH).json[0]["error"]["type"] == "not-allowed"
    got = publish(bench)
    assert (got.status, got.json) == (401, {"error": "not_authorised", "reason": "Access refused."})
    assert bench.rig.publisher.account().books.accepted == 0


# The management API


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/exchanges/%2F/x/publish?timeout=1h", 400, "timeout: is more than"),
        ("/api/exchanges/%2F/x/publish?wait=stored", 400, "wait: is not known here"),
        ("/api/exchanges/nosuch/x/publish", 404, "virtual host 'nosuch'"),
    ],
)
def test_the_management_api_says_it_in_its_own_way(bench: Bench, path: str, status: int, says: str) -> None:
    got = publish(bench, path)
    assert (got.status, got.headers["content-type"]) == (status, "application/json")
    assert says in got.json["reason"]


def test_the_management_api_waits_and_then_says_that_the_message_is_kept(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(
        post(json.dumps(PUBLISH).encode(), "/api/exchanges/other/x/publish?timeout=3s", "Content-Type: text/plain\r\n")
    )
    assert wire.value() == b""
    bench.advance(3)
    assert wire.value().startswith(b"HTTP/1.1 504 ")
    assert b"do not send it again" in wire.value()
    assert bench.rig.publisher.account().books.accepted == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/cloudevents/x", "/api/exchanges/%2F/x/publish"])
def test_other_methods_are_not_allowed(bench: Bench, method: str, path: str) -> None:
    got = one(bench, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert (got.status, got.headers["allow"]) == (405, "OPTIONS, POST")
