"""When a connection is read, how long is waited for its client, and how it ends; whatever is said over it.

A request goes through the stages of :class:`Stage` from top to bottom, and a kept connection back to the top. Each
stage has a deadline, which the site looks at about once a second.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ISSLTransport

from pubd.intake.http.answer import Refusal
from pubd.intake.http.strict import StrictChannel

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from pubd.intake.options import HttpOptions

#: Bytes of body by which a client must get on within body_timeout: one byte a minute is no progress.
PROGRESS = 1024
#: Answers (bytes) that are kept here for a client which sends on and reads nothing; and while too much is kept for all.
MAX_UNREAD, FAIR = 4 * 1024 * 1024, 64 * 1024
#: Seconds for a client to take its last answer, and bytes of it that are read and dropped meanwhile: a connection that
#: is closed with something unread is reset, and its last answer may be lost.
LINGER, LINGERING = 2.0, 4 * 1024 * 1024


class Stage(enum.Enum):
    """What the connection is at."""

    IDLE = "nothing of a request has come"
    HEAD = "request line and headers come"
    BODY = "the body comes"
    ANSWERING = "all of it has come, and the answer is being made"
    CLOSING = "nothing more is read; the last answer goes out"


class Unread:
    """Answers (bytes) that are kept for all clients together; ``most`` is when it is too much."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = 0

    @property
    def too_much(self) -> bool:
        """Whether nobody may have more than :data:`FAIR`."""
        return self.size > self._most


class PacedChannel(StrictChannel):
    """Knows at which stage it is. Subclasses say what is done there, and refuse what came too slowly."""

    transport: Any

    def __init__(self, options: HttpOptions, clock: Any, all_unread: Unread) -> None:
        super().__init__()
        self.options = options
        """May become others: they hold from the next deadline on."""
        self._clock = clock
        self._all_unread = all_unread
        self._stage = Stage.IDLE
        self._deadline: float | None = None
        self._progress = 0
        self._gone = False
        self._holders: set[str] = set()
        """Why no more is read."""
        self._unread: list[bytes] = []
        self._unread_size = 0
        self._with_transport = 0
        """Bytes of what was unread that the transport has now, and the client has not."""
        self._dropped = 0

    @property
    def streaming(self) -> bool:
        """Whether an answer is written while its request comes."""
        raise NotImplementedError

    @property
    def patience(self) -> float:
        """Seconds for which the client may take nothing of its answer."""
        return self.options.body_timeout

    @property
    def full(self) -> bool:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        return bool(self._waitingForTransport)

    def taken(self) -> None:
        """Called when the client has read what it was sent."""

    # Stages and deadlines

    def connectionMade(self) -> None:
        """As IProtocol says."""
        super().connectionMade()
        self._to_idle()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's takes any
        """As IProtocol says."""
        self._gone = True
        self._deadline = None
        self._stage = Stage.CLOSING
        self.closing = True
        super().connectionLost(reason)
        self._unread.clear()
        self._all_unread.size -= self._unread_size + self._with_transport
        self._unread_size = self._with_transport = 0

    def _to_idle(self) -> None:
        self._stage = Stage.IDLE
        self._deadline = self._clock.seconds() + self.options.idle_timeout
        self._lines = 0

    def _to_head(self) -> None:
        self._stage = Stage.HEAD
        self._deadline = self._clock.seconds() + self.options.header_timeout

    def _to_body(self) -> None:
        self._stage = Stage.BODY
        self._progress = 0
        self._deadline = self._clock.seconds() + self.options.body_timeout

    def _to_answering(self) -> None:
        self._stage = Stage.ANSWERING
        self._deadline = self._until_read()

    def _progressed(self, size: int) -> None:
        """So many bytes of the body came."""
        self._progress += size
        if self._progress >= PROGRESS and self._deadline is not None:
            self._progress = 0
            self._deadline = self._clock.seconds() + self.options.body_timeout

    def _until_read(self) -> float | None:
        """While an answer is made: until when the client must have read some of what it was sent already."""
        return self._clock.seconds() + self.patience if self._waitingForTransport else None

    def head_comes(self) -> None:
        """See :class:`StrictChannel`."""
        if self._stage is Stage.IDLE:
            self._to_head()

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
            self.refuse(Refusal("request-timeout", "the request came too slowly", close=True))
        else:
            # It does not take its answer.
            self.abort()

    # The end

    def _linger(self) -> None:
        self._stage = Stage.CLOSING
        self.closing = True
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
        self.closing = True
        self._deadline = self._clock.seconds() + LINGER
        super().loseConnection()

    # Reading or not

    def hold(self, why: str, holding: bool) -> None:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        if holding == (why in self._holders) or self._stage is Stage.CLOSING:
            return
        if holding:
            self._holders.add(why)
        else:
            self._holders.discard(why)
        if self._stage is Stage.BODY:
            # Who is held back cannot be too slow; who does not read can.
            waits = "unread" in self._holders or not self._holders
            self._deadline = self._clock.seconds() + self.options.body_timeout if waits else None
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._gone:
            return
        if self._holders or (self._waitingForTransport and not self.streaming):
            self._networkProducer.pauseProducing()
        elif not self._handlingRequest:
            self._networkProducer.resumeProducing()

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
        self._has_read()
        self.flush()
        self.hold("unread", False)
        self._read_or_not()
        self.taken()

    # Answers bit by bit

    def put(self, data: bytes) -> None:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        if self._gone:
            return
        if not self._waitingForTransport:
            self.transport.write(data)
            return
        # The client sends on without reading. Many do, until everything is sent.
        self._unread.append(data)
        self._unread_size += len(data)
        self._all_unread.size += len(data)
        kept = self._unread_size + self._with_transport
        if self._unread_size > MAX_UNREAD or (self._all_unread.too_much and kept > FAIR):
            self.hold("unread", True)

    @property
    def behind(self) -> bool:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        return "unread" in self._holders

    def flush(self) -> None:
        """See :class:`pubd.intake.http.exchange.Connection`."""
        unread, self._unread = self._unread, []
        self._with_transport += self._unread_size
        self._unread_size = 0
        if unread and not self._gone:
            self.transport.write(b"".join(unread))
        if not self._waitingForTransport:
            self._has_read()

    def _has_read(self) -> None:
        """The transport has nothing left of what it was given, or hardly anything."""
        self._all_unread.size -= self._with_transport
        self._with_transport = 0
