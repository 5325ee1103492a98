"""The ground that integration tests stand on: private nodes do what their methods say, and strictness is strict."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingConnection

from tests.certs import Certificates
from tests.conftest import Drained
from tests.rabbitmq import Node, NodeFailed, children

pytest_plugins = ("pytester",)

RABBITMQ_PY = Path(__file__).with_name("rabbitmq.py")


@contextlib.contextmanager
def connected(url: str) -> Iterator[BlockingConnection]:
    connection = BlockingConnection(pika.URLParameters(url))
    try:
        yield connection
    finally:
        if connection.is_open:
            connection.close()


def publish(url: str, queue: str, *bodies: bytes) -> None:
    """Persistent, confirmed, to a durable queue."""
    with connected(url) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, message_id="m"))


def family(directory: Path) -> list[int]:
    """Every living process whose command line or environment names the directory."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and int(name) != os.getpid():
                known = Path(f"/proc/{name}/cmdline").read_bytes() + Path(f"/proc/{name}/environ").read_bytes()
                if str(directory).encode() in known:
                    found.append(int(name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


Drain = Callable[..., list[Drained]]
Unique = Callable[..., str]


# The shared node


def test_what_is_published_can_be_drained_with_its_properties(broker_url: str, unique: Unique, drain: Drain) -> None:
    queue = unique("queue")
    publish(broker_url, queue, b"one", b"two", b"three")
    assert [d.body for d in drain(queue, count=2)] == [b"one", b"two"]
    (last,) = drain(queue)
    assert (last.body, last.properties.message_id, last.routing_key) == (b"three", "m", queue)
    assert drain(queue) == []
    assert drain(queue, count=1, timeout=0.1) == []


def test_a_virtual_host_of_its_own_is_separate(shared_node: Node, vhost: str) -> None:
    url = shared_node.url.removesuffix("%2F") + vhost
    publish(url, "q", b"x")
    assert shared_node.list_queues(vhost) == {"q": 1}
    assert "q" not in shared_node.list_queues()


def test_a_new_user_may_do_what_the_permissions_say(shared_node: Node, vhost: str, unique: Unique) -> None:
    user = unique("user")
    shared_node.add_user(user, "secret")
    shared_node.set_permissions(user, vhost, configure="^$")
    url = f"amqp://{user}:secret@{shared_node.host}:{shared_node.port}/{vhost}"
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="403"):
        publish(url, "q", b"x")


def test_rabbitmqctl_reaches_the_node_without_an_epmd(shared_node: Node) -> None:
    assert "guest" in shared_node.ctl("list_users")


def test_an_error_in_the_node_is_told(shared_node: Node) -> None:
    with pytest.raises(NodeFailed, match="no_such_function"):
        shared_node.eval_erl("rabbit:no_such_function()")


def test_everything_listens_on_loopback_only(shared_node: Node) -> None:
    inodes = set()
    for descriptor in Path(f"/proc/{shared_node.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{shared_node.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.append(fields[1].split(":")[0])
    assert len(addresses) == 2  # AMQP and Erlang's distribution
    assert set(addresses) == {"0100007F"}


def test_control_can_be_used_in_a_loop(shared_node: Node) -> None:
    for _ in range(10):
        shared_node.close_all_connections()


# A node of one's own


def test_kill_and_start_keep_a_durable_queue_and_the_port(own_node: Node, unique: Unique, drain: Drain) -> None:
    queue, url, pid = unique("queue"), own_node.url, own_node.pid
    publish(url, queue, b"kept")
    own_node.kill()
    assert not own_node.is_running
    assert not family(own_node.directory)
    with pytest.raises(NodeFailed, match="not running"):
        own_node.list_queues()
    own_node.start()
    assert own_node.url == url
    assert own_node.pid != pid
    assert [d.body for d in drain(queue, url)] == [b"kept"]


def test_a_frozen_node_keeps_connections_and_answers_after_thaw(own_node: Node) -> None:
    own_node.freeze()
    with socket.create_connection((own_node.host, own_node.port), 2) as peer:
        peer.sendall(b"AMQP\x00\x00\x09\x01")
        peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        own_node.thaw()
        peer.settimeout(10)
        assert peer.recv(1) == b"\x01"


def test_a_frozen_node_can_be_ended(own_node: Node) -> None:
    own_node.freeze()
    own_node.stop()
    assert not family(own_node.directory)


def test_a_memory_alarm_blocks_publishers_until_it_is_taken_back(own_node: Node, unique: Unique) -> None:
    seen: list[str] = []
    own_node.set_memory_alarm(True)
    with connected(own_node.url) as connection:
        connection.add_on_connection_blocked_callback(lambda *_: seen.append("blocked"))
        connection.add_on_connection_unblocked_callback(lambda *_: seen.append("unblocked"))
        channel = connection.channel()
        channel.queue_declare(queue := unique("queue"))
        channel.basic_publish("", queue, b"x")
        wait_for(lambda: connection.process_data_events(0.05) or seen == ["blocked"])
        own_node.set_memory_alarm(False)
        wait_for(lambda: connection.process_data_events(0.05) or seen == ["blocked", "unblocked"])


def test_close_all_connections_gives_clients_the_reason(own_node: Node) -> None:
    with connected(own_node.url) as connection:
        assert [c["user"] for c in own_node.connections()] == ["guest"]
        own_node.close_all_connections("Wartung für alle")
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match=r"320.*Wartung für alle"):
            connection.process_data_events(5)


def test_a_directory_serves_one_node_at_a_time(own_node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.rabbitmq.LOCK_PATIENCE", 0.1)
    with pytest.raises(NodeFailed, match="another node is running under"):
        Node(own_node.directory).start()


def test_a_node_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path, config=["no_such_option = 1"])
    with pytest.raises(NodeFailed, match="no_such_option"):
        node.start()
    assert not family(tmp_path)


# TLS


def test_the_tls_node_shows_its_certificate_and_takes_a_clients(tls_node: Node, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    context.load_cert_chain(certificates.client.cert, certificates.client.key)
    parameters = pika.ConnectionParameters(
        "localhost",
        tls_node.tls_port,
        credentials=pika.credentials.ExternalCredentials(),
        ssl_options=pika.SSLOptions(context, "localhost"),
    )
    connection = BlockingConnection(parameters)
    try:
        assert [c["user"] for c in tls_node.connections()] == ["guest"]
    finally:
        connection.close()


# The command line


@pytest.fixture(autouse=True)
def sigint_is_not_ignored() -> None:
    """A shell without job control has its background jobs ignore SIGINT, and whatever they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def cli(directory: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(RABBITMQ_PY), "run", "--dir", str(directory), "--", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


COUNTING = """
import signal, sys, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append("int"))
print("up", flush=True)
deadline = time.monotonic() + 30
while not seen and time.monotonic() < deadline:
    time.sleep(0.02)
time.sleep(0.5)
print("signals", seen, flush=True)
sys.exit(7)
"""


def test_run_gives_the_url_to_the_command_and_takes_its_exit_code(tmp_path: Path) -> None:
    with cli(tmp_path, "sh", "-c", "echo url $PUBD_BROKER_URL; exit 3") as process:
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 3
    assert f"starting a private RabbitMQ node under {tmp_path}" in said
    assert "url amqp://guest:guest@127.0.0.1:" in said
    assert not family(tmp_path)


@pytest.mark.parametrize("whole_group", [False, True], ids=["to the runner", "to the group as from a terminal"])
def test_run_hands_one_sigint_to_the_command_exactly_once(tmp_path: Path, whole_group: bool) -> None:
    with cli(tmp_path, sys.executable, "-c", COUNTING) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line == "up\n" for line in lines)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert "signals ['int']" in said
    assert process.returncode == 7
    assert not family(tmp_path)


def test_run_interrupted_while_the_node_starts_leaves_nothing(tmp_path: Path) -> None:
    with cli(tmp_path, "true") as process:
        wait_for(lambda: len(family(tmp_path / "mnesia")) >= 2)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert not family(tmp_path / "mnesia")


def test_nothing_survives_a_runner_killed_with_9_and_the_directory_is_good_again(tmp_path: Path) -> None:
    with cli(tmp_path, "sleep", "60") as process:
        assert process.stdout is not None
        assert any("is ready at" in line for line in iter(process.stdout.readline, ""))
        wait_for(lambda: list(children(process.pid)))
        process.kill()
        process.communicate(timeout=30)
    wait_for(lambda: not family(tmp_path))
    with cli(tmp_path, "true") as process:
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said


# Strictness

PLAIN = "from twisted.internet import defer, reactor, task\nfrom twisted.logger import Logger\nimport subprocess\n"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("defer.fail(ValueError('dropped'))", "dropped"),
        ("reactor.callLater(60, print)", "timer: <DelayedCall"),
        ("reactor.listenTCP(0, __import__('twisted.internet.protocol').internet.protocol.Factory())", "in the reactor"),
        ("Logger().failure('broken', __import__('twisted').python.failure.Failure(KeyError('k')))", "logged: broken"),
        ("Logger().critical('the end of {what}', what='it')", "the end of it"),
        ("global p; p = subprocess.Popen(['sleep', '3'])", "child process"),
    ],
)
def test_a_test_that_leaves_something_behind_fails(pytester: pytest.Pytester, body: str, complaint: str) -> None:
    result = run_inner(pytester, f"import twisted.python.failure\ndef test_it():\n    {body}\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*the test left behind:*", f"*{complaint}*"])


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "defer.fail(ValueError('expected')); assert len(logged.flush(ValueError)) == 1",
        "Logger().info('hello {who}', who='you'); assert logged.texts == ['hello you']",
        "reactor.callLater(0.1, print)",
        "defer.fail(ValueError('handled')).addErrback(lambda f: None)",
    ],
)
def test_a_tidy_test_passes(pytester: pytest.Pytester, body: str) -> None:
    result = run_inner(pytester, f"def test_it(logged):\n    {body}\n")
    assert result.ret == pytest.ExitCode.OK


def test_flush_of_another_type_leaves_the_failure(pytester: pytest.Pytester) -> None:
    result = run_inner(pytester, "def test_it(logged):\n    defer.fail(ValueError('x')); logged.flush(KeyError)\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def run_inner(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    pytester.makeconftest("pytest_plugins = ['tests.strictness']")
    pytester.makepyfile(PLAIN + test)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    """`tests` can be imported in sub-runs."""
    monkeypatch.setenv("PYTHONPATH", str(repository))
