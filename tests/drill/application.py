"""An application that hands messages in as long as the drill lasts, and gives none of them up."""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from pathlib import Path

from pubd.cli.client import AnswerLost, Client, Unreachable
from pubd.cli.server import Server
from tests.drill.clock import now

_PAUSE = 0.05
_PATIENCE = 2.0


class Application(threading.Thread):
    """About 20 messages a second, by turns to the exchanges; the body of each is its number.

    What is not accepted is handed in again, with the same idempotency key, as often as it takes.
    """

    def __init__(self, socket: Path, exchanges: tuple[str, ...]) -> None:
        super().__init__(name="application")
        self._server = Server.parse(str(socket))
        self._exchanges = itertools.cycle(exchanges)
        self._open: deque[tuple[int, str]] = deque()
        self._enough = threading.Event()
        self.accepted: set[int] = set()

    def finish(self) -> None:
        """Make no more, and wait until all are accepted."""
        self._enough.set()
        self.join()

    def run(self) -> None:
        """See threading."""
        numbers = itertools.count()
        with Client(self._server, clock=now) as client:
            while self._open or not self._enough.is_set():
                if not self._enough.wait(_PAUSE) or not self._open:
                    self._open.append((next(numbers), next(self._exchanges)))
                while self._open and self._takes(client, *self._open[0]):
                    self.accepted.add(self._open.popleft()[0])

    def _takes(self, client: Client, number: int, exchange: str) -> bool:
        message = {"exchange": exchange, "routing_key": "order.new", "body": str(number)}
        body = json.dumps({**message, "idempotency_key": f"drill/{number}"}).encode()
        try:
            answer = client.ask(
                "POST",
                "/messages",
                deadline=now() + _PATIENCE,
                body=body,
                headers={"Content-Type": "application/json"},
            )
        except (Unreachable, AnswerLost):
            return False
        return answer.status == 202
