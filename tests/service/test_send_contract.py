"""`pubd send` sees no difference between the real daemon and the scripted one of the other tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from tests.service.conftest import Run
from tests.service.process import until
from tests.service.scripted_http import ScriptedDaemon, listening
from tests.service.test_send import called, lines_file

CONFIG = """
[broker]
urls = ["{broker}"]
[spool]
url = "sqlite:///spool.db"
max_bytes = {max_bytes}
[http]
listen = ["unix:{socket}:mode=600"]
"""


@contextmanager
def _scripted(tmp_path: Path) -> Iterator[str]:
    with listening(ScriptedDaemon(), tmp_path / "s") as url:
        yield url


def real(run: Run, directory: Path, broker: str, *, max_bytes: int = 1 << 30, more: str = "") -> str:
    """A pubd whose broker does not answer; its URL."""
    socket = directory / "h"
    (directory / "pubd.toml").write_text(CONFIG.format(broker=broker, socket=socket, max_bytes=max_bytes) + more)
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
    until(socket.exists, what=lambda: program.output)
    return f"unix:{socket}"


@pytest.fixture(params=["scripted", "real"])
def url(request: pytest.FixtureRequest, tmp_path: Path, run: Run, nowhere: str) -> Iterator[str]:
    if request.param == "real":
        yield real(run, tmp_path, nowhere)
        return
    with _scripted(tmp_path) as url:
        yield url


def test_a_message_is_stored_and_the_same_key_is_the_same_message(url: str) -> None:
    arguments = ("-s", url, "-e", "a", "-r", "k", "-H", "n:=1", "--idempotency-key", "once", "-o", "json")
    first, second = called(*arguments, stdin=b"\xff\x00"), called(*arguments, stdin=b"\xff\x00")
    assert first.exit_code == second.exit_code == 0, first.stderr
    assert first.stdout == second.stdout
    answer = json.loads(first.stdout)
    assert answer.keys() == {"id", "state"}
    assert answer["state"] == "stored"


def test_what_is_wrong_is_told_by_field_and_line(url: str, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b'{"exchange": "a"}\n{"exchange": 1}\n\nnonsense\n{"exchange": "b"}\n')
    done = called("-s", url, "--ndjson", file, "-o", "json")
    assert done.exit_code == 1
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["line"] for each in answers] == [1, 2, 4, 5]
    assert [each.get("state") for each in answers] == ["stored", None, None, "stored"]
    assert [each["error"]["type"] for each in answers if "error" in each] == ["invalid-message", "malformed"]
    assert answers[1]["error"]["field"] == "exchange"
    assert done.stderr.startswith("pubd: line 2: exchange: ")


def test_many_lines_are_answered_in_order_and_once(url: str, tmp_path: Path) -> None:
    file = lines_file(tmp_path / "f", 5000, correlation_id="x" * 200)
    first, second = called("-s", url, "--ndjson", file, "-o", "ids"), called("-s", url, "--ndjson", file, "-o", "ids")
    assert first.exit_code == second.exit_code == 0, first.stderr
    assert first.stdout == second.stdout
    ids = first.stdout.split()
    assert len(ids) == len(set(ids)) == 5000


def test_a_line_that_is_too_large_is_refused_alone(tmp_path: Path, run: Run, nowhere: str) -> None:
    url = real(run, tmp_path, nowhere, more='max_body = "64KiB"\n')
    file = tmp_path / "f"
    big = json.dumps({"exchange": "big", "body": "x" * 100_000})
    file.write_text('{"exchange": "a"}\n' * 3 + big + "\n" + '{"exchange": "b"}\n' * 3)
    done = called("-s", url, "--ndjson", file, "-o", "ids")
    assert done.exit_code == 1
    assert len(done.stdout.split()) == 6
    assert done.stderr.startswith("pubd: line 4: ")


def test_a_full_spool_is_75_and_the_file_can_be_sent_again(tmp_path: Path, run: Run, nowhere: str) -> None:
    url = real(run, tmp_path, nowhere, max_bytes=200_000)
    file = lines_file(tmp_path / "f", 3000, correlation_id="x" * 200)
    done = called("-s", url, "--ndjson", file, "-o", "ids", "--timeout", "1s")
    assert done.exit_code == 75, done.stderr
    assert 0 < len(done.stdout.split()) < 3000
    assert "the spool is full" in done.stderr
    assert "--from-line" in done.stderr


def test_a_daemon_with_tokens(tmp_path: Path, run: Run, nowhere: str) -> None:
    token = "pubd_" + "a" * 43
    hashed = sha256(token.encode()).hexdigest()
    more = f'[[principal]]\nname = "shop"\ntokens = ["sha256:{hashed}"]\ngrants = [{{ exchange = "a" }}]\n'
    url = real(run, tmp_path, nowhere, more=more)
    file = tmp_path / "token"
    file.write_text(token)
    assert called("-s", url, "-e", "a", "-b", "x", "--token-file", file).exit_code == 0
    for arguments in (["-e", "a"], ["-e", "a", "--token", "pubd_wrong"], ["-e", "b", "--token-file", file]):
        done = called("-s", url, "-b", "x", *arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert token not in done.stderr
    assert "--token-file" in called("-s", url, "-e", "a", "-b", "x").stderr
