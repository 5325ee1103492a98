"""The HTTP client of the daemon's socket, for every command that asks the daemon something.

Python's own http.client: it is there, starts quickly, and takes a unix socket with a method of five lines.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Any, Self

import attrs

from pubd._version import __version__
from pubd.cli.server import Scheme, Server
from pubd.hung import hung
from pubd.wording import plain

#: The longest answer that is read, in bytes: pubd's are a few hundred for each message.
MAX_ANSWER = 256 * 1024 * 1024
_READ = 1 << 16


class Unreachable(Exception):
    """There is no daemon to talk to; nothing was sent. The sentence says what to do."""


class AnswerLost(Exception):
    """No whole answer came: what the daemon made of the request is not known. Ask again with the same keys."""


@attrs.frozen(kw_only=True)
class Answer:
    """``retry_after`` in seconds, if the daemon gave one."""

    status: int
    body: bytes
    content_type: str = ""
    retry_after: float | None = None

    @property
    def problem(self) -> dict[str, Any]:
        """The object of ``application/problem+json``; empty when the answer is another."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) and self.status >= 400 else {}

    @property
    def sentence(self) -> str:
        """What the daemon says is wrong, or what stands at the place of it."""
        detail = self.problem.get("detail") or self.problem.get("title")
        return plain(detail) if isinstance(detail, str) else f"HTTP status {self.status} without an explanation"


