"""The link's ReconnectingClientFactory, and the connector that lets it use endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import NotConnectingError
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from pubd.amqp.lifecycle import LinkInput
from pubd.amqp.reasons import Verdict, exception_of, of_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IStreamClientEndpoint

    from pubd.amqp.link import Link
    from pubd.amqp.protocol import LinkProtocol


class LinkFactory(ReconnectingClientFactory):
    """Builds the link's connections, hears them, and schedules the next attempt when and where the link says."""

    noisy = False

    def __init__(self, link: Link, reactor: Any) -> None:
        self._link = link
        # How long to wait is the rota's decision: it knows which broker refused, and when.
        self.clock: Any = reactor

    def buildProtocol(self, addr: IAddress | None) -> LinkProtocol:
        """One connection, which reports to this factory."""
        del addr
        connection = self._link.build()
        connection.factory = self
        return connection

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """No transport came to be."""
        del connector
        self._link.ended(of_exception(exception_of(reason), self._link.url, opened=False))

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        """Superseded by ``connection_ended``, which knows the broker's reason."""

    def retry(self, connector: Any = None) -> None:
        """Schedule the next attempt, unless the link is being stopped."""
        del connector
        if not self.continueTrying:
            return
        self.retries += 1
        self._callID = self.clock.callLater(self._link.next_delay, self._again)

    def resetDelay(self) -> None:
        """Only once publishing is possible, and never after ``stopTrying``, which it would undo."""
        if self.continueTrying:
            ReconnectingClientFactory.resetDelay(self)

    def stopTrying(self) -> None:
        """Cancel the attempt or the wait for it; nothing is scheduled until the link is started again."""
        ReconnectingClientFactory.stopTrying(self)

    def retry_now(self) -> None:
        """Make the scheduled attempt now, if there is one."""
        call = self._callID
        if call is not None and call.active():
            call.cancel()
            self._again()

    def _again(self) -> None:
        self._callID = None
        self._link.step(LinkInput.RETRY)

    def connection_made(self, connection: LinkProtocol) -> None:
        self._link.made(connection)

    def connection_opened(self, connection: LinkProtocol) -> None:
        self._link.heard(connection, LinkInput.OPENED)

    def connection_blocked(self, connection: LinkProtocol, text: str) -> None:
        self._link.heard(connection, LinkInput.BLOCKED, text)

    def connection_unblocked(self, connection: LinkProtocol) -> None:
        self._link.heard(connection, LinkInput.UNBLOCKED)

    def connection_resumed(self, connection: LinkProtocol) -> None:
        del connection
        if self._link.told_ready:
            self._link.tell(self._link.events.link_resumed)

    def connection_flush(self, connection: LinkProtocol) -> None:
        del connection
        if self._link.told_ready:
            self._link.tell(self._link.events.link_flush)

    def connection_ended(self, connection: LinkProtocol, verdict: Verdict) -> None:
        del connection
        self._link.ended(verdict)


@implementer(IConnector)
class EndpointConnector:
    """An IConnector over endpoints, which know none, so that a ReconnectingClientFactory can use them."""

    def __init__(self, factory: LinkFactory, endpoint: Callable[[], IStreamClientEndpoint]) -> None:
        self.factory = factory
        self._endpoint = endpoint
        self._attempt: Deferred[Any] | None = None
        self._connection: LinkProtocol | None = None

    def connect(self) -> None:
        """Begin one attempt; its failure is told to the factory, its success by the protocol."""
        factory = self.factory
        factory.connector = self
        try:
            attempt = self._endpoint().connect(factory)
        except Exception:
            factory.clientConnectionFailed(self, Failure())
            return
        self._attempt = attempt
        attempt.addCallbacks(self._connected, self._failed)

    def stopConnecting(self) -> None:
        """Cancel the attempt."""
        if self._attempt is None:
            raise NotConnectingError
        self._attempt.cancel()

    def disconnect(self) -> None:
        """Cancel the attempt, or drop the connection."""
        if self._attempt is not None:
            self._attempt.cancel()
        elif self._connection is not None:
            self._connection.abort("disconnected")

    def getDestination(self) -> Any:
        """The address of the peer, once connected."""
        return None if self._connection is None else self._connection.url

    def _connected(self, connection: LinkProtocol) -> None:
        self._attempt, self._connection = None, connection

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        self.factory.clientConnectionFailed(self, failure)
