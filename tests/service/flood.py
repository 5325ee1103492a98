"""A flood over one intake, from a process of its own: as fast as it can, and every answer is read.

``python -m tests.service.flood SOCKET FILE CONNECTIONS SECONDS``: each connection sends what is in the file (whole
requests of one intake) again and again until the time is over or SIGTERM comes, and prints how many answers said what.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

#: Seconds without anything to read or write until it gives up.
PATIENCE = 20.0
_SAID = (b'"state":"stored"', b'"error"', b'"title"')
"""One of these is in each answer: HTTP's problems have a title."""


class Flooding:
    """One connection; ``sent`` counts the repetitions."""

    def __init__(self, path: str, data: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self._data = memoryview(data)
        self._left = self._data[:0]
        self._messages = data.count(b'"exchange"')
        self.sent = 0
        self._tail = b""
        self.said: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Whether all that was sent is answered."""
        return not self._left and sum(self.said.values()) >= self.sent * self._messages

    def write(self, more: bool) -> bool:
        """Whether there is anything left to write."""
        if not self._left:
            if not more:
                return False
            self._left = self._data
            self.sent += 1
        self._left = self._left[self.socket.send(self._left) :]
        return more or bool(self._left)

    def read(self) -> bool:
        """False at the end."""
        data = self.socket.recv(1 << 18)
        # A word may be cut in two; one that is whole is not to be counted twice.
        text = self._tail + data
        for word in _SAID:
            self.said[word.decode()] += text.count(word)
        last = text.rfind(b"\n") + 1
        self._tail = text[last:]
        for word in _SAID:
            self.said[word.decode()] -= self._tail.count(word)
        return bool(data)


def flood(path: str, data: bytes, count: int, seconds: float, enough: Callable[[], bool]) -> dict[str, int]:
    """What was sent and said, over all connections."""
    connections = {each.socket.fileno(): each for each in (Flooding(path, data) for _ in range(count))}
    poll = select.epoll()
    for number in connections:
        poll.register(number, select.EPOLLIN | select.EPOLLOUT)
    until = time.monotonic() + seconds
    open_ones = dict(connections)
    more = True
    while open_ones:
        events = poll.poll(PATIENCE)
        if not events:
            raise TimeoutError(f"{len(open_ones)} connections are not answered")
        more = more and time.monotonic() < until and not enough()
        for number, event in events:
            connection = open_ones[number]
            if event & select.EPOLLOUT and not connection.write(more):
                poll.modify(number, select.EPOLLIN)
            ended = bool(event & ~select.EPOLLOUT) and not connection.read()
            if ended or (not more and connection.is_over):
                poll.unregister(number)
                del open_ones[number]
    found: Counter[str] = Counter()
    for connection in connections.values():
        found += connection.said
        found["sent"] += connection.sent
        connection.socket.close()
    return dict(found)


if __name__ == "__main__":
    path, file, count, seconds = sys.argv[1:]
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    print(json.dumps(flood(path, Path(file).read_bytes(), int(count), float(seconds), lambda: bool(signals))))
