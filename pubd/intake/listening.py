"""Listening: one endpoint that is listened on, and the connections that came by it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from pubd.errors import InvalidOption
from pubd.intake.endpoint import Kind, exposed
from pubd.intake.port import Opened, port
from pubd.intake.tls_endpoint import Certificates, TlsFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IProtocol

    from pubd.intake.endpoint import Endpoint

Place = tuple[object, ...]


def place_of(endpoint: Endpoint) -> Place:
    """What a socket is bound to; endpoints that differ in the rest can have the same socket, one after the other."""
    return endpoint.kind, endpoint.interface, endpoint.port, endpoint.path, endpoint.index, endpoint.name


class Listening:
    """Accepts connections for ``factory`` from now on; ``certificates`` are those of the endpoint, if it has any."""

    def __init__(
        self, opened: Opened, certificates: Certificates | None, factory: IProtocolFactory, reactor: Any
    ) -> None:
        self._opened = opened
        self._certificates = certificates
        self._came = _Came(factory)
        self._reactor = reactor
        self.port = port(opened, self._wrapped(), reactor)

    @property
    def endpoint(self) -> Endpoint:
        return self._opened.endpoint

    def check(self, *, authenticated: bool) -> None:
        """Raise InvalidOption if what systemd passed must not be listened on, with or without principals."""
        if self.endpoint.kind is not Kind.SYSTEMD or self.port.socket.family is socket.AF_UNIX:
            return
        host = self.port.socket.getsockname()[0]
        if why := exposed(self.endpoint, host, authenticated=authenticated):
            raise InvalidOption(why)

    def become(self, endpoint: Endpoint, certificates: Certificates | None) -> None:
        """``endpoint`` is at the same place: what it says otherwise counts for new connections."""
        former = self.endpoint
        self._opened.endpoint = endpoint
        if (certificates is None) != (self._certificates is None):
            self._certificates = certificates
            self._swap()
        elif certificates is not None and self._certificates is not None:
            self._certificates.become(certificates)
        if endpoint.backlog != former.backlog:
            self.port.socket.listen(endpoint.backlog)
        if endpoint.kind is Kind.UNIX and endpoint.mode != former.mode:
            os.chmod(self._opened.path, endpoint.mode)

    def close(self) -> Deferred[None]:
        """Accept nothing more, at once; fires when it is closed. Connections are their factory's."""
        return maybeDeferred(self.port.stopListening)

    def leave(self, end: Callable[[IProtocol], None]) -> Deferred[None]:
        """The same, and ``end`` each connection that came by it; those that wait to be accepted are so before."""
        self.port.numberAccepts = self.endpoint.backlog
        self.port.doRead()
        closed = self.close()
        for protocol in list(self._came.open):
            end(protocol)
        return closed

    def _wrapped(self) -> Any:
        if self._certificates is None:
            return self._came
        return TlsFactory(self._certificates, False, self._came, clock=self._reactor)

    def _swap(self) -> None:
        former, new = self.port.factory, self._wrapped()
        assert former is not None
        self.port.factory = new
        new.doStart()
        former.doStop()


@implementer(IProtocolFactory)
class _Came:
    """Remembers which connections came this way."""

    def __init__(self, factory: IProtocolFactory) -> None:
        self.wrapped = factory
        self.open: WeakSet[IProtocol] = WeakSet()

    def doStart(self) -> None:
        self.wrapped.doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()

    def logPrefix(self) -> str:
        return type(self.wrapped).__name__

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        protocol: IProtocol | None = self.wrapped.buildProtocol(addr)
        if protocol is not None:
            self.open.add(protocol)
        return protocol
