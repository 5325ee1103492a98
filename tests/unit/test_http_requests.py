"""What each request of the design's table answers, and what it does."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest

from pubd.access import LOCAL
from pubd.errors import PubdError
from pubd.intake.http.answer import Refusal
from pubd.intake.http.identity import check_not_a_web_page, check_not_another_page
from pubd.intake.http.request import Request, idempotency_key
from pubd.intake.http.route import Action, Route, Routes
from pubd.intake.http.waits import Waits
from pubd.policy import Policy
from pubd.spool.memory import MemorySpool
from tests.rig import Rig
from tests.web import GOOD, JSON, Bench, Got, answers, get, post

NOWHERE = GOOD.replace(b'"k"', b'"nowhere"')
WAIT = "/messages?wait=confirmed&timeout=5s"


@pytest.fixture
def bench() -> Bench:
    return Bench()


def one(bench: Bench, request: bytes) -> Got:
    (got,), _ = bench.ask(request)
    return got


def later(bench: Bench, request: bytes, seconds: float = 1) -> Got:
    channel, wire = bench.connect()
    channel.dataReceived(request)
    assert wire.value() == b""
    bench.advance(seconds)
    (got,), _ = answers(wire.value())
    return got


def published(bench: Bench) -> Any:
    bench.rig.network.flush()
    return bench.rig.broker.published[-1]


# POST /messages


def test_stored(bench: Bench) -> None:
    got = one(bench, post())
    assert (got.status, set(got.json), got.json["state"]) == (202, {"id", "state"}, "stored")
    assert published(bench).body == b"hi"


@pytest.mark.parametrize("query", ["?wait=stored", "?", ""])
def test_stored_is_usual(bench: Bench, query: str) -> None:
    assert one(bench, post(path="/messages" + query)).status == 202


def test_confirmed(bench: Bench) -> None:
    got = later(bench, post(path=WAIT))
    assert (got.status, got.json["state"]) == (200, "confirmed")
    assert bench.clock.getDelayedCalls() == []


def test_returned(bench: Bench) -> None:
    got = later(bench, post(NOWHERE, path=WAIT))
    assert (got.status, got.json["type"]) == (422, "returned")
    record = one(bench, get("/messages/" + got.json["id"]))
    assert (record.json["state"], record.json["reason"]["code"]) == ("parked", 312)


def test_time_runs_out() -> None:
    bench = Bench(rig=Rig(url="amqp://guest:guest@nowhere/%2F", policy=Policy()).start())
    bench.rig.network.broker.exchanges.clear()
    got = later(bench, post(GOOD.replace(b'"x"', b'"none"'), path=WAIT), 6)
    assert (got.status, got.json["state"]) == (202, "stored")


def test_array(bench: Bench) -> None:
    got = one(bench, post(b"[" + GOOD + b',{"exchange":"x","priority":"high"},1,' + GOOD + b"]"))
    assert got.status == 200
    assert [each.get("state") or each["error"]["type"] for each in got.json] == [
        "stored",
        "invalid-message",
        "malformed",
        "stored",
    ]
    assert got.json[1]["error"]["field"] == "priority"


def test_array_that_is_waited_for(bench: Bench) -> None:
    got = later(bench, post(b" [" + GOOD + b"," + NOWHERE + b"]", path=WAIT))
    assert [each.get("state") or each["error"]["type"] for each in got.json] == ["confirmed", "returned"]


def test_empty_array(bench: Bench) -> None:
    assert one(bench, post(b"[]")).json == []


def test_array_gives_others_their_turn(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(post(b"[" + b",".join([GOOD] * 1200) + b"]"))
    assert one(bench, get("/livez")).status == 200
    assert wire.value() == b""
    bench.advance(3)
    assert len(answers(wire.value())[0][0].json) == 1200


def test_array_with_too_many() -> None:
    bench = Bench(room=10 << 20)
    assert one(bench, post(b"[" + b",".join([b"1"] * 10_001) + b"]")).status == 413


def test_array_with_a_key(bench: Bench) -> None:
    request = post(b"[" + GOOD + b"," + GOOD + b"]", headers=JSON + "Idempotency-Key: once\r\n")
    first, again = one(bench, request), one(bench, request)
    assert first.json == again.json
    assert bench.accepted == 2


def test_spool_full() -> None:
    bench = Bench(rig=Rig(spool=MemorySpool(max_bytes=500)).start(), room=1 << 20)
    bench.rig.broker.exchanges.clear()
    assert one(bench, post(GOOD.replace(b'"x"', b'"z"'))).status == 202
    for request in (post(GOOD.replace(b'"x"', b'"z"')), post(b"[" + GOOD.replace(b'"x"', b'"z"') + b"]")):
        got = one(bench, request)
        assert (got.status, got.json["type"], got.headers["retry-after"]) == (507, "spool-full", "5")
    got = one(bench, post(GOOD.replace(b'"x"', b'"z"'), headers="Content-Type: application/x-ndjson\r\n"))
    assert got.lines[0]["error"]["type"] == "spool-full"


# POST /publish


def test_raw(bench: Bench) -> None:
    request = post(b"\x00raw\xff", path="/publish/x/k", headers="Content-Type: image/png\r\nContent-Encoding: br\r\n")
    assert one(bench, request).status == 202
    got = published(bench)
    assert (got.body, got.exchange, got.routing_key) == (b"\x00raw\xff", "x", "k")
    # The body goes through as it is, and so its coding is the message's.
    assert (got.properties.content_type, got.properties.content_encoding) == ("image/png", "br")
    assert one(bench, post(b"", path="/publish/x/k", headers="Content-Encoding: br\r\n")).status == 202
    assert published(bench).properties.content_encoding == "br"


@pytest.mark.parametrize(
    ("path", "exchange", "routing_key"),
    [
        ("/publish/x/a/b", "x", "a/b"),
        ("/publish/x/a%2Fb", "x", "a/b"),
        ("/publish/x%2Fy/k", "x/y", "k"),
        ("/publish/x/gr%C3%BC%C3%9Fe.%23", "x", "grüße.#"),
        ("/publish/x/a+b", "x", "a+b"),
        ("/publish/x/", "x", ""),
        ("/publish/x", "x", ""),
        ("/publish/amq.default/queue", "", "queue"),
    ],
)
def test_the_route_is_in_the_path(bench: Bench, path: str, exchange: str, routing_key: str) -> None:
    id = one(bench, post(b"", path=path, headers="")).json["id"]
    record = one(bench, get(f"/messages/{id}")).json
    assert (record["exchange"], record["routing_key"]) == (exchange, routing_key)


def test_properties_are_in_the_query(bench: Bench) -> None:
    query = (
        "priority=5&delivery_mode=1&message_id=m1&correlation_id=c%20d&reply_to=q&expiration=60000&timestamp=1700000000"
        "&type=t&app_id=a&mandatory=false&ttl=1h&headers=%7B%22n%22%3A1%7D&header.K=v&idempotency_key=i&ordering_key=o"
    )
    assert one(bench, post(b"raw", path="/publish/x/k?" + query, headers="Content-Type: text/plain\r\n")).status == 202
    got = published(bench)
    properties = got.properties
    assert (properties.priority, properties.delivery_mode, properties.message_id) == (5, 1, "m1")
    assert (properties.correlation_id, properties.reply_to, properties.expiration) == ("c d", "q", "60000")
    assert (properties.timestamp, properties.type, properties.app_id) == (1700000000, "t", "a")
    assert (properties.headers, properties.content_type, got.body) == ({"n": 1, "K": "v"}, "text/plain", b"raw")


def test_delay(bench: Bench) -> None:
    id = one(bench, post(b"raw", path="/publish/x/k?delay=5m", headers="")).json["id"]
    assert one(bench, get(f"/messages/{id}")).json["state"] == "deferred"


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("priority=high", 422, "priority"),
        ("mandatory=yes", 422, "mandatory"),
        ("headers=%7B", 400, None),
        ("headers=%5B%5D&header.a=b", 422, "headers"),
        ("header.n=1&headers=%7B%22n%22%3A1%7D", 422, "headers"),
        ("delay=soon", 422, "delay"),
        ("content_type=a/b", 400, "content_type"),
        ("body=x", 400, "body"),
        ("nonsense=1", 400, "nonsense"),
    ],
)
def test_mistakes_in_the_query(bench: Bench, query: str, status: int, field: str | None) -> None:
    got = one(bench, post(b"raw", path="/publish/x/k?" + query, headers="Content-Type: text/plain\r\n"))
    assert (got.status, got.json.get("field")) == (status, field)
    assert bench.accepted == 0


def test_raw_waits(bench: Bench) -> None:
    assert later(bench, post(b"raw", path="/publish/x/k?wait=confirmed", headers="")).status == 200
    assert later(bench, post(b"raw", path="/publish/x/no?wait=confirmed&timeout=2", headers="")).status == 422


# Looking, retrying, discarding


def parked(bench: Bench) -> str:
    id: str = later(bench, post(NOWHERE, path=WAIT)).json["id"]
    return id


def test_one_message(bench: Bench) -> None:
    id = parked(bench)
    got = one(bench, get(f"/messages/{id}")).json
    assert (got["id"], got["principal"], got["attempts"], "message" in got) == (id, LOCAL.name, 1, False)
    assert got["failures"][0]["outcome"] == "returned"
    got = one(bench, get(f"/messages/{id}?body=true")).json
    assert got["message"]["body"] == "hi"
    assert one(bench, get(f"/messages/{id}?body=yes")).status == 400
    channel, wire = bench.connect()
    channel.dataReceived(get(f"/messages/{id}", method="HEAD"))
    assert wire.value().startswith(b"HTTP/1.1 200")
    assert wire.value().endswith(b"\r\n\r\n")


def test_pages(bench: Bench) -> None:
    ids = [parked(bench) for _ in range(3)]
    one(bench, post())
    bench.advance(1)
    first = one(bench, get("/messages?state=parked&exchange=x&limit=2")).json
    assert [each["id"] for each in first["messages"]] == ids[:2]
    second = one(bench, get(f"/messages?state=parked&exchange=x&limit=2&after={first['next']}")).json
    assert [each["id"] for each in second["messages"]] == ids[2:]
    assert one(bench, get("/messages?exchange=y")).json["messages"] == []


def test_retry(bench: Bench) -> None:
    id = parked(bench)
    bench.rig.broker.exchanges["x"].add("nowhere")
    got = one(bench, post(b"", path=f"/messages/{id}/retry", headers=""))
    assert (got.status, got.json) == (200, {"id": id, "state": "ready"})
    bench.advance(1)
    assert one(bench, get(f"/messages/{id}")).json["state"] == "confirmed"
    again = one(bench, post(b"", path=f"/messages/{id}/retry", headers=""))
    assert (again.status, again.json["type"]) == (409, "wrong-state")
    assert one(bench, get(f"/messages/{id}", method="DELETE")).status == 409


def test_discard(bench: Bench) -> None:
    id = parked(bench)
    for _ in range(2):
        got = one(bench, get(f"/messages/{id}?reason=not+wanted", method="DELETE"))
        assert (got.status, got.json) == (200, {"id": id, "state": "discarded"})
    record = one(bench, get(f"/messages/{id}")).json
    assert (record["state"], record["reason"]["text"]) == ("discarded", "not wanted")


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/retry")])
def test_unknown(bench: Bench, method: str, path: str) -> None:
    for id in ("01a20a5a-f5c7-7000-b729-8d458f2eae90", "%00", "'", "x" * 300):
        got = one(bench, get(f"/messages/{id}{path}", method=method))
        assert (got.status, got.json["type"]) == (404, "not-found")


def test_health(bench: Bench) -> None:
    assert one(bench, get("/livez")).json == {"status": "ok"}
    assert one(bench, get("/readyz")).json == {"status": "ok"}


# A mistake of ours


def test_a_mistake_is_told_without_its_words(bench: Bench, logged: Any) -> None:
    def fail(_: Request) -> Any:
        raise RuntimeError("secret")

    async def fail_later(_: Request) -> Any:
        raise RuntimeError("secret")

    bench.site.routes = Routes(
        [
            Route(path="/now", actions={"GET": Action(act=fail)}),
            Route(path="/later", actions={"GET": Action(act=fail_later)}),
        ]
    )
    for path in ("/now", "/later"):
        got = one(bench, get(path))
        assert (got.status, got.json["type"]) == (500, "internal")
        assert b"secret" not in got.body
    assert len(logged.flush(RuntimeError)) == 2


# Parts


@pytest.mark.parametrize(
    ("method", "origin", "host", "refused"),
    [
        ("POST", None, "localhost", False),
        ("POST", "null", "localhost", True),
        ("POST", "http://localhost", "localhost", True),
        ("DELETE", "http://localhost", "localhost", True),
        ("GET", "http://localhost:8672", "localhost:8672", False),
        ("GET", "http://evil.example", "localhost", True),
        ("GET", None, "evil.example", True),
        ("GET", None, "here", False),
    ],
)
def test_web_pages(method: str, origin: str | None, host: str, refused: bool) -> None:
    headers = {"host": host} | ({"origin": origin} if origin is not None else {})
    with pytest.raises(Refusal) if refused else nullcontext():
        check_not_a_web_page(method, headers, over_ip=True, names={"here"})


@pytest.mark.parametrize(
    ("origin", "own_page", "refused"),
    [
        ("http://localhost:8672", True, False),
        ("http://LOCALHOST:8672", True, False),
        ("http://localhost:8672", False, True),
        ("http://localhost:1", True, True),
        ("http://evil.example", True, True),
        ("null", True, True),
        ("", True, True),
    ],
)
def test_forms_of_pubds_own_page(origin: str, own_page: bool, refused: bool) -> None:
    headers = {"host": "localhost:8672", "origin": origin}
    with pytest.raises(Refusal) if refused else nullcontext():
        check_not_a_web_page("POST", headers, over_ip=True, names={"here"}, own_page=own_page)


@pytest.mark.parametrize(
    ("authorization", "origin", "refused"),
    [
        ("Basic bWU6dG9rZW4=", None, False),
        ("Basic bWU6dG9rZW4=", "https://pubd.example", False),
        ("Basic bWU6dG9rZW4=", "https://evil.example", True),
        ("basic bWU6dG9rZW4=", "null", True),
        ("Bearer token", "https://evil.example", False),
    ],
)
def test_a_password_that_a_browser_keeps(authorization: str, origin: str | None, refused: bool) -> None:
    headers = {"host": "pubd.example", "authorization": authorization} | ({"origin": origin} if origin else {})
    with pytest.raises(Refusal) if refused else nullcontext():
        check_not_another_page(headers)


def test_keys() -> None:
    def key(value: str) -> str | None:
        return idempotency_key(Request("POST", "/", "", {"idempotency-key": value}, b"HTTP/1.1"))

    assert key("a") == key('"a"') == "a"
    assert key('"a\\"b\\\\"') == 'a"b\\'
    for bad in ("", '""', "\xe4"):
        with pytest.raises(Refusal):
            key(bad)


def test_the_routes_of_the_table() -> None:
    routes = Bench().site.routes
    for path, parts in (
        ("/messages", ()),
        ("/messages/1", ("1",)),
        ("/messages/1/retry", ("1",)),
        ("/publish/a/b/c%2Fd", ("a", "b/c/d")),
    ):
        found = routes.route(path)
        assert found is not None
        assert found[1] == parts
    for path in ("/messages/", "/messages/1/", "/messages/1/retry/2", "//messages", "/publish", "", "messages"):
        found = routes.route(path)
        assert found is None or found[1] == ("",), path


def test_errors_of_waits() -> None:
    waits = Waits(clock=Bench().clock, most=10)
    assert waits.asked({}) is None
    assert waits.asked({"wait": "confirmed"}) == 10
    assert waits.asked({"wait": "confirmed", "timeout": "500ms"}) == 0.5
    with pytest.raises(PubdError):
        waits.asked({"wait": "confirmed", "timeout": "11s"})


def test_json_is_for_people_too(bench: Bench) -> None:
    assert one(bench, get("/nope")).body.endswith(b"}\n")
    assert json.loads(one(bench, post()).body)
