"""What operators are told when the daemon is away, refuses, hangs, hangs up or is somebody else: code and next step."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pubd.cli import main
from tests.service.process import BIN, PATIENCE

Answer = Callable[["_Requests"], None]
COMMANDS = (
    ["status"],
    ["list"],
    ["show", "ID"],
    ["trace", "ID"],
    ["retry", "ID"],
    ["discard", "ID", "--reason", "x", "-y"],
    ["hold", "ID"],
    ["release", "-m", "exchange=x", "-y"],
    ["list", "--count"],
    ["flush"],
    ["pause"],
    ["resume", "orders"],
)

NOT_PUBD = (b"<html>hello</html>", b"[]", b"{}", b"5", b'{"messages": [1], "next": null}', b"[" * 100_000)


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Not on stderr."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.rfile.read(int(self.headers.get("Content-Length", "0")))))
        self.server.answer(self)

    do_POST = do_GET

    def say(self, status: int, value: Any, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False
    block_on_close = True
    answer: Answer

    def __init__(self, path: str) -> None:
        super().__init__(path, _Requests)
        self.asked: list[tuple[str, bytes]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    server = _Server(str(tmp_path / "s"))
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def called(server: _Server | str, *arguments: str, stdin: str = "") -> Result:
    where = server if isinstance(server, str) else f"unix:{server.server_address!s}"
    result = CliRunner().invoke(main, [arguments[0], "-s", where, *arguments[1:]], input=stdin, prog_name="pubd")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_is_there(tmp_path: Path, command: list[str]) -> None:
    done = called(f"unix:{tmp_path}/none", *command)
    assert (done.exit_code, done.stdout) == (3, "")
    assert f"there is no socket {tmp_path}/none; is pubd running" in done.stderr
    assert "Start it, or name another address with --server" in done.stderr


@pytest.mark.parametrize(
    ("status", "problem", "headers", "code", "sentence"),
    [
        (401, {"detail": "show a token that pubd knows"}, {}, 1, "--token-file FILE, or PUBD_TOKEN"),
        (403, {"detail": "you may not do that here"}, {}, 1, "[[principal]] with operate = true"),
        (
            404,
            {"type": "not-found", "detail": "there is nothing at this path"},
            {},
            1,
            "is that pubd, of this version?",
        ),
        (404, {"type": "not-found", "detail": "no such message", "field": "id"}, {}, 1, "listed by 'pubd list'"),
        (503, {"detail": "the spool failed"}, {"Retry-After": "5"}, 75, "try again in 5 s, and see 'pubd status'"),
        (507, {"detail": "full"}, {}, 75, "try again later"),
        (500, {"detail": "pubd made a mistake"}, {}, 1, "pubd made a mistake"),
        (400, {"detail": "is wrong \x1b[2J", "field": "limit"}, {}, 1, r"is wrong \x1b[2J (limit)"),
        (400, b"<html>", {}, 1, "HTTP status 400 without an explanation"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_it_refuses(
    server: _Server, command: list[str], status: int, problem: Any, headers: dict[str, str], code: int, sentence: str
) -> None:
    server.answer = lambda request: request.say(status, problem, **headers)
    done = called(server, *command)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("pubd: ")
    assert sentence in done.stderr


@pytest.mark.parametrize("answer", NOT_PUBD)
@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_not_pubd(server: _Server, command: list[str], answer: bytes) -> None:
    server.answer = lambda request: request.say(200, answer)
    done = called(server, *command)
    assert done.exit_code == 3
    assert "--server" in done.stderr


def test_it_hangs(server: _Server) -> None:
    released = threading.Event()

    def answer(_: _Requests) -> None:
        released.wait(PATIENCE)

    server.answer = answer
    done = called(server, "status", "--timeout", "200ms")
    released.set()
    assert done.exit_code == 3
    assert "did not answer in time; look at pubd's log, and try again" in done.stderr


def record(number: int) -> dict[str, Any]:
    nothing = dict.fromkeys(("principal", "due", "settled_at", "reason", "node", "channel", "tag"))
    return {
        **nothing,
        **{"id": f"id-{number}", "message_id": "m", "exchange": "x", "routing_key": "k", "state": "parked"},
        **{
            "in_flight": False,
            "attempts": 1,
            "accepted_at": "2026-11-23T12:00:00.000Z",
            "failures": [],
            "decisions": [],
        },
    }


def holding(server: _Server, count: int, then: Callable[[_Requests, int], None]) -> None:
    """It has so many parked messages; ``then`` answers decisions, and is told how many came before."""
    decided = 0

    def answer(request: _Requests) -> None:
        nonlocal decided
        if request.path == "/status":
            books = {"parked": count}
            request.say(200, {"time": "2026-11-23T13:00:00.000Z", "books": books})
        elif request.path.startswith("/messages/count?"):
            request.say(200, {"count": count, "next": None})
        elif request.path.startswith("/messages?"):
            begin = int(request.path.rpartition("after=id-")[2] or 0) if "after=" in request.path else 0
            end = min(begin + 1000, count)
            found = [record(number) for number in range(begin, end)]
            request.say(200, {"messages": found, "next": f"id-{end}" if end < count else None})
        else:
            decided += 1
            then(request, decided)

    server.answer = answer


def done(server: _Server, request: _Requests) -> None:
    ids = json.loads(server.asked[-1][1])["ids"]
    request.say(200, [{"id": id, "state": "ready"} for id in ids])


def test_a_batch_that_breaks_off_says_how_far_it_came(server: _Server) -> None:
    def then(request: _Requests, number: int) -> None:
        if number < 3:
            done(server, request)
        else:
            request.close_connection = True

    holding(server, 5000, then)
    broken = called(server, "retry", "--state", "parked", "--yes")
    assert broken.exit_code == 3
    assert "hung up without an answer" in broken.stderr
    assert "2,000 messages will be published again until then; the same command goes on" in broken.stderr


def test_what_is_refused_one_by_one_is_counted_and_not_all_told(server: _Server) -> None:
    def then(request: _Requests, _: int) -> None:
        ids = json.loads(server.asked[-1][1])["ids"]
        error = {"type": "wrong-state", "detail": "it is on its way \x1b[2J"}
        request.say(200, [{"error": {**error, "id": id}} if at % 2 else {"id": id} for at, id in enumerate(ids)])

    holding(server, 1500, then)
    some = called(server, "discard", "--state", "parked", "--reason", "x", "--yes")
    assert some.exit_code == 1
    *told, last = some.stderr.splitlines()
    assert len(told) == 20
    assert told[0] == r"pubd: id-1: it is on its way \x1b[2J"
    assert last == "pubd: 750 messages discarded, 750 not; 'pubd show ID' says what each is"


def test_what_comes_while_it_decides_is_left_alone(server: _Server) -> None:
    holding(server, 10, lambda request, _: done(server, request))
    inner = server.answer

    def answer(request: _Requests) -> None:
        if request.path.startswith("/messages?"):
            late = record(1) | {"accepted_at": "2026-11-23T13:00:01.000Z"}
            # More and more of them: their end is not run after.
            request.say(200, {"messages": [record(0), late], "next": "id-1"})
        else:
            inner(request)

    server.answer = answer
    assert called(server, "retry", "--state", "parked", "--yes").exit_code == 0
    assert [json.loads(body)["ids"] for path, body in server.asked if path == "/messages/retry"] == [["id-0"]]


def test_interrupted_it_says_how_far_it_came(server: _Server) -> None:
    released = threading.Event()

    def then(request: _Requests, number: int) -> None:
        if number == 1:
            done(server, request)
            return
        process.send_signal(signal.SIGINT)
        released.wait(PATIENCE)

    holding(server, 3000, then)
    process = subprocess.Popen(
        [BIN / "pubd", "retry", "-s", f"unix:{server.server_address!s}", "--state", "parked", "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    _, stderr = process.communicate(timeout=PATIENCE)
    released.set()
    assert process.returncode == 130
    assert stderr == ("pubd: interrupted; 1,000 messages will be published again; the same command goes on\n")


def test_whoever_reads_may_leave(server: _Server) -> None:
    holding(server, 50_000, lambda *_: None)
    process = subprocess.Popen(
        [BIN / "pubd", "list", "--all", "-s", f"unix:{server.server_address!s}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(PATIENCE), said) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("retry",), "name messages by their ids, or with --state or --match; see 'pubd retry --help'"),
        (("retry", "ID", "--state", "parked"), "name messages either by their ids or with --state or --match; see"),
        (("retry", "ID", "-e", "x"), "name messages either by their ids or with"),
        (("retry", "-m", "state=ready"), "the state can be parked or deferred here, not 'ready'"),
        (("hold", "-m", "colour=red"), "--match takes NAME=VALUE with one of the names state, exchange"),
        (("release", "-m", "reason"), "--match takes NAME=VALUE"),
        (("discard", "-m", "older-than=soon", "--reason", "x"), "older-than must be a duration"),
        (("discard", "-m", "exchange=x", "-e", "x", "--reason", "x"), "exchange is given twice"),
        (("list", "--newer-than", "x"), "newer-than must be a duration"),
        (("list", "-m", "state=x"), "the state can be ready or deferred"),
        (("retry", "x" * 65), "is no id; 'pubd list' shows them"),
        (("retry", "\x1b[2J"), r"'\\x1b[2J' is no id"),
        (("retry", "-"), ""),
        (("discard", "ID", "--reason", "x"), "nobody is there to be asked: say --yes"),
        (("discard", "-", "--reason", "x"), "say --yes"),
        (("discard", "ID", "--reason", " ", "-y"), "--reason takes a text"),
        (("discard", "ID", "--reason", "x" * 1001, "-y"), "--reason takes a text"),
        (("show", "ID", "--raw", "--json"), "give one of --raw and --json"),
    ],
)
def test_a_wrong_command_line_is_told_and_nothing_is_asked(
    server: _Server, arguments: tuple[str, ...], sentence: str
) -> None:
    told = called(server, *arguments)
    assert sentence in told.stderr
    assert (told.exit_code, server.asked) == (0 if arguments == ("retry", "-") else 2, [])
