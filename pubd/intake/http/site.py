"""Site: what all connections of the intake share, and the heads of their answers."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory
from twisted.web.http import datetimeToString

from pubd.intake.http.channel import Channel
from pubd.intake.http.pace import Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from twisted.internet.interfaces import IAddress

    from pubd.access import Access, Refusals
    from pubd.intake.http.answer import Answer
    from pubd.intake.http.inflow import Budget
    from pubd.intake.http.route import Routes
    from pubd.intake.options import HttpOptions


class Site(Factory):
    """Makes a channel for each connection. ``names`` are those this host is known by, in lower case."""

    noisy = False

    def __init__(
        self,
        *,
        options: HttpOptions,
        routes: Routes,
        door: Budget,
        access: Access,
        clock: Any,
        wall: Callable[[], float],
        names: Collection[str],
        refusals: Refusals,
    ) -> None:
        self.options = options
        self.routes = routes
        self.door = door
        self.access = access
        self.refusals = refusals
        self.clock = clock
        self.names = names
        self.unread = Unread(options.max_unanswered)
        self.channels: set[Channel] = set()
        self.answers: Counter[int] = Counter()
        """By status, since the start."""
        self.stopping = False
        self.emptied: Callable[[], None] = lambda: None
        """Called when the last channel has gone."""
        self._wall = wall
        self._date = b""
        self._heads: dict[tuple[int, bytes | None, bool], bytes] = {}
        self.tick()

    def buildProtocol(self, addr: IAddress | None) -> Channel:  # noqa: ARG002
        """A channel; it counts from its first byte until it is lost."""
        return Channel(self)

    def reconfigure(self, options: HttpOptions) -> None:
        """Other limits, for connections that are open, too."""
        self.options = options
        for channel in self.channels:
            channel.options = options

    def tick(self) -> None:
        """About once a second: the date goes on, and who is too slow is cut."""
        self._date = b"Date: " + datetimeToString(self._wall()) + b"\r\n"
        now = self.clock.seconds()
        for channel in list(self.channels):
            channel.look(now)

    def head(self, answer: Answer, keep: bool) -> bytes:
        """Everything before the body, whose length is known."""
        self.answers[answer.status] += 1
        head = self._head(answer.status, answer.content_type, keep) + self._date
        if answer.headers:
            head += b"".join([b"%b: %b\r\n" % header for header in answer.headers])
        if answer.status == 204:
            return head + b"\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % len(answer.body)

    def open_head(self, status: int, content_type: bytes, keep: bool, chunked: bool) -> bytes:
        """Everything before a body of unknown length."""
        self.answers[status] += 1
        head = self._head(status, content_type, keep) + self._date
        return head + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n")

    def _head(self, status: int, content_type: bytes | None, keep: bool) -> bytes:
        key = (status, content_type, keep)
        head = self._heads.get(key)
        if head is None:
            lines = [
                b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode("ascii")),
                b"Server: pubd",
                b"Cache-Control: no-store",
                b"X-Content-Type-Options: nosniff",
            ]
            if content_type is not None:
                lines.append(b"Content-Type: " + content_type)
            if not keep:
                lines.append(b"Connection: close")
            head = b"\r\n".join(lines) + b"\r\n"
            # Content types of raw bodies that are looked at could be anything.
            if len(self._heads) < 100:
                self._heads[key] = head
        return head
