"""A body of lines, each of them a message, answered line by line while it comes: any size, bounded memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import Logger

from pubd.errors import InvalidMessage, PubdError
from pubd.intake.http.answer import Refusal, as_json, result_of
from pubd.intake.http.elements import element
from pubd.intake.http.results import settled_or_not, stored_or_not
from pubd.intake.wire import decode_lines, loads
from pubd.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from pubd.access import Principal
    from pubd.intake.door import Door
    from pubd.intake.http.route import Connection
    from pubd.intake.http.waits import Settled, Waits
    from pubd.receipt import Receipt

NDJSON = "application/x-ndjson"
#: Lines that are decoded and handed in before others have a turn.
TURN = 1000
#: Seconds until it is looked again whether the client has read.
AGAIN = 0.25
#: Lines and bytes of one stream that may be unanswered: enough to keep the spool busy, too little to fill the budget.
MAX_LINES, MAX_BYTES = 5_000, 2 * 1024 * 1024


@attrs.define(eq=False)
class _Batch:
    """Lines that were handed in together; ``size`` is what the budget has for them."""

    size: int
    decoded: Sequence[Message | PubdError]
    results: bytes | None = None


class NdjsonStream:
    """Answers each line in order: an accepted one with its id, a bad one with what is wrong with it.

    ``seconds``: wait so long for each settlement. ``key``: line *n*, from 0, has the idempotency key ``KEY:n``.
    ``max_line`` is in bytes; what is longer is passed over without being kept.
    """

    log = Logger()

    def __init__(
        self,
        *,
        connection: Connection,
        door: Door,
        waits: Waits,
        clock: Any,
        principal: Principal,
        seconds: float | None,
        key: str | None,
        max_line: int,
        carrier: Mapping[str, str] | None = None,
    ) -> None:
        self._connection = connection
        self._door = door
        self._waits = waits
        self._clock = clock
        self._principal = principal
        self._seconds = seconds
        self._key = key
        self._max_line = max_line
        self._carrier = carrier
        self._rest = bytearray()
        """Of a line whose end has not come."""
        self._over_long = False
        """What comes until the next line break belongs to a line that is refused."""
        self._taken = 0
        """Bytes of the budget that belong to no batch yet."""
        self._number = 0
        self._lines: deque[bytes] = deque()
        """Whole lines that wait for their turn."""
        self._turn: IDelayedCall | None = None
        self._batches: deque[_Batch] = deque()
        self._unanswered_lines = 0
        self._unanswered_bytes = 0
        self._started = False
        self._ended = False
        self._finished = False
        self._lost = False
        self._cut: PubdError | None = None

    def data(self, data: bytes) -> None:
        """See :class:`pubd.intake.http.route.Stream`."""
        self._taken += len(data)
        first, *lines = data.split(b"\n")
        if not lines:
            self._keep(first)
            return
        last = lines.pop()
        self._line(first)
        if len(data) > self._max_line:
            lines = [line if len(line) <= self._max_line else _OVER_LONG for line in lines]
        self._lines.extend(lines)
        self._keep(last)
        self._take_turn()

    def end(self) -> None:
        """See :class:`pubd.intake.http.route.Stream`."""
        self._ended = True
        if self._rest or self._over_long:
            self._line(b"")
        self._take_turn()
        self._flush()

    def cut(self, error: PubdError) -> bool:
        """See :class:`pubd.intake.http.route.Stream`."""
        if not self._number:
            self.lost()
            return False
        self._cut = error
        self._forget_rest()
        self._flush()
        return True

    def lost(self) -> None:
        """See :class:`pubd.intake.http.route.Stream`."""
        self._lost = True
        self._forget_rest()

    def _forget_rest(self) -> None:
        """What is not handed in yet never will be."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._lines.clear()
        self._rest.clear()
        self._give(self._taken)

    def _give(self, size: int) -> None:
        self._taken -= size
        if size:
            self._door.give(size)

    # Lines

    def _keep(self, data: bytes) -> None:
        """The beginning, or more, of a line."""
        if self._over_long:
            self._give(len(data))
            return
        self._rest += data
        if len(self._rest) > self._max_line:
            self._over_long = True
            self._give(len(self._rest))
            self._rest.clear()

    def _line(self, data: bytes) -> None:
        """The end of a line."""
        if self._over_long:
            self._over_long = False
            self._lines.append(_OVER_LONG)
            return
        line = bytes(self._rest) + data if self._rest else data
        self._rest.clear()
        self._lines.append(_OVER_LONG if len(line) > self._max_line else line)

    def _take_turn(self) -> None:
        """Hand in some lines, and come back for the others."""
        if self._turn is not None or not self._lines:
            return
        if self._connection.behind:
            # A few bytes of lines can be megabytes of answers.
            self._turn = self._clock.callLater(AGAIN, self._another_turn)
            self._hold()
            return
        self._hand_in()
        self._hold()
        if self._lines:
            self._turn = self._clock.callLater(0, self._another_turn)

    def _another_turn(self) -> None:
        self._turn = None
        try:
            self._take_turn()
        except Exception:
            self.log.failure("lines of a request were not answered; please report this")
            self._connection.fail()

    def _hand_in(self) -> None:
        if len(self._lines) <= TURN:
            lines = list(self._lines)
            self._lines.clear()
            size = self._taken - len(self._rest)
        else:
            lines = [self._lines.popleft() for _ in range(TURN)]
            size = sum(map(len, lines))
        self._taken -= size
        decoded = self._decode(lines)
        self._number += len(lines)
        batch = _Batch(size, decoded)
        self._batches.append(batch)
        self._unanswered_lines += len(lines)
        self._unanswered_bytes += size
        messages = [each for each in decoded if type(each) is Message]
        if not messages:
            self._accepted([], batch)
            return
        submitted = self._door.submit(self._principal, messages, self._carrier)
        submitted.addCallback(self._accepted, batch).addErrback(self._mistaken)

    def _decode(self, lines: Sequence[bytes]) -> Sequence[Message | PubdError]:
        decoded: list[Message | PubdError] = []
        if self._key is None:
            decoded.extend(decode_lines(lines))
        else:
            decoded.extend([_keyed(line, f"{self._key}:{self._number + n}") for n, line in enumerate(lines)])
        if _OVER_LONG in lines:
            refused = Refusal("too-large", f"the line is over the limit of {self._max_line} bytes (max_body)")
            for place, line in enumerate(lines):
                if line is _OVER_LONG:
                    decoded[place] = refused
        return decoded

    # Answers

    def _accepted(self, answers: Sequence[Receipt | PubdError], batch: _Batch) -> None:
        decoded = batch.decoded
        if len(answers) < len(decoded):
            following = iter(answers)
            answers = [next(following) if isinstance(each, Message) else each for each in decoded]
        # The bodies are in the spool, and need not be here as well.
        batch.decoded = ()
        if self._seconds is None:
            self._answered(batch, [stored_or_not(each) for each in answers])
            return
        waited = self._waits.outcomes(answers, self._seconds)
        waited.addCallback(self._settled, answers, batch).addErrback(self._mistaken)

    def _settled(self, settled: Sequence[Settled], answers: Sequence[Receipt | PubdError], batch: _Batch) -> None:
        self._answered(batch, list(map(settled_or_not, answers, settled)))

    def _answered(self, batch: _Batch, results: list[bytes]) -> None:
        self._unanswered_lines -= len(results)
        results.append(b"")
        batch.results = b"\n".join(results)
        self._flush()

    def _flush(self) -> None:
        """Write what is answered, in order."""
        batches, results = self._batches, []
        while batches and (done := batches[0].results) is not None:
            size = batches.popleft().size
            self._unanswered_bytes -= size
            self._door.give(size)
            results.append(done)
        if self._lost or self._finished:
            return
        if results:
            self._write(b"".join(results))
        if self._cut is not None:
            if not batches:
                self._write(as_json(result_of(self._cut)) + b"\n")
                self._finish()
        elif self._ended and not batches and not self._lines:
            self._finish()
        else:
            self._hold()

    def _write(self, data: bytes) -> None:
        if not self._started:
            self._started = True
            self._connection.start(200, NDJSON.encode("ascii"))
        self._connection.write(data)

    def _finish(self) -> None:
        self._finished = True
        if not self._started:
            self._connection.start(200, NDJSON.encode("ascii"))
        self._connection.finish()

    def _hold(self) -> None:
        if not (self._lost or self._finished or self._cut):
            self._connection.hold(
                bool(self._lines) or self._unanswered_lines > MAX_LINES or self._unanswered_bytes > MAX_BYTES
            )

    def _mistaken(self, failure: Failure) -> None:
        self.log.failure("lines of a request were not answered; please report this", failure)
        self._connection.fail()


#: Stands for a line that was not kept. Compared by identity: it is no JSON either.
_OVER_LONG = bytes(bytearray(b"over long"))


def _keyed(line: bytes, key: str) -> Message | InvalidMessage:
    try:
        value = loads(line)
    except InvalidMessage as error:
        return error.with_traceback(None)
    return element(value, key)
