"""The benchmark of the ways in runs, small: everything is stored, confirmed and counted. No times are judged."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.clients import ClientFailed, Closed, Connection, HttpAnswers, LineAnswers, Request, http_post, message
from benchmarks.intake import CONTENDERS, PACED, Load, Served, main, printed, targets, throughput_rows
from benchmarks.rig import Queue, in_process
from benchmarks.servers import Bare, Cpu, Daemon, ServerFailed
from pubd.intake.wire import decode

BARE, POST, LAST, NDJSON, *_ = CONTENDERS


def test_every_way_is_measured_and_nothing_is_left(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUBD_BROKER_URL", broker_url)
    small = "--messages 45 --batch 10 --connections 4 --rounds 1 --rate 200 --seconds 0.1 --window 10 --ahead 0 --json"
    main([*small.split(), "--dir", str(tmp_path)])
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["throughput"]] == [each.name for each in CONTENDERS]
    for row in report["throughput"]:
        (sample,) = row["samples"]
        # Whole batches; the Python path's last one is smaller.
        assert sample["messages"] == (45 if row["way"] in ("bare", "post", "pubd", "pubd-last") else 50)
        assert 0 < sample["answered"] <= sample["confirmed"]
        assert sample["cpu"] > 0
        assert (row["rate_to_base"] is None) == (row["base"] is None)
    assert [row["name"] for row in report["latency"]] == [each.name for each in PACED]
    assert all(row["handed_in"]["max"] <= row["answered"]["max"] for row in report["latency"])
    assert len(report["targets"]) == 6
    assert "HTTP, NDJSON, confirmed each" in printed(report)
    assert not list(tmp_path.iterdir())


def test_a_way_is_chosen_with_what_it_is_compared_with(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUBD_BROKER_URL", broker_url)
    small = "--only POST --messages 10 --connections 2 --rounds 1 --seconds 0"
    main([*small.split(), "--dir", str(tmp_path)])
    printed_lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in printed_lines if "POST" in line][:2] == [BARE.name, POST.name]
    assert not any("Python" in line for line in printed_lines)


@pytest.mark.parametrize("what", ["throughput", "latency"])
@pytest.mark.parametrize("way", ["post", "ndjson-each"])
def test_a_run_whose_messages_are_refused_has_no_result(way: str, what: str) -> None:
    with Bare() as server:
        load = Load(
            way=way,
            http=server.http,
            lines=server.lines,
            pid=server.pid,
            queue="q",
            messages=2,
            warm_up=2,
            batch=1,
            body=1,
            connections=1,
            in_flight=1,
            rate=100,
        )
        # The bare one says "stored" to everything, and so never "confirmed".
        with pytest.raises(subprocess.CalledProcessError):
            in_process("benchmarks.intake", what, load)


def test_a_server_that_does_not_start_says_why(broker_url: str, tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="not ready"), Daemon(broker_url, tmp_path, window=-1):
        pytest.fail("it is not ready")


def test_a_daemon_is_ready_and_its_cpu_is_told(broker_url: str, tmp_path: Path) -> None:
    with Queue(broker_url), Daemon(broker_url, tmp_path, window=100) as daemon:
        cpu = Cpu.of(daemon.pid)
        assert cpu.total > 0.05
        assert 0 < cpu.reactor < cpu.total + 0.05
        pid = daemon.pid
    assert not os.path.exists(f"/proc/{pid}")
    assert not daemon.directory.exists()


def test_ratios_are_taken_within_a_round_of_what_counts() -> None:
    # Single requests count when they are answered, batches when they are confirmed.
    rows = throughput_rows(
        {
            BARE: [Served(100, 1.0, 1.0, 0.5, 0.5, 0.1), Served(100, 4.0, 4.0, 1.0, 1.0, 0.1)],
            POST: [Served(100, 2.0, 9.0, 1.0, 0.5, 0.2), Served(100, 8.0, 9.0, 2.0, 1.0, 0.2)],
            LAST: [Served(100, 1.0, 1.0, 0.1, 0.1, 0.0)] * 2,
            NDJSON: [Served(100, 0.1, 2.0, 0.1, 0.1, 0.0)] * 2,
        }
    )
    assert [row["rate_to_base"] for row in rows] == [None, 0.5, None, 0.5]
    assert [row["messages_per_second"] for row in rows] == [62, 31, 100, 50]
    assert rows[1]["cpu_micros_per_message"] == 15_000.0
    latencies = [{"way": "post", "answered": {"p50": 1.0, "p99": 30.0, "max": 31.0}}]
    assert [(each["found"], each["reached"]) for each in targets(rows, latencies)] == [
        (0.5, True),
        (0.5, False),
        (30.0, False),
    ]


ONE = Request(b"", 1, b"stored")
TWO = Request(b"", 2, b"stored")


@pytest.mark.parametrize(
    ("answer", "request_"),
    [
        (b"HTTP/1.1 202 Accepted\r\ncontent-length: 6\r\n\r\nstored", ONE),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nstored\r\n6\r\nstored\r\n0\r\n\r\n", TWO),
    ],
)
def test_an_answer_may_come_in_pieces(answer: bytes, request_: Request) -> None:
    answers = HttpAnswers()
    assert [answers.feed(answer[n : n + 1], request_) for n in range(len(answer))] == [0] * (len(answer) - 1) + [1]
    assert answers.feed(answer, request_) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Busy\r\nContent-Length: 6\r\n\r\nstored",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nrefused",
        b"HTTP/1.1 200 OK\r\n\r\nstored",
    ],
)
def test_another_answer_ends_the_run(answer: bytes) -> None:
    with pytest.raises(ClientFailed):
        HttpAnswers().feed(answer, ONE)


def test_lines_are_answered_batch_by_batch() -> None:
    answers, one = LineAnswers(), b'{"state":"stored"}\n'
    assert [answers.feed(data, TWO) for data in (one + one[:4], one[4:] + one, one * 3)] == [0, 1, 2]
    with pytest.raises(ClientFailed):
        answers.feed(b'{"error":{}}\n', TWO)


def test_what_is_sent_is_a_message() -> None:
    sent = message("q", 3)
    assert decode(sent) == decode(b'{"exchange":"","routing_key":"q","body":"xxx"}')
    assert http_post("/messages", sent, "a/b").endswith(b"Content-Length: %d\r\n\r\n%b" % (len(sent), sent))


def test_a_connection_that_is_closed_ends_the_run(unique: Callable[..., str]) -> None:
    path = str(Path("/tmp") / unique("s"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        try:
            listening.listen()
            connection = Connection(path, HttpAnswers())
            listening.accept()[0].close()
            with pytest.raises((ClientFailed, OSError)):
                Closed([connection], 1).run(Request(b"x", 1, b"y"), 1)
            connection.close()
        finally:
            os.unlink(path)
