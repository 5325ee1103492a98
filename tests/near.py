"""One connection of the lines intake in time of the test's own, on a transport in memory."""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from pubd.access import Access, Quotas, Refusals
from pubd.intake.door import Door
from pubd.intake.lines.connection import LinesConnection
from pubd.intake.lines.terms import Terms
from pubd.intake.options import LinesOptions
from tests.lines import Desk, said


class Near:
    """A connection on a transport that only writes down, over TCP from elsewhere or a unix socket."""

    def __init__(self, access: Access | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.desk = Desk()
        self.door = Door(publisher=self.desk, clock=self.clock, quotas=Quotas(), max_unanswered=1 << 20)
        self.transport = _Transport()
        self.gone = 0
        self.connection = LinesConnection(
            Terms(
                reactor=self.clock,
                options=LinesOptions(listen=(), **options),
                door=self.door,
                access=access or Access(),
                refusals=Refusals(clock=self.clock),
            ),
            lambda _: None,
            self._gone,
        )
        self.connection.makeConnection(self.transport)

    def _gone(self, _: LinesConnection) -> None:
        self.gone += 1

    @property
    def said(self) -> list[object]:
        return said([json.loads(each) for each in self.transport.written.splitlines()])

    def lose(self) -> None:
        self.connection.connectionLost()
        assert self.gone == 1
        assert self.clock.getDelayedCalls() == []
        assert self.door.unanswered == 0


class _Transport(StringTransport):
    """StringTransport with what sockets have besides."""

    ended = False

    def __init__(self) -> None:
        super().__init__(peerAddress=UNIXAddress(None))  # type: ignore[no-untyped-call]

    @property
    def written(self) -> bytes:
        return bytes(self.value())  # type: ignore[no-untyped-call]

    def getHandle(self) -> socket.socket:
        near, far = socket.socketpair()
        far.close()
        near.close()
        return near

    def loseWriteConnection(self) -> None:
        self.ended = True
