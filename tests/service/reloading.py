"""`twistd pubd` with a configuration that changes, and clients that stay connected."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.rabbitmq import free_ports
from tests.service.process import BIN, PATIENCE, Program, until

TEXT = """\
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///pubd.db"
[delivery]
drain_timeout = 3
[http]
listen = ["tcp:{port}:interface=127.0.0.1"]
"""
JSON = {"Content-Type": "application/json"}


class Http:
    """One connection that is kept."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._connection: http.client.HTTPConnection
        if context is not None:
            self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
        else:
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.auto_open = 0
        try:
            self._connection.connect()
        except BaseException:
            self._connection.close()
            raise

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        """Status, and the JSON of the answer; raises where the connection is closed."""
        headers = dict(JSON if body is not None else {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None

    def send(self, exchange: str, key: str, body: str = "x", token: str | None = None) -> tuple[int, Any]:
        return self.ask("POST", "/messages", {"exchange": exchange, "routing_key": key, "body": body}, token)

    @property
    def open(self) -> bool:
        """Whether pubd keeps it."""
        sock = self._connection.sock
        if sock is None:
            return False
        sock.setblocking(False)
        try:
            return sock.recv(1, socket.MSG_PEEK) != b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        finally:
            sock.settimeout(PATIENCE)

    @property
    def certificate(self) -> bytes | None:
        """What the other end showed."""
        sock = self._connection.sock
        assert isinstance(sock, ssl.SSLSocket)
        return sock.getpeercert(binary_form=True)

    def close(self) -> None:
        self._connection.close()


class Lines:
    """One connection of the lines intake."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._answers = self._socket.makefile("rb")

    def say(self, value: Any) -> Any:
        """The answer to a line; None: there is none, the connection is closed."""
        try:
            self._socket.sendall(json.dumps(value).encode() + b"\n")
        except OSError:
            return None
        return self.hear()

    def hear(self) -> Any:
        """The next answer."""
        try:
            line = self._answers.readline()
        except OSError:
            return None
        return json.loads(line) if line else None

    def send(self, exchange: str, key: str, body: str = "x") -> Any:
        return self.say({"exchange": exchange, "routing_key": key, "body": body})

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


class Reloading:
    """``pubd.toml`` in ``directory``, and the pubd that was started with it by ``run``."""

    def __init__(self, directory: Path, run: Callable[..., Program], text: str, **environment: str) -> None:
        self.directory = directory
        self._clients: list[Http | Lines] = []
        (self.port,) = free_ports(1) if "{port}" in text else (0,)
        self.write(text)
        self.program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml", **environment)

    def write(self, text: str) -> None:
        (self.directory / "pubd.toml").write_text(text.replace("{port}", str(getattr(self, "port", 0))))

    def http(self, port: int | None = None, context: ssl.SSLContext | None = None) -> Http:
        """A new connection, kept open until the end of the test."""
        self._clients.append(Http(port or self.port, context))
        return self._clients[-1]  # type: ignore[return-value]  # it is

    def lines(self, name: str) -> Lines:
        """The same to a unix socket in the directory."""
        self._clients.append(Lines(self.directory / name))
        return self._clients[-1]  # type: ignore[return-value]  # it is

    def close(self) -> None:
        """All of them."""
        for client in self._clients:
            client.close()

    def ready(self) -> Reloading:
        """Once it answers."""
        self.program.says("listening on tcp:")
        until(lambda: self.status["link"]["state"] == "ready", what=lambda: self.program.output)
        return self

    @property
    def status(self) -> Any:
        connection = Http(self.port)
        try:
            return connection.ask("GET", "/status")[1]
        finally:
            connection.close()

    def reload(self, text: str | None = None, port: int | None = None) -> tuple[int, Any]:
        """Write the text and ask for a reload: status and answer."""
        if text is not None:
            self.write(text)
        connection = Http(port or self.port)
        try:
            return connection.ask("POST", "/reload")
        finally:
            connection.close()

    def command(self, *options: str) -> tuple[int, str, str]:
        """`pubd reload`: exit code, stdout, stderr."""
        done = subprocess.run(
            [BIN / "pubd", "reload", "--server", f"http://127.0.0.1:{self.port}", *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.directory,
        )
        return done.returncode, done.stdout, done.stderr
