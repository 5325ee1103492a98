"""`twistd pubd` tells a notify socket, which is a real one, what systemd wants to know.

systemd itself is not needed: it is a datagram socket and some variables in the environment.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pika
import pytest

from tests.rabbitmq import Node
from tests.service.conftest import Run
from tests.service.hanging import hanging, threads
from tests.service.listening import NotifyManager, notify_manager
from tests.service.process import Program

Daemon = Callable[..., Program]

TEXT = """\
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///pubd.db"
[delivery]
drain_timeout = 3
"""
SCHEDULE = """\
[[schedule]]
name = "often"
every = 0.05
exchange = "message"
routing_key = "x"
body = "x"
"""


#: Two seconds after the start the reactor has one call that keeps it busy; a datagram goes out before and after it.
BUSY = """\
import os, socket, sys
if os.environ.get("BUSY") and sys.argv[0].endswith("twistd"):
    import time
    def tell(word):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(f"X_BUSY={word}".encode(), os.environ["NOTIFY_SOCKET"])
    def busy():
        tell("begins")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            pass
        tell("ends")
    def later():
        from twisted.internet import reactor
        reactor.callLater(2, busy)
    import threading
    def when_there():
        while "pubd.operate.systemd" not in sys.modules:
            time.sleep(0.05)
        from twisted.internet import reactor
        reactor.callFromThread(later)
    threading.Thread(target=when_there, daemon=True).start()
