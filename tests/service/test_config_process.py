"""`twistd -n pubd --config FILE` as a real process: topology, schedules, the spool's file, and every way to refuse."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pika
import pytest

from tests.conftest import Drained
from tests.service.conftest import Run
from tests.service.process import Program, until

Daemon = Callable[..., Program]
Drain = Callable[..., list[Drained]]

#: Of everything something; the schedule fires five times a second.
FULL = """\
[broker]
urls = ["{url}"]

[spool]
url = "sqlite:///pubd.db"

[delivery]
max_attempts = 3
drain_timeout = 2

[[policy]]
exchange = "message"
on_return = "drop"

[[exchange]]
name = "message"
type = "topic"

[[queue]]
name = "text"
arguments = {{ x-max-length = 1000 }}

[[binding]]
exchange = "message"
queue = "text"
routing_key = "example.#"

[[schedule]]
name = "heartbeat"
every = "200ms"
exchange = "message"
routing_key = "example.text"
content_type = "text/plain"
headers = {{ k = "v" }}
body = "{{epoch}} {{now}} {{seq}} {{hostname}} {{{{else}}}}"
"""
#: Publishes nothing, for tests of the rest.
IDLE = """\
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///pubd.db"
[delivery]
drain_timeout = 0
"""


@pytest.fixture
def daemon(run: Run, tmp_path: Path) -> Daemon:
    """`daemon(text)`: `twistd -n pubd --config pubd.toml` in the directory of the test."""

    def start(text: str, *options: str, **environment: str) -> Program:
        (tmp_path / "pubd.toml").write_text(text)
        return run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml", *options, **environment)

    return start


def ready(url: str, queue: str) -> int:
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def test_it_declares_fires_its_schedules_spools_on_disk_and_ends_cleanly(
    daemon: Daemon, url: str, tmp_path: Path, drain: Drain
) -> None:
    program = daemon(FULL.format(url=url))
    program.says("declared exchange 'message' (topic)", "declared queue 'text'", "declared binding")
    until(lambda: ready(url, "text") >= 4, what=lambda: program.output)
    spool = tmp_path / "pubd.db"
    assert mode(spool) == "0o600"
    assert {mode(path) for path in tmp_path.glob("pubd.db*")} == {"0o600"}
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    program.says("SIGTERM: stopping", "every accepted message is settled")
    accounts = re.findall(r"Published (\d+) messages, (\d+) have yet to be confirmed, (\d+) were acked", program.output)
    published, pending, acked = map(int, accounts[-1])
    assert (published, pending) == (acked, 0)
    assert "Traceback" not in program.output
    assert "guest:guest" not in program.output

    taken = drain("text", url)
    assert len(taken) == acked
    hostname = os.uname().nodename
    for number, message in enumerate(taken):
        epoch, now, seq, host, other = message.body.decode().split(" ")
        assert epoch.isdigit()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", now)
        assert int(seq) - int(taken[0].body.split()[2]) == number
        assert (host, other) == (hostname, "{else}")
        assert message.properties.content_type == "text/plain"
        assert message.properties.headers == {"k": "v"}
        assert message.properties.delivery_mode == 2


def test_a_daemon_that_was_killed_starts_again_from_its_spool(
    daemon: Daemon, run: Run, url: str, nowhere: str, drain: Drain
) -> None:
    first = daemon(FULL.format(url=nowhere))
    until(lambda: len(first.lines("connection refused")) > 1, what=lambda: first.output)
    first.signal(signal.SIGKILL)
    assert first.ends() == -signal.SIGKILL
    verified = run("pubd", "verify", "pubd.db")
    assert verified.ends() == 0
    held = int(re.findall(r"(\d+) held", verified.output)[0])
    assert held >= 1
    second = daemon(FULL.format(url=url))
    second.says("declared binding")
    until(lambda: ready(url, "text") > held, what=lambda: second.output)
    second.signal(signal.SIGTERM)
    assert second.ends() == 0
    taken = drain("text", url)
    assert [int(message.body.split()[2]) for message in taken[:held]] == list(range(1, held + 1))
    ids = [message.properties.message_id for message in taken]
    assert ids == sorted(set(ids)), "in the order of acceptance, and none twice"


def test_a_second_daemon_on_the_same_spool_ends_with_1_and_the_pid_of_the_first(daemon: Daemon, nowhere: str) -> None:
    text = IDLE.format(url=nowhere)
    first = daemon(text)
    first.says("connection refused")
    second = daemon(text)
    assert second.ends() == 1
    (line,) = second.lines("in use")
    assert f"pubd.db is in use by process {first.pid}: stop that one, or use another spool" in line
    assert "Traceback" not in second.output
    first.signal(signal.SIGTERM)
    assert first.ends() == 0


def test_a_spool_that_cannot_be_made_ends_it_with_1_and_a_sentence(daemon: Daemon, nowhere: str) -> None:
    program = daemon(IDLE.format(url=nowhere).replace("pubd.db", "missing/pubd.db"))
    assert program.ends() == 1
    (line,) = program.lines("the spool cannot be opened")
    assert "missing/pubd.db" in line
    assert "Traceback" not in program.output
    # A spool that was not opened has nothing to tell.
    assert program.lines("every accepted message is settled") == []


def test_a_damaged_spool_ends_it_with_1_and_what_to_do(daemon: Daemon, nowhere: str, tmp_path: Path) -> None:
    (tmp_path / "pubd.db").write_bytes(b"this is not a database at all" * 500)
    program = daemon(IDLE.format(url=nowhere))
    assert program.ends() == 1
    (line,) = program.lines("is damaged")
    assert "'pubd verify " in line
    assert "'pubd export " in line
    assert "Traceback" not in program.output


def test_every_problem_of_a_bad_file_is_said_at_once_with_exit_code_78(daemon: Daemon, tmp_path: Path) -> None:
    program = daemon(
        """\
