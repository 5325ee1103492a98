"""`pubd status`, `list`, `show`, `trace`, `retry` and `discard` against the real daemon and a real RabbitMQ."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pika
import pytest
from click.testing import CliRunner, Result

from pubd.cli import main
from tests.service.conftest import Run
from tests.service.process import BIN, PATIENCE, Program, until

HOSTILE = "\x1b]0;owned\x07\x1b[2J"


@attrs.frozen
class Daemon:
    """The running daemon, and the exchange it publishes to."""

    program: Program
    server: str
    url: str
    exchange: str

    def pubd(self, *arguments: str | Path, stdin: str = "") -> Result:
        """A command, in this process; never a traceback."""
        command = [str(arguments[0]), "-s", self.server, *map(str, arguments[1:])]
        result = CliRunner().invoke(main, command, input=stdin, prog_name="pubd")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """JSON Lines of a command that succeeds."""
        done = self.pubd(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pubd("status", "--json").stdout)
        return found

    def send(self, key: str, body: str = "hello", *more: str, exchange: str | None = None) -> str:
        """A message's id; whatever becomes of it."""
        name = self.exchange if exchange is None else exchange
        done = self.pubd("send", "-e", name, "-r", key, "-b", body, *more)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    def parked(self, count: int) -> list[str]:
        """The ids, in order, once so many are parked."""
        until(lambda: self.status()["books"]["parked"] == count, what=lambda: str(self.status()))
        return [record["id"] for record in self.json("list", "--state", "parked", "--all")]

    def bind(self, key: str) -> None:
        """A queue gets what has this key."""
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=False, auto_delete=False).method.queue
            channel.queue_bind(queue, self.exchange, key)


@pytest.fixture
def daemon(run: Run, url: str, unique: Callable[..., str], tmp_path: Path) -> Iterator[Daemon]:
    exchange, socket = unique("exchange"), f"unix:{tmp_path}/s"
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().exchange_declare(exchange, "topic", durable=True)
    config = tmp_path / "pubd.toml"
    written = CliRunner().invoke(main, ["init", str(config), "--url", url, "--listen", socket])
    assert written.exit_code == 0, written.output
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", config)
    program.says("connected to")
    daemon = Daemon(program, socket, url, exchange)
    daemon.bind("good.#")
    yield daemon
    daemon.pubd("discard", "--state", "parked", "--reason", "the test is over", "--yes")


def test_from_init_to_a_confirmed_message(daemon: Daemon) -> None:
    id = daemon.send("good.one", "hello", "--wait", "-H", "colour=blue")
    done = daemon.pubd("status")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("healthy\n")
    assert "1 accepted = 1 confirmed + 0 expired + 0 discarded + 0 held" in done.stdout
    paths = ("link ", "spool ", "http ", "pubd ", " ")
    assert all(len(line) <= 80 or line.startswith(paths) for line in done.stdout.splitlines())
    assert "guest:guest" not in done.stdout
    shown = daemon.pubd("show", id, "--body").stdout
    assert "state            confirmed\n" in shown
    assert "header           colour: blue" in shown
    assert "the body is kept until a message is settled" in shown
    assert daemon.pubd("show", id, "--raw").exit_code == 1
    traced = daemon.pubd("trace", id).stdout.splitlines()
    assert [line.split()[2].rstrip(":") for line in traced[1:3]] == ["accepted", "confirmed"]