"""


@pytest.fixture
def daemon(run: Run, tmp_path: Path) -> Daemon:
    def start(text: str, manager: NotifyManager, **environment: str) -> Program:
        (tmp_path / "pubd.toml").write_text(text)
        command = ("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
        return run(*command, NOTIFY_SOCKET=manager.address, **environment)

    return start


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_status_watchdog_and_stopping_in_their_order(
    daemon: Daemon, url: str, tmp_path: Path, abstract: bool
) -> None:
    with notify_manager(tmp_path, abstract=abstract) as manager:
        program = daemon(TEXT.format(url=url), manager, WATCHDOG_USEC="1500000")
        host = url.partition("@")[2].partition("/")[0]
        assert manager.awaits("STATUS", "connected to") == f"connected to {host}; nothing waits"
        manager.receive(2.0)
        fed = [at for at, each in zip(manager.times, manager.datagrams, strict=True) if "WATCHDOG" in each]
        assert len(fed) >= 4
        assert max(later - earlier for earlier, later in itertools.pairwise(fed)) < 1.5
        assert manager.order[:4] == ["STATUS", "READY", "WATCHDOG", "STATUS"]
        assert manager.datagrams[0] == {"STATUS": "opening the spool"}
        program.signal(signal.SIGTERM)
        assert program.ends() == 0
        manager.receive()
        last = manager.datagrams[-1]
        assert last["STOPPING"] == "1"
        assert int(last["EXTEND_TIMEOUT_USEC"]) >= 3_000_000
        assert last["STATUS"].startswith("stopping; ")
        assert sum("READY" in each for each in manager.datagrams) == 1


def test_it_is_ready_without_a_broker_since_it_can_accept(daemon: Daemon, nowhere: str, tmp_path: Path) -> None:
    with notify_manager(tmp_path) as manager:
        program = daemon(TEXT.format(url=nowhere) + SCHEDULE, manager)
        manager.awaits("READY")
        status = manager.awaits("STATUS", "refused by 127.0.0.1")
        assert status.startswith("cannot connect: connection refused by 127.0.0.1")
        manager.awaits("STATUS", " ready, oldest ")
        # No watchdog was asked for.
        assert not any("WATCHDOG" in each for each in manager.datagrams)
        program.signal(signal.SIGTERM)
        assert program.ends() == 0
        assert "s3cret" not in str(manager.datagrams)


def test_what_rabbitmq_refuses_is_in_the_status(daemon: Daemon, url: str, tmp_path: Path) -> None:
    with notify_manager(tmp_path) as manager:
        program = daemon(TEXT.format(url=url) + SCHEDULE.replace('"message"', '"absent"'), manager)
        status = manager.awaits("STATUS", "exchange 'absent' REFUSED: 404 NOT_FOUND")
        assert status.startswith("connected to ")
        program.signal(signal.SIGTERM)
        assert program.ends() == 0


def test_a_blocked_connection_is_in_the_status(daemon: Daemon, own_node: Node, tmp_path: Path) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(own_node.url))) as connection:
        connection.channel().exchange_declare("message", "fanout")
    with notify_manager(tmp_path) as manager:
        own_node.set_memory_alarm(True)
        program = daemon(TEXT.format(url=own_node.url) + SCHEDULE, manager)
        status = manager.awaits("STATUS", "BLOCKED by broker")
        assert "low on memory; " in status
        own_node.set_memory_alarm(False)
        manager.datagrams.clear()
        manager.awaits("STATUS", "connected to ")
        program.signal(signal.SIGTERM)
        assert program.ends() == 0


def test_a_daemon_that_cannot_listen_is_never_ready(daemon: Daemon, nowhere: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no socket")
    with notify_manager(tmp_path) as manager:
        program = daemon(TEXT.format(url=nowhere) + f'[lines]\nlisten = ["unix:{tmp_path}/taken"]\n', manager)
        assert program.ends() == 1
        manager.receive()
        assert not any("READY" in each for each in manager.datagrams)


def test_a_spool_that_cannot_be_opened_is_never_ready(daemon: Daemon, nowhere: str, tmp_path: Path) -> None:
    (tmp_path / "pubd.db").write_text("no spool" * 1000)
    with notify_manager(tmp_path) as manager:
        program = daemon(TEXT.format(url=nowhere), manager)
        assert program.ends() == 1
        manager.receive()
        assert not any("READY" in each for each in manager.datagrams)


def test_a_spool_that_hangs_starves_the_watchdog_and_is_said_until_it_goes_on(
    daemon: Daemon, nowhere: str, tmp_path: Path
) -> None:
    with notify_manager(tmp_path) as manager:
        program = daemon(TEXT.format(url=nowhere), manager, WATCHDOG_USEC="1500000")
        manager.awaits("WATCHDOG")
        manager.awaits("STATUS", "cannot connect")
        _, *others = threads(program.pid)
        assert others
        with hanging(*others):
            manager.awaits("STATUS", "the spool has not answered for ")
            manager.datagrams.clear()
            # Twice what systemd allows: the reactor goes on and would feed it.
            manager.receive(3.0)
            assert [each for each in manager.datagrams if "WATCHDOG" in each] == []
            assert manager.datagrams
        manager.awaits("WATCHDOG")
        manager.awaits("STATUS", "cannot connect")
        program.says("the spool has not answered for", "the spool answers again")
        program.signal(signal.SIGTERM)
        assert program.ends() == 0


def test_a_reactor_that_hangs_starves_the_watchdog_until_it_goes_on(
    daemon: Daemon, nowhere: str, tmp_path: Path
) -> None:
    with notify_manager(tmp_path) as manager:
        program = daemon(TEXT.format(url=nowhere), manager, WATCHDOG_USEC="1500000")
        manager.awaits("WATCHDOG")
        reactor, *_ = threads(program.pid)
        with hanging(reactor):
            # What it told before.
            manager.receive()
            manager.datagrams.clear()
            manager.receive(3.0)
            assert manager.datagrams == []
        manager.awaits("WATCHDOG")
        program.signal(signal.SIGTERM)
        assert program.ends() == 0


def test_a_reactor_that_is_busy_starves_the_watchdog(daemon: Daemon, nowhere: str, tmp_path: Path) -> None:
    """One call that takes three seconds of CPU: no other thread may feed the watchdog meanwhile."""
    (tmp_path / "sitecustomize.py").write_text(BUSY)
    root = Path(__file__).parents[2]
    with notify_manager(tmp_path) as manager:
        program = daemon(
            TEXT.format(url=nowhere), manager, WATCHDOG_USEC="600000", PYTHONPATH=f"{tmp_path}:{root}", BUSY="1"
        )
        manager.awaits("X_BUSY", "begins")
        manager.awaits("X_BUSY", "ends")
        told = [next(iter(each)) for each in manager.datagrams]
        meanwhile = told[told.index("X_BUSY") + 1 :]
        assert meanwhile[: meanwhile.index("X_BUSY")] == []
        manager.datagrams.clear()
        manager.awaits("WATCHDOG")
        program.signal(signal.SIGTERM)
        assert program.ends() == 0


def test_another_processs_watchdog_is_not_fed(daemon: Daemon, nowhere: str, tmp_path: Path) -> None:
    with notify_manager(tmp_path) as manager:
        program = daemon(TEXT.format(url=nowhere), manager, WATCHDOG_USEC="300000", WATCHDOG_PID="1")
        manager.awaits("STATUS", "cannot connect")
        manager.receive(0.5)
        assert not any("WATCHDOG" in each for each in manager.datagrams)
        program.signal(signal.SIGTERM)
        assert program.ends() == 0


def test_a_notify_socket_that_nobody_reads_does_not_stop_it(run: Run, nowhere: str, tmp_path: Path) -> None:
    (tmp_path / "pubd.toml").write_text(TEXT.format(url=nowhere))
    program = run(
        *("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"),
        NOTIFY_SOCKET=str(tmp_path / "nobody"),
        WATCHDOG_USEC="300000",
    )
    program.says("systemd cannot be told STATUS", "connection refused")
    assert len(program.lines("cannot be told")) == 1
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
