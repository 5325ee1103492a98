"""Otlp: the service that sends spans to a collector, from a thread of its own, and says when that does not work."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from pubd._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from pubd.operate.tracing import Tracing
    from pubd.operate.tracing_options import TracingOptions

#: Seconds that the last spans have at the stop.
GRACE = 3.0
#: The version of the semantic conventions that pubd's spans keep to.
SCHEMA = "https://opentelemetry.io/schemas/1.43.0"


class Otlp(Service):
    """Gives ``tracing`` its tracer while it runs. ``exporter``: another one than that of ``options``.

    Everything that leaves the process does so on the exporter's thread. OpenTelemetry's environment variables hold for
    what ``options`` leave open: ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_BSP_*``, ``OTEL_EXPORTER_OTLP_CERTIFICATE``, ...
    """

    log = Logger()

    def __init__(
        self,
        options: TracingOptions,
        tracing: Tracing,
        *,
        reactor: Any,
        exporter: Callable[[], SpanExporter] | None = None,
    ) -> None:
        self._options = options
        self.tracing = tracing
        self._reactor = reactor
        self._exporter = exporter or self._otlp
        self._provider: TracerProvider | None = None
        self.exported = 0
        """Spans that a collector took, since the start."""
        self.failed = 0
        """Spans that it did not take; they are gone."""
        self._failing = False
        self._words = _Words()

    @property
    def made(self) -> int:
        """Spans that pubd made, since the start."""
        return self.tracing.spans

    def startService(self) -> None:
        """Trace from now on. Not before: twistd may fork until then, and threads do not go along."""
        super().startService()
        options = self._options
        # What it has to say is said by this class, in one sentence each time it changes.
        library = logging.getLogger("opentelemetry")
        library.propagate = False
        library.addHandler(self._words)
        resource = Resource.create(
            {
                "service.name": options.service_name,
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            }
        )
        # Whether a trace is recorded is decided before a span is made.
        self._provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Counted(self._exporter(), self._exported)))
        self.tracing.tracer = self._provider.get_tracer("pubd", __version__, schema_url=SCHEMA)

    def stopService(self) -> Deferred[None]:
        """Send what is left, for :data:`GRACE` seconds at most."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        provider, self._provider, self.tracing.tracer = self._provider, None, None
        if provider is None:
            return
        gone: Deferred[None] = Deferred()

        def shut_down() -> None:
            provider.shutdown()
            self._reactor.callFromThread(lambda: None if gone.called else gone.callback(None))

        # Not the reactor's pool, which waits for its threads when the process ends.
        threading.Thread(target=shut_down, name="pubd-otlp-stop", daemon=True).start()
        try:
            await gone.addTimeout(GRACE, self._reactor)
        except TimeoutError:
            self.log.warn("the last spans did not get to {endpoint} in time", endpoint=self._options.endpoint)
        logging.getLogger("opentelemetry").removeHandler(self._words)

    def _otlp(self) -> SpanExporter:
        options = self._options
        return OTLPSpanExporter(
            endpoint=options.endpoint, headers=dict(options.headers) or None, timeout=options.timeout
        )

    def _exported(self, count: int, done: bool) -> None:
        """On the exporter's thread."""
        self._reactor.callFromThread(self._count, count, done, self._words.last)

    def _count(self, count: int, done: bool, words: str) -> None:
        if done:
            self.exported += count
        else:
            self.failed += count
        if done is not self._failing:
            return
        self._failing = not done
        if self._failing:
            self.log.warn(
                "spans do not get to {endpoint} and are gone: {words}", endpoint=self._options.endpoint, words=words
            )
        else:
            self.log.info("spans get to {endpoint} again", endpoint=self._options.endpoint)


class _Counted(SpanExporter):
    """``told`` how many spans were exported, or not."""

    def __init__(self, exporter: SpanExporter, told: Callable[[int, bool], None]) -> None:
        self._exporter = exporter
        self._told = told

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """As SpanExporter says."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._told(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """As SpanExporter says."""
        self._exporter.shutdown()


class _Words(logging.Handler):
    """Keeps what the library said last."""

    last = "the collector did not take them"

    def emit(self, record: logging.LogRecord) -> None:
        """As logging.Handler says."""
        if record.levelno >= logging.WARNING:
            self.last = record.getMessage()