def test_a_parked_message_from_seeing_it_to_its_confirmation(daemon: Daemon) -> None:
    id = daemon.send("bad.key", f"{HOSTILE}\nGrüße")
    assert daemon.parked(1) == [id]
    status = daemon.pubd("status")
    assert status.exit_code == 0, "parked messages are for a person, and do not make pubd unhealthy"
    assert "1 message parked: a person has to decide" in status.stdout
    assert "312 NO_ROUTE" in status.stdout
    assert daemon.status()["held"][0]["count"] == 1
    listed = daemon.pubd("list", "--state", "parked").stdout.splitlines()
    assert listed[0].split() == ["ID", "STATE", "AGE", "EXCHANGE", "REASON"]
    assert listed[1].startswith(f"{id} parked ")
    assert all(len(line) <= 80 for line in listed)
    shown = daemon.pubd("show", id, "--body").stdout
    assert "state            parked: returned: 312 NO_ROUTE\n" in shown
    assert shown.endswith("\n\\x1b]0;owned\\x07\\x1b[2J\nGrüße\n")
    assert daemon.pubd("show", id, "--raw").stdout_bytes == f"{HOSTILE}\nGrüße".encode()
    traced = daemon.pubd("trace", id).stdout
    assert "attempt 1 returned" in traced
    assert f"pubd retry {id}" in traced
    daemon.bind("bad.#")
    done = daemon.pubd("retry", id)
    assert (done.exit_code, done.stderr) == (0, "pubd: 1 message will be published again\n")
    until(lambda: daemon.json("show", id)[0]["state"] == "confirmed")
    again = daemon.pubd("retry", id)
    assert again.exit_code == 1
    assert f"pubd: {id}: the message is confirmed: there is nothing to retry" in again.stderr


def test_a_set_needs_a_yes_and_goes_page_by_page(daemon: Daemon, tmp_path: Path) -> None:
    count = 2500
    lines = tmp_path / "lines"
    lines.write_text(f'{{"exchange":"{daemon.exchange}","routing_key":"bad","body":"x"}}\n' * count)
    assert daemon.pubd("send", "--ndjson", lines, "-q", "-o", "none").exit_code == 0
    ids = daemon.parked(count)
    assert len(set(ids)) == count
    refused = daemon.pubd("retry", "--state", "parked")
    assert refused.exit_code == 2
    assert "say --yes; 'pubd list --state parked' shows which" in refused.stderr
    done = daemon.pubd("retry", "--state", "parked", "-e", daemon.exchange, "--yes")
    assert (done.exit_code, done.stderr) == (0, "pubd: 2,500 messages will be published again\n")
    assert daemon.parked(count) == ids, "they are in their old places"
    none = daemon.pubd("discard", "--state", "parked", "-e", "other", "--reason", "x", "--yes")
    assert (none.exit_code, none.stderr) == (0, "pubd: there are no parked messages for exchange other\n")
    some = daemon.pubd("discard", "-", "--reason", "not wanted", "--yes", stdin="\n".join([*ids[:1500], "unknown"]))
    assert some.exit_code == 1
    assert "pubd: unknown: pubd knows no message with this id" in some.stderr
    assert "pubd: 1,500 messages discarded, 1 not; 'pubd show ID' says what each is" in some.stderr
    assert daemon.parked(1000) == ids[1500:]
    rest = daemon.pubd("discard", "--state", "parked", "--reason", "not wanted", "--yes", "--json")
    assert [json.loads(line) for line in rest.stdout.splitlines()] == [
        {"id": id, "state": "discarded"} for id in ids[1500:]
    ]
    status = daemon.status()
    assert (status["books"]["discarded"], status["books"]["difference"]) == (count, 0)
    pages = daemon.pubd("list", "--state", "discarded", "--limit", "7")
    assert len(pages.stdout.splitlines()) == 8
    assert f"go on with --after {ids[6]}, or give --all" in pages.stderr
    more = daemon.json("list", "--state", "discarded", "--after", ids[6], "--limit", "3")
    assert [record["id"] for record in more] == ids[7:10]


def test_an_exchange_that_is_not_there_is_not_healthy(daemon: Daemon) -> None:
    daemon.send("k", exchange="missing")
    until(lambda: daemon.status()["troubles"])
    status = daemon.pubd("status")
    assert status.exit_code == 1
    assert status.stdout.startswith("NOT HEALTHY\n")
    assert "! messages for exchange missing wait: 404 NOT_FOUND" in status.stdout
    assert "-> declare it: 'rabbitmqadmin declare exchange name=missing" in status.stdout
    with pika.BlockingConnection(pika.URLParameters(daemon.url)) as connection:
        connection.channel().exchange_declare("missing", "fanout")
    until(lambda: daemon.pubd("status").exit_code == 0)
    daemon.parked(1)


