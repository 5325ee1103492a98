"""The head of a request: from what HTTPChannel has read to a Request, and what HTTP/1.1 forbids that it lets pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from pubd.intake.http.answer import Refusal
from pubd.intake.http.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Names that may come once: a second one would be read by somebody else on the way.
SINGLE = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "origin",
        "transfer-encoding",
    }
)
#: In a line of the head: what is neither printable, nor obs-text, nor a tab.
CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# RFC 3986: reg-name, IPv4address or IP-literal, and a port.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?", re.ASCII)
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)

_lower: dict[bytes, str] = {}


class Arriving:
    """What HTTPChannel fills: a request factory, a request, and its headers in one."""

    # Instead of Twisted's Request, whose headers, cookies, form fields and content file pubd has no use for.
    __slots__ = ("_all_came", "_came", "headers", "twice")

    def __init__(self, channel: Channel, _: object = None) -> None:
        self.headers: dict[str, str] = {}
        self.twice: str | None = None
        self._came = channel.body_came
        self._all_came = channel.all_came

    @property
    def requestHeaders(self) -> Arriving:
        """Where HTTPChannel puts them. No attribute: it would be a cycle, and work for the garbage collector."""
        return self

    def addRawHeader(self, name: bytes, value: bytes) -> None:
        """Called by HTTPChannel for each header."""
        key = _lower.get(name)
        if key is None:
            key = name.decode("ascii").lower()
            if len(_lower) < 1000:
                _lower[name] = key
        text = value.decode("latin-1")
        if key not in self.headers:
            self.headers[key] = text
        elif key in SINGLE:
            self.twice = self.twice or key
        else:
            self.headers[key] += ", " + text

    def handleContentChunk(self, data: bytes) -> None:
        """Called by HTTPChannel."""
        self._came(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: ARG002
        """Called by HTTPChannel when the body is complete."""
        self._all_came()

    def connectionLost(self, reason: object) -> None:
        """Called by HTTPChannel; the channel knows it already."""


class Channel(Protocol):
    """Who takes the body."""

    def body_came(self, data: bytes) -> None:
        """Some of it."""

    def all_came(self) -> None:
        """That was all of it."""


def request_of(command: bytes, target: bytes, version: bytes, arriving: Arriving) -> Request:
    """The request. Refuses (400) what is ambiguous: two programs must not read it as two different requests."""
    headers = arriving.headers
    if arriving.twice is not None:
        raise _refused("is given twice; send it once", arriving.twice)
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if version != b"HTTP/1.1":
            raise _refused("does not exist in HTTP/1.0", "transfer-encoding")
        if coding.lower() != "chunked":
            raise _refused("must be chunked, if anything", "transfer-encoding")
    host = headers.get("host")
    if host is None:
        if version == b"HTTP/1.1":
            raise _refused("is missing", "host")
    elif not _HOST.fullmatch(host):
        raise _refused("is not a host name or address, with or without a port", "host")
    path, query = _path_and_query(command, target, headers)
    return Request(command.decode("ascii"), path, query, headers, version)


def _path_and_query(command: bytes, target: bytes, headers: Mapping[str, str]) -> tuple[str, str]:
    try:
        text = target.decode("ascii")
    except UnicodeDecodeError:
        raise _refused("has bytes beyond ASCII; write them as % escapes", "request-target") from None
    if not text.startswith("/"):
        if text == "*" and command == b"OPTIONS":
            return text, ""
        # RFC 9112, 3.2.2: a server takes it although only proxies are sent it.
        absolute = _ABSOLUTE.fullmatch(text)
        if absolute is None:
            raise _refused("must begin with /", "request-target")
        if absolute[1].lower() != headers.get("host", absolute[1]).lower():
            raise _refused("names another host than the Host header", "request-target")
        text = absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]
    if "#" in text:
        raise _refused("has a fragment (#); write # as %23", "request-target")
    path, _, query = text.partition("?")
    return path, query


def keeps_alive(request: Request) -> bool:
    """Whether the client wants to go on with this connection; over HTTP/1.0 nobody does."""
    if request.version != b"HTTP/1.1":
        return False
    connection = request.headers.get("connection")
    return connection is None or "close" not in [token.strip() for token in connection.lower().split(",")]


def _refused(why: str, field: str) -> Refusal:
    return Refusal("malformed", why, field=field, close=True)
