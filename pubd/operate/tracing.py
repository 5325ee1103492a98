"""Tracing: spans of what happens to messages, for whoever has OpenTelemetry (the extra ``otel``).

A traced message has a *creation context*, as the conventions call it: ``traceparent`` in its AMQP headers. It came
with the message, or is that of a span that pubd made when the message was handed in. Each delivery is a span below it.
What is traced is decided when the message is handed in; from then on its headers tell, after a restart as well.
"""

from __future__ import annotations

import math
import random as random_module
import time
from typing import TYPE_CHECKING, Any

import attrs
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubd.amqp.trace_headers import is_sampled, trace_of, traceparent_of, with_trace
from pubd.operate.span_facts import facts, name, server
from pubd.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.context import Context

    from pubd.entry import Entry
    from pubd.ledger import Delivery
    from pubd.operate.span_facts import Attributes
    from pubd.outcome import Reason, Settlement

#: Deliveries whose settlement is awaited; beyond these the oldest is told without.
UNDECIDED = 2048

_W3C = TraceContextTextMapPropagator()


class Share:
    """Picks ``ratio`` of what it is shown, at random, at no cost for what it does not pick."""

    def __init__(self, ratio: float, random: Callable[[], float]) -> None:
        self._ratio = ratio
        self._random = random
        self._skip = self._gap()

    def _gap(self) -> float:
        """How many are passed over: geometrically distributed."""
        if self._ratio >= 1:
            return 0
        if self._ratio <= 0:
            return math.inf
        gap = math.log1p(-self._random()) / math.log1p(-self._ratio)
        return math.floor(gap) if gap < 1e18 else math.inf

    def picks(self, count: int) -> list[int]:
        """Places among the next ``count``."""
        found = []
        place = self._skip
        while place < count:
            found.append(int(place))
            place += 1 + self._gap()
        self._skip = place - count
        return found


@attrs.frozen
class _Handed:
    """The span of messages that were handed in, at these ``places`` among those that are answered together."""

    span: trace.Span
    places: Sequence[int]

    def ended(self, result: Any, end: int) -> None:
        """``result``: a receipt, answers in their order, or a Failure."""
        answers = [result[place] for place in self.places] if isinstance(result, list) else [result]
        errors = [each.value if isinstance(each, Failure) else each for each in answers]
        errors = [each for each in errors if isinstance(each, BaseException)]
        if len(errors) == len(answers):
            _fail(self.span, type(errors[0]).__name__, str(errors[0]))
        elif errors:
            self.span.set_attribute("pubd.refused", len(errors))
        self.span.end(end)


@attrs.frozen
class _Undecided:
    """A delivery that failed, until it is known what becomes of its message."""

    delivery: Delivery
    end: int


