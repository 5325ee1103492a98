"""NDJSON over HTTP: a result for each line, in order, in bounded memory."""

from __future__ import annotations

import gzip
import json

import pytest
from backports import zstd

from pubd.intake.http import ndjson
from pubd.intake.http.pace import FAIR, MAX_UNREAD
from tests.rig import Rig
from tests.slow_spool import SlowSpool
from tests.web import GOOD, Bench, answers, get, post

LINES = "Content-Type: application/x-ndjson\r\n"


def line(key: str = "k", **more: object) -> bytes:
    return json.dumps({"exchange": "x", "routing_key": key, **more}).encode()


def kinds(bench: Bench, body: bytes, headers: str = LINES, path: str = "/messages") -> list[str]:
    (got,), _ = bench.ask(post(body, headers=headers, path=path))
    assert (got.status, got.headers["content-type"]) == (200, "application/x-ndjson")
    return [each.get("state") or each["error"]["type"] for each in got.lines]


def test_a_bad_line_fails_alone() -> None:
    bench = Bench(max_body=1000)
    body = b"\n".join([line(), b"nonsense", b"", line(priority=256), b"[]", line(body="x" * 2000), line(), line()])
    assert kinds(bench, body) == [
        "stored",
        "malformed",
        "malformed",
        "invalid-message",
        "malformed",
        "too-large",
        "stored",
        "stored",
    ]
    assert bench.accepted == 3
    assert bench.door.unanswered == 0


def test_the_last_line_may_end_or_not() -> None:
    bench = Bench()
    assert kinds(bench, line()) == ["stored"]
    assert kinds(bench, line() + b"\n") == ["stored"]
    assert kinds(bench, line() + b"\r\n" + line() + b"\r\n") == ["stored", "stored"]
    assert kinds(bench, b"x" * 2000, LINES) == ["malformed"]


