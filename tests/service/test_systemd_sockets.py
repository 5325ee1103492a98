"""Socket activation: the sockets are the service manager's, so that a restart refuses nobody.

The launcher here does what systemd does: it keeps the listening sockets, and gives each new process copies of them.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Run
from tests.service.listening import NotifyManager, activated, notify_manager
from tests.service.process import BIN, PATIENCE, Program

ROOT = Path(__file__).parents[2]

TEXT = """\
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///pubd.db"
[delivery]
drain_timeout = 0
[http]
listen = ["systemd:domain=UNIX:name=http", "systemd:domain=INET:name=http-tcp"]
[lines]
listen = ["systemd:domain=UNIX:name=lines"]
"""
GOOD = b'{"exchange":"orders","routing_key":"x","body":"x","idempotency_key":"%d"}'


class Launcher:
    """Keeps three listening sockets, and starts pubd on them as often as it is told to."""

    def __init__(self, directory: Path, url: str, manager: NotifyManager) -> None:
        self._directory = directory
        self._manager = manager
        self.http, self.lines = str(directory / "http.sock"), str(directory / "lines.sock")
        # Not in the order in which the configuration names them.
        self.sockets = {"lines": self._listening(self.lines), "http": self._listening(self.http)}
        self.sockets["http-tcp"] = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.sockets["http-tcp"].getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        (directory / "pubd.toml").write_text(TEXT.format(url=url))

    def _listening(self, path: str) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(path)
        listening.listen(512)
        return listening

    def start(self) -> None:
        """Fires up pubd, and waits until it says that it is ready."""
        program = str(BIN / "twistd")
        self._manager.datagrams.clear()
        with (self._directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                activated(self.sockets, program, "-n", "--pidfile=", "pubd", "--config", "pubd.toml"),
                cwd=self._directory,
                env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": self._manager.address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[each.fileno() for each in self.sockets.values()],
            )
        self._manager.awaits("READY")

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        for each in self.sockets.values():
            each.close()


@pytest.fixture
def launcher(tmp_path: Path, nowhere: str) -> Iterator[Launcher]:
    with notify_manager(tmp_path) as manager:
        made = Launcher(tmp_path, nowhere, manager)
        yield made
        made.close()


def over_lines(connect: Callable[[], socket.socket], number: int) -> bytes:
    with connect() as client:
        client.sendall(GOOD % number + b"\n")
        return client.makefile("rb").readline()


def over_http(connect: Callable[[], socket.socket], number: int) -> bytes:
    body = GOOD % number
    with connect() as client:
        client.sendall(
            b"POST /messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = client.makefile("rb").read()
    return answer.partition(b"\r\n\r\n")[2] if b" 202 " in answer[:20] else b""


class Client(threading.Thread):
    """Hands in messages over new connections; an answer that does not come is asked for again, with the same key."""

    def __init__(self, connect: Callable[[], socket.socket], send: Callable[..., bytes], first: int) -> None:
        super().__init__(daemon=True)
        self._connect, self._send, self._number = connect, send, first
        self.refused: list[OSError] = []
        self.ids: set[str] = set()
        self.unanswered = 0
        self.ending = False

    def run(self) -> None:
        while not self.ending:
            try:
                answer = json.loads(self._send(self._connected, self._number) or b"{}")
            except (ConnectionResetError, BrokenPipeError):
                answer = {}
            if "id" in answer:
                self.ids.add(answer["id"])
                self._number += 1
            else:
                self.unanswered += 1
            time.sleep(0.005)

    def _connected(self) -> socket.socket:
        while True:
            try:
                return self._connect()
            except OSError as error:
                self.refused.append(error)
                time.sleep(0.01)


def unix(path: str) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(PATIENCE)
        try:
            made.connect(path)
        except BaseException:
            made.close()
            raise
        return made

    return connect


def test_no_connection_is_refused_across_restarts_and_nothing_is_lost(launcher: Launcher, run: Run) -> None:
    launcher.start()
    clients = [
        Client(unix(launcher.lines), over_lines, 0),
        Client(unix(launcher.http), over_http, 1_000_000),
        Client(lambda: socket.create_connection(("127.0.0.1", launcher.port), PATIENCE), over_http, 2_000_000),
    ]
    for client in clients:
        client.start()
    for _ in range(3):
        time.sleep(0.5)
        assert launcher.stop() == 0
        # Nobody is there for a while: whoever connects waits.
        time.sleep(0.2)
        launcher.start()
    time.sleep(0.5)
    for client in clients:
        client.ending = True
    for client in clients:
        client.join(PATIENCE)
        assert not client.is_alive()
        assert client.refused == []
        assert len(client.ids) > 10
    assert launcher.stop() == 0
    ids = [id for client in clients for id in client.ids]
    assert len(ids) == len(set(ids))
    verified = run("pubd", "verify", "pubd.db")
    assert verified.ends() == 0
    assert f"{len(ids)} held" in verified.output


def test_who_connects_before_it_was_ever_started_is_served(launcher: Launcher) -> None:
    with unix(launcher.lines)() as early:
        early.sendall(GOOD % 1 + b"\n")
        launcher.start()
        assert json.loads(early.makefile("rb").readline())["state"] == "stored"
    assert launcher.stop() == 0


def test_the_files_of_the_sockets_stay(launcher: Launcher) -> None:
    launcher.start()
    assert launcher.stop() == 0
    assert Path(launcher.http).is_socket()
    assert Path(launcher.lines).is_socket()


def test_without_the_socket_it_says_which_and_how(run: Run, tmp_path: Path, nowhere: str) -> None:
    (tmp_path / "pubd.toml").write_text(TEXT.format(url=nowhere))
    program: Program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
    assert program.ends() == 1
    program.says("systemd passed no such socket; start pubd by its socket unit")
    assert "Traceback" not in program.output
