"""One connection of the lines intake: it reads no more than it may hold, and answers in order.

What may be in memory for it: one read, the line that has not ended, what the door has let in, and the answers to at
most ``max_unanswered_lines``. While any of these is full nothing is read, so that the client's writes block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

from pubd.errors import NotAuthenticated, PubdError, PublisherStopped
from pubd.intake.lines.answers import Answers, Part, answers_of, refused, texts_of
from pubd.intake.lines.inlet import FREE, Inlet
from pubd.intake.lines.request import Batch, requests
from pubd.intake.lines.settlements import Settlements
from pubd.intake.lines.terms import (
    AUTHENTICATION,
    DENIAL,
    FAREWELL,
    LAST_WAIT,
    LINGER,
    LONG_LINE,
    UNKNOWN_LINE,
    Phase,
    Terms,
)
from pubd.intake.lines.timers import Timers
from pubd.intake.lines.visitor import Visitor
from pubd.intake.peer import peer_of
from pubd.intake.problem import problem, problem_of
from pubd.message import Message
from pubd.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure


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
        self._timers = Timers(self._clock)
        self._inlet = Inlet(max_line=terms.options.max_line, door=terms.door, timers=self._timers, has_room=self._go_on)
        self._visitor = Visitor(terms.access)
        self._answers = Answers()
        self._settlements = Settlements(self._clock)
        self._deaf = False
        """The client does not read its answers."""
        self._ended = False
        """The client has ended its side."""
        self._reading = True
        self._going = False
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
            self._visitor.look(self.transport)
        if self._visitor.principal is None:
            self._timers.after("authentication", AUTHENTICATION, self._still_nobody)
        if self._terms.options.idle_timeout is not None:
            self._heard = self._clock.seconds()
            self._timers.after("idle", self._terms.options.idle_timeout, self._perhaps_idle)

    def dataReceived(self, data: bytes) -> None:
        """Some bytes, cut anywhere."""
        if self._phase is not Phase.OPEN:
            return
        if "idle" in self._timers:
            self._heard = self._clock.seconds()
        self._inlet.feed(data)
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
        self._timers.cancel_all()
        self._let_go()
        self._settlements.cancel()
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

    def reconfigure(self, terms: Terms) -> None:
        """Other terms, from the next line on. Whoever is not known any more is ended as by :meth:`stop`."""
        self._terms = terms
        self._inlet.reconfigure(terms.options.max_line)
        self._timers.cancel("idle")
        if self._phase is not Phase.OPEN:
            return
        if not self._visitor.look_again(self.transport):
            self._terms.refusals.unknown(f"lines: {peer_of(self.transport).text}", "not known any more since a reload")
            self.stop("pubd does not know you any more")
            return
        if terms.options.idle_timeout is not None:
            self._heard = self._clock.seconds()
            self._timers.after("idle", terms.options.idle_timeout, self._perhaps_idle)
        self._go_on()

    def stop(self, why: str = "pubd is stopping") -> None:
        """Take nothing more; answer what was handed in and close, within :data:`LINGER` seconds or a little more."""
        if self._phase is Phase.OPEN:
            lines = sum(1 for line in self._inlet.held if line.strip())
            if lines and self._visitor.known:
                stopping = refused(problem_of(PublisherStopped(f"{why}; this line was not accepted")))
                self._answers.say(*[stopping] * lines)
            self._end(LAST_WAIT)
        elif self._phase is Phase.ENDING:
            self._settlements.cut(LAST_WAIT)
        if self._phase in (Phase.ENDING, Phase.CLOSING):
            self._timers.after("abort", LINGER, self.abort)

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
        if self._ended and not self._inlet.held and self._phase is Phase.OPEN:
            self._last_line()
            self._end(None)
        self._set_reading()

    def _hand_in(self) -> None:
        most = self._terms.options.max_unanswered_lines
        inlet = self._inlet
        while inlet.held and not self._deaf and self._phase is Phase.OPEN:
            if not self._visitor.known:
                self._introduce()
                continue
            room = most - self._answers.unanswered
            if room <= 0 or (taken := inlet.take(room)) is None:
                return
            self._submit(*taken)

    def _hold_partial(self) -> None:
        """The line that has not ended: past a size it has to be let in by the door, and is given a time."""
        unknown = self._visitor.principal is None and self._inlet.pending > UNKNOWN_LINE
        if unknown and not self._visitor.look(self.transport):
            self._deny("a long line without a token")
            return
        if self._inlet.hold_partial():
            self._timers.after("long line", LONG_LINE, self._too_slow, again=False)
        else:
            self._timers.cancel("long line")

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
        assert self._visitor.principal is not None
        try:
            submitted = self._door.submit(self._visitor.principal, messages)
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
            answers, waits = answers_of(results, batch)
            part.fill(answers)
            for place, receipt in waits.items():
                self._wait(receipt, part, place, batch.waits[place])
        self._write()
        self._go_on()

    def _wait(self, receipt: Receipt, part: Part, place: int, seconds: float) -> None:
        """Put the settlement there; when the time is over, that the message is stored."""

        def say(answer: str) -> None:
            if self._phase is Phase.CLOSED:
                return
            part.put(place, answer)
            # Soon: one ack of RabbitMQ may be the answer to a thousand lines.
            self._timers.after("write", 0, self._write_and_go_on, again=False)

        self._settlements.wait(receipt, seconds, say).addErrback(self._mistaken)

    def _mistaken(self, failure: Failure) -> None:
        self.log.failure("a connection of the lines intake failed and is closed; please report this", failure)
        self.abort()

    def _last_line(self) -> None:
        if self._inlet.pending:
            detail = "the last line has no newline at its end; it was not accepted"
            self._answers.say(refused(problem("malformed", detail)))
            self._inlet.forget_partial()

    def _too_slow(self) -> None:
        seconds = f"{LONG_LINE:g} seconds"
        detail = f"a line of more than {FREE} bytes was not complete, or found no room, within {seconds}; not accepted"
        self._answers.say(refused(problem("request-timeout", detail)))
        self._end(None)

    # Who it is

    def _introduce(self) -> None:
        """By the first line that is not empty."""
        line = self._inlet.held[0]
        if not line or line == b"\r":
            del self._inlet.held[0]
            return
        try:
            answer = self._visitor.introduce(line, self.transport)
        except NotAuthenticated as error:
            self._deny(str(error))
            return
        if answer is not None:
            del self._inlet.held[0]
            self._answers.say(answer)
        self._timers.cancel("authentication")

    def _still_nobody(self) -> None:
        if not self._visitor.look(self.transport):
            self._deny(f"no token within {AUTHENTICATION:g} seconds", delay=0)

    def _deny(self, why: str, delay: float = DENIAL) -> None:
        """Say so after a while, and close."""
        self._terms.refusals.unknown(f"lines: {peer_of(self.transport).text}", why)
        self._visitor.principal = None
        self._answers.say(refused(problem_of(NotAuthenticated())))
        self._phase = Phase.ENDING
        self._let_go()
        self._set_reading()
        self._timers.after("denial", delay, self._close_if_over)

    # Answers out

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
            self._settlements.cut(last_wait)
        self._close_if_over()

    def _let_go(self) -> None:
        """Nothing more is handed in."""
        self._inlet.let_go()
        self._timers.cancel("authentication", "idle", "long line")

    def _close_if_over(self) -> None:
        if self._phase is not Phase.ENDING or "denial" in self._timers:
            return
        self._write()
        if self._answers.unanswered:
            return
        self._phase = Phase.CLOSING
        self.transport.unregisterProducer()
        self._timers.after("abort", FAREWELL if self._ended else LINGER, self.abort, again=False)
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
        if self._answers.unanswered or self._inlet.held:
            left = timeout
        if left > 0:
            self._timers.after("idle", left, self._perhaps_idle)
            return
        if self._inlet.pending:
            detail = f"the line was not complete after {timeout:g} seconds of silence (idle_timeout); not accepted"
            self._answers.say(refused(problem("request-timeout", detail)))
        self._end(None)

    def _set_reading(self) -> None:
        wanted = not self._ended and (
            self._phase is Phase.CLOSING
            or (self._phase is Phase.OPEN and not self._inlet.held and not self._deaf and not self._inlet.starved)
        )
        if wanted == self._reading or self._phase is Phase.CLOSED:
            return
        self._reading = wanted
        if wanted:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()