@pytest.mark.parametrize("coding", [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_coded(coding: tuple[str, object]) -> None:
    bench = Bench()
    name, compress = coding
    body = compress(b"\n".join([line(body=str(n)) for n in range(5000)]))  # type: ignore[operator]
    channel, wire = bench.connect()
    channel.dataReceived(post(body, headers=f"{LINES}Content-Encoding: {name}\r\n") + get("/livez"))
    bench.advance(5)
    first, second = answers(wire.value())[0]
    assert [each["state"] for each in first.lines] == ["stored"] * 5000
    assert second.status == 200
    assert (bench.accepted, bench.door.unanswered) == (5000, 0)


def test_a_key_for_the_request_is_one_for_each_line() -> None:
    bench = Bench()
    request = post(line(body="a") + b"\n" + line(body="b"), headers=LINES + "Idempotency-Key: once\r\n")
    (first,), _ = bench.ask(request)
    (again,), _ = bench.ask(request)
    assert first.lines == again.lines
    assert bench.accepted == 2
    mixed = line(body="a") + b"\n" + line(body="c") + b"\n" + line(idempotency_key="own")
    assert kinds(bench, mixed, LINES + "Idempotency-Key: once\r\n") == [
        "stored",
        "idempotency-conflict",
        "invalid-message",
    ]


def test_wait_for_each() -> None:
    bench = Bench()
    channel, wire = bench.connect()
    body = b"\n".join([line(), line("nowhere"), b"{}", line()])
    channel.dataReceived(post(body, headers=LINES, path="/messages?wait=confirmed&timeout=5s"))
    assert wire.value() == b""
    bench.advance(1)
    (got,), _ = answers(wire.value())
    assert [each.get("state") or each["error"]["type"] for each in got.lines] == [
        "confirmed",
        "returned",
        "invalid-message",
        "confirmed",
    ]
    assert got.lines[1]["error"]["id"]
    assert bench.clock.getDelayedCalls() == []


def test_wait_runs_out() -> None:
    bench = Bench()
    bench.rig.publisher.stopService()
    bench = Bench(rig=Rig(url="amqp://guest:guest@nowhere/%2F").start())
    channel, wire = bench.connect()
    channel.dataReceived(post(line(), headers=LINES, path="/messages?wait=confirmed&timeout=5s"))
    for _ in range(6):
        bench.clock.advance(1)
    (got,), _ = answers(wire.value())
    assert [each["state"] for each in got.lines] == ["stored"]


def test_answers_come_while_the_body_does() -> None:
    bench = Bench()
    channel, wire = bench.connect()
    request = post(line() + b"\n" + line(), headers=LINES)
    channel.dataReceived(request[:-1])
    assert wire.value().count(b'"state":"stored"') == 1
    channel.dataReceived(request[-1:])
    assert wire.value().endswith(b"0\r\n\r\n")


def test_a_slow_spool_pauses_the_client() -> None:
    rig = Rig()
    rig = Rig(rig.network, spool=SlowSpool(rig.network, commit=1.0)).start()
    bench = Bench(rig=rig, room=64 << 20)
    channel, wire = bench.connect()
    body = b"\n".join([line(body="x" * 50)] * 40_000)
    request = post(body, headers=LINES)
    sent = 0
    for at in range(0, len(request), 65536):
        if wire.producerState == "paused":
            break
        sent = at + 65536
        channel.dataReceived(request[at:sent])
        bench.clock.advance(0)
    assert wire.producerState == "paused"
    assert bench.door.unanswered < ndjson.MAX_BYTES + 2 * 65536
    while sent < len(request):
        rig.network.advance(1.1)
        bench.clock.advance(0.1)
        if wire.producerState != "paused":
            channel.dataReceived(request[sent : sent + 65536])
            sent += 65536
    rig.network.advance(60)
    bench.clock.advance(1)
    (got,), _ = answers(wire.value())
    assert len(got.lines) == 40_000
    assert bench.door.unanswered == 0


def test_who_sends_and_does_not_read_is_paused_and_cut() -> None:
    bench = Bench(room=64 << 20)
    channel, wire = bench.connect()
    body = b"\n".join([line()] * 200_000)
    request = post(body, headers=LINES)
    channel.dataReceived(request[:65536])
    channel.pauseProducing()
    for at in range(65536, len(request), 65536):
        channel.dataReceived(request[at : at + 65536])
        bench.clock.advance(0)
        if wire.producerState == "paused":
            break
    # Far beyond what a socket takes, and bounded.
    assert 40_000 < bench.accepted < 100_000
    assert channel._unread_size < MAX_UNREAD + (1 << 20)
    bench.advance(31)
    assert wire.aborted
    channel.connectionLost(None)
    assert bench.door.unanswered == 0


def test_what_many_do_not_read_is_bounded_for_all_together() -> None:
    bench = Bench(max_unanswered=1 << 20)
    count = 10_000
    request = post(b"x\n" * count, headers=LINES)
    deaf = [bench.connect() for _ in range(8)]
    for channel, _ in deaf:
        channel.dataReceived(request[:100])
        channel.pauseProducing()
        channel.dataReceived(request[100:])
        bench.clock.advance(0)
    bench.clock.advance(1)
    kept = bench.site.unread.size
    # A turn of lines more for each, at most.
    assert 1 << 20 < kept < (1 << 20) + 8 * (FAIR + 1000 * 200)
    # Whoever reads has everything.
    channel, wire = deaf[-1]
    while len(found := answers(wire.value())[0]) < 1:
        channel.resumeProducing()
        bench.clock.advance(1)
    assert len(found[0].lines) == count
    assert bench.site.unread.size < kept
    # Whose answer is complete has until idle_timeout.
    bench.advance(70)
    assert all(wire.aborted for _, wire in deaf[:-1])
    for channel, _ in deaf:
        channel.connectionLost(None)
    assert bench.site.unread.size == 0
    assert bench.door.unanswered == 0


def test_empty() -> None:
    assert kinds(Bench(), b"") == []


def test_lost_while_stored() -> None:
    rig = Rig()
    rig = Rig(rig.network, spool=SlowSpool(rig.network, commit=1.0)).start()
    bench = Bench(rig=rig)
    channel, _ = bench.connect()
    channel.dataReceived(post(GOOD + b"\n" + GOOD + b"\n" + GOOD, headers=LINES)[:-4])
    channel.connectionLost(None)
    # What is handed in is still in memory.
    assert bench.door.unanswered == 2 * len(GOOD) + 2
    rig.network.advance(2)
    assert (bench.accepted, bench.door.unanswered) == (2, 0)
