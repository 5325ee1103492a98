"""One connection in time of the test's own: deadlines, order, budget, and its end at every byte."""

from __future__ import annotations

import tracemalloc

import pytest

from pubd.access import LOCAL, Access, Principal
from pubd.access.tokens import hash_of, new_token
from pubd.errors import PublisherStopped
from tests.web import GOOD, JSON, Bench, answers, get, post, post_chunked

LINES = "Content-Type: application/x-ndjson\r\n"


@pytest.fixture
def bench() -> Bench:
    return Bench(max_body=100_000)


# Order


def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    got, wire = bench.ask(post() + get("/livez") + get("/nope") + post(b"{}") + post())
    assert [each.status for each in got] == [202, 200, 404, 422, 202]
    assert not wire.over
    assert bench.accepted == 2


def test_every_cut_of_pipelined_requests_gives_the_same(bench: Bench) -> None:
    requests = post() + post_chunked(GOOD[:5], GOOD[5:]) + post(GOOD + b"\n" + GOOD, headers=LINES) + get("/livez")
    for cut in range(1, len(requests)):
        channel, wire = bench.connect()
        channel.dataReceived(requests[:cut])
        channel.dataReceived(requests[cut:])
        got, rest = answers(wire.value())
        assert [each.status for each in got] == [202, 202, 200, 200], cut
        assert len(got[2].lines) == 2
        assert not rest
        channel.connectionLost(None)
    assert bench.door.unanswered == 0


def test_byte_by_byte(bench: Bench) -> None:
    channel, wire = bench.connect()
    for byte in post() + post(GOOD + b"\n{}\n", headers=LINES):
        channel.dataReceived(bytes([byte]))
    assert [each.status for each in answers(wire.value())[0]] == [202, 200]


def test_http_1_0_is_answered_and_closed(bench: Bench) -> None:
    got, wire = bench.ask(b"GET /livez HTTP/1.0\r\n\r\n" + get("/livez"))
    assert [each.status for each in got] == [200]
    assert got[0].headers["connection"] == "close"
    assert wire.over


@pytest.mark.parametrize("value", ["close", "Close", "te, close"])
def test_connection_close(bench: Bench, value: str) -> None:
    got, wire = bench.ask(get("/livez", f"Connection: {value}\r\n") + get("/livez"))
    assert len(got) == 1
    assert wire.over


def test_head_has_no_body_but_its_length(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(get("/livez", method="HEAD"))
    (got,), rest = answers(wire.value(), bodiless=True)
    assert got.status == 200
    assert got.headers["content-length"] == str(len(b'{"status":"ok"}\n'))
    assert not rest


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/messages", "GET, HEAD, OPTIONS, POST"),
        ("/publish/a/b", "OPTIONS, POST"),
        ("/messages/1", "DELETE, GET, HEAD, OPTIONS"),
        ("*", "OPTIONS"),
    ],
)
def test_options(bench: Bench, path: str, allow: str) -> None:
    (got,), _ = bench.ask(get(path, method="OPTIONS"))
    assert (got.status, got.headers["allow"]) == (204, allow)
    assert "content-length" not in got.headers