class Tracing:
    """Fulfils :class:`pubd.observer.Traces`.

    ``tracer`` None: nothing is traced, for now. ``ratio``: of the messages that come without a trace, so many begin
    one; where a trace comes with them it decides itself (its flag "sampled"). ``wall`` is the time of day.
    """

    log = Logger()

    def __init__(
        self,
        *,
        tracer: trace.Tracer | None = None,
        ratio: float = 0.0,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.tracer = tracer
        self.url: Callable[[], str] = str
        self.spans = 0
        """Made since the start."""
        self._share = Share(ratio, random)
        self._wall = wall
        self._undecided: dict[Entry, _Undecided] = {}
        self._server: tuple[str, Attributes] = ("", {})
        self._mistaken = False

    # On the way in

    def submitted(self, entries: Sequence[Entry], carrier: Mapping[str, str] | None) -> Callable[[Any], Any] | None:
        """See :class:`pubd.observer.Traces`."""
        if self.tracer is None:
            return None
        try:
            around, context = self._around(carrier)
            made = self._sampled(entries) if context is None else self._continued(entries, around, context)
        except Exception:
            self._mistake()
            return None
        return self._told(made) if made else None

    def _around(self, carrier: Mapping[str, str] | None) -> tuple[Context | None, trace.SpanContext | None]:
        """The trace of whoever hands in: as their request says, or the current span of a program with pubd in it."""
        if carrier is None:
            around, context = None, trace.get_current_span().get_span_context()
        elif "traceparent" not in carrier:
            return None, None
        else:
            around = _W3C.extract(carrier)
            context = trace.get_current_span(around).get_span_context()
        return (around, context) if context.is_valid else (None, None)

    def _continued(self, entries: Sequence[Entry], around: Context | None, context: trace.SpanContext) -> list[_Handed]:
        """One span for all, but for those that have a context of their own: that stays as it is."""
        places = [place for place, entry in enumerate(entries) if traceparent_of(entry.properties) is None]
        if not places:
            return []
        if not context.trace_flags.sampled:
            # Whoever comes after is to know that, too.
            _stamp([entries[place] for place in places], context)
            return []
        return [self._created(entries, places, around)]

    def _sampled(self, entries: Sequence[Entry]) -> list[_Handed]:
        """A trace of its own for some."""
        picked = self._share.picks(len(entries))
        places = [place for place in picked if traceparent_of(entries[place].properties) is None]
        return [self._created(entries, [place], None) for place in places]

    def _created(self, entries: Sequence[Entry], places: Sequence[int], around: Context | None) -> _Handed:
        some = [entries[place] for place in places]
        # "create" is for a single message; several that share their creation context are a "send".
        operation = "create" if len(some) == 1 else "send"
        found = facts(some, operation, operation)
        span = self._start(found, trace.SpanKind.PRODUCER, around, int(self._wall() * 1e9))
        _stamp(some, span.get_span_context())
        return _Handed(span, places)

    def _told(self, made: Sequence[_Handed]) -> Callable[[Any], Any]:
        def told(result: Any) -> Any:
            try:
                end = int(self._wall() * 1e9)
                for handed in made:
                    handed.ended(result, end)
            except Exception:
                self._mistake()
            return result

        return told

    # On the way out

    def accepted(self, entries: Sequence[Entry], seconds: float) -> None:
        """Spans of acceptance end when it is answered."""

    def committed(self, seconds: float) -> None:
        """Nothing that a message could be told of."""

    def answered(self, deliveries: Sequence[Delivery], now: float) -> None:
        """See :class:`pubd.observer.Observer`. What was sent and confirmed together, of one trace, is one span."""
        if self.tracer is None:
            return
        try:
            self._answered(deliveries, now)
        except Exception:
            self._mistake()

    def _answered(self, deliveries: Sequence[Delivery], now: float) -> None:
        groups: dict[tuple[str, str, Outcome, float], list[Delivery]] = {}
        end = 0
        for delivery in deliveries:
            traceparent = traceparent_of(delivery.entry.properties)
            if traceparent is None or not is_sampled(traceparent):
                continue
            end = end or int(self._wall() * 1e9)
            outcome = delivery.outcome or Outcome.LOST
            if outcome in (Outcome.CONFIRMED, Outcome.LOST):
                key = (traceparent, delivery.entry.exchange, outcome, delivery.sent_at)
                groups.setdefault(key, []).append(delivery)
            else:
                self._wait(delivery, end - int((now - delivery.sent_at) * 1e9), end)
        for group in groups.values():
            start = end - int((now - group[0].sent_at) * 1e9)
            self._delivered(group, start, end)

    def _wait(self, delivery: Delivery, start: int, end: int) -> None:
        self._undecided[delivery.entry] = _Undecided(attrs.evolve(delivery, sent_at=float(start)), end)
        if len(self._undecided) > UNDECIDED:
            # Its settlement could not be stored.
            oldest = self._undecided.pop(next(iter(self._undecided)))
            self._delivered([oldest.delivery], int(oldest.delivery.sent_at), oldest.end)

    def settled(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:  # noqa: ARG002 (as named)
        """See :class:`pubd.observer.Observer`."""
        if not self._undecided:
            return
        try:
            for change in others:
                waited = self._undecided.pop(change.entry, None)
                if waited is not None:
                    start = int(waited.delivery.sent_at)
                    self._delivered([waited.delivery], start, waited.end, change)
        except Exception:
            self._mistake()

    def _delivered(self, group: Sequence[Delivery], start: int, end: int, change: Settlement | None = None) -> None:
        first = group[0]
        entries = [delivery.entry for delivery in group]
        around = _W3C.extract(trace_of(first.entry.properties))
        created = trace.get_current_span(around).get_span_context()
        if not created.is_valid:
            return
        outcome = first.outcome or Outcome.LOST
        reason = first.reason
        found = facts(entries, "publish", "send")
        found |= self._server_of(self.url())
        found["pubd.outcome"] = outcome.value
        if len(group) == 1:
            found["pubd.attempt"] = change.attempts if change is not None else first.entry.attempts + 1
        if first.via is not None:
            found["pubd.node"] = first.via.node
        if change is not None:
            found["pubd.state"] = change.state.value
            reason = change.reason or reason
        span = self._start(found, trace.SpanKind.CLIENT, around, start, [trace.Link(created)])
        if outcome is not Outcome.CONFIRMED:
            _reason(span, outcome, reason)
        span.end(end)

    # Spans

    def _start(
        self,
        attributes: Attributes,
        kind: trace.SpanKind,
        around: Context | None,
        start: int,
        links: Sequence[trace.Link] = (),
    ) -> trace.Span:
        assert self.tracer is not None
        self.spans += 1
        return self.tracer.start_span(
            name(attributes), context=around, kind=kind, attributes=attributes, links=links, start_time=start
        )

    def _server_of(self, url: str) -> Attributes:
        if self._server[0] != url:
            self._server = (url, server(url))
        return self._server[1]

    def _mistake(self) -> None:
        """A message is worth more than its span."""
        if not self._mistaken:
            self._mistaken = True
            self.log.failure("a span could not be made; going on without (told once); please report this")


def _stamp(entries: Sequence[Entry], context: trace.SpanContext) -> None:
    """Write the creation context into their headers."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, trace.set_span_in_context(trace.NonRecordingSpan(context)))
    for entry in entries:
        properties = with_trace(entry.properties, headers)
        entry.size += len(properties) - len(entry.properties)
        entry.properties = properties


def _fail(span: trace.Span, kind: str, text: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(trace.Status(trace.StatusCode.ERROR, text))


def _reason(span: trace.Span, outcome: Outcome, reason: Reason | None) -> None:
    """What RabbitMQ said, in its words."""
    _fail(span, outcome.value, str(reason) if reason is not None else outcome.value)
    if reason is not None and reason.code is not None:
        span.set_attribute("pubd.reply_code", reason.code)
