"""A collector that takes OTLP over HTTP, and keeps what it gets: real HTTP, decoded by OpenTelemetry's own messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.rabbitmq import free_ports


@attrs.frozen(kw_only=True)
class Got:
    """A span as it arrived; ``status`` is 0 (unset) or 2 (error)."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    status: int
    facts: dict[str, Any]
    resource: dict[str, Any]
    seconds: float


@attrs.define(eq=False)
class Collector:
    """``answer`` is the HTTP status that it gives."""

    port: int
    answer: int = 200
    spans: list[Got] = attrs.Factory(list)
    headers: list[dict[str, str]] = attrs.Factory(list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def named(self, name: str) -> list[Got]:
        return [span for span in self.spans if span.name == name]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            resource = _facts(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [
                    Got(
                        name=span.name,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        status=span.status.code,
                        facts=_facts(span.attributes),
                        resource=resource,
                        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    )
                    for span in scope.spans
                ]


def _facts(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def collecting(port: int | None = None) -> Iterator[Collector]:
    """One that listens, on this port or a free one."""
    collector = Collector(port or free_ports(1)[0])

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.headers.append({name.lower(): text for name, text in self.headers.items()})
            if collector.answer == 200:
                collector.take(body)
            self.send_response(collector.answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", collector.port), Takes)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