def test_absolute_form(bench: Bench) -> None:
    (got,), _ = bench.ask(b"GET http://localhost/livez?x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert got.status == 200


# 100-continue


def test_continue_is_said_before_the_body_is_sent(bench: Bench) -> None:
    channel, wire = bench.connect()
    head = post(headers=JSON + "Expect: 100-Continue\r\n").removesuffix(GOOD)
    channel.dataReceived(head)
    assert wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.clear()
    channel.dataReceived(GOOD)
    assert answers(wire.value())[0][0].status == 202


@pytest.mark.parametrize(
    "request_",
    [
        post(b"x" * 100_001, headers=JSON + "Expect: 100-continue\r\n"),
        post(headers="Expect: 100-continue\r\n"),
        post(path="/nope", headers=JSON + "Expect: 100-continue\r\n"),
        post(headers=JSON + "Authorization: Bearer x\r\nExpect: 100-continue\r\n"),
    ],
)
def test_continue_is_not_said_where_the_head_shows_a_refusal(bench: Bench, request_: bytes) -> None:
    got, wire = bench.ask(request_[: request_.index(b"\r\n\r\n") + 4])
    assert b" 100 " not in wire.value()
    assert got[0].status in (401, 404, 413, 415)
    # The client may send the body or not: nobody could tell it from the next request.
    assert wire.over


# Time


def test_a_slow_head_is_cut(bench: Bench) -> None:
    channel, wire = bench.connect()
    for byte in get("/livez")[:9]:
        channel.dataReceived(bytes([byte]))
        bench.advance(1)
        assert not wire.over
    bench.advance(2)
    (got,), _ = answers(wire.value())
    assert got.status == 408
    assert wire.over


def test_a_slow_second_head_is_cut(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(get("/livez") + b"GET")
    bench.advance(11)
    assert [each.status for each in answers(wire.value())[0]] == [200, 408]


def test_a_body_that_stops_is_cut(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(post()[:-1])
    bench.advance(29)
    assert not wire.over
    bench.advance(2)
    assert answers(wire.value())[0][0].status == 408
    assert (bench.accepted, bench.door.unanswered) == (0, 0)


def test_a_body_that_trickles_is_cut(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(post(b"x" * 50_000).removesuffix(b"x" * 50_000))
    for _ in range(31):
        channel.dataReceived(b"x" * 10)
        bench.advance(1)
    assert wire.over


def test_a_body_that_gets_on_may_take_its_time(bench: Bench) -> None:
    channel, wire = bench.connect()
    body = b'{"exchange":"x","routing_key":"k","body":"%b"}' % (b"x" * 50_000)
    channel.dataReceived(post(body).removesuffix(body))
    for at in range(0, len(body), 1024):
        bench.advance(20)
        channel.dataReceived(body[at : at + 1024])
    assert answers(wire.value())[0][0].status == 202


def test_an_idle_connection_is_closed_without_a_word(bench: Bench) -> None:
    channel, wire = bench.connect()
    bench.advance(59)
    assert not wire.over
    bench.advance(2)
    assert wire.over
    assert wire.value() == b""
    channel, wire = bench.connect()
    channel.dataReceived(get("/livez"))
    bench.advance(59)
    assert not wire.over
    bench.advance(2)
    assert wire.over


def test_who_does_not_close_after_a_refusal_is_cut(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(b"nonsense\r\n\r\n")
    assert wire.half_closed
    channel.dataReceived(b"x" * 1000)
    assert not wire.aborted
    bench.advance(3)
    assert wire.aborted


def test_who_sends_on_after_a_refusal_is_cut(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(post(b"x" * 100_001))
    for _ in range(70):
        channel.dataReceived(b"x" * 65536)
    assert wire.aborted
    assert len(answers(wire.value())[0]) == 1


# The client goes


@pytest.mark.parametrize(
    "request_",
    [
        post(),
        post_chunked(GOOD[:7], GOOD[7:]),
        post(b"[" + GOOD + b"," + GOOD + b"]"),
        post(b"raw", path="/publish/x/k", headers=""),
    ],
)
def test_killed_at_every_byte(bench: Bench, request_: bytes) -> None:
    for end in range(len(request_)):
        channel, wire = bench.connect()
        channel.dataReceived(request_[:end])
        assert wire.value() == b""
        channel.connectionLost(None)
        assert (bench.accepted, bench.door.unanswered, len(bench.site.channels)) == (0, 0, 0)
    (got,), _ = bench.ask(request_)
    assert got.status in (200, 202)


def test_lines_killed_at_every_byte(bench: Bench) -> None:
    body = GOOD + b"\n" + GOOD + b"\n" + GOOD
    request = post(body, headers=LINES)
    head = len(request) - len(body)
    for end in range(len(request)):
        before = bench.accepted
        channel, _ = bench.connect()
        channel.dataReceived(request[:end])
        channel.connectionLost(None)
        # Whole lines only; the last one ends with the body.
        assert bench.accepted - before == request[head:end].count(b"\n")
        assert (bench.door.unanswered, len(bench.site.channels)) == (0, 0)


def test_an_answer_that_was_lost_is_given_again(bench: Bench) -> None:
    request = post(headers=JSON + "Idempotency-Key: once\r\n")
    channel, _ = bench.connect()
    channel.dataReceived(request)
    channel.connectionLost(None)
    (first,), _ = bench.ask(request)
    (second,), _ = bench.ask(request.replace(b"once", b'"once"'))
    assert first.json == second.json
    assert bench.accepted == 1
    (other,), _ = bench.ask(post(GOOD.replace(b"hi", b"ho"), headers=JSON + "Idempotency-Key: once\r\n"))
    assert (other.status, other.json["type"], other.json["field"]) == (409, "idempotency-conflict", "idempotency_key")


# The budget


def test_no_room_pauses_and_then_refuses(bench: Bench) -> None:
    bench = Bench(room=1000)
    assert bench.door.take(900)
    channel, wire = bench.connect()
    body = b'{"exchange":"x","body":"%b"}' % (b"x" * 500)
    channel.dataReceived(post(body))
    assert wire.producerState == "paused"
    bench.advance(4)
    assert wire.value() == b""
    bench.advance(2)
    (got,), _ = answers(wire.value())
    assert (got.status, got.json["type"], got.headers["retry-after"]) == (503, "busy", "1")
    assert (bench.accepted, bench.door.unanswered) == (0, 900)


def test_room_lets_it_go_on(bench: Bench) -> None:
    bench = Bench(room=1000)
    assert bench.door.take(900)
    channel, wire = bench.connect()
    body = b'{"exchange":"x","body":"%b"}' % (b"x" * 500)
    channel.dataReceived(post(body) + get("/livez"))
    bench.door.give(900)
    bench.advance(1)
    assert [each.status for each in answers(wire.value())[0]] == [202, 200]
    assert bench.door.unanswered == 0


def test_gone_while_there_is_no_room(bench: Bench) -> None:
    bench = Bench(room=1000)
    assert bench.door.take(900)
    channel, _ = bench.connect()
    channel.dataReceived(post(b'{"exchange":"x","body":"%b"}' % (b"x" * 500)))
    channel.connectionLost(None)
    bench.door.give(900)
    bench.advance(10)
    assert (bench.accepted, bench.door.unanswered, bench.clock.getDelayedCalls()) == (0, 0, [])


# Who


def test_tokens() -> None:
    token = new_token()
    shop = Principal(name="shop", grants=LOCAL.grants, tokens=(hash_of(token),))
    bench = Bench(access=Access([shop], anonymous=None))
    (got,), _ = bench.ask(post())
    assert (got.status, got.headers["www-authenticate"]) == (401, 'Bearer realm="pubd"')
    (got,), _ = bench.ask(post(headers=JSON + f"Authorization: bearer {token}\r\n"))
    assert got.status == 202
    # It may publish, not look.
    (got,), _ = bench.ask(get("/messages", f"Authorization: Bearer {token}\r\n"))
    assert (got.status, got.json["type"]) == (403, "not-allowed")
    (got,), _ = bench.ask(get("/livez"))
    assert got.status == 200
    # With a token it is no browser's doing.
    origin = f"Authorization: Bearer {token}\r\nOrigin: https://example.com\r\n"
    (got,), _ = bench.ask(post(headers=JSON + origin, host="Host: example.com\r\n"))
    assert got.status == 202


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8672", 200),
        ("LOCALHOST.", 200),
        ("pubd.localhost", 200),
        ("127.0.0.1:8672", 200),
        ("[::1]:8672", 200),
        ("example.com", 403),
        ("localhost.example.com", 403),
        ("127.0.0.1.example.com", 403),
    ],
)
def test_names_of_this_host(bench: Bench, host: str, status: int) -> None:
    (got,), _ = bench.ask(f"GET /messages HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert got.status == status


# The stop


def test_stop_ends_each_connection_as_it_deserves() -> None:
    bench = Bench()
    idle, half, waiting = bench.connect(), bench.connect(), bench.connect()
    half[0].dataReceived(post()[:-3])
    waiting[0].dataReceived(post(path="/messages?wait=confirmed&timeout=30s", body=GOOD.replace(b'"k"', b'"nowhere"')))
    stopped = bench.intake.stopService()
    assert idle[1].over
    assert idle[1].value() == b""
    (got,), _ = answers(half[1].value())
    assert (got.status, got.json["type"], got.headers["retry-after"]) == (503, "stopping", "5")
    (got,), _ = answers(waiting[1].value())
    assert (got.status, got.json["state"], got.headers["connection"]) == (202, "stored", "close")
    late = bench.connect()
    late[0].dataReceived(post())
    assert answers(late[1].value())[0][0].status == 503
    for channel, _ in (idle, half, waiting):
        channel.connectionLost(None)
    assert not stopped.called
    # The late one does not go by itself.
    bench.clock.advance(5)
    assert late[1].aborted
    late[0].connectionLost(None)
    assert stopped.called
    assert bench.clock.getDelayedCalls() == []


def test_lines_under_way_at_the_stop_are_answered() -> None:
    bench = Bench()
    channel, wire = bench.connect()
    channel.dataReceived(post(GOOD + b"\n" + GOOD + b"\n" + GOOD, headers=LINES)[:-5])
    channel.stop()
    (got,), _ = answers(wire.value())
    assert [line.get("state") or line["error"]["type"] for line in got.lines] == ["stored", "stored", "stopping"]
    assert wire.over
    assert bench.accepted == 2
    channel.connectionLost(None)


def test_a_stopped_publisher_is_told(bench: Bench) -> None:
    bench.rig.stop()
    (got,), _ = bench.ask(post())
    assert (got.status, got.json["type"]) == (503, "stopping")
    (got,), _ = bench.ask(post(b"[" + GOOD + b"]"))
    assert (got.status, got.json["type"]) == (503, "stopping")
    assert PublisherStopped.__name__ not in got.body.decode()


def test_a_flood_of_tiny_chunks_takes_no_memory() -> None:
    bench = Bench(max_body=1 << 20, room=4 << 20)
    body = b'{"exchange":"x","routing_key":"k","body":"%b"}' % (b"x" * 200_000)
    request = post_chunked(*[body[at : at + 1] for at in range(len(body))])
    channel, wire = bench.connect()
    tracemalloc.start()
    for at in range(0, len(request), 65536):
        channel.dataReceived(request[at : at + 65536])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answers(wire.value())[0][0].status == 202
    assert peak < 3 << 20
    channel.connectionLost(None)
