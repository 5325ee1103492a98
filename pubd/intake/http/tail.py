"""``GET /tail``: what becomes of messages, while it happens; NDJSON, for principals that may operate.

A reader never holds anything up: what it does not take in time is counted, told as ``skipped``, and gone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from pubd import duration
from pubd.intake.http.answer import Answer, Refusal, as_json
from pubd.intake.http.ndjson import NDJSON
from pubd.intake.http.route import Action, Route
from pubd.intake.listing import moment_text, reason_object
from pubd.outcome import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from pubd.entry import Entry
    from pubd.intake.http.outflow import Outlet
    from pubd.intake.http.request import Request
    from pubd.ledger import Delivery
    from pubd.observer import Observers
    from pubd.outcome import Reason, Settlement

#: Readers at a time.
READERS = 20
#: Events that wait to be written to one reader; those that come meanwhile are skipped.
ROOM = 1000
#: Seconds between writes: so many events in it are all that anybody sees.
EVERY = 0.1
#: Seconds without an event after which a reader is told that there was none, and whoever has gone is found out.
ALIVE = 5.0
#: Seconds for which a reader may stand still.
PATIENCE = 600.0
#: What can be asked for; without a choice it is everything but accepted.
OUTCOMES = ("accepted", "confirmed", "returned", "nacked", "lost", "poison", "parked")
_USUAL = frozenset(OUTCOMES) - {"accepted"}
_CONFIRMED, _PARKED = "confirmed", "parked"


@attrs.frozen
class Wanted:
    """``exchange`` None: all of them. ``outcomes`` are of :data:`OUTCOMES`; ``seconds`` None: without end."""

    exchange: str | None = None
    outcomes: frozenset[str] = _USUAL
    seconds: float | None = None

    @classmethod
    def of(cls, arguments: dict[str, str]) -> Wanted:
        """From a query. Refuses (400)."""
        outcomes = _USUAL
        if "outcome" in arguments:
            outcomes = frozenset(arguments["outcome"].split(","))
            if unknown := outcomes - set(OUTCOMES):
                detail = f"{min(unknown)!r} is none; there are {', '.join(OUTCOMES)}, with commas between them"
                raise Refusal("malformed", detail, field="outcome")
        seconds = None
        if "for" in arguments:
            try:
                seconds = duration.seconds(arguments["for"])
            except duration.NoDuration as error:
                raise Refusal("malformed", error.sentence, field="for") from None
        return cls(arguments.get("exchange"), outcomes, seconds)


@attrs.frozen
class _Event:
    """Without the entry itself: its body may be large, and the reader slow."""

    event: str
    at: float
    id: str
    message_id: str
    exchange: str
    routing_key: str
    state: str
    attempts: int
    reason: Reason | None
    due: float | None
    seconds: float | None

    def as_json(self) -> bytes:
        shown = {
            "event": self.event,
            "time": moment_text(self.at),
            "id": self.id,
            "message_id": self.message_id,
            "exchange": self.exchange,
            "routing_key": self.routing_key,
            "state": self.state,
            "attempts": self.attempts,
            "reason": reason_object(self.reason),
            "due": moment_text(self.due),
            "seconds": round(self.seconds, 6) if self.seconds is not None else None,
        }
        return as_json(shown) + b"\n"


class Tail:
    """The requests. ``clock`` is the one that deliveries have their ``sent_at`` of, ``wall`` the time of day."""

    def __init__(self, *, observers: Observers, clock: Any, wall: Callable[[], float]) -> None:
        self._observers = observers
        self._clock = clock
        self._wall = wall
        self._readers = 0

    def routes(self) -> Iterable[Route]:
        """What the HTTP intake is given."""
        return (Route(path="/tail", actions={"GET": Action(act=self.get, operate=True)}),)

    def get(self, request: Request) -> Answer:
        """Refuses (503) more readers than :data:`READERS`."""
        wanted = Wanted.of(request.arguments(("exchange", "outcome", "for")))
        if self._readers >= READERS:
            raise Refusal("busy", f"{READERS} readers are there already; end one of them")
        self._readers += 1
        reader = Reader(wanted, clock=self._clock, wall=self._wall, gone=self._gone)
        self._observers.add(reader)
        return Answer(200, content_type=NDJSON.encode("ascii"), outflow=reader)

    def _gone(self, reader: Reader) -> None:
        self._readers -= 1
        self._observers.remove(reader)


class Reader:
    """One of them: an :class:`pubd.observer.Observer`, and an :class:`pubd.intake.http.outflow.Outflow`.

    ``gone`` is called once, at its end.
    """

    patience = PATIENCE
    endless = True

    def __init__(
        self, wanted: Wanted, *, clock: Any, wall: Callable[[], float], gone: Callable[[Reader], None]
    ) -> None:
        self._wanted = wanted
        self._clock = clock
        self._wall = wall
        self._on_gone = gone
        self._outlet: Outlet | None = None
        self._waiting: deque[_Event] = deque()
        self._skipped = 0
        self._flushing: IDelayedCall | None = None
        self._ending: IDelayedCall | None = None
        self._ended = False

    # As an outflow

    def begin(self, outlet: Outlet) -> None:
        """See :class:`pubd.intake.http.outflow.Outflow`."""
        self._outlet = outlet
        self._say("watching")
        self._flushing = self._clock.callLater(ALIVE, self._flush)
        if self._wanted.seconds is not None:
            self._ending = self._clock.callLater(self._wanted.seconds, self._finish)

    def resume(self) -> None:
        """See :class:`pubd.intake.http.outflow.Outflow`."""
        if self._waiting or self._skipped:
            self._soon(0.0)

    def stop(self) -> None:
        """See :class:`pubd.intake.http.outflow.Outflow`."""
        if not self._ended:
            self._write()
            self._say("stopping")
            self._finish()

    def lost(self) -> None:
        """See :class:`pubd.intake.http.outflow.Outflow`."""
        if self._ended:
            return
        self._ended = True
        for call in (self._flushing, self._ending):
            if call is not None and call.active():
                call.cancel()
        self._waiting.clear()
        self._on_gone(self)

    def _finish(self) -> None:
        outlet, ended = self._outlet, self._ended
        if ended or outlet is None:
            return
        self._write()
        self.lost()
        outlet.finish()

    # As an observer

    def accepted(self, entries: Sequence[Entry], seconds: float) -> None:
        """See :class:`pubd.observer.Observer`."""
        if "accepted" in self._wanted.outcomes:
            now = self._wall()
            self._take(
                _event("accepted", now, entry, State.READY if entry.due is None else State.DEFERRED, seconds=seconds)
                for entry in self._of(entries)
            )

    def answered(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Of these only what is lost: all others are settled, and told when that is stored."""
        if "lost" in self._wanted.outcomes:
            at = self._wall()
            self._take(
                _event("lost", at, each.entry, State.READY, each.reason, seconds=now - each.sent_at)
                for each in deliveries
                if each.outcome is Outcome.LOST and self._is_wanted(each.entry)
            )

    def settled(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:
        """See :class:`pubd.observer.Observer`."""
        at, wanted = self._wall(), self._wanted
        if others:
            self._take(
                _event(_outcome(each), at, each.entry, each.state, each.reason, each.attempts, each.due)
                for each in others
                if self._is_wanted(each.entry)
                and (_outcome(each) in wanted.outcomes or (each.state is State.PARKED and _PARKED in wanted.outcomes))
            )
        if not confirmed or _CONFIRMED not in wanted.outcomes:
            return
        if wanted.exchange is None and len(self._waiting) >= ROOM:
            # Nobody looks at each of them.
            self._skip(len(confirmed))
            return
        now = self._clock.seconds()
        self._take(
            _event(_CONFIRMED, at, each.entry, State.CONFIRMED, seconds=now - each.sent_at)
            for each in confirmed
            if self._is_wanted(each.entry)
        )

    def committed(self, seconds: float) -> None:
        """See :class:`pubd.observer.Observer`."""

    def _is_wanted(self, entry: Entry) -> bool:
        return self._wanted.exchange is None or entry.exchange == self._wanted.exchange

    def _of(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        return (entry for entry in entries if self._is_wanted(entry))

    def _take(self, events: Iterable[_Event]) -> None:
        """As many as there is room for, the first ones."""
        before = len(self._waiting)
        for event in events:
            if len(self._waiting) < ROOM:
                self._waiting.append(event)
            else:
                self._skip(1)
        if len(self._waiting) > before:
            self._soon(EVERY)

    def _skip(self, count: int) -> None:
        self._skipped += count
        self._soon(EVERY)

    # Writing

    def _soon(self, seconds: float) -> None:
        """Flush, in at most so many seconds."""
        call = self._flushing
        if self._ended or self._outlet is None or call is None or not call.active():
            return
        if call.getTime() > self._clock.seconds() + seconds:
            call.reset(seconds)

    def _flush(self) -> None:
        outlet = self._outlet
        if outlet is None or self._ended:
            return
        self._flushing = self._clock.callLater(ALIVE, self._flush)
        if not outlet.full:
            if self._waiting or self._skipped:
                self._write()
            else:
                self._say("alive")

    def _write(self) -> None:
        """What waits, and after it how many more there were."""
        lines = [event.as_json() for event in self._waiting]
        self._waiting.clear()
        skipped, self._skipped = self._skipped, 0
        if self._outlet is not None and lines:
            self._outlet.write(b"".join(lines))
        if skipped:
            self._say("skipped", count=skipped)

    def _say(self, event: str, **more: Any) -> None:
        if self._outlet is not None:
            self._outlet.write(as_json({"event": event, "time": moment_text(self._wall()), **more}) + b"\n")


def _outcome(settlement: Settlement) -> str:
    """Of the delivery; there may have been none."""
    return settlement.outcome.value if settlement.outcome is not None else settlement.state.value


def _event(
    event: str,
    at: float,
    entry: Entry,
    state: State,
    reason: Reason | None = None,
    attempts: int | None = None,
    due: float | None = None,
    seconds: float | None = None,
) -> _Event:
    return _Event(
        event,
        at,
        entry.id,
        entry.message_id,
        entry.exchange,
        entry.routing_key,
        state.value,
        entry.attempts if attempts is None else attempts,
        reason,
        due if due is not None else (entry.due if state is State.DEFERRED else None),
        seconds,
    )
