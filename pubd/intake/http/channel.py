"""Channel: one connection. Twisted's HTTPChannel reads requests off it, one at a time; each is an exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import Logger
from zope.interface import implementer

from pubd.errors import PubdError, PublisherStopped
from pubd.intake.http.answer import error_answer
from pubd.intake.http.exchange import MISTAKE, Exchange
from pubd.intake.http.head import Arriving, keeps_alive, request_of
from pubd.intake.http.pace import PacedChannel, Stage
from pubd.intake.peer import peer_of

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from pubd.intake.http.answer import Answer
    from pubd.intake.http.outflow import Outflow
    from pubd.intake.http.site import Site
    from pubd.intake.peer import Peer

#: A refused body up to this (bytes) is read and dropped, so that the connection can be kept.
DROPPED = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@implementer(IHalfCloseableProtocol)
class Channel(PacedChannel):
    """One connection."""

    log = Logger()

    requestFactory = Arriving  # type: ignore[assignment]  # what HTTPChannel needs of a Request, and no more

    def __init__(self, site: Site) -> None:
        super().__init__(site.options, site.clock, site.unread)
        self._site = site
        self._peer: Peer | None = None
        self._ended = False
        """The client has ended its side."""
        self._reset()

    def _reset(self) -> None:
        """What lives for one request."""
        self._exchange: Exchange | None = None
        """Once its head is read."""
        self._early: Answer | None = None
        """The answer that the head alone earned."""
        self._came: list[bytes] = []
        """Chunks of the body, as they came together."""

    @property
    def streaming(self) -> bool:
        """See :class:`PacedChannel`."""
        return self._exchange is not None and self._exchange.streaming

    @property
    def patience(self) -> float:
        """See :class:`PacedChannel`."""
        own = self._exchange.patience if self._exchange is not None else None
        return super().patience if own is None else own

    def taken(self) -> None:
        """See :class:`PacedChannel`."""
        if self._exchange is not None:
            self._exchange.taken()

    # Life

    def connectionMade(self) -> None:
        """As IProtocol says."""
        super().connectionMade()
        self._site.channels.add(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's takes any
        """As IProtocol says."""
        super().connectionLost(reason)
        if self._exchange is not None:
            self._exchange.lost()
        self._site.channels.discard(self)
        if not self._site.channels:
            self._site.emptied()

    def readConnectionLost(self) -> None:
        """The client has ended its side, and still gets the answers to what it asked completely."""
        self._ended = True
        if self._stage is not Stage.ANSWERING or (self._exchange is not None and self._exchange.endless):
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our side is ended, by ourselves."""

    def stop(self, why: str = "pubd is stopping") -> None:
        """pubd stops, or listens there no more: what is being answered will be, everything else is refused."""
        if self._stage is Stage.ANSWERING:
            self.persistent = False
            if self._exchange is not None:
                self._exchange.stop()
        elif self._stage is Stage.IDLE:
            self.loseConnection()
        elif self._stage is not Stage.CLOSING:
            self.refuse(PublisherStopped(f"{why}; nothing was accepted"))

    # The head

    def dataReceived(self, data: bytes) -> None:
        """As IProtocol says."""
        if self._stage is Stage.CLOSING:
            self._drop(data)
            return
        try:
            super().dataReceived(data)
        except Exception:
            self.log.failure("a request could not be read; please report this")
            if self.streaming:
                self.abort_answer()
            else:
                self._end_with(MISTAKE)
        if self._stage is Stage.IDLE and self._buffer:
            self._to_head()

    def allHeadersReceived(self) -> None:
        """Called by HTTPChannel."""
        if self._stage is Stage.CLOSING:
            return
        self._to_body()
        try:
            self._begin(self.requests[-1])
        except PubdError as error:
            self._refuse(error_answer(error))
        except Exception:
            self.log.failure("a request was not understood; please report this")
            self._refuse(MISTAKE)

    def _begin(self, arriving: Arriving) -> None:
        """Everything that the head alone can tell."""
        request = request_of(self._command, self._path, self._version, arriving)
        self.persistent = keeps_alive(request)
        self._exchange = Exchange(self, self._site, request)
        self._exchange.begin(self.length)

    @property
    def peer(self) -> Peer:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        if self._peer is None:
            self._peer = peer_of(self.transport)
        return self._peer

    def go_ahead(self) -> None:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        if not self._buffer:
            self.transport.write(_CONTINUE)

    # The body

    def rawDataReceived(self, data: bytes) -> None:
        """Called by LineReceiver for what is no line."""
        if self._stage is Stage.CLOSING:
            self._drop(data)
            return
        if self._stage is not Stage.BODY:
            if self._handlingRequest:
                super().rawDataReceived(data)
            else:
                # The rest of a body of which nobody wants to know.
                self._drop(data)
            return
        # Chunks may be of one byte each: what comes together is passed on together.
        super().rawDataReceived(data)
        self._pass_body()

    def body_came(self, data: bytes) -> None:
        """Called for each part of the body."""
        if data:
            self._came.append(data)

    def all_came(self) -> None:
        """Called when the request is complete."""
        if self._stage is not Stage.BODY:
            return
        if self._exchange is not None and self._exchange.wants_body:
            self._pass_body()
            if self._stage is not Stage.BODY:
                return
        self._to_answering()
        if self._early is not None:
            self.answer(self._early)
        elif self._exchange is not None:
            self._exchange.end()

    def _pass_body(self) -> None:
        came, self._came = self._came, []
        if not came or self._stage is not Stage.BODY:
            return
        data = came[0] if len(came) == 1 else b"".join(came)
        self._progressed(len(data))
        if self._exchange is not None and self._early is None:
            self._exchange.data(data)

    # The answer

    def answer(self, answer: Answer) -> None:
        """The answer to the request that has come as a whole; then the next one's turn."""
        if self._exchange is not None:
            self._exchange.give()
        if answer.outflow is not None and (self._gone or not self._flow(answer, answer.outflow)):
            answer.outflow.lost()
        elif answer.outflow is not None:
            return
        if self._gone:
            return
        if answer.close:
            self.persistent = False
        self._write_answer(answer, self.keep())
        self._next()

    def _flow(self, answer: Answer, outflow: Outflow) -> bool:
        """Whether it was begun: HEAD has no body."""
        if self._exchange is None or self._exchange.request.method == "HEAD":
            return False
        self._exchange.flow(answer, outflow)
        if self._site.stopping and self._exchange is not None:
            self._exchange.stop()
        return True

    def keep(self) -> bool:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        keep = bool(self.persistent) and not self._site.stopping
        self.persistent = keep
        return keep

    def _write_answer(self, answer: Answer, keep: bool) -> None:
        head = self._site.head(answer, keep)
        bare = self._exchange is not None and self._exchange.request.method == "HEAD"
        self.transport.write(head if bare else head + answer.body)

    def _next(self) -> None:
        self._reset()
        self._to_idle()
        self.requestDone(self.requests[0])
        if self._ended and self._stage in (Stage.IDLE, Stage.HEAD, Stage.BODY):
            self.loseConnection()

    def _refuse(self, answer: Answer) -> None:
        """Answer a request by its head alone."""
        if self.length == 0:
            self._early = answer
        elif (
            not answer.close
            and self.length is not None
            and self.length <= DROPPED
            and self._exchange is not None
            and "expect" not in self._exchange.request.headers
        ):
            # Answered when the body, which nobody wants, has come.
            self._early = answer
        else:
            self._end_with(answer)

    def refuse(self, error: PubdError) -> None:
        """Answer before everything has come, and close."""
        if self._stage is Stage.CLOSING:
            return
        exchange = self._exchange
        if exchange is not None and exchange.streaming:
            exchange.leave_body()
            self._to_answering()
            self.persistent = False
            if exchange.cut(error):
                return
        self._end_with(error_answer(error))

    def _end_with(self, answer: Answer) -> None:
        """The last answer of this connection, whatever else may come over it."""
        if self._stage is Stage.CLOSING:
            return
        if self._exchange is not None:
            self._exchange.leave_body()
            self._exchange.give()
        self.persistent = False
        self._write_answer(answer, keep=False)
        self._linger()

    # The answer of a stream: see pubd.intake.http.exchange.Connection

    def over(self, *, whole: bool) -> None:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        if self._gone:
            return
        self._holders.clear()
        if whole:
            self._next()
        else:
            self._linger()

    def abort_answer(self) -> None:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        if not self._gone:
            self.abort()
