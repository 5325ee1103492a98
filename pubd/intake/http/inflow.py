"""Inflow: the body of one request on its way in, within the door's budget, its limit, and a fair share of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred

from pubd.errors import Busy, PubdError
from pubd.intake.http.answer import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

    from pubd.intake.http.coding import Decoder

#: Decoded bytes at a time, how many of them before everybody else has a turn, and what a step of decoding counts for at
#: least: a frame of nothing takes time, too.
PIECE, TURN, LEAST = 64 * 1024, 256 * 1024, 4 * 1024
#: Seconds that a request waits for room in the budget; then it is told to come back.
PATIENCE = 5.0


class Budget(Protocol):
    """What is needed of a :class:`pubd.intake.door.Door`."""

    def take(self, size: int, begun: object | None = None) -> bool:
        """Count bytes; False, and nothing is counted, if there is no room. ``begun``: whose part is there already."""

    def done(self, begun: object) -> None:
        """There is no more of it to come."""

    def give(self, size: int) -> None:
        """Count them no more."""

    def when_room(self, begun: object | None = None) -> Deferred[None]:
        """Fires when there may be room."""


class Inflow:
    """Passes a body to ``sink`` piece by piece, then calls ``ended``; or ``failed``, and then nothing more.

    ``limit`` is for the decoded bytes together, None: there is none. ``hold(True)`` asks for no more data, which may
    still come; ``hold(False)`` for data again. Each piece was taken from ``budget`` before ``sink`` gets it, who is to
    give it back.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        clock: Any,
        decoder: Decoder | None,
        limit: int | None,
        sink: Callable[[bytes], None],
        ended: Callable[[], None],
        failed: Callable[[PubdError], None],
        hold: Callable[[bool], None],
    ) -> None:
        self._budget = budget
        self._clock = clock
        self._decoder = decoder
        self._limit = limit
        self._sink = sink
        self._ended = ended
        self._failed = failed
        self._hold = hold
        self._size = 0
        self._coded = 0
        self._broken: Refusal | None = None
        self._begun: Inflow | None = None
        """Itself, once a part of the body was passed on."""
        self._came: list[bytes] = []
        """Came while something else was waited for."""
        self._no_room: bytes | None = None
        self._room: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._no_more = False
        self._closed = False

    def data(self, data: bytes) -> None:
        """Some more, as it came."""
        if self._closed:
            return
        self._coded += len(data)
        if self._limit is not None and self._coded > self._limit + self._limit // 8 + PIECE:
            # No coding makes anything much longer; frames of nothing have no other limit.
            self._fail(_over(self._limit))
        elif self._timer is not None:
            self._came.append(data)
        elif self._decoder is None:
            self._pass(data)
        else:
            self._came.append(data)
            self._decode()

    def end(self) -> None:
        """That was all."""
        self._no_more = True
        if self._timer is None and not self._closed:
            self._finish()

    def close(self) -> None:
        """Nobody wants the rest."""
        self._over()
        self._came.clear()
        self._no_room = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        room, self._room = self._room, None
        if room is not None:
            room.cancel()

    def _pass(self, data: bytes) -> bool:
        """To the sink; false if that has to wait, or is over."""
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            self._fail(_over(self._limit))
            return False
        if not self._budget.take(len(data), self._begun):
            self._wait_for_room(data)
            return False
        self._begun = self
        self._sink(data)
        return not self._closed

    def _decode(self) -> None:
        """What has come, for one turn."""
        decoder = self._decoder
        assert decoder is not None
        left, size = TURN, 0
        some: list[bytes] = []
        while left > 0 and self._broken is None:
            try:
                piece = decoder.read(PIECE - size)
            except Refusal as refusal:
                # Not before what came out well.
                self._broken = refusal
                break
            if piece is None:
                if not self._came:
                    break
                decoder.feed(self._came.pop(0))
                continue
            left -= max(len(piece), LEAST)
            size += len(piece)
            some.append(piece)
            if size == PIECE:
                if not self._pass(b"".join(some)):
                    return
                some, size = [], 0
        if size and not self._pass(b"".join(some)):
            return
        if self._broken is not None:
            self._fail(self._broken)
        elif left <= 0:
            self._wait(0, self._go_on)

    def _finish(self) -> None:
        if self._decoder is not None:
            try:
                self._decoder.end()
            except Refusal as refusal:
                self._fail(refusal)
                return
        self._over()
        self._ended()

    def _over(self) -> None:
        self._closed = True
        if self._begun is not None:
            self._budget.done(self)
            self._begun = None

    def _fail(self, error: PubdError) -> None:
        self.close()
        self._failed(error)

    # Waiting: the timer tells that it is so

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = self._clock.callLater(seconds, then)
        self._hold(True)

    def _wait_for_room(self, data: bytes) -> None:
        self._no_room = data
        if self._timer is None:
            self._wait(PATIENCE, self._impatient)
        self._room = self._budget.when_room(self._begun)
        self._room.addCallbacks(self._try_again, lambda _: None)

    def _impatient(self) -> None:
        self._fail(Busy(1.0))

    def _try_again(self, _: None) -> None:
        # Not at once: whoever gives room back is in the middle of something.
        self._room = self._clock_turn()

    def _clock_turn(self) -> Deferred[None]:
        turn: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._clock.callLater(0, turn.callback, None)
        turn.addCallbacks(self._take_again, lambda _: None)
        return turn

    def _take_again(self, _: None) -> None:
        data, self._room = self._no_room, None
        if self._closed or data is None:
            return
        if not self._budget.take(len(data), self._begun):
            self._wait_for_room(data)
            return
        self._begun = self
        self._no_room = None
        self._sink(data)
        if not self._closed:
            self._go_on()

    def _go_on(self) -> None:
        """Nothing is waited for any more: pass on what came meanwhile."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._decoder is None:
            while self._came and self._timer is None and not self._closed:
                self._pass(self._came.pop(0))
        else:
            self._decode()
        if self._timer is not None or self._closed:
            return
        self._hold(False)
        if self._no_more:
            self._finish()


def _over(limit: int) -> Refusal:
    return Refusal("too-large", f"the body is over the limit of {limit} bytes (max_body)", close=True)
