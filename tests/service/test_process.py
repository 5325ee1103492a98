"""`twistd -n pubd` as its users run it: real processes, a real broker, real signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pika
import pytest

from tests.conftest import Drained
from tests.rabbitmq import Node
from tests.service.conftest import Pubd, Run
from tests.service.process import Program, until

Drain = Callable[..., list[Drained]]

ACCOUNT = re.compile(
    r"Published (?P<published>\d+) messages, (?P<pending>\d+) have yet to be confirmed, "
    r"(?P<acked>\d+) were acked and (?P<nacked>\d+) were nacked, "
    r"(?P<returned>\d+) were returned and (?P<lost>\d+) were lost; (?P<held>\d+) held \((?P<parked>\d+) parked\)"
)


def accounts(output: str) -> list[dict[str, int]]:
    return [{name: int(n) for name, n in found.groupdict().items()} for found in ACCOUNT.finditer(output)]


def waiting(queue: str, url: str) -> int:
    """Messages in the queue."""
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def said_of(node: Node, vhost: str) -> str:
    """What the broker logged of connections to this virtual host."""
    events = re.split(r"\n(?=\d{4}-\d\d-\d\d )", node.log_path.read_text(errors="replace"))
    return "\n".join(event for event in events if vhost in event)


# The example's job


def test_the_one_liner_publishes_what_other_consumers_take(pubd: Pubd, url: str, drain: Drain) -> None:
    program = pubd(
        *("--url", url, "--exchange", "message", "--exchange-type", "topic", "--queue", "text"),
        *("--routing-key", "example.text", "--interval", "0.2", "--count", "3", "--header", "k=v"),
    )
    assert program.ends() == 0
    program.says("connected to 127.0.0.1", "declared exchange 'message' (topic)", "every accepted message is settled")
    assert accounts(program.output)[-1] | {"acked": 3, "held": 0, "lost": 0} == accounts(program.output)[-1]
    # Debian's consumer gets the body on standard input.
    taken = subprocess.run(
        ["amqp-consume", "--url", url, "-q", "text", "-c", "1", "cat"], capture_output=True, timeout=10, check=True
    )
    assert re.fullmatch(rb"The current epoch value is \d{10}", taken.stdout)
    messages = drain("text", url)
    assert len(messages) == 2
    for message in messages:
        assert abs(int(message.body.decode().removeprefix("The current epoch value is ")) - time.time()) < 60
        assert (message.exchange, message.routing_key) == ("message", "example.text")
        assert (message.properties.app_id, message.properties.content_type) == ("pubd", "text/plain")
        assert message.properties.headers == {"k": "v"}
        assert message.properties.delivery_mode == 2
        assert uuid.UUID(message.properties.message_id).version == 7


def test_the_account_is_logged_once_a_second_and_not_once_a_message(pubd: Pubd, url: str) -> None:
    program = pubd("--url", url, "--interval", "0.01")
    program.says("Published ")
    time.sleep(2.2)
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    told = accounts(program.output)
    assert len(told) == len(program.lines("Published ")) <= 5
    assert told[-1]["published"] == told[-1]["acked"] > 100
    assert "Traceback" not in program.output


def test_no_publish_only_declares(pubd: Pubd, url: str) -> None:
    program = pubd("--url", url, "--no-publish", "--queue-type", "quorum")
    program.says("declared binding")
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    assert waiting("text", url) == 0


# When RabbitMQ closes a channel


def test_shutdown_ends_with_1_and_the_reason_when_the_exchange_is_deleted(pubd: Pubd, url: str) -> None:
    program = pubd("--url", url, "--interval", "0.05", "--on-channel-close", "shutdown", "--drain-timeout", "1")
    program.says("acked")
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        connection.channel().exchange_delete("message")
    assert program.ends() == 1
    (line,) = program.lines("shutting down")
    assert "404" in line
    assert "NOT_FOUND - no exchange 'message'" in line
    assert "Traceback" not in program.output


def test_shutdown_ends_with_1_and_both_values_when_a_declaration_does_not_match(pubd: Pubd, url: str) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        connection.channel().exchange_declare("message", "direct", durable=True)
    program = pubd("--url", url, "--on-channel-close=shutdown", "--drain-timeout", "0.5")
    assert program.ends() == 1
    (line,) = program.lines("shutting down")
    assert "406" in line
    assert "received 'topic' but current is 'direct'" in line


def test_recover_goes_on_once_the_exchange_is_back(pubd: Pubd, url: str) -> None:
    program = pubd("--url", url, "--interval", "0.05")
    program.says("acked")
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        channel.exchange_delete("message")
        program.says("NOT_FOUND - no exchange 'message'")
        channel.exchange_declare("message", "topic", durable=True)
        channel.queue_bind("text", "message", "example.text")
        before = channel.queue_declare("text", passive=True).method.message_count
        until(lambda: channel.queue_declare("text", passive=True).method.message_count > before + 5)
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    assert accounts(program.output)[-1]["held"] == 0


# The end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(pubd: Pubd, url: str, vhost: str, shared_node: Node, number: signal.Signals) -> None:
    program = pubd("--url", url, "--interval", "0.02")
    program.says("acked")
    program.signal(number)
    assert program.ends() == 0
    program.says(f"{number.name}: stopping; a second signal ends pubd at once")
    last = accounts(program.output)[-1]
    assert waiting("text", url) == last["acked"] == last["published"]
    until(lambda: said_of(shared_node, vhost).count("closing AMQP connection") >= 1)
    # RabbitMQ says so when a client goes away without Connection.Close.
    assert "unexpectedly" not in said_of(shared_node, vhost)


def test_without_a_broker_it_ends_within_the_time_to_drain_and_says_what_is_gone(pubd: Pubd, nowhere: str) -> None:
    program = pubd("--url", nowhere, "--interval", "0.1", "--drain-timeout", "1")
    program.says("connection refused", "Published 0 messages")
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    program.says("waiting up to 1 s", "messages were held in memory and are gone")


def test_a_second_signal_ends_it_at_once(pubd: Pubd, nowhere: str) -> None:
    program = pubd("--url", nowhere, "--interval", "0.1", "--drain-timeout", "60")
    program.says("Published 0 messages")
    program.signal(signal.SIGTERM)
    program.says("waiting up to 60 s")
    program.signal(signal.SIGTERM)
    assert program.ends(2) == -signal.SIGTERM


def fill(pubd: Pubd, node: Node, drain_timeout: str) -> tuple[Program, str]:
    """5,000 deliveries written to a frozen broker."""
    url = node.url
    program = pubd(
        *("--url", url, "--queue", "many", "--message", "x", "--interval", "0.0001", "--count", "6000"),
        *("--window", "10000", "--drain-timeout", drain_timeout, "--transient"),
    )
    program.says("is open on channel")
    node.freeze()
    until(lambda: any(account["pending"] >= 5000 for account in accounts(program.output)), what=lambda: program.output)
    program.signal(signal.SIGTERM)
    program.says("waiting up to")
    return program, url


def test_5000_in_flight_are_drained(pubd: Pubd, own_node: Node) -> None:
    program, url = fill(pubd, own_node, "20")
    time.sleep(0.5)
    own_node.thaw()
    assert program.ends(25) == 0
    last = accounts(program.output)[-1]
    assert last["pending"] == last["held"] == last["lost"] == 0
    assert last["acked"] >= 5000
    assert waiting("many", url) == last["acked"]


def test_5000_in_flight_do_not_keep_it_from_a_second_signal(pubd: Pubd, own_node: Node) -> None:
    program, _ = fill(pubd, own_node, "60")
    program.signal(signal.SIGTERM)
    assert program.ends(2) == -signal.SIGTERM


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(pubd: Pubd, own_node: Node) -> None:
    program = pubd("--url", own_node.url, "--queue", "kept", "--interval", "0.02", "--persistent")
    program.says("acked")
    own_node.kill()
    program.says(f"connection to 127.0.0.1:{own_node.port} lost", "connection refused")
    own_node.start()
    until(lambda: len(program.lines("connected to")) == 2, 30, lambda: program.output)
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    last = accounts(program.output)[-1]
    assert last["held"] == 0
    assert last["published"] == last["acked"] + last["lost"]
    # Those that were lost in flight may be there twice.
    assert last["acked"] <= waiting("kept", own_node.url) <= last["published"]
    assert "Traceback" not in program.output


# What goes wrong before anything is published


def test_a_broker_that_is_not_there_is_a_sentence(pubd: Pubd, nowhere: str) -> None:
    program = pubd("--url", nowhere, "--drain-timeout", "0")
    program.says("connection refused")
    program.signal(signal.SIGINT)
    assert program.ends() == 0
    assert "Traceback" not in program.output
    assert "s3cret" not in program.output
    assert "retrying in" in program.lines("connection refused")[0]


def test_a_wrong_password_is_a_sentence_and_never_shown(pubd: Pubd, shared_node: Node) -> None:
    program = pubd("--url", shared_node.url.replace("guest@", "s3cret@"), "--drain-timeout", "0")
    program.says("ACCESS_REFUSED")
    program.signal(signal.SIGINT)
    assert program.ends() == 0
    assert "Traceback" not in program.output
    assert "s3cret" not in program.output
    (line,) = program.lines("ACCESS_REFUSED")
    assert "403" in line
    assert "correct the user name, password" in line


def test_a_usage_error_is_the_last_line(pubd: Pubd) -> None:
    program = pubd("--url", "amqp://bob:s3cret@host:notaport/")
    assert program.ends() == 1
    assert "--url: broker URL: port" in program.output.strip().splitlines()[-1]
    assert "s3cret" not in program.output


# Other ways to run it


def test_it_runs_as_a_daemon_with_log_file_and_pid_file(run: Run, url: str, tmp_path: Path) -> None:
    log, pid_file = tmp_path / "pubd.log", tmp_path / "pubd.pid"
    starter = run("twistd", f"--logfile={log}", f"--pidfile={pid_file}", "pubd", "--url", url, "--interval", "0.1")
    assert starter.ends() == 0
    until(lambda: pid_file.exists() and pid_file.read_text().strip())
    pid = int(pid_file.read_text())
    try:
        until(lambda: log.exists() and "acked" in log.read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
    text = log.read_text()
    assert not pid_file.exists()
    assert "every accepted message is settled" in text
    assert "guest:guest" not in text
    assert "Traceback" not in text


def test_a_daemon_that_shuts_itself_down_removes_its_pid_file(run: Run, url: str, tmp_path: Path) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        connection.channel().exchange_declare("message", "direct", durable=True)
    log, pid_file = tmp_path / "pubd.log", tmp_path / "pubd.pid"
    options = ["--url", url, "--on-channel-close=shutdown", "--drain-timeout=0"]
    assert run("twistd", f"--logfile={log}", f"--pidfile={pid_file}", "pubd", *options).ends() == 0
    until(lambda: log.exists() and "Server Shut Down" in log.read_text(), what=lambda: log.read_text())
    until(lambda: not pid_file.exists())


def test_it_runs_under_twist(run: Run, url: str) -> None:
    program = run("twist", "--log-format=text", "pubd", "--url", url, "--interval", "0.1", "--count", "2")
    assert program.ends() == 0
    assert accounts(program.output)[-1]["acked"] == 2


def test_signals_and_shutdown_work_under_twist(run: Run, url: str) -> None:
    options = ["--log-format=text", "pubd", "--url", url, "--interval", "0.1"]
    stopped, refused = (
        run("twist", *options),
        run("twist", *options, "--on-channel-close=shutdown", "--drain-timeout=0"),
    )
    stopped.says("acked")
    refused.says("acked")
    stopped.signal(signal.SIGTERM)
    assert stopped.ends() == 0
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        connection.channel().exchange_delete("message")
    assert refused.ends() == 1