def test_a_broker_that_is_away_is_not_healthy_and_costs_nothing(run: Run, nowhere: str, tmp_path: Path) -> None:
    config, socket = tmp_path / "pubd.toml", f"unix:{tmp_path}/s"
    assert CliRunner().invoke(main, ["init", str(config), "--url", nowhere, "--listen", socket]).exit_code == 0
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", config)
    program.says("listening on")
    daemon = Daemon(program, socket, nowhere, "orders")
    id = daemon.send("k")
    until(lambda: daemon.status()["link"]["reason"] is not None)
    status = daemon.pubd("status")
    assert status.exit_code == 1
    assert "! not connected to RabbitMQ (" in status.stdout
    assert "refused" in status.stdout
    assert "s3cret" not in status.stdout + json.dumps(daemon.status())
    assert daemon.json("show", id)[0]["state"] == "ready"
    assert daemon.pubd("discard", id, "--reason", "the test is over", "--yes").exit_code == 0


def test_messages_whose_names_are_hostile_harm_nobody(daemon: Daemon) -> None:
    id = daemon.send(HOSTILE, "x", "--type", HOSTILE, "-H", f"k{HOSTILE}={HOSTILE}")
    daemon.parked(1)
    for command in (["list"], ["show", id, "--body"], ["trace", id], ["status"], ["list", "--json"]):
        done = daemon.pubd(*command)
        assert "owned" in done.stdout or command == ["list"] or command == ["status"]
        assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines()), command


def test_messages_are_held_and_released_and_it_is_known_by_whom(daemon: Daemon) -> None:
    held = daemon.send("good.one", "hello", "--delay", "1h")
    parked = daemon.send("bad")
    assert daemon.parked(1) == [parked]
    done = daemon.pubd("hold", held, "--reason", "recount")
    assert (done.exit_code, done.stderr) == (0, "pubd: 1 message held\n")
    assert "parked: held by an operator: recount\n" in daemon.pubd("show", held).stdout
    assert "recount" in daemon.pubd("list", "--state", "parked").stdout
    traced = daemon.pubd("trace", held).stdout
    assert f"held: by local (uid {os.getuid()}): recount" in traced
    assert f"pubd release {held}" in traced
    refused = daemon.pubd("retry", held)
    assert refused.exit_code == 1
    assert "held by an operator: release it" in refused.stderr
    assert "1 message will be published again" in daemon.pubd("retry", "--state", "parked", "--yes").stderr
    daemon.parked(2)
    released = daemon.pubd("release", "--state", "parked", "--yes", "--json")
    assert [json.loads(line) for line in released.stdout.splitlines()] == [{"id": held, "state": "deferred"}]
    assert daemon.pubd("retry", held).exit_code == 0
    until(lambda: daemon.json("show", held)[0]["state"] == "confirmed")
    verbs = [each["verb"] for each in daemon.json("show", held)[0]["decisions"]]
    assert verbs == ["hold", "release", "retry"]


def test_a_list_of_nothing_in_particular_is_of_what_is_not_settled(daemon: Daemon) -> None:
    done = daemon.send("good.one")
    until(lambda: daemon.json("show", done)[0]["state"] == "confirmed")
    empty = daemon.pubd("list")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "no message waits; those that were settled are listed by --state confirmed, or --all" in empty.stderr
    ids = [
        daemon.send("good.one", "x", "--delay", "1h"),
        daemon.send("bad.one"),
        daemon.send("good.one", "x", "--delay", "1h"),
        daemon.send("bad.two"),
    ]
    daemon.parked(2)
    assert [each["id"] for each in daemon.json("list")] == ids
    assert [each["id"] for each in daemon.json("list", "--limit", "3")] == ids[:3]
    assert f"--after {ids[2]}" in daemon.pubd("list", "--limit", "3").stderr
    assert [each["id"] for each in daemon.json("list", "--after", ids[2])] == ids[3:]
    assert done in [each["id"] for each in daemon.json("list", "--all")]
    assert daemon.pubd("discard", *ids, "--reason", "the test is over", "--yes").exit_code == 0


