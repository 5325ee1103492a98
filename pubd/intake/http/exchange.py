"""Exchange: one request, from its head to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pubd.errors import NotAllowed, NotAuthenticated, PubdError, PublisherStopped
from pubd.intake.http import identity
from pubd.intake.http.answer import Answer, Refusal, Shown, error_answer, problem_answer
from pubd.intake.http.coding import decoder
from pubd.intake.http.inflow import Inflow
from pubd.intake.peer import principal_of_peer
from pubd.intake.problem import problem

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from pubd.intake.http.outflow import Outflow
    from pubd.intake.http.request import Request
    from pubd.intake.http.route import Action, Stream
    from pubd.intake.http.site import Site
    from pubd.intake.peer import Peer

MISTAKE = problem_answer(problem("internal", "pubd made a mistake; its log says more"), close=True)


class Connection(Protocol):
    """Where the request comes from, and its answer goes."""

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""

    def go_ahead(self) -> None:
        """Ask for the body that waits to be asked for."""

    def hold(self, why: str, holding: bool) -> None:
        """Give no more of the body, or go on; each for its own reason."""

    def refuse(self, error: PubdError) -> None:
        """Answer before everything has come, and close."""

    def answer(self, answer: Answer) -> None:
        """The answer to a request that has come as a whole."""

    @property
    def full(self) -> bool:
        """The client does not read what it was sent."""

    def keep(self) -> bool:
        """Whether the connection is kept after this answer, as its head has to say now."""

    def put(self, data: bytes) -> None:
        """Some of an answer that is written bit by bit."""

    @property
    def behind(self) -> bool:
        """Whether so much of it is unread that there should be no more for now."""

    def flush(self) -> None:
        """Everything that was put, to the transport."""

    def over(self, *, whole: bool) -> None:
        """The answer that was put is complete; ``whole``: all of the request has come."""

    def abort_answer(self) -> None:
        """The answer that was begun cannot be right any more."""


class Exchange:
    """Reads, acts, answers. It is the :class:`pubd.intake.http.route.Connection` of the stream that it opens."""

    log = Logger()

    # There is one for each message that comes alone.
    __slots__ = (
        "_acting",
        "_action",
        "_body",
        "_channel",
        "_chunked",
        "_ended",
        "_inflow",
        "_outflow",
        "_site",
        "_stream",
        "_taken",
        "request",
    )

    def __init__(self, channel: Connection, site: Site, request: Request) -> None:
        self.request = request
        self._channel = channel
        self._site = site
        self._action: Action | None = None
        self._inflow: Inflow | None = None
        self._stream: Stream | None = None
        self._outflow: Outflow | None = None
        # Its body, where nobody takes that bit by bit.
        self._body: bytes | bytearray = b""
        # Bytes of the door's budget that are given back with the answer.
        self._taken = 0
        self._acting = False
        self._chunked = False
        # All of the stream's body has come.
        self._ended = False

    # The head

    def begin(self, length: int | None) -> None:
        """Everything that the head alone can tell. ``length`` in bytes, None: in chunks. Raises PubdError."""
        site, request = self._site, self.request
        if site.stopping:
            raise PublisherStopped("pubd is stopping; nothing was accepted")
        action = self._action = site.routes.action(request)
        if action.shown is None:
            self._admit(action, length)
            return
        try:
            self._admit(action, length)
        except PubdError as error:
            raise Shown(action.shown(error)) from None

    def _admit(self, action: Action, length: int | None) -> None:
        site, request = self._site, self.request
        if not action.everybody:
            self._identify(own_page=action.shown is not None)
            if action.operate and not request.principal.operate:
                site.refusals.not_operating(request.principal, "look at messages or decide about them")
                raise NotAllowed("it does not operate")
        if length == 0:
            if action.decode and "content-encoding" in request.headers:
                decoder(request.headers["content-encoding"])
            return
        self._expect_body(action, length)

    def _identify(self, *, own_page: bool) -> None:
        request, site, peer = self.request, self._site, self._channel.peer
        headers = request.headers
        try:
            request.principal, by_token = identity.principal(
                headers, site.access, lambda: principal_of_peer(peer, site.access)
            )
            request.who = request.principal.name
            if by_token:
                identity.check_not_another_page(headers)
            else:
                if peer.uid is not None:
                    request.who += f" (uid {peer.uid})"
                over_ip = peer.uid is None and not peer.certificate
                identity.check_not_a_web_page(
                    request.method, headers, over_ip=over_ip, names=site.names, own_page=own_page
                )
        except (NotAuthenticated, Refusal) as error:
            site.refusals.unknown(f"http: {peer.text}", str(error))
            raise

    def _expect_body(self, action: Action, length: int | None) -> None:
        request, options = self.request, self._site.options
        headers = request.headers
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
        if stream is None and decode is None and length is not None and length > options.max_body:
            raise Refusal("too-large", f"the body is over the limit of {options.max_body} bytes (max_body)", close=True)
        self._stream = stream
        self._inflow = Inflow(
            budget=self._site.door,
            clock=self._site.clock,
            decoder=decode,
            limit=None if stream is not None else options.max_body,
            sink=self._collect if stream is None else stream.data,
            ended=self._whole,
            failed=self._channel.refuse,
            hold=self._hold_inflow,
        )
        if expect is not None and request.version == b"HTTP/1.1":
            self._channel.go_ahead()

    # The body

    @property
    def wants_body(self) -> bool:
        """Whether :meth:`data` is of any use."""
        return self._inflow is not None

    @property
    def streaming(self) -> bool:
        """Whether a stream answers bit by bit."""
        return self._stream is not None

    def data(self, data: bytes) -> None:
        """Some of the body."""
        if self._inflow is not None:
            self._inflow.data(data)

    def end(self) -> None:
        """That was all of it."""
        if self._inflow is not None:
            self._inflow.end()
        else:
            self._whole()

    def leave_body(self) -> None:
        """Nobody wants the rest of it, or what is there."""
        if self._inflow is not None:
            self._inflow.close()
            self._inflow = None
        self._body = b""

    def give(self) -> None:
        """What is in memory for this request is no more."""
        taken, self._taken = self._taken, 0
        if taken:
            self._site.door.give(taken)

    def cut(self, error: PubdError) -> bool:
        """Whether a stream says at the end of its answer why no more is read; otherwise ``error`` is the answer."""
        assert self._stream is not None
        if self._stream.cut(error):
            return True
        self._stream = None
        return False

    def lost(self) -> None:
        """The connection is. What is being stored, will be; its answer has nobody to go to."""
        self.leave_body()
        if not self._acting:
            self.give()
        if self._stream is not None:
            self._stream.lost()
            self._stream = None
        if self._outflow is not None:
            self._outflow.lost()
            self._outflow = None

    def _hold_inflow(self, holding: bool) -> None:
        self._channel.hold("inflow", holding)

    def _collect(self, data: bytes) -> None:
        self._taken += len(data)
        if not self._body:
            self._body = data
            return
        if isinstance(self._body, bytes):
            # Not a list: pieces may be of one byte.
            self._body = bytearray(self._body)
        self._body += data

    # The answer

    def _whole(self) -> None:
        """The body is complete and decoded."""
        # Or each request would leave a cycle for the garbage collector.
        self._inflow = None
        if self._stream is not None:
            self._ended = True
            self._stream.end()
            return
        request, action = self.request, self._action
        assert action is not None
        request.body = bytes(self._body)
        self._body = b""
        self._acting = True
        try:
            answer = action.act(request)
        except PubdError as error:
            self._channel.answer(self._told(error))
            return
        except Exception:
            self.log.failure("a request failed; please report this")
            self._channel.answer(self._mistake())
            return
        if isinstance(answer, Answer):
            self._channel.answer(answer)
            return
        later = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)
        later.addCallbacks(self._channel.answer, self._failed)
        later.addErrback(self._lost_sight)

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, PubdError):
            self._channel.answer(self._told(failure.value))
            return
        self.log.failure("a request failed; please report this", failure)
        self._channel.answer(self._mistake())

    def _told(self, error: PubdError) -> Answer:
        shown = self._action.shown if self._action is not None else None
        return shown(error) if shown is not None else error_answer(error)

    def _mistake(self) -> Answer:
        shown = self._action.shown if self._action is not None else None
        return shown(PubdError("pubd made a mistake; its log says more")) if shown is not None else MISTAKE

    def _lost_sight(self, failure: Failure) -> None:
        self.log.failure("an answer could not be written; please report this", failure)
        self.fail()

    # An answer that is made while it is taken

    def flow(self, answer: Answer, outflow: Outflow) -> None:
        """Begin it; all of the request has come."""
        assert answer.content_type is not None
        self._ended = True
        self._outflow = outflow
        self.start(answer.status, answer.content_type)
        try:
            outflow.begin(self)
        except BaseException:
            outflow.lost()
            raise

    @property
    def patience(self) -> float | None:
        """Seconds for which the client may take nothing; None: as usual."""
        return self._outflow.patience if self._outflow is not None else None

    @property
    def endless(self) -> bool:
        """Whether the answer ends only with its client, or at a time of its own."""
        return self._outflow is not None and self._outflow.endless

    @property
    def full(self) -> bool:
        """See :class:`pubd.intake.http.outflow.Outlet`."""
        return self._channel.full

    def taken(self) -> None:
        """The client has read what it was sent."""
        if self._outflow is not None:
            self._outflow.resume()

    def stop(self) -> None:
        """pubd stops: what has no end is to find one."""
        if self._outflow is not None:
            self._outflow.stop()

    # The answer of a stream: see pubd.intake.http.route.Connection

    def start(self, status: int, content_type: bytes) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        self._chunked = self.request.version == b"HTTP/1.1"
        keep = self._channel.keep()
        self._channel.put(self._site.open_head(status, content_type, keep, self._chunked))

    def write(self, data: bytes) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        self._channel.put(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    @property
    def behind(self) -> bool:
        """See :class:`pubd.intake.http.route.Connection`."""
        return self._channel.behind

    def finish(self) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        if self._chunked:
            self._channel.put(b"0\r\n\r\n")
        self._channel.flush()
        self._stream = self._outflow = None
        self._channel.over(whole=self._ended)

    def fail(self) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        self._outflow = None
        self._channel.abort_answer()

    def hold(self, holding: bool) -> None:
        """See :class:`pubd.intake.http.route.Connection`."""
        self._channel.hold("stream", holding)
