"""A daemon's ``POST /messages`` with a script: how it fails is written down, what it stored can be looked at.

What it answers when it is well is compared with the real one (tests/service/test_send_contract.py).
"""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import attrs


class Fault(Enum):
    """What happens to one request in place of a good answer."""

    DROP_BEFORE = "hangs up, nothing is stored"
    DROP_AFTER = "stores, and hangs up"
    CUT = "stores, and hangs up in the middle of the answer"
    HANG = "stores, and never answers"
    NONSENSE = "answers with something else than HTTP"
    EMPTY = "answers 200 with nothing in it"
    CLOSE = "stores, answers, and closes the connection without a word about it"
    EARLY = "says 413 and hangs up before it has read the body"


@attrs.frozen(kw_only=True)
class Refuse:
    """Answers with this status and problem."""

    status: int
    problem: dict[str, Any] = attrs.Factory(dict)
    headers: dict[str, str] = attrs.Factory(dict)


@attrs.frozen
class EachLine:
    """Answers these for the first lines, in order, and stores where it is None; then the answer ends."""

    answers: Sequence[dict[str, Any] | None]


Step = Fault | Refuse | EachLine | None


class ScriptedDaemon:
    """Stores messages by their idempotency key. Each request takes a step of ``script``, while there are any."""

    def __init__(self, script: Sequence[Step] = ()) -> None:
        self.script = list(script)
        self.stored: list[dict[str, Any]] = []
        self.ids: dict[str, str] = {}
        self.requests: list[tuple[str, list[bytes]]] = []
        """Path with query, and the lines."""
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.delay = 0.0
        self.max_body = 1 << 30
        self.released = threading.Event()
        """Set: who hangs may go."""

    def store(self, message: dict[str, Any]) -> str:
        key = message["idempotency_key"]
        if key not in self.ids:
            self.ids[key] = f"id-{len(self.ids) + 1}"
            self.stored.append(message)
        return self.ids[key]

    def answer(self, line: bytes, *, wait: bool) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except ValueError:
            return {"error": {"type": "malformed", "detail": "is no JSON"}}
        if not isinstance(message.get("exchange"), str):
            return {"error": {"type": "invalid-message", "detail": "is missing", "field": "exchange"}}
        id = self.store(message)
        if wait and message["exchange"] == "nowhere":
            return {"error": {"type": "returned", "detail": "no queue got it", "id": id}}
        if wait and message["exchange"] == "slow":
            return {"id": id, "state": "stored"}
        return {"id": id, "state": "confirmed" if wait else "stored"}


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = False

    def setup(self) -> None:
        super().setup()
        self.daemon.connections += 1

    @property
    def daemon(self) -> ScriptedDaemon:
        return cast("_Server", self.server).scripted

    def log_message(self, format: str, *arguments: Any) -> None:
        """Not on stderr."""

    def do_POST(self) -> None:
        daemon = self.daemon
        size = int(self.headers["Content-Length"])
        step = daemon.script.pop(0) if daemon.script else None
        if step is Fault.EARLY:
            self._say(413, {"type": "too-large", "detail": "the body is too large"})
            self.close_connection = True
            return
        lines = self.rfile.read(size).splitlines()
        daemon.requests.append((self.path, lines))
        daemon.headers.append(dict(self.headers))
        if size > daemon.max_body:
            self._say(413, {"type": "too-large", "detail": f"the body is over the limit of {daemon.max_body} bytes"})
            return
        if isinstance(step, Refuse):
            self._say(step.status, step.problem, **step.headers)
            return
        if step is Fault.DROP_BEFORE:
            self.close_connection = True
            return
        time.sleep(daemon.delay)
        wait = "wait=confirmed" in self.path
        given = step.answers if isinstance(step, EachLine) else [None] * len(lines)
        answers = [
            one if one is not None else daemon.answer(line, wait=wait) for one, line in zip(given, lines, strict=False)
        ]
        self._result(step, "".join(json.dumps(each) + "\n" for each in answers).encode())

    def _result(self, step: Step, body: bytes) -> None:
        if step is Fault.NONSENSE:
            self.wfile.write(b"220 mail.example ESMTP\r\n")
        elif step is Fault.HANG:
            self.daemon.released.wait(60)
        elif step is not Fault.DROP_AFTER:
            body = b"" if step is Fault.EMPTY else body
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if step is Fault.CUT else body)
        if isinstance(step, Fault) and step is not Fault.EMPTY:
            self.close_connection = True

    def _say(self, status: int, problem: dict[str, Any], **headers: str) -> None:
        body = json.dumps(problem).encode() if problem else b"<html>no</html>"
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if problem else "text/html")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(socketserver.ThreadingMixIn):
    scripted: ScriptedDaemon
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client may hang up at any time."""


class _UnixServer(_Server, socketserver.UnixStreamServer):
    pass


class _TlsServer(_Server, socketserver.TCPServer):
    allow_reuse_address = True
    context: ssl.SSLContext

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        connection, address = super().get_request()
        # The handshake is made by the connection's own thread, at its first read.
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address


@contextmanager
def listening(daemon: ScriptedDaemon, path: Path) -> Iterator[str]:
    """The daemon's URL, while it listens on a socket at ``path``."""
    with _served(_UnixServer(str(path), _Requests), daemon):
        yield f"unix:{path}"
    path.unlink(missing_ok=True)


@contextmanager
def listening_tls(daemon: ScriptedDaemon, context: ssl.SSLContext) -> Iterator[int]:
    """The port on loopback, while the daemon listens there with TLS."""
    server = _TlsServer(("127.0.0.1", 0), _Requests)
    server.context = context
    with _served(server, daemon):
        yield server.server_address[1]


@contextmanager
def _served(server: _UnixServer | _TlsServer, daemon: ScriptedDaemon) -> Iterator[None]:
    server.scripted = daemon
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield
    finally:
        daemon.released.set()
        server.shutdown()
        thread.join()
        # The threads of connections end with their clients, who are gone by now.
        server.server_close()