def test_sets_are_chosen_as_the_list_shows_them(daemon: Daemon) -> None:
    ids = [daemon.send(key) for key in ("bad.one", "bad.two", "worse.one")]
    daemon.parked(3)
    match = ("-m", f"exchange={daemon.exchange}", "-m", "routing-key=bad.*", "-m", "reason=312", "-m", "newer-than=1h")
    assert [each["id"] for each in daemon.json("list", *match)] == ids[:2]
    assert daemon.pubd("list", *match, "--count").stdout == "2\n"
    assert daemon.json("list", "--state", "parked", "--older-than", "1h", "--count") == [{"count": 0}]
    none = daemon.pubd("discard", *match, "-m", "ordering-key=k", "--reason", "x", "--yes")
    assert "there are no messages for exchange" in none.stderr
    done = daemon.pubd("discard", *match, "--reason", "x", "--yes")
    assert done.stderr == "pubd: 2 messages discarded\n"
    assert daemon.parked(1) == ids[2:]
    later = daemon.send("good.one", "hello", "--delay", "1h")
    held = daemon.pubd("hold", "-m", f"exchange={daemon.exchange}", "--yes")
    assert held.stderr == "pubd: 1 message held\n"
    assert [each["id"] for each in daemon.json("list", "-m", "reason=held by", "--all")] == [later]
    assert daemon.pubd("release", "-m", f"exchange={daemon.exchange}", "--yes").stderr == "pubd: 1 message released\n"
    assert daemon.pubd("discard", later, "--reason", "the test is over", "--yes").exit_code == 0


def test_a_pause_of_an_exchange_that_nobody_knows_says_so(daemon: Daemon) -> None:
    daemon.send("good.one")
    until(lambda: daemon.exchange in [lane["exchange"] for lane in daemon.status()["lanes"]])
    paused = daemon.pubd("pause", "nosuch")
    assert paused.exit_code == 0
    first, doubt = paused.stderr.splitlines()
    assert first == "pubd: publishing to nosuch is paused"
    assert doubt.startswith("pubd: it has no message for nosuch, and published none to it lately (exchanges in use: ")
    assert daemon.exchange in doubt
    assert "'pubd resume nosuch'" in doubt
    assert daemon.pubd("resume", "nosuch").exit_code == 0
    assert daemon.pubd("pause", daemon.exchange).stderr == f"pubd: publishing to {daemon.exchange} is paused\n"
    assert daemon.pubd("resume", daemon.exchange).exit_code == 0


def test_a_message_that_is_not_confirmed_in_time_is_told_why(daemon: Daemon) -> None:
    send = ("send", "-r", "good.one", "-b", "x", "--wait", "--timeout", "500ms", "-e")
    daemon.pubd("pause", daemon.exchange, "--reason", "upgrade")
    paused = daemon.pubd(*send, daemon.exchange)
    assert paused.exit_code == 75
    assert f"stored, but not confirmed within 0.5 s: publishing to {daemon.exchange} is paused by " in paused.stderr
    assert ": upgrade; see 'pubd status'. pubd goes on with it. To wait again, send it again" in paused.stderr
    missing = daemon.pubd(*send, "nosuch")
    assert missing.exit_code == 75
    assert ": messages for exchange nosuch wait: 404 NOT_FOUND - no exchange 'nosuch'" in missing.stderr
    assert "is paused" not in missing.stderr
    assert daemon.pubd("resume", daemon.exchange).exit_code == 0
    assert daemon.pubd("discard", "-m", "exchange=nosuch", "--reason", "the test is over", "--yes").exit_code == 0