class _Unix(HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One keep-alive connection, opened when it is needed and again after it was lost. Not for several threads.

    ``send`` and ``receive`` are apart, so that there is time for other work while the daemon thinks. Deadlines are on
    ``clock``. ``tls`` is for ``https`` servers only.
    """

    def __init__(
        self,
        server: Server,
        *,
        clock: Callable[[], float],
        token: str | None = None,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self.server = server
        self._clock = clock
        self._tls = tls
        self._headers = {"User-Agent": f"pubd/{__version__}", "Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: HTTPConnection | None = None
        self._cut_off: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; what was asked and not answered is lost."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """``send`` and ``receive``."""
        self.send(method, path, deadline=deadline, body=body, headers=headers)
        return self.receive(deadline=deadline)

    def send(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Ask; ``receive`` is next. Raises Unreachable or AnswerLost."""
        if self._connection is not None and _is_over(self._connection.sock):
            # Closed meanwhile, for we were idle; nothing is lost.
            self.close()
        connection = self._connection or self._connected(deadline)
        self._cut_off = None
        try:
            connection.sock.settimeout(self._left(deadline))
            connection.request(method, self.server.prefix + path, body, {**self._headers, **(headers or {})})
        except (BrokenPipeError, ConnectionResetError) as error:
            # Who refuses a request may hang up before all of it was read; the reason may be there to be read.
            self._cut_off = error
        except (OSError, HTTPException) as error:
            raise self._lost(error) from None
        except BaseException:
            # Interrupted in the middle of a request: the connection is of no use.
            self.close()
            raise

    def receive(self, *, deadline: float) -> Answer:
        """The answer to what was sent. Raises AnswerLost."""
        connection = self._connection
        assert connection is not None, "nothing was sent"
        try:
            connection.sock.settimeout(self._left(deadline))
            response = connection.getresponse()
            body = self._body(connection, response, deadline)
        except (OSError, HTTPException) as error:
            raise self._lost(self._cut_off or error) from None
        except BaseException:
            self.close()
            raise
        if response.will_close or self._cut_off is not None:
            self.close()
        return self._answer(response, body)

    def _answer(self, response: HTTPResponse, body: bytes) -> Answer:
        return Answer(
            status=response.status,
            body=body,
            content_type=response.headers.get_content_type(),
            retry_after=_seconds(response.headers.get("Retry-After")),
        )

    def stream(self, method: str, path: str, *, deadline: float, silence: float | None) -> Answer | Iterator[bytes]:
        """Ask for a body of any length: what comes of it, as it comes; or the answer, if that is no 200.

        ``deadline`` is for the head; then up to ``silence`` seconds may pass without anything. Raises AnswerLost, also
        where the body is not whole. The connection is closed afterwards, or when the iterator is.
        """
        self.send(method, path, deadline=deadline)
        connection = self._connection
        assert connection is not None
        try:
            connection.sock.settimeout(self._left(deadline))
            response = connection.getresponse()
            if response.status != 200:
                return self._answer(response, self._body(connection, response, deadline))
            if connection.sock is not None:
                connection.sock.settimeout(silence)
        except (OSError, HTTPException) as error:
            raise self._lost(self._cut_off or error) from None
        except BaseException:
            self.close()
            raise
        return self._pieces(response)

    def _pieces(self, response: HTTPResponse) -> Iterator[bytes]:
        try:
            while chunk := response.read1(_READ):
                yield chunk
            if response.length:
                raise HTTPException("the answer was cut off")
        except (OSError, HTTPException) as error:
            raise self._lost(error) from None
        finally:
            response.close()
            self.close()

    def _body(self, connection: HTTPConnection, response: HTTPResponse, deadline: float) -> bytes:
        chunks, size = [], 0
        # A server that closes after its answer has taken the socket from the connection; the timeout stays set.
        while chunk := response.read1(_READ):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER:
                raise HTTPException(f"the answer is longer than {MAX_ANSWER} bytes")
            left = self._left(deadline)
            if connection.sock is not None:
                connection.sock.settimeout(left)
        if response.length:
            # read1 does not tell a body that was cut off from one that is whole.
            raise HTTPException("the answer was cut off")
        # Nor does it tell the connection that it may be used again.
        response.close()
        return b"".join(chunks)

    def _listener(self) -> int | None:
        """The process that made the unix socket at the other end, if it is one: the kernel knows it."""
        sock = self._connection.sock if self._connection is not None else None
        if sock is None or sock.family != socket.AF_UNIX:
            return None
        with contextlib.suppress(OSError):
            pid, _, _ = struct.unpack(
                "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            )
            return int(pid) or None
        return None

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def _connected(self, deadline: float) -> HTTPConnection:
        connection: HTTPConnection | None = None
        try:
            connection = self._connection_for(self._left(deadline))
            connection.connect()
        except (OSError, HTTPException) as error:
            if connection is not None:
                connection.close()
            raise Unreachable(_unreachable(self.server, error)) from None
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._connection = connection
        return connection

    def _connection_for(self, timeout: float) -> HTTPConnection:
        server = self.server
        if server.scheme is Scheme.UNIX:
            return _Unix(server.path, timeout)
        if server.scheme is Scheme.HTTP:
            return HTTPConnection(server.host, server.port, timeout=timeout)
        from http.client import HTTPSConnection

        return HTTPSConnection(server.host, server.port, timeout=timeout, context=self._tls())

    def _lost(self, error: Exception) -> AnswerLost:
        listener = self._listener()
        self.close()
        if isinstance(error, TimeoutError):
            why = hung(listener) if listener is not None else None
            return AnswerLost(f"{self.server} did not answer in time{f': process {listener} {why}' if why else ''}")
        if isinstance(error, ConnectionError):
            return AnswerLost(f"{self.server} hung up without an answer")
        if isinstance(error, OSError):
            return AnswerLost(f"the connection to {self.server} was lost: {error.strerror or error}")
        return AnswerLost(f"{self.server} did not give a whole answer in HTTP; is that pubd's [http] address?")


def _is_over(idle: socket.socket) -> bool:
    """Whether there is something to read on a connection on which nothing was asked: its end."""
    poll = select.poll()
    poll.register(idle, select.POLLIN)
    return bool(poll.poll(0))


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; as a date, which pubd never gives, it does not count."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None


def _unreachable(server: Server, error: Exception) -> str:
    """What is wrong, and what to do about it."""
    other = "or name another address with --server or PUBD_SERVER"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {server} is not trusted ({error.verify_message}); name its CA with --cacert"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with {server} ({error.reason}); is that an https address, and does it want --cert and --key?"
    if isinstance(error, socket.gaierror):
        return f"the host of {server} is not known ({error.strerror}); correct it, {other}"
    if isinstance(error, TimeoutError):
        return f"{server} did not accept a connection in time; look after it, {other}"
    if server.scheme is Scheme.UNIX:
        return _no_socket(server, error, other)
    why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return f"nobody answers at {server} ({why}); is pubd running there, with [http] listen? Start it, {other}"


def _no_socket(server: Server, error: Exception, other: str) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ENOENT:
        return (
            f"there is no socket {server.path}; is pubd running, with this as [http] listen: "
            f'"unix:{server.path}:mode=660"? Start it, {other}'
        )
    if code == errno.ECONNREFUSED:
        return f"nobody listens on {server.path}: pubd is not running; start it, {other}"
    if code in (errno.EACCES, errno.EPERM):
        return f"you may not use {server.path}; join the group that owns it, {other}"
    why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return f"{server.path} cannot be used ({why}); check the path, {other}"
