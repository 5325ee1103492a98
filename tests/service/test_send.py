"""`pubd send` against a daemon with a script: what is sent, exit codes, sentences, and nothing twice or lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

from pubd.cli import main
from pubd.cli.submit import LATER_TYPES, SETTLED_TYPES
from pubd.intake.problem import TYPES
from tests.certs import Certificates, Identity
from tests.rabbitmq import free_ports
from tests.service.process import BIN, until
from tests.service.scripted_http import EachLine, Fault, Refuse, ScriptedDaemon, Step, listening, listening_tls

Send = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PUBD_SERVER", "PUBD_TOKEN", "PUBD_TOKEN_FILE", "PUBD_CACERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def daemon() -> ScriptedDaemon:
    return ScriptedDaemon()


@pytest.fixture
def url(daemon: ScriptedDaemon, tmp_path: Path) -> Iterator[str]:
    with listening(daemon, tmp_path / "s") as url:
        yield url


@pytest.fixture
def send(url: str) -> Send:
    """`send("-e", "orders", stdin=b"...")`: in this process; never a traceback."""
    return lambda *arguments, stdin=b"": called("-s", url, *arguments, stdin=stdin)


def called(*arguments: str | Path, stdin: bytes = b"") -> Result:
    result = CliRunner().invoke(main, ["send", *map(str, arguments)], input=stdin, prog_name="pubd")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def process(url: str, *arguments: str | Path, stdin: int | IO[bytes] = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BIN / "pubd", "send", "-s", url, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        start_new_session=True,
    )


@contextmanager
def running(*arguments: Any, **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    started = process(*arguments, **keywords)
    try:
        yield started
    finally:
        started.kill()
        for pipe in (started.stdin, started.stdout, started.stderr):
            if pipe is not None:
                pipe.close()
        started.wait(10)


def lines_file(path: Path, count: int, **message: Any) -> Path:
    path.write_text("".join(json.dumps({"exchange": "a", "body": str(n), **message}) + "\n" for n in range(count)))
    return path


# One message


def test_a_message_from_options_and_standard_input(send: Send, daemon: ScriptedDaemon) -> None:
    done = send(
        *("-e", "orders", "-r", "order.new", "-p", "-C", "text/plain", "-E", "utf-8", "-t", "answers"),
        *("-H", "k=v", "-H", "n:=5", "-H", "Key: value", "--priority", "7", "--correlation-id", "c"),
        *(
            "--expiration",
            "60000",
            "--message-id",
            "m",
            "--timestamp",
            "1700000000",
            "--type",
            "t",
            "--user-id",
            "guest",
        ),
        *(
            "--app-id",
            "app",
            "--cluster-id",
            "cl",
            "--mandatory",
            "--delay",
            "5m",
            "--ttl",
            "1h",
            "--ordering-key",
            "o",
        ),
        *("--idempotency-key", "mine"),
        stdin="Grüße\n".encode(),
    )
    assert (done.exit_code, done.stdout, done.stderr) == (0, "id-1\n", "")
    assert daemon.stored == [
        {
            "exchange": "orders",
            "routing_key": "order.new",
            "delivery_mode": 2,
            "content_type": "text/plain",
            "content_encoding": "utf-8",
            "reply_to": "answers",
            "headers": {"k": "v", "n": 5, "Key": "value"},
            "priority": 7,
            "correlation_id": "c",
            "expiration": "60000",
            "message_id": "m",
            "timestamp": 1700000000,
            "type": "t",
            "user_id": "guest",
            "app_id": "app",
            "cluster_id": "cl",
            "mandatory": True,
            "delay": "5m",
            "ttl": "1h",
            "ordering_key": "o",
            "idempotency_key": "mine",
            "body": "Grüße\n",
        }
    ]


def test_a_body_of_any_bytes(send: Send, daemon: ScriptedDaemon) -> None:
    assert send("-r", "queue", stdin=b"\xff\x00").exit_code == 0
    assert send("-r", "queue", "-b", "from the command line", "--transient").exit_code == 0
    binary, text = daemon.stored
    assert binary.pop("idempotency_key") != text.pop("idempotency_key")
    assert binary == {"exchange": "", "routing_key": "queue", "body_base64": "/wA="}
    assert text == {"exchange": "", "routing_key": "queue", "body": "from the command line", "delivery_mode": 1}


def test_a_message_as_json(send: Send, daemon: ScriptedDaemon) -> None:
    pretty = json.dumps({"exchange": "own", "body_json": {"a": [1]}, "idempotency_key": "k"}, indent=2).encode()
    assert send("--json", "-e", "given", "-r", "r", stdin=pretty).exit_code == 0
    assert send("--json", "-b", '{"exchange": "b"}', "-H", "h=1").exit_code == 0
    first, second = daemon.stored
    assert first == {"exchange": "own", "body_json": {"a": [1]}, "idempotency_key": "k", "routing_key": "r"}
    assert second.pop("idempotency_key").startswith("send:")
    assert second == {"exchange": "b", "headers": {"h": "1"}}


def test_the_answer_as_json_or_not_at_all(send: Send) -> None:
    assert json.loads(send("-e", "a", "-b", "x", "-o", "json").stdout) == {"id": "id-1", "state": "stored"}
    assert json.loads(send("-e", "a", "-b", "x", "-o", "json", "--wait").stdout) == {"id": "id-2", "state": "confirmed"}
    assert send("-e", "a", "-b", "x", "-o", "none").output == ""


def test_a_message_that_is_refused_names_the_field(send: Send, daemon: ScriptedDaemon) -> None:
    done = send("--json", stdin=b'{"exchange": 5}')
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "pubd: exchange: is missing\n")
    done = send("--json", stdin=b"{")
    assert (done.exit_code, done.stderr) == (1, "pubd: is no JSON\n")
    assert send("--json", stdin=b" \n").exit_code == 1
    assert daemon.stored == []


def test_a_returned_message_is_4_and_its_id_is_told(send: Send) -> None:
    done = send("-e", "nowhere", "-b", "x", "--wait")
    assert (done.exit_code, done.stdout, done.stderr) == (
        4,
        "id-1\n",
        "pubd: no queue got it; once the cause is gone: pubd retry id-1; to drop it: pubd discard id-1\n",
    )


def test_what_is_not_confirmed_in_time_is_75_and_stored(send: Send, daemon: ScriptedDaemon) -> None:
    done = send("-e", "slow", "-b", "x", "--wait", "--timeout", "500ms")
    assert (done.exit_code, done.stdout) == (75, "id-1\n")
    assert done.stderr.startswith("pubd: stored, but not confirmed within 0.5 s; pubd goes on with it. ")
    assert "--idempotency-key send:" in done.stderr
    assert "trying again" not in done.stderr
    assert len(daemon.stored) == 1


# Usage


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-b", "x"], "name an exchange"),
        (["-e", "a", "-H", "nothing"], "write NAME=TEXT"),
        (["-e", "a", "-H", "a=1", "-H", "a=2"], "given twice"),
        (["--json", "--ndjson", "-"], "one of --json"),
        (["--ndjson", "-", "-b", "x"], "-b is one message"),
        (["--ndjson", "-", "--idempotency-key", "k"], "--resume NAME"),
        (["-e", "a", "--resume", "x", "-b", "x"], "--resume"),
        (["--ndjson", "-", "--resume", ""], "--resume"),
        (["-e", "a", "--idempotency-key", "", "-b", "x"], "--idempotency-key"),
        (["-e", "a", "-b", "x", "--timeout", "soon"], "duration"),
        (["-e", "a", "-b", "x", "--timeout", "0"], "nothing"),
        (["-e", "a", "-b", "x", "--priority", "256"], "255"),
        (["-e", "a", "-b", "x", "--output", "xml"], "json"),
        (["-e", "a", "-b", "x", "-s", "ftp://x"], "unix:PATH"),
        (["-e", "a", "-b", "x", "-s", "http://u:p@x"], "--token-file"),
        (["-e", "a", "-b", "x", "-s", "http://x:99999"], "no address"),
        (["-e", "a", "-b", "x", "-s", "http://example.org", "--token", "s3cret"], "https://"),
        (["-e", "a", "-b", "x", "-s", "unix:/x", "--token", "s3cret\r\nX: y"], "pubd token new"),
        (["-e", "a", "-b", "x", "-s", "unix:/x", "--key", "k"], "--cert"),
        (["-e", "a", "extra"], "extra"),
    ],
)
def test_usage_is_2_and_says_what_to_write(send: Send, daemon: ScriptedDaemon, arguments: list[str], part: str) -> None:
    done = send(*arguments)
    assert done.exit_code == 2
    assert part in done.stderr
    assert "s3cret" not in done.stderr
    assert ":p@" not in done.stderr
    assert done.stdout == ""
    assert daemon.requests == []


def test_files_that_cannot_be_used(tmp_path: Path, send: Send) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    to = ("-e", "a", "-b", "x")
    for option in ("--token-file", "--cacert"):
        done = send(*to, "-s", "https://127.0.0.1:1", option, str(tmp_path / "none"))
        assert (done.exit_code, option in done.stderr) == (78, True), done.stderr
    assert send(*to, "--token-file", str(empty)).exit_code == 78
    for option in ("--cacert", "--cert"):
        done = send(*to, "-s", "https://127.0.0.1:1", option, str(empty))
        assert (done.exit_code, option in done.stderr) == (78, True), done.stderr
    done = send("--ndjson", str(tmp_path / "none"))
    assert (done.exit_code, "No such file" in done.stderr) == (1, True)
    done = send("--ndjson", str(tmp_path))
    assert (done.exit_code, "directory" in done.stderr) == (2, True)


# Where the daemon is


def test_the_token_goes_with_every_request(tmp_path: Path, send: Send, daemon: ScriptedDaemon) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert send("-e", "a", "-b", "x", "--token", "t0ken").exit_code == 0
    assert send("-e", "a", "-b", "x", "--token-file", str(file)).exit_code == 0
    assert send("-e", "a", "-b", "x").exit_code == 0
    assert [each.get("Authorization") for each in daemon.headers] == ["Bearer t0ken", "Bearer from-file", None]


def test_the_environment_names_server_and_token(
    monkeypatch: pytest.MonkeyPatch, url: str, daemon: ScriptedDaemon
) -> None:
    monkeypatch.setenv("PUBD_SERVER", url)
    monkeypatch.setenv("PUBD_TOKEN", "t0ken")
    assert called("-e", "a", "-b", "x").exit_code == 0
    assert daemon.headers[0]["Authorization"] == "Bearer t0ken"


def test_a_daemon_that_is_not_there_is_3_and_says_what_to_do(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    for server, part in (
        (f"unix:{tmp_path}/none", "there is no socket"),
        (f"unix:{stale}", "nobody listens"),
        (str(stale), "nobody listens"),
        (f"http://127.0.0.1:{port}", "nobody answers"),
        (f"unix:{tmp_path}", "nobody listens"),
        (f"unix:{tmp_path}/{'x' * 200}", "cannot be used"),
        ("http://no.such.host.invalid:1", "is not known"),
    ):
        done = called("-e", "a", "-b", "x", "-s", server)
        assert (done.exit_code, done.stdout) == (3, "")
        assert part in done.stderr
        assert "--server or PUBD_SERVER" in done.stderr


def test_who_is_not_known_learns_how_to_show_a_token(send: Send, daemon: ScriptedDaemon) -> None:
    problem = {
        "type": "not-authenticated",
        "title": "Authentication is needed",
        "detail": "show a token that pubd knows",
    }
    daemon.script = [Refuse(status=401, problem=problem)]
    done = send("-e", "a", "-b", "x")
    assert done.exit_code == 1
    assert "show a token that pubd knows" in done.stderr
    assert "--token-file" in done.stderr


@pytest.mark.parametrize("step", [Refuse(status=404), Fault.EMPTY])
def test_something_that_is_not_pubd_is_1(send: Send, daemon: ScriptedDaemon, step: Step) -> None:
    daemon.script = [step]
    done = send("-e", "a", "-b", "x")
    assert done.exit_code == 1
    assert "is that pubd's [http] address?" in done.stderr


@contextmanager
def tls(daemon: ScriptedDaemon, certificates: Certificates, identity: Identity, *, ask: bool = False) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    if ask:
        context.load_verify_locations(certificates.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    with listening_tls(daemon, context) as port:
        yield port


def test_https_is_verified(daemon: ScriptedDaemon, certificates: Certificates) -> None:
    with tls(daemon, certificates, certificates.server) as port:
        to = ("-e", "a", "-b", "x", "--token", "t0ken", "-s", f"https://localhost:{port}")
        assert called(*to, "--cacert", certificates.ca).exit_code == 0
        for arguments in ((), ("--cacert", certificates.other_ca)):
            done = called(*to, *arguments)
            assert done.exit_code == 3
            assert "is not trusted" in done.stderr
            assert "--cacert" in done.stderr
    for identity in (certificates.other_host, certificates.expired):
        with tls(daemon, certificates, identity) as port:
            done = called(*to[:-1], f"https://localhost:{port}", "--cacert", certificates.ca)
            assert (done.exit_code, "is not trusted" in done.stderr) == (3, True)
    assert len(daemon.requests) == 1


def test_a_certificate_of_ones_own(daemon: ScriptedDaemon, certificates: Certificates) -> None:
    with tls(daemon, certificates, certificates.server, ask=True) as port:
        to = ("-e", "a", "-b", "x", "-s", f"https://localhost:{port}", "--cacert", certificates.ca, "--timeout", "1s")
        client = certificates.client
        assert called(*to, "--cert", client.cert, "--key", client.key).exit_code == 0
        assert called(*to).exit_code in (3, 75)
    assert len(daemon.requests) == 1


def test_plain_http_and_https_are_not_mixed_up(daemon: ScriptedDaemon, certificates: Certificates) -> None:
    with tls(daemon, certificates, certificates.server) as port:
        done = called("-e", "a", "-b", "x", "-s", f"http://localhost:{port}", "--timeout", "500ms")
    assert done.exit_code == 75
    assert "hung up" in done.stderr or "in HTTP" in done.stderr
    assert daemon.requests == []


# Trying again


@pytest.mark.parametrize(
    "fault", [Fault.DROP_BEFORE, Fault.DROP_AFTER, Fault.CUT, Fault.NONSENSE], ids=lambda fault: fault.name
)
def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(
    send: Send, daemon: ScriptedDaemon, fault: Fault
) -> None:
    daemon.script = [fault]
    done = send("-e", "a", "-b", "x")
    assert (done.exit_code, done.stdout) == (0, "id-1\n")
    assert len(daemon.requests) == 2
    assert daemon.requests[0] == daemon.requests[1]
    assert len(daemon.stored) == 1


def test_no_answer_is_75_and_says_how_to_be_sure(send: Send, daemon: ScriptedDaemon) -> None:
    daemon.script = [Fault.HANG]
    done = send("-e", "a", "-b", "x", "--timeout", "300ms")
    key = daemon.stored[0]["idempotency_key"]
    assert done.exit_code == 75
    assert "did not answer in time" in done.stderr
    assert f"--idempotency-key {key}" in done.stderr
    daemon.released.set()
    assert send("-e", "a", "-b", "x", "--idempotency-key", key).stdout == "id-1\n"
    assert len(daemon.stored) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_later_is_tried_again_within_the_timeout(send: Send, daemon: ScriptedDaemon, status: int) -> None:
    daemon.script = [Refuse(status=status, problem={"type": "busy", "detail": "wait a bit"})]
    done = send("-e", "a", "-b", "x")
    assert (done.exit_code, done.stdout) == (0, "id-1\n")
    assert done.stderr == "pubd: wait a bit; trying again\n"


def test_retry_after_is_honoured(send: Send, daemon: ScriptedDaemon) -> None:
    daemon.script = [Refuse(status=503, headers={"Retry-After": "1"})]
    started = time.monotonic()
    assert send("-e", "a", "-b", "x").exit_code == 0
    assert time.monotonic() - started >= 1
    error = {"error": {"type": "quota", "detail": "too many", "retry_after": 1}}
    daemon.script = [EachLine([error])]
    started = time.monotonic()
    assert send("-e", "a", "-b", "x").exit_code == 0
    assert time.monotonic() - started >= 1


def test_a_retry_after_beyond_the_timeout_is_75_at_once(send: Send, daemon: ScriptedDaemon) -> None:
    full = {"type": "spool-full", "detail": "the spool is full (max_bytes)"}
    daemon.script = [Refuse(status=507, problem=full, headers={"Retry-After": "60"})]
    done = send("-e", "a", "-b", "x")
    assert (done.exit_code, done.stderr) == (75, "pubd: the spool is full (max_bytes); nothing was stored\n")
    daemon.script = [EachLine([{"error": {**full, "retry_after": 60}}])]
    done = send("-e", "a", "-b", "x")
    assert (done.exit_code, done.stderr) == (75, "pubd: the spool is full (max_bytes); nothing was stored\n")
    assert len(daemon.requests) == 2


def test_a_wait_that_the_daemon_finds_too_long_is_left_to_it(send: Send, daemon: ScriptedDaemon) -> None:
    daemon.script = [Refuse(status=400, problem={"type": "malformed", "detail": "too long", "field": "timeout"})]
    assert send("-e", "a", "-b", "x", "--wait", "--timeout", "20s").exit_code == 0
    assert "timeout=" in daemon.requests[0][0]
    assert daemon.requests[1][0] == "/messages?wait=confirmed"


def test_every_type_of_problem_has_its_place() -> None:
    assert set(TYPES) >= LATER_TYPES
    assert set(TYPES) >= SETTLED_TYPES
    assert {type for type, (status, _) in TYPES.items() if status >= 429 and status != 431} == set(LATER_TYPES) - {
        "request-timeout"
    }


# Many


def test_lines_are_stored_in_order_over_one_connection(send: Send, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    done = send("--ndjson", str(lines_file(tmp_path / "f", 2500)), "-o", "ids")
    assert done.exit_code == 0
    assert done.stdout.split() == [f"id-{n}" for n in range(1, 2501)]
    assert done.stderr.startswith("pubd: 2500 sent, 2500 stored, 0 refused (")
    assert [each["body"] for each in daemon.stored] == [str(n) for n in range(2500)]
    assert len(daemon.requests) >= 2
    assert daemon.connections == 1


def test_what_is_wrong_with_a_line_is_told_with_its_number(send: Send, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b'{"exchange": "a"}\n\n{"exchange": 1}\n{"exchange": "b"}\r\nnonsense\n')
    done = send("--ndjson", str(file), "-o", "json")
    assert done.exit_code == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"line": 1, "id": "id-1", "state": "stored"},
        {"line": 3, "error": {"type": "invalid-message", "detail": "is missing", "field": "exchange"}},
        {"line": 4, "id": "id-2", "state": "stored"},
        {"line": 5, "error": {"type": "malformed", "detail": "is no JSON"}},
    ]
    first, second, counts, advice = done.stderr.splitlines()
    assert first == "pubd: line 3: exchange: is missing"
    assert second == "pubd: line 5: is no JSON"
    assert counts.startswith("pubd: 4 sent, 2 stored, 2 refused (")
    assert "--resume" in advice


def test_the_same_command_again_publishes_nothing_twice(send: Send, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    file = lines_file(tmp_path / "f", 10)
    first, second = send("--ndjson", str(file), "-o", "ids"), send("--ndjson", str(file), "-o", "ids")
    assert first.stdout == second.stdout
    assert len(daemon.stored) == 10
    # Other content, or another destination, is something else.
    assert send("--ndjson", str(lines_file(tmp_path / "g", 11))).exit_code == 0
    assert len(daemon.stored) == 21
    assert send("--ndjson", str(file), "-r", "elsewhere").exit_code == 0
    assert len(daemon.stored) == 31


def test_corrected_lines_alone_are_published_with_the_name_of_the_run(
    send: Send, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    file.write_text('{"exchange": "a"}\nwrong\n{"exchange": "c"}\n')
    done = send("--ndjson", str(file), "-o", "none")
    name = done.stderr.split("--resume ")[1].split()[0]
    file.write_text('{"exchange": "a"}\n{"exchange": "b"}\n{"exchange": "c"}\n')
    assert send("--ndjson", str(file), "--resume", name).exit_code == 0
    assert [each["exchange"] for each in daemon.stored] == ["a", "c", "b"]


def test_lines_with_keys_of_their_own_keep_them(send: Send, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    assert send("--ndjson", str(lines_file(tmp_path / "f", 2, idempotency_key="mine"))).exit_code == 0
    assert list(daemon.ids) == ["mine"]


def test_each_line_of_text_is_a_message(url: str, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("eins\nzwei ü\n\nvier".encode() + b"\xff\n")
    with (tmp_path / "f").open("rb") as file, running(url, "-e", "log", "-l", "-r", "k", stdin=file) as sent:
        out, err = sent.communicate(timeout=30)
    assert (sent.returncode, out) == (0, "id-1\nid-2\nid-3\n"), err
    keys = {each.pop("idempotency_key").split(":")[1] for each in daemon.stored}
    assert keys == {"1", "2", "4"}
    route = {"exchange": "log", "routing_key": "k"}
    assert daemon.stored == [
        {**route, "body": "eins"},
        {**route, "body": "zwei ü"},
        {**route, "body_base64": "dmllcv8="},
    ]


def test_waiting_for_many(send: Send, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text('{"exchange": "a"}\n{"exchange": "nowhere"}\n{"exchange": "slow"}\n{"exchange": "a"}\n')
    done = send("--ndjson", str(file), "--wait", "--timeout", "300ms", "-o", "json")
    assert done.exit_code == 4
    assert [json.loads(line).get("state") for line in done.stdout.splitlines()] == [
        "confirmed",
        None,
        "stored",
        "confirmed",
    ]
    assert "pubd: line 2: no queue got it\n" in done.stderr
    assert "4 sent, 2 confirmed, 1 returned or parked, 1 stored, but not confirmed in time, 0 refused" in done.stderr
    file.write_text('{"exchange": "slow"}\n')
    assert send("--ndjson", str(file), "--wait", "--timeout", "200ms").exit_code == 75
    assert len(daemon.stored) == 5


def test_what_was_refused_for_now_is_tried_again_alone(send: Send, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    full = {"error": {"type": "spool-full", "detail": "full"}}
    daemon.script = [EachLine([None, full, None, full])]
    done = send("--ndjson", str(lines_file(tmp_path / "f", 4)), "-o", "json")
    assert done.exit_code == 0
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [1, 2, 3, 4]
    assert [len(lines) for _, lines in daemon.requests] == [4, 2]
    assert len(daemon.stored) == 4
    assert done.stderr.count("full; trying again") == 1


def test_an_answer_that_ends_early_is_for_all_the_rest(send: Send, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.script = [EachLine([None, {"error": {"type": "stopping", "detail": "pubd stops", "retry_after": 0}}])]
    assert send("--ndjson", str(lines_file(tmp_path / "f", 4)), "-o", "json").exit_code == 0
    assert [len(lines) for _, lines in daemon.requests] == [4, 3]
    assert [each["body"] for each in daemon.stored] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("fault", [Fault.DROP_AFTER, Fault.CUT, Fault.CLOSE], ids=lambda fault: fault.name)
def test_a_connection_that_breaks_in_the_middle_of_a_file(
    send: Send, daemon: ScriptedDaemon, tmp_path: Path, fault: Fault
) -> None:
    daemon.script = [None, fault, None]
    assert send("--ndjson", str(lines_file(tmp_path / "f", 3000))).exit_code == 0
    assert [each["body"] for each in daemon.stored] == [str(n) for n in range(3000)]


def test_a_batch_that_is_too_large_is_halved_until_the_line_is_found(
    send: Send, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    big = json.dumps({"exchange": "big", "body": "x" * 2000})
    file.write_text("".join(f'{{"exchange": "{n}"}}\n' for n in range(5)) + big + '\n{"exchange": "6"}\n')
    daemon.max_body = 1000
    done = send("--ndjson", str(file))
    assert done.exit_code == 1
    assert "pubd: line 6: the body is over the limit of 1000 bytes\n" in done.stderr
    assert [each["exchange"] for each in daemon.stored] == ["0", "1", "2", "3", "4", "6"]


def test_a_refusal_before_the_body_was_read_is_heard(send: Send, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.script = [Fault.EARLY]
    file = lines_file(tmp_path / "f", 1, body="x" * 5_000_000)
    done = send("--ndjson", str(file), "--timeout", "10s")
    # Who hangs up on unread data may lose his answer: then it is asked for once more.
    assert (done.exit_code, "too large" in done.stderr) == (1, True) if daemon.stored == [] else done.exit_code == 0


def test_it_goes_on_where_it_stopped(url: str, tmp_path: Path, daemon: ScriptedDaemon) -> None:
    file = lines_file(tmp_path / "f", 3000)
    daemon.script = [None, Refuse(status=503, headers={"Retry-After": "600"})]
    done = called("-s", url, "--ndjson", str(file), "-o", "none")
    assert done.exit_code == 75
    stored = len(daemon.stored)
    assert 0 < stored < 3000
    assert f"--from-line {stored + 1}" in done.stderr
    assert "the same command again" in done.stderr
    done = called("-s", url, "--ndjson", str(file), "-o", "none", "--from-line", str(stored + 1))
    assert done.exit_code == 0
    assert [each["body"] for each in daemon.stored] == [str(n) for n in range(3000)]
    assert len(daemon.requests[-1][1]) < 3000


def test_a_daemon_that_restarts_is_waited_for(tmp_path: Path) -> None:
    daemon = ScriptedDaemon([None, Fault.DROP_BEFORE])
    path = tmp_path / "s"
    file = lines_file(tmp_path / "f", 3000)
    with listening(daemon, path) as url:
        sent = process(url, "--ndjson", file, "--timeout", "15s")
        until(lambda: len(daemon.requests) >= 2)
    time.sleep(0.3)
    with listening(daemon, path):
        out, err = sent.communicate(timeout=30)
    assert sent.returncode == 0, err
    assert len(out.split()) == 3000
    assert [each["body"] for each in daemon.stored] == [str(n) for n in range(3000)]
    assert "trying again" in err


def test_a_daemon_that_does_not_come_back_is_3(tmp_path: Path) -> None:
    daemon = ScriptedDaemon([None])
    daemon.delay = 0.2
    file = lines_file(tmp_path / "f", 20_000)
    with listening(daemon, tmp_path / "s") as url:
        sent = process(url, "--ndjson", file, "--timeout", "1s", "-o", "none")
        until(lambda: daemon.stored)
        daemon.script = [Fault.DROP_BEFORE]
    _, err = sent.communicate(timeout=30)
    assert sent.returncode == 3, err
    assert "--from-line" in err


# Pipes, signals, terminals


def test_lines_of_a_pipe_go_as_they_come(url: str, daemon: ScriptedDaemon) -> None:
    with running(url, "--ndjson", "-", "-o", "json", stdin=subprocess.PIPE) as sent:
        assert sent.stdin is not None
        assert sent.stdout is not None
        for number in range(1, 4):
            sent.stdin.write(f'{{"exchange": "{number}"}}\n')
            sent.stdin.flush()
            assert json.loads(sent.stdout.readline()) == {"line": number, "id": f"id-{number}", "state": "stored"}
        sent.stdin.write('{"exchange": "last"}')
        sent.stdin.close()
        assert sent.wait(20) == 0
    assert daemon.stored[-1]["exchange"] == "last"


def test_an_interrupted_run_says_how_far_it_got(url: str, daemon: ScriptedDaemon) -> None:
    with running(url, "--ndjson", "-", "-o", "ids", stdin=subprocess.PIPE) as sent:
        assert sent.stdin is not None
        assert sent.stdout is not None
        sent.stdin.write('{"exchange": "a"}\n{"exchange": "b"}\n')
        sent.stdin.flush()
        assert [sent.stdout.readline() for _ in range(2)] == ["id-1\n", "id-2\n"]
        sent.send_signal(signal.SIGINT)
        assert sent.wait(20) == 130
        assert sent.stderr is not None
        err = sent.stderr.read()
    name = daemon.stored[0]["idempotency_key"].rpartition(":")[0]
    assert "interrupted. The lines before 3 are answered" in err
    assert f"the same with --resume {name} again" in err
    assert "Traceback" not in err


def test_an_interrupted_message_says_how_to_be_sure(url: str, daemon: ScriptedDaemon) -> None:
    daemon.script = [Fault.HANG]
    with running(url, "-e", "a", "-b", "x") as sent:
        until(lambda: daemon.stored)
        sent.send_signal(signal.SIGINT)
        _, err = sent.communicate(timeout=20)
    assert sent.returncode == 130
    assert err == (
        "pubd: interrupted; whether it is stored is not known: send it again, with --idempotency-key "
        f"{daemon.stored[0]['idempotency_key']} it will not be published twice\n"
    )
    daemon.released.set()


def test_a_reader_that_goes_away_ends_it_quietly(url: str, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    file = lines_file(tmp_path / "f", 20_000)
    with running(url, "--ndjson", file, "-o", "json") as sent:
        assert sent.stdout is not None
        assert sent.stdout.readline()
        sent.stdout.close()
        assert sent.wait(20) == 141
        assert sent.stderr is not None
        assert sent.stderr.read() == ""
    assert len(daemon.stored) < 20_000


def test_an_output_that_is_full_is_told(url: str, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    for arguments in (["-e", "a", "-b", "x"], ["--ndjson", str(lines_file(tmp_path / "f", 3))]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [BIN / "pubd", "send", "-s", url, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert "standard output cannot be written: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
    assert len(daemon.stored) == 4


@pytest.mark.parametrize(
    ("shell", "code", "stored"),
    [
        ("pubd send -e a -b x >&-", 0, 1),
        ("pubd send -e a -b x 2>&-", 0, 1),
        ("pubd send -e a <&-", 2, 0),
        ("pubd send --ndjson - <&-", 2, 0),
        ("""echo '{"exchange": "a"}' | pubd send --ndjson - >&-""", 0, 1),
        ("""echo '{"exchange": 1}' | pubd send --ndjson - 2>&-""", 1, 0),
        ("""pubd send --ndjson <(echo '{"exchange": "a"}')""", 0, 1),
        ("""pubd send --ndjson /dev/stdin <<< '{"exchange": "a"}'""", 0, 1),
        ("LC_ALL=C pubd send -e a -H k=ü -b ü", 0, 1),
    ],
)
def test_what_shells_do_to_a_program(url: str, daemon: ScriptedDaemon, shell: str, code: int, stored: int) -> None:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PUBD_SERVER": url}
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(daemon.stored) == stored


def test_a_file_that_grows_meanwhile_is_sent_as_it_was(daemon: ScriptedDaemon, url: str, tmp_path: Path) -> None:
    file = lines_file(tmp_path / "f", 3000)
    daemon.delay = 0.5
    with running(url, "--ndjson", file, "-o", "none") as sent:
        until(lambda: daemon.requests)
        with file.open("a") as more:
            more.write('{"exchange": "late"}\n')
        assert sent.wait(20) == 0
        assert sent.stderr is not None
        assert "the file was changed meanwhile" in sent.stderr.read()
    assert len(daemon.stored) == 3000


def test_a_bar_is_drawn_on_a_terminal(url: str, tmp_path: Path) -> None:
    file = lines_file(tmp_path / "f", 3000)
    with file.open("ab") as more:
        more.write(b"wrong\n")
    ours, theirs = os.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "TERM": "xterm",
        "COLUMNS": "150",
    }
    with open(ours, "rb", 0) as screen:
        sent = subprocess.Popen(
            [BIN / "pubd", "send", "-s", url, "--ndjson", file], stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        drawn = b""
        while True:
            try:
                some = screen.read(65536)
            except OSError:
                break
            if not some:
                break
            drawn += some
        assert sent.wait(20) == 1
    text = drawn.decode()
    assert "%" in text
    assert "3001 sent, 3000 stored, 1 refused" in text
    assert "pubd: line 3001: is no JSON" in text
    assert "id-1" not in text


def test_nothing_is_drawn_elsewhere_and_quiet_is_quiet(send: Send, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text('{"exchange": "a"}\nwrong\n')
    done = send("--ndjson", str(file), "-q", "-o", "none")
    assert (done.exit_code, done.output) == (1, "pubd: line 2: is no JSON\n")


def test_the_memory_for_a_large_file_is_bounded(url: str, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    file = tmp_path / "f"
    with file.open("w") as written:
        for _ in range(60):
            written.write((json.dumps({"exchange": "a", "body": "x" * 1000, "idempotency_key": "k"}) + "\n") * 1000)
    code = (
        "import resource, sys; from pubd.cli import main\n"
        "try: main(['send', *sys.argv[1:]])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for arguments in (["-e", "a", "-b", "x"], ["--ndjson", str(file), "-q", "-o", "none"]):
        done = subprocess.run(
            [BIN / "python", "-c", code, "-s", url, *arguments, "-o", "none"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 30, peaks
    assert len(daemon.requests) > 60


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_PUBD_COMPLETE" in done.stdout


def test_bash_completes_commands_and_options() -> None:
    script = (
        'eval "$(pubd completion bash)"\n'
        'complete_it() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _pubd_completion pubd; '
        'echo "${COMPREPLY[@]}"; }\n'
        "complete_it pubd se\ncomplete_it pubd send --ndj\ncomplete_it pubd send --output j\n"
    )
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.stdout.split() == ["send", "--ndjson", "json"], done.stderr