def test_publishing_is_paused_and_resumed_and_everything_says_so(daemon: Daemon) -> None:
    daemon.send("good.one")
    paused = daemon.pubd("pause", daemon.exchange, "--reason", "upgrade")
    assert (paused.exit_code, paused.stderr) == (0, f"pubd: publishing to {daemon.exchange} is paused\n")
    me = f"local (uid {os.getuid()})"
    waits, other = daemon.send("good.one"), daemon.send("k", exchange="amq.topic")
    status = daemon.pubd("status")
    assert status.exit_code == 1
    words = " ".join(status.stdout.split())
    assert f"! publishing to {daemon.exchange} is paused by {me}: upgrade (for " in words
    assert f"'pubd resume {daemon.exchange}'" in words
    assert [each["who"] for each in daemon.status()["pauses"]] == [me]
    until(lambda: daemon.json("show", other)[0]["state"] == "parked")
    everything = daemon.pubd("pause")
    assert everything.stderr.startswith("pubd: publishing is paused\n")
    assert f"to end that: 'pubd resume {daemon.exchange}'" in everything.stderr
    assert "publishing is paused by" in " ".join(daemon.pubd("status").stdout.split())
    assert daemon.json("show", waits)[0]["state"] == "ready"
    resumed = daemon.pubd("resume")
    assert resumed.stderr.startswith("pubd: publishing is resumed\npubd: publishing to ")
    assert "was not paused by itself" in daemon.pubd("resume").stderr
    (answer,) = daemon.json("resume", daemon.exchange)
    assert answer == {"changed": True, "pauses": []}
    until(lambda: daemon.json("show", waits)[0]["state"] == "confirmed")
    events = [each["event"] for each in daemon.json("trace", waits)]
    assert events == ["accepted", "publishing paused", "publishing resumed", "publishing resumed", "confirmed"]
    assert daemon.pubd("status").exit_code == 0
    flushed = daemon.pubd("flush")
    assert (flushed.exit_code, flushed.stderr) == (0, "pubd: everything is tried now; 0 messages backed off\n")
    assert daemon.json("flush") == [{"messages": 0}]


# On a terminal


def on_a_terminal(daemon: Daemon, *arguments: str, answer: bytes) -> tuple[int, str]:
    """Exit code and everything on the screen; ``answer`` is typed when it asks."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [BIN / "pubd", *arguments, "-s", daemon.server],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "TERM": "xterm", "COLUMNS": "80"},
        start_new_session=True,
    )
    os.close(theirs)
    screen, typed, deadline = b"", False, time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(ours, 4096)
            except OSError:
                break
            if not data:
                break
            screen += data
            if b"[y/N]" in screen and not typed:
                typed = True
                os.write(ours, answer)
        return process.wait(10), screen.decode()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        os.close(ours)


def test_somebody_at_a_terminal_is_asked_with_the_number(daemon: Daemon) -> None:
    ids = [daemon.send("bad") for _ in range(3)]
    daemon.parked(3)
    code, screen = on_a_terminal(daemon, "discard", *ids[:2], "--reason", "old", answer=b"n\n")
    assert code == 1
    assert "Discard 2 messages? [y/N]" in screen
    assert "pubd: nothing was done" in screen
    assert daemon.parked(3) == ids
    code, screen = on_a_terminal(daemon, "discard", "--state", "parked", "--reason", "old", answer=b"y\n")
    assert code == 0
    assert "Discard 3 messages that are parked? [y/N]" in screen
    assert "3 messages discarded" in screen
    daemon.parked(0)
    code, screen = on_a_terminal(daemon, "show", ids[0], "--raw", answer=b"")
    assert code == 2
    assert f"pubd show {ids[0]} --raw > FILE" in screen


def test_a_terminal_has_colours_and_nothing_else_that_is_not_text(daemon: Daemon) -> None:
    daemon.send(HOSTILE, HOSTILE)
    daemon.parked(1)
    _, screen = on_a_terminal(daemon, "status", answer=b"")
    assert "\x1b[32m" in screen
    assert "\x1b]0;" not in screen
    _, listed = on_a_terminal(daemon, "list", answer=b"")
    assert "\x1b[31mparked" in listed
    assert "\x1b[2J" not in listed
