"""From the strings of ``listen`` to services that accept connections, and no more of these than there may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from zope.interface import implementer

from pubd.errors import InvalidOption
from pubd.intake.endpoint import Endpoint, Kind, refusal
from pubd.intake.peer import Peer, peer_of, principal_of
from pubd.intake.port import Opened, port
from pubd.intake.tls_endpoint import Certificates, TlsFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IAddress, IProtocol
    from twisted.internet.tcp import Port
    from twisted.python.failure import Failure

__all__ = ["Capped", "Listeners", "Peer", "peer_of", "principal_of", "refusal"]

#: Ports below this take privileges, which twistd may give up after opening them (--uid).
_PRIVILEGED = 1024


class Listeners(Service):
    """Listens on each of ``listen`` for ``factory`` while it runs.

    ``authenticated``: there are principals, and from elsewhere nobody else is let in (see :func:`refusal`).
    Construction raises :class:`pubd.errors.InvalidOption` for a string that cannot be used, and reads certificates.
    What cannot be opened at the start is logged in a sentence, ``failed`` is called with it, and then nothing is
    listened on.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        listen: Sequence[str],
        factory: IProtocolFactory,
        authenticated: bool,
        failed: Callable[[InvalidOption], None] = lambda _: None,
    ) -> None:
        for text in listen:
            if listen.count(text) > 1:
                raise InvalidOption(f"{text!r} is given twice; remove one of them")
            if why := refusal(text, authenticated=authenticated):
                raise InvalidOption(why)
        self._reactor = reactor
        self._factory = factory
        self._authenticated = authenticated
        self._failed = failed
        self._endpoints = [Endpoint.parse(text) for text in listen]
        self._certificates = {each: Certificates(each) for each in self._endpoints if each.tls is not None}
        self._ports: dict[Endpoint, Port] = {}
        self._broken = False

    @property
    def addresses(self) -> list[IAddress]:
        """What is listened on now, in the order of ``listen``."""
        return [self._ports[each].getHost() for each in self._endpoints if each in self._ports]

    def reload(self) -> None:
        """Read all certificates again, for new connections; raises InvalidOption for one that is unusable.

        The others are used all the same, and of the unusable one what was read before.
        """
        unusable = None
        for certificates in self._certificates.values():
            try:
                certificates.reload()
            except InvalidOption as error:
                unusable = error
        if unusable is not None:
            raise unusable

    def privilegedStartService(self) -> None:
        """Open what takes privileges; twistd gives them up afterwards."""
        super().privilegedStartService()
        self._open([each for each in self._endpoints if each.kind is Kind.TCP and 0 < each.port < _PRIVILEGED])

    def startService(self) -> None:
        """Open everything; see the class for what happens where that fails."""
        super().startService()
        self._open(self._endpoints)

    def stopService(self) -> Deferred[None]:
        """Accept nothing more, at once; fires when all is closed. Connections are their factory's."""
        super().stopService()
        self._broken = False
        return self._close()

    def _open(self, endpoints: Sequence[Endpoint]) -> None:
        if self._broken:
            return
        try:
            for endpoint in endpoints:
                if endpoint not in self._ports:
                    self._ports[endpoint] = self._listening(endpoint)
                    self.log.info("listening on {listen}", listen=endpoint.text)
        except InvalidOption as error:
            self._broken = True
            self.log.critical("{error}", error=str(error))
            self._close()
            self._failed(error)

    def _listening(self, endpoint: Endpoint) -> Port:
        factory = self._factory
        if (certificates := self._certificates.get(endpoint)) is not None:
            factory = TlsFactory(certificates, False, factory, clock=self._reactor)
        return port(Opened(endpoint, self._reactor, authenticated=self._authenticated), factory, self._reactor)

    def _close(self) -> Deferred[None]:
        # All of them stop accepting now; that they are closed is waited for afterwards.
        closing = [maybeDeferred(each.stopListening) for each in self._ports.values()]
        self._ports.clear()
        return Deferred.fromCoroutine(self._closed(closing))

    async def _closed(self, closing: list[Deferred[Any]]) -> None:
        for each in closing:
            try:
                await each
            except Exception:
                self.log.failure("a socket did not close; going on")


@implementer(IProtocolFactory)
class Capped:
    """``factory`` with at most ``limit`` connections at a time, over however many ports; others are closed at once.

    ``name`` is that of the limit in the log, where refusals are told at most once a second.
    """

    log = Logger()

    def __init__(self, factory: IProtocolFactory, limit: int, *, clock: Any, name: str = "max_connections") -> None:
        self.wrapped = factory
        self.limit = limit
        self.open = 0
        self.refused = 0
        """Since the start."""
        self._clock = clock
        self._name = name
        self._told: float | None = None
        self._untold = 0

    def doStart(self) -> None:
        """As IProtocolFactory says."""
        self.wrapped.doStart()

    def doStop(self) -> None:
        """As IProtocolFactory says."""
        self.wrapped.doStop()

    def logPrefix(self) -> str:
        """As ILoggingContext says."""
        return type(self.wrapped).__name__

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """The factory's protocol, or None over the limit: then Twisted closes the connection."""
        if self.open >= self.limit:
            self._refuse()
            return None
        protocol: IProtocol | None = self.wrapped.buildProtocol(addr)
        if protocol is None:
            return None
        self.open += 1
        lost = protocol.connectionLost

        def connection_lost(reason: Failure) -> None:
            self.open -= 1
            vars(protocol).pop("connectionLost", None)
            lost(reason)

        # Not a protocol around it, which would cost a call for each read and write.
        vars(protocol)["connectionLost"] = connection_lost
        return protocol

    def _refuse(self) -> None:
        self.refused += 1
        self._untold += 1
        now = self._clock.seconds()
        if self._told is None or now - self._told >= 1:
            self.log.warn(
                "{count} connections refused: {limit} are open, which is {name}; raise it, or close what is idle",
                count=self._untold,
                limit=self.limit,
                name=self._name,
            )
            self._told, self._untold = now, 0
