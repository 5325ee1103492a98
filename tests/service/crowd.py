"""Many clients of a real daemon, over either intake, and what they cost it: memory, CPU time, file descriptors."""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.service.process import PATIENCE, until

STORED = b'"state":"stored"}\n'
"""How the answer to a message ends, in either intake."""
KIB, MIB = 1024, 1024 * 1024


@attrs.frozen(kw_only=True)
class Way:
    """An intake: its table in pubd.toml, and one message for it in two parts."""

    table: str
    half: bytes
    rest: bytes

    @property
    def message(self) -> bytes:
        return self.half + self.rest


def line(queue: str = "q", body: str = "x" * 200, **more: str) -> bytes:
    """A message; to the default exchange."""
    return json.dumps({"exchange": "", "routing_key": queue, "body": body, **more}, separators=(",", ":")).encode()


def post(content: bytes, path: str = "/messages", headers: str = "", media: str = "application/json") -> bytes:
    """As curl sends it."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\n{headers}"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


HTTP = Way(table="http", half=post(line())[:40], rest=post(line())[40:])
LINES = Way(table="lines", half=line()[:40], rest=line()[40:] + b"\n")


class Client:
    """A blocking connection."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        # With a timeout of Python's, a connection that would have to wait to be accepted fails at once.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(PATIENCE), 0))
        try:
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise
        self._socket.settimeout(PATIENCE)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, end: bytes = STORED, at_most: int = 1 << 16) -> bytes:
        """Up to ``end``, reading no more than ``at_most`` at a time; less where the connection is closed before."""
        data = b""
        while not data.endswith(end):
            more = self._some(at_most)
            if not more:
                break
            data += more
        return data

    def read_line(self) -> bytes:
        """One, and nothing behind it."""
        return self.read(b"\n", at_most=1)

    def read_exactly(self, size: int) -> bytes:
        """So many bytes; less where the connection is closed before."""
        data = b""
        while len(data) < size and (more := self._some(size - len(data))):
            data += more
        return data

    def _some(self, at_most: int) -> bytes:
        try:
            return self._socket.recv(at_most)
        except ConnectionResetError:
            return b""

    def is_served(self, data: bytes) -> bool:
        """Whether ``data``, which completes a message, brings an answer; False: the connection was closed."""
        try:
            self.send(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return self.read().endswith(STORED)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def crowd(path: Path, count: int) -> Iterator[list[Client]]:
    """So many connections, made one after the other."""
    clients: list[Client] = []
    try:
        for _ in range(count):
            clients.append(Client(path))
        yield clients
    finally:
        for client in clients:
            client.close()


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """This process may open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    assert wanted == count, f"this test takes ulimit -Hn {count}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted) if soft >= 0 else soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def busy(clients: Sequence[Client], way: Way, *, rounds: int, messages: int = 1) -> float:
    """Each sends ``messages`` at once and waits for all their answers, ``rounds`` times; the longest wait (seconds)."""
    longest = 0.0
    for _ in range(rounds):
        began = time.monotonic()
        for client in clients:
            client.send(way.message * messages)
        missing = dict.fromkeys(clients, messages)
        while missing:
            ready, _, _ = select.select(list(missing), (), (), PATIENCE)
            assert ready, f"{len(missing)} clients got no answer within {PATIENCE:g} s"
            for client in ready:
                data = client.read(b"}\n")
                assert data, "a busy connection was closed"
                missing[client] -= data.count(STORED[:-1])
                if missing[client] == 0:
                    del missing[client]
        longest = max(longest, time.monotonic() - began)
    return longest


def rss(pid: int) -> int:
    """Bytes that the process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def peak(pid: int) -> int:
    """The most bytes that it ever had there."""
    for each in Path(f"/proc/{pid}/status").read_text().splitlines():
        if each.startswith("VmHWM:"):
            return int(each.split()[1]) * KIB
    raise AssertionError("Linux tells VmHWM")


def descriptors(pid: int) -> int:
    """How many it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu(pid: int) -> float:
    """Seconds that it has used."""
    # The kernel's number of the CPU clock of another process, clock_getcpuclockid(3).
    return time.clock_gettime(~pid << 3 | 2)


def cpu_of_a_second(pid: int) -> float:
    """What it uses while nobody does anything. The least of three: who spins does so in each of them."""
    used = []
    for _ in range(3):
        before = cpu(pid)
        time.sleep(1)
        used.append(cpu(pid) - before)
    return min(used)


def back_to(pid: int, count: int) -> None:
    """Wait until it has no more descriptors open than that."""
    until(lambda: descriptors(pid) <= count, what=lambda: f"{descriptors(pid)} descriptors, not {count}")


def until_quiet(pid: int) -> None:
    """Wait until it does nothing any more."""

    def quiet() -> bool:
        before = cpu(pid)
        time.sleep(0.2)
        return cpu(pid) - before < 0.02

    until(quiet)
