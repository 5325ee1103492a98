"""From the strings of ``listen`` to services that accept connections, and no more of these than there may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from zope.interface import implementer

from pubd.errors import InvalidOption
from pubd.intake.endpoint import Endpoint, Kind, refusal
from pubd.intake.listening import Listening, place_of
from pubd.intake.peer import Peer, peer_of, principal_of
from pubd.intake.port import Opened
from pubd.intake.tls_endpoint import Certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IAddress, IProtocol
    from twisted.python.failure import Failure

__all__ = ["Capped", "Listeners", "Peer", "peer_of", "principal_of", "refusal"]

#: Why a connection ends whose endpoint is not listened on any more.
NOT_HERE = "pubd does not listen there any more"
#: Ports below this take privileges, which twistd may give up after opening them (--uid).
_PRIVILEGED = 1024


class Listeners(Service):
    """Listens on each of ``listen`` for ``factory`` while it runs.

    ``authenticated``: there are principals, and from elsewhere nobody else is let in (see :func:`refusal`).
    Construction raises :class:`pubd.errors.InvalidOption` for a string that cannot be used, and reads certificates.
    What cannot be opened at the start is logged in a sentence, ``failed`` is called with it, and then nothing is
    listened on. ``end`` is called with each connection of an endpoint that is not listened on any more.
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
        end: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self._reactor = reactor
        self._factory = factory
        self._authenticated = authenticated
        self._failed = failed
        self._end = end
        self._endpoints = _endpoints(listen, authenticated)
        self._certificates = _certificates(self._endpoints)
        self._open_ones: dict[Endpoint, Listening] = {}
        self._ready: dict[Endpoint, Opened] = {}
        """Opened before the start."""
        self._broken = False

    @property
    def addresses(self) -> list[IAddress]:
        """What is listened on now, in the order of ``listen``."""
        return [self._open_ones[each].port.getHost() for each in self._endpoints if each in self._open_ones]

    def prepare(self, listen: Sequence[str], *, authenticated: bool) -> Relisten:
        """Get ready to listen there instead: certificates are read, also those of endpoints that stay, and what is new
        is opened, but does not accept yet. Raises :class:`pubd.errors.InvalidOption`, and then nothing has changed.
        """
        endpoints = _endpoints(listen, authenticated)
        certificates = _certificates(endpoints)
        former = {each: each for each in self._open_ones}
        places = {place_of(each): each for each in self._open_ones}
        stay: dict[Endpoint, Endpoint] = {each: each for each in endpoints if each in former}
        for each in endpoints:
            there = places.get(place_of(each))
            if each not in stay and there is not None and there not in endpoints and there not in stay.values():
                stay[each] = there
        for there in stay.values():
            self._open_ones[there].check(authenticated=authenticated)
        gone = [each for each in self._open_ones if each not in stay.values()]
        prepared = Relisten(self, endpoints, certificates, authenticated, stay=stay, gone=gone)
        try:
            for each in endpoints:
                if each not in stay:
                    prepared.open(each, self._reactor)
        except BaseException:
            prepared.drop()
            raise
        return prepared

    def apply(self, prepared: Relisten) -> Deferred[None]:
        """For :class:`Relisten`. Fires when what is not listened on any more has been closed."""
        self._endpoints, self._certificates = prepared.endpoints, prepared.certificates
        self._authenticated = prepared.authenticated
        if not self.running:
            self._ready = prepared.opened
            return succeed(None)
        closing = []
        for each in prepared.gone:
            self.log.info("not listening on {listen} any more", listen=each.text)
            closing.append(self._open_ones.pop(each).leave(self._end))
        for each, there in prepared.stay.items():
            listening = self._open_ones.pop(there)
            listening.become(each, prepared.certificates.get(each))
            self._open_ones[each] = listening
            if each != there:
                self.log.info("listening on {listen} as {new} now", listen=there.text, new=each.text)
        for each, opened in prepared.opened.items():
            self._listen(each, opened)
        return Deferred.fromCoroutine(self._then_open(closing, prepared))

    async def _then_open(self, closing: list[Deferred[Any]], prepared: Relisten) -> None:
        """What could not be opened before another was closed; where that fails, the other is opened again."""
        await self._closed(closing)
        for endpoint, former in prepared.after.items():
            if not self.running:
                return
            try:
                self._listen(endpoint, Opened(endpoint, self._reactor, authenticated=self._authenticated))
            except InvalidOption as error:
                self.log.critical("{error}; listening on {former} again", error=str(error), former=former.text)
                self._endpoints[self._endpoints.index(endpoint)] = former
                self._certificates.update(_certificates([former]))
                self._open([former])

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
                if endpoint not in self._open_ones:
                    opened = self._ready.pop(endpoint, None)
                    self._listen(endpoint, opened or Opened(endpoint, self._reactor, authenticated=self._authenticated))
        except InvalidOption as error:
            self._broken = True
            self.log.critical("{error}", error=str(error))
            self._close()
            self._failed(error)

    def _listen(self, endpoint: Endpoint, opened: Opened) -> None:
        self._open_ones[endpoint] = Listening(opened, self._certificates.get(endpoint), self._factory, self._reactor)
        self.log.info("listening on {listen}", listen=endpoint.text)

    def _close(self) -> Deferred[None]:
        # All of them stop accepting now; that they are closed is waited for afterwards.
        closing = [each.close() for each in self._open_ones.values()]
        self._open_ones.clear()
        return Deferred.fromCoroutine(self._closed(closing))

    async def _closed(self, closing: list[Deferred[Any]]) -> None:
        for each in closing:
            try:
                await each
            except Exception:
                self.log.failure("a socket did not close; going on")


