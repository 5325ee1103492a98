"""One connection of the lines intake: it reads no more than it may hold, and answers in order.

What may be in memory for it: one read, the line that has not ended, what the door has let in, and the answers to at
most ``max_unanswered_lines``. While any of these is full nothing is read, so that the client's writes block.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, cast

import attrs
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

from pubd.errors import NotAuthenticated, PubdError, PublisherStopped
from pubd.intake.lines.answers import Answers, Part, authenticated, confirmed, refused, stored, texts_of
from pubd.intake.lines.reader import LineReader
from pubd.intake.lines.request import Batch, requests, token_of
from pubd.intake.peer import peer_of, principal_of_peer
from pubd.intake.problem import Problem, problem, problem_of
from pubd.message import Message
from pubd.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from pubd.access import Access, Principal, Refusals
    from pubd.intake.door import Door
    from pubd.intake.options import LinesOptions
    from pubd.receipt import Confirmed

#: Seconds until somebody has to have said who they are.
AUTHENTICATION = 10.0
#: Seconds until somebody who is nobody is told so: guessing is to be slow.
DENIAL = 1.0
#: Bytes that may come before it is known from whom.
UNKNOWN_LINE = 4096
#: Bytes of an unfinished line that are not counted against the door's budget, which many idle clients would use up.
FREE = 65536
#: Seconds for a line of more than that, from there until it is handed in: it takes the room of others.
LONG_LINE = 60.0
#: Seconds until the door is asked again that had room and not enough of it.
AGAIN = 0.05
#: Seconds after the end of a connection in which the client may read its last answers.
LINGER = 5.0
#: The same after it has ended its side: then it only reads.
FAREWELL = 60.0
#: Seconds for which settlements are still waited for when pubd stops.
LAST_WAIT = 1.0


class Phase(enum.Enum):
    """Of a connection; in this order."""

    OPEN = 1
    ENDING = 2
    """Nothing more is read; what was handed in is answered."""
    CLOSING = 3
    """All has been said."""
    CLOSED = 4


@attrs.frozen(kw_only=True)
class Terms:
    """What all connections have in common."""

    reactor: Any
    options: LinesOptions
    door: Door
    access: Access
    refusals: Refusals


@implementer(IHalfCloseableProtocol, IPushProducer)
class LinesConnection(Protocol):
    """Takes messages, one a line. Tells ``made`` when it is connected, and ``gone`` when it is no more."""

    log = Logger()
    # Twisted's protocols have a transport of many kinds.
    transport: Any

    def __init__(
        self, terms: Terms, made: Callable[[LinesConnection], None], gone: Callable[[LinesConnection], None]
    ) -> None:
        self._terms = terms
        self._clock = terms.reactor
        self._door = terms.door
        self._made = made
        self._gone = gone
        self._phase = Phase.OPEN
        self._reader = LineReader(terms.options.max_line)
        self._held: list[bytes] = []
        """Lines that were read and are not handed in."""
        self._answers = Answers()
        self._principal: Principal | None = None
        self._known = False
        """Whether the first line has told who it is, or the connection itself."""
        self._prepaid = 0
        """Bytes of the unfinished line that the door has counted."""
        self._starved = False
        """The unfinished line has to wait for room."""
        self._deaf = False
        """The client does not read its answers."""
        self._ended = False
        """The client has ended its side."""
        self._reading = True
        self._going = False
        self._room: Deferred[None] | None = None
        self._waits: dict[Deferred[Confirmed], IDelayedCall] = {}
        self._timers: dict[str, IDelayedCall] = {}
        self._heard = 0.0

    # Twisted's side

    def connectionMade(self) -> None:
        """Who it is may be known by now; over TLS when the first bytes come."""
        self._made(self)
        self.transport.registerProducer(self, True)
        if not isinstance(self.transport.getPeer(), UNIXAddress):
            self.transport.setTcpNoDelay(True)
            # Or clients whose host went down would be connected for good.
            self.transport.setTcpKeepAlive(True)
        if not ISSLTransport.providedBy(self.transport):
            self._look()
        if self._principal is None:
            self._after("authentication", AUTHENTICATION, self._still_nobody)
        if self._terms.options.idle_timeout is not None:
            self._heard = self._clock.seconds()
            self._after("idle", self._terms.options.idle_timeout, self._perhaps_idle)

    def dataReceived(self, data: bytes) -> None:
        """Some bytes, cut anywhere."""
        if self._phase is not Phase.OPEN:
            return
        if "idle" in self._timers:
            self._heard = self._clock.seconds()
        self._held += self._reader.feed(data)
        self._go_on()

    def readConnectionLost(self) -> None:
        """The client has ended its side, and still gets its answers."""
        self._ended = True
        if self._phase is Phase.CLOSING:
            self.transport.loseConnection()
        else:
            self._go_on()

    def writeConnectionLost(self) -> None:
        """Our side is ended, by ourselves."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing more can be said; what was handed in stays so."""
        del reason
        self._phase = Phase.CLOSED
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._let_go()
        for waiter in list(self._waits):
            waiter.cancel()
        self._gone(self)

    def pauseProducing(self) -> None:
        """The client does not read its answers: hand in nothing more."""
        self._deaf = True
        self._set_reading()

    def resumeProducing(self) -> None:
        """It does again."""
        self._deaf = False
        self._go_on()

    def stopProducing(self) -> None:
        """connectionLost follows."""

    # The intake's side

    def stop(self) -> None:
        """Take nothing more; answer what was handed in and close, within :data:`LINGER` seconds or a little more."""
        if self._phase is Phase.OPEN:
            lines = sum(1 for line in self._held if line.strip())
            if lines and self._known and self._principal is not None:
                stopping = refused(problem_of(PublisherStopped("pubd is stopping; this line was not accepted")))
                self._answers.say(*[stopping] * lines)
            self._end(LAST_WAIT)
        elif self._phase is Phase.ENDING:
            self._cut_waits(LAST_WAIT)
        if self._phase in (Phase.ENDING, Phase.CLOSING):
            self._after("abort", LINGER, self.abort)

    def abort(self) -> None:
        """Close now; what was not written is lost."""
        if self._phase is not Phase.CLOSED:
            self.transport.abortConnection()

    # Lines in

    def _go_on(self) -> None:
        """Hand in what may be, and see whether to read."""
        if self._going or self._phase is not Phase.OPEN:
            # Answers may come while lines are handed in.
            self._close_if_over()
            return
        self._going = True
        try:
            self._hand_in()
            if self._phase is Phase.OPEN:
                self._hold_partial()
        except Exception:
            self.log.failure("a connection of the lines intake failed and is closed; please report this")
            self.abort()
        finally:
            self._going = False
        self._write()
        if self._ended and not self._held and self._phase is Phase.OPEN:
            self._last_line()
            self._end(None)
        self._set_reading()

    def _hand_in(self) -> None:
        most = self._terms.options.max_unanswered_lines
        while self._held and not self._deaf and self._phase is Phase.OPEN:
            if not self._known:
                self._introduce()
                continue
            room = most - self._answers.unanswered
            if room <= 0:
                return
            lines = self._held[:room]
            size = sum(map(len, lines)) + len(lines)
            paid = min(self._prepaid, size)
            if not self._door.take(size - paid):
                self._wait_for_room()
                return
            self._prepaid -= paid
            del self._held[:room]
            self._submit(lines, size)

    def _hold_partial(self) -> None:
        """The line that has not ended: past a size it has to be let in by the door, and is given a time."""
        pending = self._reader.pending
        if self._principal is None and pending > UNKNOWN_LINE:
            self._look()
            if self._principal is None:
                self._deny("a long line without a token")
                return
        if pending <= FREE:
            # Too long in the end, or over: the room is not needed any more.
            if self._prepaid and not self._held:
                self._door.give(self._prepaid)
                self._prepaid = 0
            self._starved = False
        elif pending > self._prepaid:
            self._starved = not self._door.take(pending - self._prepaid)
            if self._starved:
                self._wait_for_room()
            else:
                self._prepaid = pending
        if pending > FREE or self._prepaid:
            self._after("long line", LONG_LINE, self._too_slow, again=False)
        else:
            self._cancel("long line")

    def _submit(self, lines: list[bytes], size: int) -> None:
        """Hand in these; empty ones are nothing."""
        if b"" in lines or b"\r" in lines:
            lines = [line for line in lines if line and line != b"\r"]
            if not lines:
                self._door.give(size)
                return
        part = self._answers.expect(len(lines))
        batch = requests(lines, max_line=self._terms.options.max_line)
        messages = [request for request in batch.requests if isinstance(request, Message)]
        if not messages:
            self._submitted([], part, batch, size)
            return
        assert self._principal is not None
        try:
            submitted = self._door.submit(self._principal, messages)
        except BaseException:
            self._door.give(size)
            raise
        submitted.addCallback(self._submitted, part, batch, size).addErrback(self._mistaken)

    def _submitted(self, results: Sequence[Receipt | PubdError], part: Part, batch: Batch, size: int) -> None:
        # What is in memory for them from now on are the answers, which are counted by lines.
        self._door.give(size)
        if self._phase is Phase.CLOSED:
            return
        if len(results) == len(batch.requests) and not batch.waits:
            part.fill(texts_of(results))
        else:
            self._fill(results, part, batch)
        self._write()
        self._go_on()

    def _fill(self, results: Sequence[Receipt | PubdError], part: Part, batch: Batch) -> None:
        following = iter(results)
        answers: list[str | None] = []
        waits: list[tuple[int, Receipt]] = []
        for place, request in enumerate(batch.requests):
            if isinstance(request, Problem):
                answers.append(refused(request))
                continue
            result = next(following) if isinstance(request, Message) else request
            if not isinstance(result, Receipt):
                answers.append(refused(problem_of(result)))
            elif place in batch.waits:
                answers.append(None)
                waits.append((place, result))
            else:
                answers.append(stored(result.id))
        part.fill(answers)
        for place, receipt in waits:
            self._wait(receipt, part, place, batch.waits[place])

    def _mistaken(self, failure: Failure) -> None:
        self.log.failure("a connection of the lines intake failed and is closed; please report this", failure)
        self.abort()

    def _last_line(self) -> None:
        if self._reader.pending:
            detail = "the last line has no newline at its end; it was not accepted"
            self._answers.say(refused(problem("malformed", detail)))
            self._reader.clear()

    def _too_slow(self) -> None:
        seconds = f"{LONG_LINE:g} seconds"
        detail = f"a line of more than {FREE} bytes was not complete, or found no room, within {seconds}; not accepted"
        self._answers.say(refused(problem("request-timeout", detail)))
        self._end(None)

    def _wait_for_room(self) -> None:
        if self._room is not None or "room" in self._timers:
            return
        room = self._door.when_room()
        if room.called:
            # There is some, but not enough for this.
            self._after("room", AGAIN, self._go_on)
            return
        self._room = room
        room.addCallbacks(self._has_room, lambda failure: failure.trap(CancelledError))

    def _has_room(self, _: None) -> None:
        self._room = None
        self._go_on()

    # Who it is

    def _look(self) -> None:
        self._principal = principal_of_peer(peer_of(self.transport), self._terms.access)

    def _introduce(self) -> None:
        """The first line may be a token, which decides; without one the connection has to tell."""
        line = self._held[0]
        if not line or line == b"\r":
            del self._held[0]
            return
        token = token_of(line)
        if token is not None:
            del self._held[0]
            self._principal = self._terms.access.by_token(token)
            if self._principal is None:
                self._deny("an unknown token")
                return
            self._answers.say(authenticated(self._principal.name))
        elif self._principal is None:
            self._look()
            if self._principal is None:
                self._deny("no token")
                return
        self._known = True
        self._cancel("authentication")

    def _still_nobody(self) -> None:
        self._look()
        if self._principal is None:
            self._deny(f"no token within {AUTHENTICATION:g} seconds", delay=0)

    def _deny(self, why: str, delay: float = DENIAL) -> None:
        """Say so after a while, and close."""
        self._terms.refusals.unknown(f"lines: {peer_of(self.transport).text}", why)
        self._principal = None
        self._answers.say(refused(problem_of(NotAuthenticated())))
        self._phase = Phase.ENDING
        self._let_go()
        self._set_reading()
        self._after("denial", delay, self._close_if_over)

    # Answers out

    def _wait(self, receipt: Receipt, part: Part, place: int, seconds: float) -> None:
        """Put the settlement there; when the time is over, that the message is stored."""
        waiter = receipt.settled()
        self._waits[waiter] = self._clock.callLater(seconds, waiter.cancel)

        def over(result: Confirmed | Failure) -> None:
            timer = self._waits.pop(waiter)
            if timer.active():
                timer.cancel()
            if self._phase is Phase.CLOSED:
                return
            part.put(place, _settled(receipt, result))
            # Soon: one ack of RabbitMQ may be the answer to a thousand lines.
            self._after("write", 0, self._write_and_go_on, again=False)

        waiter.addBoth(over).addErrback(self._mistaken)

    def _write_and_go_on(self) -> None:
        self._write()
        self._go_on()

    def _write(self) -> None:
        if (
            self._phase in (Phase.OPEN, Phase.ENDING)
            and "denial" not in self._timers
            and (data := self._answers.take())
        ):
            self.transport.write(data)

    # The end

    def _end(self, last_wait: float | None) -> None:
        """Take nothing more; close when all is answered."""
        self._phase = Phase.ENDING
        self._let_go()
        self._set_reading()
        if last_wait is not None:
            self._cut_waits(last_wait)
        self._close_if_over()

    def _cut_waits(self, seconds: float) -> None:
        for timer in self._waits.values():
            if timer.active() and timer.getTime() > self._clock.seconds() + seconds:
                timer.reset(seconds)

    def _let_go(self) -> None:
        """Nothing more is handed in."""
        self._held.clear()
        self._reader.clear()
        if self._prepaid:
            self._door.give(self._prepaid)
            self._prepaid = 0
        if self._room is not None:
            room, self._room = self._room, None
            room.cancel()
        for name in ("authentication", "idle", "long line", "room"):
            self._cancel(name)

    def _close_if_over(self) -> None:
        if self._phase is not Phase.ENDING or "denial" in self._timers:
            return
        self._write()
        if self._answers.unanswered:
            return
        self._phase = Phase.CLOSING
        self.transport.unregisterProducer()
        self._after("abort", FAREWELL if self._ended else LINGER, self.abort, again=False)
        if self._ended or ISSLTransport.providedBy(self.transport):
            self.transport.loseConnection()
            return
        # Closing while something is unread would reset the connection, and the client might lose its last answers: so
        # only our side is ended, and what comes is read until the client ends its own.
        self.transport.loseWriteConnection()
        self._set_reading()

    def _perhaps_idle(self) -> None:
        """Silent for too long, unless it waits for us."""
        timeout = cast("float", self._terms.options.idle_timeout)
        left = self._heard + timeout - self._clock.seconds()
        if self._answers.unanswered or self._held:
            left = timeout
        if left > 0:
            self._after("idle", left, self._perhaps_idle)
            return
        if self._reader.pending:
            detail = f"the line was not complete after {timeout:g} seconds of silence (idle_timeout); not accepted"
            self._answers.say(refused(problem("request-timeout", detail)))
        self._end(None)

    def _set_reading(self) -> None:
        wanted = not self._ended and (
            self._phase is Phase.CLOSING
            or (self._phase is Phase.OPEN and not self._held and not self._deaf and not self._starved)
        )
        if wanted == self._reading or self._phase is Phase.CLOSED:
            return
        self._reading = wanted
        if wanted:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def _after(self, name: str, seconds: float, call: Callable[[], None], *, again: bool = True) -> None:
        """One timer of each name; ``again``: from now."""
        if name in self._timers:
            if not again:
                return
            self._timers[name].cancel()

        def run() -> None:
            del self._timers[name]
            call()

        self._timers[name] = self._clock.callLater(seconds, run)

    def _cancel(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()


def _settled(receipt: Receipt, result: Confirmed | Failure) -> str:
    error = getattr(result, "value", None)
    if error is None:
        return confirmed(receipt.id)
    if isinstance(error, PubdError) and not isinstance(error, PublisherStopped):
        return refused(problem_of(error))
    # The time is over, or pubd stops: that it is stored remains true.
    assert isinstance(error, CancelledError | PublisherStopped)
    return stored(receipt.id)