[broker]
url = ["amqp://u:s3cret@host/"]
heartbeat = "soon"
[delivry]
window = 0
[[schedule]]
name = "x"
evry = "1s"
"""
    )
    assert program.ends() == 78
    for line, *words in ((2, "url", "urls"), (3, "heartbeat"), (4, "delivry", "delivery"), (8, "evry", "every")):
        (found,) = program.lines(f"pubd.toml:{line}:")
        assert all(word in found for word in words), found
    assert "Traceback" not in program.output
    assert "s3cret" not in program.output
    assert not list(tmp_path.glob("pubd.db*")), "nothing was started"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"[broker\n"], ids=["missing", "binary", "no TOML"])
def test_a_file_that_cannot_be_read_is_a_sentence_and_78(run: Run, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bad.toml").write_bytes(content)
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "bad.toml")
    assert program.ends() == 78
    assert "bad.toml" in program.output
    assert "Traceback" not in program.output


def test_the_environment_goes_before_the_file(daemon: Daemon, url: str, nowhere: str) -> None:
    program = daemon(
        FULL.format(url=nowhere), PUBD_BROKER_URLS=url, PUBD_SPOOL_URL="memory:", PUBD_DELIVERY_DRAIN_TIMEOUT="1"
    )
    program.says("connected to", "declared queue")
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    refused = daemon(FULL.format(url=url), PUBD_DELIVERY_WINDOW="many")
    assert refused.ends() == 78
    refused.says("PUBD_DELIVERY_WINDOW")


@pytest.mark.parametrize("option", [["--url", "amqp://guest:s3cret@host/"], ["--transient"]])
def test_beside_config_no_other_option_is_taken(daemon: Daemon, nowhere: str, option: list[str]) -> None:
    program = daemon(IDLE.format(url=nowhere), *option)
    assert program.ends() == 1
    last = program.output.strip().splitlines()[-1]
    assert f"--config and {option[0]}" in last
    assert "stands in its file" in last
    assert "s3cret" not in program.output


def test_the_short_way_in_spools_in_memory_unless_it_is_told_otherwise(run: Run, url: str, tmp_path: Path) -> None:
    command = ["twistd", "-n", "--pidfile=", "pubd", "--url", url, "--interval", "0.05", "--count", "2"]
    assert run(*command).ends() == 0
    assert not list(tmp_path.glob("*.db"))
    assert run(*command, "--spool", "sqlite:///short.db").ends() == 0
    assert mode(tmp_path / "short.db") == "0o600"
