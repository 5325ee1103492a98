"""Spans in memory: what a collector would get, by OpenTelemetry's own exporter for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pubd.operate.tracing import Tracing

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
#: What a client with tracing sends along, recorded and not.
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "congo=t61rcWkgMzE"}
UNSAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}


class Spans:
    """A tracing, and the spans that it made; one after the other, as they ended."""

    def __init__(self, *, ratio: float = 0.0, **given: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(tracer=self.provider.get_tracer("test"), ratio=ratio, **given)

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.ended]

    def one(self, name: str, which: Callable[[ReadableSpan], bool] = lambda _: True) -> ReadableSpan:
        (span,) = (span for span in self.ended if span.name == name and which(span))
        return span


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Trace, span, and the span above it."""
    assert span.context is not None
    above = f"{span.parent.span_id:016x}" if span.parent is not None else None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", above


def traceparent(span: ReadableSpan) -> str:
    """What a message carries whose creation context is that of ``span``."""
    trace, itself, _ = ids(span)
    return f"00-{trace}-{itself}-01"


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
