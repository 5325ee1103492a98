"""The other end of an intake, as cheap as Python can be: sockets, epoll, requests that were made before.

``Closed`` keeps so many requests unanswered and sends the next one when one is answered; ``Open`` sends them when they
are due, whatever the server does. Both raise ClientFailed for anything but the answer that is expected.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections import deque
from typing import Protocol

import attrs

#: Seconds without any answer until a run is given up.
PATIENCE = 30.0
_READ = 256 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class ClientFailed(Exception):
    """The server did not answer as it must."""


@attrs.frozen
class Request:
    """Bytes to send for ``messages`` messages, and what each of their answers has in it."""

    data: bytes
    messages: int
    expected: bytes


class Answers(Protocol):
    """Takes the answers of one connection apart."""

    def feed(self, data: bytes, request: Request) -> int:
        """How many requests were answered by that; all of them are like ``request``."""


class HttpAnswers:
    """Of a connection that sends the next request when the one before is answered."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes, request: Request) -> int:
        """See :class:`Answers`."""
        data = self._data = self._data + data if self._data else data
        head = data.find(b"\r\n\r\n") + 4
        if head < 4:
            return 0
        if (length := _LENGTH.search(data, 0, head)) is not None:
            whole = len(data) - head >= int(length[1])
        elif _CHUNKED.search(data, 0, head) is not None:
            whole = data.endswith(_LAST_CHUNK)
        else:
            raise ClientFailed(f"an answer of unknown length: {data[:500]!r}")
        if not whole:
            return 0
        self._data = b""
        if data[9:10] != b"2" or data.count(request.expected) != request.messages:
            raise ClientFailed(f"not {request.messages} times {request.expected!r} but {data[:500]!r}")
        return 1


class LineAnswers:
    """One line for each message."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines = 0

    def feed(self, data: bytes, request: Request) -> int:
        """See :class:`Answers`."""
        whole, end, self._rest = (self._rest + data).rpartition(b"\n")
        if not end:
            return 0
        lines = whole.count(b"\n") + 1
        if whole.count(request.expected) != lines:
            raise ClientFailed(f"not {lines} times {request.expected!r} but {whole[:500]!r}")
        answered, self._lines = divmod(self._lines + lines, request.messages)
        return answered


class Connection:
    """A non-blocking connection to a Unix socket."""

    def __init__(self, path: str, answers: Answers) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._socket.setblocking(False)
        self._answers = answers
        self._unsent: deque[memoryview] = deque()

    def fileno(self) -> int:
        """As select wants it."""
        return self._socket.fileno()

    def send(self, data: bytes) -> bool:
        """False: not all could be written; go on with ``flush`` when it is writable."""
        self._unsent.append(memoryview(data))
        return len(self._unsent) == 1 and self.flush()

    def flush(self) -> bool:
        """Write what is left: True when nothing is."""
        try:
            while self._unsent:
                part = self._unsent[0]
                sent = self._socket.send(part)
                if sent < len(part):
                    self._unsent[0] = part[sent:]
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            return False
        return True

    def answered(self, request: Request) -> int:
        """Read: how many requests were answered."""
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return 0
        if not data:
            raise ClientFailed("the server closed a connection")
        return self._answers.feed(data, request)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class Closed:
    """``depth`` requests unanswered on each connection, at any time."""

    def __init__(self, connections: list[Connection], depth: int) -> None:
        self._connections = {each.fileno(): each for each in connections}
        self._depth = depth

    def run(self, request: Request, count: int) -> None:
        """Send it ``count`` times; returns when all of them are answered."""
        connections, data = self._connections, request.data
        reading, writing = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT
        unsent = unanswered = count
        with select.epoll() as epoll:
            for number in connections:
                epoll.register(number, reading)
            for _ in range(self._depth):
                for number, connection in connections.items():
                    if unsent:
                        unsent -= 1
                        if not connection.send(data):
                            epoll.modify(number, writing)
            while unanswered:
                events = epoll.poll(PATIENCE)
                if not events:
                    raise ClientFailed(f"no answer for {PATIENCE:g} s, {unanswered} outstanding")
                for number, event in events:
                    connection = connections[number]
                    if event & select.EPOLLOUT and connection.flush():
                        epoll.modify(number, reading)
                    if not event & ~select.EPOLLOUT:
                        continue
                    answered = connection.answered(request)
                    unanswered -= answered
                    for _ in range(min(answered, unsent)):
                        unsent -= 1
                        if not connection.send(data):
                            epoll.modify(number, writing)


class Open:
    """Requests at a fixed rate, each on a connection that is free; one that finds none waits, and is late."""

    def __init__(self, connections: list[Connection], rate: float) -> None:
        self._free = deque(connections)
        self._rate = rate

    def run(self, request: Request, count: int) -> tuple[list[float], list[float]]:
        """Seconds from when each was due until it was sent, and until it was answered."""
        free, rate = self._free, self._rate
        sent: list[float] = []
        answered: list[float] = []
        busy: dict[Connection, float] = {}
        start = time.monotonic()
        while len(answered) < count:
            now = time.monotonic()
            while free and len(sent) < count and (due := start + len(sent) / rate) <= now:
                connection = free.popleft()
                if not connection.send(request.data):
                    raise ClientFailed("one small request was too much for a socket")
                busy[connection] = due
                now = time.monotonic()
                sent.append(now - due)
            # select() waits for microseconds where epoll counts milliseconds.
            wait = max(0.0, due - now) if free and len(sent) < count else PATIENCE
            ready, _, _ = select.select(list(busy), (), (), wait)
            if not ready and wait == PATIENCE:
                raise ClientFailed(f"no answer for {PATIENCE:g} s, {len(busy)} outstanding")
            for connection in ready:
                if connection.answered(request):
                    answered.append(time.monotonic() - busy.pop(connection))
                    free.append(connection)
        return sent, answered


def http_post(path: str, body: bytes, media: str) -> bytes:
    """A request as curl would send it, without the headers that say so."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


def message(queue: str, size: int, **more: str) -> bytes:
    """A message as JSON with a body of so many bytes."""
    fields = {"exchange": "", "routing_key": queue, "body": "x" * size, **more}
    return json.dumps(fields, separators=(",", ":")).encode("ascii")