class Relisten:
    """What :meth:`Listeners.prepare` got ready: :meth:`apply` it, which cannot fail, or :meth:`drop` it."""

    def __init__(
        self,
        listeners: Listeners,
        endpoints: list[Endpoint],
        certificates: dict[Endpoint, Certificates],
        authenticated: bool,
        *,
        stay: dict[Endpoint, Endpoint] | None = None,
        gone: Sequence[Endpoint] = (),
    ) -> None:
        self._listeners = listeners
        self.endpoints = endpoints
        self.certificates = certificates
        self.authenticated = authenticated
        self.stay = stay or {}
        """Those whose sockets stay, and what they were."""
        self.gone = gone
        self.opened: dict[Endpoint, Opened] = {}
        self.after: dict[Endpoint, Endpoint] = {}
        """Those to be opened after another, which may be in their way, was closed."""

    def open(self, endpoint: Endpoint, reactor: Any) -> None:
        """Open it; raises InvalidOption."""
        in_the_way = [
            each
            for each in self.gone
            if each.kind is Kind.TCP and endpoint.kind is Kind.TCP and each.port == endpoint.port
        ]
        if in_the_way and endpoint.port:
            self.after[endpoint] = in_the_way[0]
        else:
            self.opened[endpoint] = Opened(endpoint, reactor, authenticated=self.authenticated)

    def apply(self) -> Deferred[None]:
        """See :meth:`Listeners.apply`."""
        return self._listeners.apply(self)

    def drop(self) -> None:
        """Close what was opened."""
        for opened in self.opened.values():
            opened.socket.close()
            opened.close()
        self.opened.clear()


def _endpoints(listen: Sequence[str], authenticated: bool) -> list[Endpoint]:
    for text in listen:
        if listen.count(text) > 1:
            raise InvalidOption(f"{text!r} is given twice; remove one of them")
        if why := refusal(text, authenticated=authenticated):
            raise InvalidOption(why)
    return [Endpoint.parse(text) for text in listen]


def _certificates(endpoints: Sequence[Endpoint]) -> dict[Endpoint, Certificates]:
    return {each: Certificates(each) for each in endpoints if each.tls is not None}


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
