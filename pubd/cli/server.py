"""Where the daemon is: ``--server``, ``PUBD_SERVER``, or the places where it is by default."""

from __future__ import annotations

import os
import stat
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where a packaged daemon listens, and where one does that was started by hand.
DEFAULT_SOCKET = Path("/run/pubd/http.sock")
DEFAULT_PORT = 8672
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Scheme(Enum):
    """How the daemon is spoken to."""

    UNIX = "unix"
    HTTP = "http"
    HTTPS = "https"


class InvalidServer(ValueError):
    """The address cannot be used as given: the sentence says why, and never repeats a password."""


@attrs.frozen(kw_only=True)
class Server:
    """The daemon's HTTP address: ``path`` is a unix socket's, ``prefix`` comes before every path of the API."""

    scheme: Scheme
    host: str = ""
    port: int = 0
    path: str = ""
    prefix: str = ""

    def __str__(self) -> str:
        if self.scheme is Scheme.UNIX:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme.value}://{host}:{self.port}{self.prefix}"

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.scheme is not Scheme.HTTP or self.host in _LOOPBACK

    @classmethod
    def parse(cls, text: str) -> Server:
        """``unix:PATH``, an absolute path, ``http://HOST[:PORT]`` or ``https://HOST[:PORT]``; or InvalidServer."""
        if text.startswith("/"):
            return cls(scheme=Scheme.UNIX, path=text)
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            path = path.removeprefix("//") if path.startswith("///") else path
            if not path or "\0" in path:
                raise InvalidServer("unix: needs the path of a socket, such as unix:/run/pubd/http.sock")
            return cls(scheme=Scheme.UNIX, path=path)
        return cls._of_url(text)

    @classmethod
    def _of_url(cls, text: str) -> Server:
        try:
            url = urlsplit(text)
            port, host = url.port, url.hostname
        except ValueError as error:
            raise InvalidServer(f"is no address of a server: {error}") from None
        if url.scheme not in ("http", "https") or not host:
            raise InvalidServer("must be unix:PATH, http://HOST:PORT or https://HOST:PORT")
        if url.username is not None or url.password is not None:
            raise InvalidServer("must not have a user or password in it; pubd knows tokens: --token-file, PUBD_TOKEN")
        if url.query or url.fragment:
            raise InvalidServer("must not have a query or fragment")
        default = 443 if url.scheme == "https" else DEFAULT_PORT
        return cls(
            scheme=Scheme(url.scheme),
            host=host,
            port=default if port is None else port,
            prefix=url.path.rstrip("/"),
        )

    @classmethod
    def default(cls, *, with_token: bool, is_socket: Callable[[Path], bool] | None = None) -> Server:
        """The packaged daemon's socket, or loopback where there is none.

        Who shows a token gets the socket only: on loopback any user of the host may be the one who listens.
        """
        if with_token or (is_socket or _is_socket)(DEFAULT_SOCKET):
            return cls(scheme=Scheme.UNIX, path=str(DEFAULT_SOCKET))
        return cls(scheme=Scheme.HTTP, host="127.0.0.1", port=DEFAULT_PORT)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except PermissionError:
        # It is there, behind a directory that is closed to us: the sentence for that is better than "refused".
        return True
    except OSError:
        return False
