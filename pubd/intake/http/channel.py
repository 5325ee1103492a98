"""Channel: one connection. Twisted's HTTPChannel reads requests off it; what that lets pass is refused here.

A request goes through the stages of :class:`Stage` from top to bottom, and a kept connection back to the top. Each
stage has a deadline, which the site looks at about once a second.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.web.http import HTTPChannel

from pubd.errors import NotAllowed, NotAuthenticated, PubdError, PublisherStopped
from pubd.intake.http import identity
from pubd.intake.http.answer import Answer, Refusal, error_answer, problem_answer
from pubd.intake.http.coding import decoder
from pubd.intake.http.head import CONTROLS, Arriving, keeps_alive, request_of
from pubd.intake.http.inflow import Inflow
from pubd.intake.peer import peer_of, principal_of_peer
from pubd.intake.problem import problem

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from pubd.intake.http.request import Request
    from pubd.intake.http.route import Action, Stream
    from pubd.intake.http.site import Site
    from pubd.intake.peer import Peer

#: Bytes of body by which a client must get on within body_timeout: one byte a minute is no progress.
PROGRESS = 1024
#: A refused body up to this (bytes) is read and dropped, so that the connection can be kept.
DROPPED = 64 * 1024
#: Answers (bytes) that are kept here for a client which sends on and reads nothing.
MAX_UNREAD = 4 * 1024 * 1024
#: Seconds for a client to take its last answer, and bytes of it that are read and dropped meanwhile: a connection that
#: is closed with something unread is reset, and its last answer may be lost.
LINGER, LINGERING = 2.0, 4 * 1024 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MISTAKE = problem_answer(problem("internal", "pubd made a mistake; its log says more"), close=True)


class Stage(enum.Enum):
    """What the connection is at."""

    IDLE = "nothing of a request has come"
    HEAD = "request line and headers come"
    BODY = "the body comes"
    ANSWERING = "all of it has come, and the answer is being made"
    CLOSING = "nothing more is read; the last answer goes out"


class Channel(HTTPChannel):
    """One connection."""

    log = Logger()

    # The deadlines are the site's; a timer of Twisted's for each request would cost more than reading it.
    timeOut = None
    MAX_LENGTH = totalHeadersSize = 16384
    maxHeaders = 100
    requestFactory = Arriving  # type: ignore[assignment]  # what HTTPChannel needs of a Request, and no more

    transport: Any

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self._clock = site.clock
        self._stage = Stage.IDLE
        self._deadline: float | None = None
        self._lines = 0
        """Of the head that is being read."""
        self._peer: Peer | None = None
        self._gone = False
        self._holders: set[str] = set()
        self._dropped = 0
        self._unread: list[bytes] = []
        self._unread_size = 0
        self._reset()

    def _reset(self) -> None:
        """What lives for one request."""
        self._request: Request | None = None
        self._action: Action | None = None
        self._inflow: Inflow | None = None
        self._early: Answer | None = None
        """The answer that the head alone earned."""
        self._came: list[bytes] = []
        """Chunks of the body, as they came together."""
        self._body: bytes | bytearray = b""
        self._taken = 0
        """Bytes of the door's budget that are given back with the answer."""
        self._acting = False
        self._progress = 0
        self._stream: Stream | None = None
        self._chunked = False
        self._ended = False
        """All of the stream's body has come."""

    # Life

    def connectionMade(self) -> None:
        """As IProtocol says."""
        super().connectionMade()
        self._site.channels.add(self)
        self._deadline = self._clock.seconds() + self._site.options.idle_timeout

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's takes any
        """As IProtocol says. What is being stored, is; its answer has nobody to go to."""
        self._gone = True
        self._deadline = None
        self._stage = Stage.CLOSING
        super().connectionLost(reason)
        self._leave_body()
        if not self._acting:
            self._give()
        if self._stream is not None:
            self._stream.lost()
            self._stream = None
        self._unread.clear()
        self._site.channels.discard(self)
        if not self._site.channels:
            self._site.emptied()

    def stop(self) -> None:
        """pubd stops: what is being answered will be, everything else is refused."""
        if self._stage is Stage.ANSWERING:
            self.persistent = False
        elif self._stage is Stage.IDLE:
            self.loseConnection()
        elif self._stage is not Stage.CLOSING:
            self._refuse_now(PublisherStopped("pubd is stopping; nothing was accepted"))

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def look(self, now: float) -> None:
        """Cut the connection if it has taken too long."""
        if self._deadline is None or now < self._deadline:
            return
        if self._stage is Stage.IDLE:
            self.loseConnection()
        elif self._stage in (Stage.HEAD, Stage.BODY) and not self._waitingForTransport:
            self._refuse_now(Refusal("request-timeout", "the request came too slowly", close=True))
        else:
            # It does not take its answer.
            self.abort()

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
            if self._stream is not None:
                self.fail()
            else:
                self._end_with(_MISTAKE)
        if self._stage is Stage.IDLE and self._buffer:
            self._begin_head()

    def _begin_head(self) -> None:
        self._stage = Stage.HEAD
        self._deadline = self._clock.seconds() + self._site.options.header_timeout
        self._lines = 0

    def lineReceived(self, line: bytes) -> None:
        """Called by LineReceiver for each line of a head."""
        if self._stage is Stage.CLOSING:
            return
        if self._stage is Stage.IDLE:
            self._begin_head()
        if CONTROLS.search(line):
            self._refuse_now(_malformed("a control character in the head"))
        elif self._lines and line[:1] in (b" ", b"\t"):
            self._refuse_now(_malformed("a header goes on in the next line (obs-fold); write it as one line"))
        else:
            self._lines += bool(line)
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002
        """Called by LineReceiver."""
        self._refuse_now(_malformed(f"a line of the head is over {self.MAX_LENGTH} bytes"))

    def headerReceived(self, line: bytes) -> bool:
        """Called by HTTPChannel for each header."""
        if self._stage is Stage.CLOSING:
            return False
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # int() takes no number of thousands of digits.
            self._refuse_now(_malformed("Content-Length is no number"))
            return False

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._refuse_now(_malformed("this breaks the rules of HTTP/1.1 (RFC 9112), or the head is too large"))

    def allHeadersReceived(self) -> None:
        """Called by HTTPChannel."""
        if self._stage is Stage.CLOSING:
            return
        self._stage = Stage.BODY
        self._deadline = self._clock.seconds() + self._site.options.body_timeout
        try:
            self._begin(self.requests[-1])
        except PubdError as error:
            self._refuse(error_answer(error))
        except Exception:
            self.log.failure("a request was not understood; please report this")
            self._refuse(_MISTAKE)

    def _begin(self, arriving: Arriving) -> None:
        """Everything that the head alone can tell."""
        site = self._site
        request = self._request = request_of(self._command, self._path, self._version, arriving)
        self.persistent = keeps_alive(request)
        if site.stopping:
            raise PublisherStopped("pubd is stopping; nothing was accepted")
        action = self._action = site.routes.action(request)
        if not action.everybody:
            self._identify(request)
            if action.operate and not request.principal.operate:
                site.refusals.not_operating(request.principal, "look at, retry or discard messages")
                raise NotAllowed("it does not operate")
        if self.length == 0:
            if "content-encoding" not in request.headers:
                return
            decoder(request.headers["content-encoding"])
            return
        self._expect_body(request, action)

    def _identify(self, request: Request) -> None:
        headers = request.headers
        if self._peer is None:
            self._peer = peer_of(self.transport)
        peer, site = self._peer, self._site
        try:
            request.principal, by_token = identity.principal(
                headers, site.access, lambda: principal_of_peer(peer, site.access)
            )
            if not by_token:
                over_ip = peer.uid is None and not peer.certificate
                identity.check_not_a_web_page(request.method, headers, over_ip=over_ip, names=site.names)
        except (NotAuthenticated, Refusal) as error:
            site.refusals.unknown(f"http: {peer.text}", str(error))
            raise

    def _expect_body(self, request: Request, action: Action) -> None:
        headers, options = request.headers, self._site.options
        if action.media == ():
            raise Refusal("malformed", "this request has no body; leave it out", field="body")
        if action.media is not None and request.media_type not in action.media:
            raise Refusal(
                "unsupported-media-type",
                f"must be {' or '.join(action.media)}; say so, as in curl -H 'Content-Type: {action.media[0]}'",
                field="content-type",
                headers=((b"Accept", ", ".join(action.media).encode("ascii")),),
            )
        decode = decoder(headers.get("content-encoding", "")) if action.decode else None
        expect = headers.get("expect")
        if expect is not None and expect.lower() != "100-continue":
            raise Refusal("expectation-failed", "pubd knows 100-continue only", field="expect")
        stream = action.open(request, self) if action.open is not None else None
        if stream is None and decode is None and self.length is not None and self.length > options.max_body:
            raise Refusal("too-large", f"the body is over the limit of {options.max_body} bytes (max_body)", close=True)
        self._stream = stream
        self._inflow = Inflow(
            budget=self._site.door,
            clock=self._clock,
            decoder=decode,
            limit=None if stream is not None else options.max_body,
            sink=self._collect if stream is None else stream.data,
            ended=self._whole,
            failed=self._refuse_now,
            hold=self._hold_inflow,
        )
        if expect is not None and request.version == b"HTTP/1.1" and not self._buffer:
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
        if self.requests and self._inflow is not None:
            self._pass_body()
            if self._stage is not Stage.BODY:
                return
        self._stage = Stage.ANSWERING
        self._deadline = self._until_read()
        if self._early is not None:
            self.answer(self._early)
        elif self._inflow is not None:
            self._inflow.end()
        else:
            self._whole()

    def _pass_body(self) -> None:
        came, self._came = self._came, []
        if not came or self._stage is not Stage.BODY:
            return
        data = came[0] if len(came) == 1 else b"".join(came)
        self._progress += len(data)
        if self._progress >= PROGRESS and self._deadline is not None:
            self._progress = 0
            self._deadline = self._clock.seconds() + self._site.options.body_timeout
        if self._inflow is not None and self._early is None:
            self._inflow.data(data)

    def _collect(self, data: bytes) -> None:
        self._taken += len(data)
        if not self._body:
            self._body = data
            return
        if isinstance(self._body, bytes):
            # Not a list: pieces may be of one byte.
            self._body = bytearray(self._body)
        self._body += data

    def _leave_body(self) -> None:
        if self._inflow is not None:
            self._inflow.close()
            self._inflow = None
        self._body = b""

    def _give(self) -> None:
        taken, self._taken = self._taken, 0
        if taken:
            self._site.door.give(taken)

    # The answer

    def _whole(self) -> None:
        """The body is complete and decoded."""
        request, action = self._request, self._action
        assert request is not None
        assert action is not None
        if self._stream is not None:
            self._ended = True
            self._stream.end()
            return
        request.body = bytes(self._body)
        self._body = b""
        self._acting = True
        try:
            answer = action.act(request)
        except PubdError as error:
            self.answer(error_answer(error))
            return
        except Exception:
            self.log.failure("a request failed; please report this")
            self.answer(_MISTAKE)
            return
        if isinstance(answer, Answer):
            self.answer(answer)
            return
        later = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)
        later.addCallbacks(self.answer, self._failed)
        later.addErrback(self._lost_sight)

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, PubdError):
            self.answer(error_answer(failure.value))
            return
        self.log.failure("a request failed; please report this", failure)
        self.answer(_MISTAKE)

    def _lost_sight(self, failure: Failure) -> None:
        self.log.failure("an answer could not be written; please report this", failure)
        self.fail()

    def answer(self, answer: Answer) -> None:
        """The answer to the request that has come as a whole; then the next one's turn."""
        self._give()
        if self._gone:
            return
        keep = bool(self.persistent) and not answer.close and not self._site.stopping
        self.persistent = keep
        head = self._site.head(answer, keep)
        bare = self._request is not None and self._request.method == "HEAD"
        self.transport.write(head if bare else head + answer.body)
        self._next()

    def _next(self) -> None:
        self._reset()
        self._stage = Stage.IDLE
        self._deadline = self._clock.seconds() + self._site.options.idle_timeout
        self.requestDone(self.requests[0])

    def _refuse(self, answer: Answer) -> None:
        """Answer a request by its head alone."""
        if self.length == 0:
            self._early = answer
        elif (
            not answer.close
            and self.length is not None
            and self.length <= DROPPED
            and self._request is not None
            and "expect" not in self._request.headers
        ):
            # Answered when the body, which nobody wants, has come.
            self._early = answer
        else:
            self._end_with(answer)

    def _refuse_now(self, error: PubdError) -> None:
        """Answer before everything has come, and close."""
        if self._stage is Stage.CLOSING:
            return
        stream = self._stream
        if stream is not None:
            self._leave_body()
            self._stage = Stage.ANSWERING
            self._deadline = self._until_read()
            self.persistent = False
            if stream.cut(error):
                return
            self._stream = None
        self._end_with(error_answer(error))

    def _end_with(self, answer: Answer) -> None:
        """The last answer of this connection, whatever else may come over it."""
        if self._stage is Stage.CLOSING:
            return
        self._leave_body()
        self._give()
        self.persistent = False
        bare = self._request is not None and self._request.method == "HEAD"
        head = self._site.head(answer, keep=False)
        self.transport.write(head if bare else head + answer.body)
        self._linger()

    def _linger(self) -> None:
        self._stage = Stage.CLOSING
        self._deadline = self._clock.seconds() + LINGER
        self._holders.clear()
        if ISSLTransport.providedBy(self.transport):
            # TLS says goodbye, and waits for the peer's.
            super().loseConnection()
            return
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()
        self.transport.resumeProducing()

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > LINGERING:
            self.abort()

    def loseConnection(self) -> None:
        """Close once everything has been written; called by HTTPChannel, too."""
        self._stage = Stage.CLOSING
        self._deadline = self._clock.seconds() + LINGER
        super().loseConnection()

    # The answer of a stream: see pubd.intake.http.route.Connection

    def start(self, status: int, content_type: bytes) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        request = self._request
        assert request is not None
        self._chunked = request.version == b"HTTP/1.1"
        keep = bool(self.persistent) and not self._site.stopping
        self.persistent = keep
        self._put(self._site.open_head(status, content_type, keep, self._chunked))

    def write(self, data: bytes) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        self._put(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        if self._gone:
            return
        if self._chunked:
            self._put(b"0\r\n\r\n")
        unread, self._unread = self._unread, []
        self._unread_size = 0
        if unread:
            self.transport.write(b"".join(unread))
        self._holders.clear()
        self._stream = None
        if self._ended:
            self._next()
        else:
            self._linger()

    def fail(self) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        if not self._gone:
            self.abort()

    def hold(self, holding: bool) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        self._hold("stream", holding)

    def _put(self, data: bytes) -> None:
        if self._gone:
            return
        if not self._waitingForTransport:
            self.transport.write(data)
            return
        # The client sends on without reading. Many do, until everything is sent.
        self._unread.append(data)
        self._unread_size += len(data)
        if self._unread_size > MAX_UNREAD:
            self._hold("unread", True)

    # Reading or not

    def _hold_inflow(self, holding: bool) -> None:
        self._hold("inflow", holding)

    def _hold(self, why: str, holding: bool) -> None:
        if holding == (why in self._holders) or self._stage is Stage.CLOSING:
            return
        if holding:
            self._holders.add(why)
        else:
            self._holders.discard(why)
        if self._stage is Stage.BODY:
            # Who is held back cannot be too slow; who does not read can.
            waits = "unread" in self._holders or not self._holders
            self._deadline = self._clock.seconds() + self._site.options.body_timeout if waits else None
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._gone:
            return
        if self._holders or (self._waitingForTransport and self._stream is None):
            self._networkProducer.pauseProducing()
        elif not self._handlingRequest:
            self._networkProducer.resumeProducing()

    def _until_read(self) -> float | None:
        """While an answer is made: until when the client must have read some of what it was sent already."""
        return self._clock.seconds() + self._site.options.body_timeout if self._waitingForTransport else None

    def pauseProducing(self) -> None:
        """Called by the transport: the client does not read."""
        self._waitingForTransport = True
        if self._stage is Stage.ANSWERING:
            self._deadline = self._until_read()
        self._read_or_not()

    def resumeProducing(self) -> None:
        """Called by the transport: the client has read."""
        self._waitingForTransport = False
        if self._stage is Stage.ANSWERING:
            self._deadline = None
        unread, self._unread = self._unread, []
        self._unread_size = 0
        if unread:
            self.transport.write(b"".join(unread))
        self._hold("unread", False)
        self._read_or_not()


def _malformed(detail: str) -> Refusal:
    return Refusal("malformed", detail, close=True)
