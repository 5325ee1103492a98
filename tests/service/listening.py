"""What a service manager does for `twistd pubd`: sockets that outlive it, and a socket on which it tells how it is."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.service.process import PATIENCE

#: Becomes its command with the sockets as descriptors from 3 on, as sd_listen_fds(3) says.
EXEC = """\
import json, os, sys
fds, names, command = json.loads(sys.argv[1])
moved = [os.dup2(fd, 100 + n) for n, fd in enumerate(fds)]
for n, fd in enumerate(moved):
    os.dup2(fd, 3 + n, inheritable=True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(names)}
os.execvp(command[0], command)
"""


def activated(sockets: Mapping[str, socket.socket], *command: str) -> list[str]:
    """The command that starts ``command`` with these sockets; it has to inherit them (`pass_fds`)."""
    given = json.dumps([[each.fileno() for each in sockets.values()], list(sockets), command])
    return [sys.executable, "-c", EXEC, given]


class NotifyManager:
    """The end of a notify socket that systemd has. ``address`` is what NOTIFY_SOCKET is set to."""

    def __init__(self, directory: Path, *, abstract: bool = False) -> None:
        self.address = f"@pubd-{os.getpid()}-{directory.name}" if abstract else str(directory / "notify.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if abstract else self.address)
        self.datagrams: list[dict[str, str]] = []
        self.times: list[float] = []

    def close(self) -> None:
        self._socket.close()

    def receive(self, seconds: float = 0.0) -> None:
        """Take what has come, and what comes within ``seconds``."""
        until = time.monotonic() + seconds
        while select.select([self._socket], [], [], max(0.0, until - time.monotonic()))[0]:
            lines = self._socket.recv(65536).decode().split("\n")
            self.datagrams.append(dict(line.split("=", 1) for line in lines))
            self.times.append(time.monotonic())

    def awaits(self, name: str, part: str = "") -> str:
        """Wait until ``name`` was told with ``part`` in its value, now or before; that value."""
        until = time.monotonic() + PATIENCE
        while True:
            for each in reversed(self.datagrams):
                if name in each and part in each[name]:
                    return each[name]
            assert time.monotonic() < until, f"{name}={part} was not told: {self.datagrams}"
            self.receive(0.1)

    @property
    def order(self) -> list[str]:
        """The first variable of each datagram; many of the same are one."""
        firsts = [next(iter(each)) for each in self.datagrams]
        return [each for n, each in enumerate(firsts) if n == 0 or firsts[n - 1] != each]


@contextlib.contextmanager
def notify_manager(directory: Path, *, abstract: bool = False) -> Iterator[NotifyManager]:
    """One, closed afterwards."""
    manager = NotifyManager(directory, abstract=abstract)
    try:
        yield manager
    finally:
        manager.close()
