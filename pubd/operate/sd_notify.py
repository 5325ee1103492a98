"""The socket over which a service tells systemd how it is (sd_notify(3)): datagrams of lines NAME=VALUE."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes of a socket's address (sun_path).
_LONGEST = 108
_VARIABLE = "NOTIFY_SOCKET"


class NotifySocket:
    """``address`` is a path, or ``@`` and the name of an abstract socket. Never blocks and never raises."""

    log = Logger()

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._failing = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> NotifySocket | None:
        """The socket that ``NOTIFY_SOCKET`` names; None where there is none, or not one of the unix domain."""
        address = environ.get(_VARIABLE, "")
        if not address:
            return None
        if address[0] not in "/@" or "\0" in address or len(address.encode("utf-8", "surrogateescape")) >= _LONGEST:
            cls.log.warn(f"{_VARIABLE} names no socket that pubd can write to; nothing is told to systemd")
            return None
        return cls(address)

    def send(self, **variables: str | int) -> bool:
        """Tell these in one datagram; whether it was taken. Failures are logged when they begin."""
        # A line break would begin a variable of its own; systemd drops what is not UTF-8.
        lines = [f"{name}={' '.join(str(value).split())}" for name, value in variables.items()]
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._failing:
                self._failing = True
                self.log.warn("systemd cannot be told {names}: {error}", names=", ".join(variables), error=str(error))
            return False
        self._failing = False
        return True

    def close(self) -> None:
        """Let go of the socket; it may be used again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
