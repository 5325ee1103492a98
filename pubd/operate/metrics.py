"""Metrics for Prometheus and whoever reads its formats.

What can be read when somebody asks is read then (``collect``); what happens in between is counted by :class:`Tally`.
All of it has a registry of its own, so that two publishers in one process do not meet.
"""

from __future__ import annotations

import gzip
import platform
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from pubd._version import __version__
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.operate.health import SpoolAnswer
from pubd.outcome import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

    from pubd.operate.distribution import Distribution
    from pubd.operate.health import Health, Watched
    from pubd.operate.reading import IntakeReading, SpanReading
    from pubd.operate.tally import Tally
    from pubd.spool.base import Limits

#: Fast, and a page of metrics shrinks to a tenth all the same.
GZIP_LEVEL = 1


@attrs.frozen
class Page:
    """An answer to who scrapes: ``encoding`` is that of the body, None where it has none."""

    body: bytes
    content_type: bytes
    encoding: bytes | None


class Metrics(Collector):
    """``intakes`` are read when asked; ``limits`` and ``free`` as of :class:`pubd.operate.health.Health`."""

    def __init__(
        self,
        *,
        publisher: Watched,
        tally: Tally,
        health: Health,
        limits: Limits,
        intakes: Sequence[IntakeReading] = (),
        spans: SpanReading | None = None,
        free: Callable[[], int] | None = None,
        wall: Callable[[], float],
    ) -> None:
        self._publisher = publisher
        self._tally = tally
        self._health = health
        self.limits = limits
        self._intakes = intakes
        self._spans = spans
        self._free = free
        self._wall = wall
        self._spool = SpoolAnswer(False)
        self._build = {name: version(name) for name in ("twisted", "pika", "apsw")}
        self._build |= {"version": __version__, "python": platform.python_version()}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    async def page(self, accept: str = "", accept_encoding: str = "") -> Page:
        """Everything, in the format that ``accept`` (the header) prefers, compressed if that is accepted."""
        self._spool = await self._health.spool()
        encode, content_type = choose_encoder(accept)
        body = encode(self.registry)
        if not gzip_accepted(accept_encoding):
            return Page(body, content_type.encode("ascii"), None)
        return Page(gzip.compress(body, GZIP_LEVEL), content_type.encode("ascii"), b"gzip")

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        yield InfoMetricFamily(
            "pubd_build",
            "What runs here.",
            value=self._build,
        )
        yield from self._happened()
        yield from self._held()
        yield from self._broker()
        yield from self._disk()
        yield from self._ways_in()
        yield from self._traced()
        yield _counter(
            "pubd_clock_steps",
            "How often the clock of this host was set, or the machine slept, since the start.",
            (),
            {(): self._health.steps.count},
        )

    def _happened(self) -> Iterator[Metric]:
        tally = self._tally
        yield _counter(
            "pubd_accepted_messages",
            "Messages accepted since the start, by exchange: the first 200 by name, the rest as other.",
            ("exchange",),
            {(exchange,): count for exchange, count in tally.by_exchange.items()},
        )
        yield _counter(
            "pubd_principal_accepted_messages",
            "Messages accepted since the start, by who handed them in; schedules and the like are (none).",
            ("principal",),
            {(principal,): count for principal, count in tally.by_principal.items()},
        )
        yield _counter(
            "pubd_deliveries",
            "Deliveries that ended since the start, by exchange and outcome; a message may take several.",
            ("exchange", "outcome"),
            {(exchange, outcome.value): count for (exchange, outcome), count in tally.deliveries.items()},
        )
        yield _counter(
            "pubd_settlements",
            "What deliveries did to their messages since the start, by the state that the message came to.",
            ("state",),
            {(state.value,): tally.settlements[state] for state in State},
        )
        yield _histogram(
            "pubd_receipt_seconds",
            "Time from submission to receipt (stored and synced), of each message.",
            tally.receipts,
        )
        yield _histogram(
            "pubd_confirm_seconds",
            "Time from publishing to RabbitMQ's confirm, of each confirmed delivery.",
            tally.confirms,
        )
        yield _histogram("pubd_commit_seconds", "Time that each commit of the spool took, synced.", tally.commits)

    def _held(self) -> Iterator[Metric]:
        account = self._publisher.account()
        books = account.books
        yield _gauge(
            "pubd_messages",
            "Messages that pubd holds, by state; in_flight: claimed by a lane, stored as ready.",
            ("state",),
            {(state,): getattr(books, state) for state in ("ready", "deferred", "parked", "in_flight")},
        )
        yield _one("pubd_spool_held_bytes", "Size of the messages that are held.", books.bytes)
        yield _counter(
            "pubd_books_accepted",
            "Messages accepted since the spool was made.",
            (),
            {(): books.accepted},
        )
        yield _counter(
            "pubd_books_settled",
            "Messages settled since the spool was made, by how.",
            ("state",),
            {(state,): getattr(books, state) for state in ("confirmed", "expired", "discarded")},
        )
        yield _one(
            "pubd_books_difference",
            "Accepted messages that are neither settled nor held: anything but 0 is a bug.",
            books.difference,
        )
        spool = self._spool
        yield _one("pubd_spool_answers", "Whether the spool answered in time when this was read.", spool.answers)
        if spool.answers:
            age = 0.0 if spool.oldest is None else max(0.0, self._wall() - spool.oldest)
            yield _one(
                "pubd_oldest_ready_age_seconds",
                "Time since the oldest message that is ready or in flight was accepted; 0: there is none.",
                age,
            )

    def _broker(self) -> Iterator[Metric]:
        status = self._publisher.status()
        lanes = Counter(lane.state for lane in status.lanes)
        yield _one("pubd_can_accept", "Whether /readyz says that pubd can accept messages.", self._health.accepts)
        yield _one("pubd_can_publish", "Whether /publishz says that pubd can publish.", self._health.publishes)
        yield _gauge(
            "pubd_link_state",
            "1 for the state that the connection to RabbitMQ is in.",
            ("state",),
            {(state.value,): status.link is state for state in LinkState},
        )
        yield _one(
            "pubd_link_blocked",
            "Whether RabbitMQ blocks the connection, for want of memory or disk.",
            status.link is LinkState.BLOCKED,
        )
        yield _counter(
            "pubd_published_messages", "Deliveries written to RabbitMQ since the start.", (), {(): status.published}
        )
        yield _gauge(
            "pubd_lanes",
            "Lanes (one for each exchange with messages), by state.",
            ("state",),
            {(state.value,): lanes[state] for state in LaneState},
        )
        yield _one(
            "pubd_in_flight_deliveries",
            "Deliveries that RabbitMQ has not answered.",
            sum(lane.in_flight for lane in status.lanes),
        )
        pauses = self._publisher.pauses
        yield _one(
            "pubd_paused",
            "Whether an operator has paused publishing as a whole.",
            any(pause.exchange is None for pause in pauses),
        )
        yield _one(
            "pubd_paused_exchanges",
            "Exchanges that an operator has paused, each by itself.",
            sum(pause.exchange is not None for pause in pauses),
        )
        yield _one("pubd_in_flight_bytes", "Their size.", sum(lane.in_flight_bytes for lane in status.lanes))
        yield _one(
            "pubd_refused_declarations",
            "Exchanges, queues and bindings of the configuration that RabbitMQ refused to declare.",
            len(status.refused),
        )

    def _disk(self) -> Iterator[Metric]:
        limits = self.limits
        for name, help, limit in (
            ("pubd_spool_max_bytes", "Size of messages at which submissions are refused.", limits.max_bytes),
            ("pubd_spool_max_messages", "Number of messages at which submissions are refused.", limits.max_rows),
        ):
            if limit is not None:
                yield _one(name, help, limit)
        if self._free is None:
            return
        if limits.min_free is not None:
            yield _one("pubd_spool_min_free_bytes", "Free space at which they are refused.", limits.min_free)
        try:
            free = self._free()
        except OSError:
            # /readyz says so.
            return
        yield _one("pubd_spool_free_bytes", "Free space of the disk that the spool is on.", free)

    def _ways_in(self) -> Iterator[Metric]:
        intakes = self._intakes
        label = ("intake",)
        yield _gauge(
            "pubd_intake_unanswered_bytes",
            "What was read and is not answered yet.",
            label,
            {(each.name,): each.unanswered() for each in intakes},
        )
        yield _gauge(
            "pubd_intake_max_unanswered_bytes",
            "At this, reading pauses.",
            label,
            {(each.name,): each.max_unanswered for each in intakes},
        )
        yield _gauge(
            "pubd_intake_connections",
            "Open connections.",
            label,
            {(each.name,): each.connections() for each in intakes if each.connections is not None},
        )
        yield _gauge(
            "pubd_intake_max_connections",
            "Connections beyond these are closed at once.",
            label,
            {(each.name,): each.max_connections for each in intakes if each.max_connections is not None},
        )
        yield _counter(
            "pubd_intake_refused_connections",
            "Connections closed since the start because there were too many.",
            label,
            {(each.name,): each.refused() for each in intakes if each.refused is not None},
        )
        yield _counter(
            "pubd_http_answers",
            "HTTP answers since the start, by status.",
            ("code",),
            {
                (str(code),): count
                for each in intakes
                if each.answers is not None
                for code, count in sorted(each.answers().items())
            },
        )

    def _traced(self) -> Iterator[Metric]:
        if (spans := self._spans) is None:
            return
        yield _counter(
            "pubd_trace_spans",
            "Spans since the start: made, and of these exported to the collector or failed to be.",
            ("state",),
            {("made",): spans.made, ("exported",): spans.exported, ("failed",): spans.failed},
        )


def _gauge(name: str, help: str, labels: Iterable[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, help, labels=tuple(labels))
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _one(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)


def _counter(name: str, help: str, labels: Iterable[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    """``name`` without the ``_total`` that it has in the end."""
    family = CounterMetricFamily(name, help, labels=tuple(labels))
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, help: str, found: Distribution) -> Metric:
    buckets = [("+Inf" if bound == float("inf") else str(bound), float(count)) for bound, count in found.buckets()]
    return HistogramMetricFamily(name, help, buckets=buckets, sum_value=found.sum)
