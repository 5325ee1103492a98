"""Spans of what happens to messages, on a scripted broker.

How it fails: a context of the application's that is overwritten; a resubmission that conflicts because its trace
differs; a span for each of ten thousand messages of one request; a retry, a restart or a park that loses the trace; an
exception of OpenTelemetry's that keeps a message from being stored; spans whose messages nobody asked to trace.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from twisted.python.failure import Failure

from pubd.errors import SpoolFull
from pubd.message import Message
from pubd.operate import span_facts
from pubd.operate.tracing import Share, Tracing
from pubd.policy import OnReturn, Policy
from pubd.publisher import Publisher
from pubd.spool.base import Limits
from pubd.spool.memory import MemorySpool
from tests.network import MemoryNetwork
from tests.peer import Broker
from tests.rig import Rig
from tests.spans import PARENT_ID, SAMPLED, TRACE_ID, UNSAMPLED, Spans, facts, ids, traceparent
from tests.strictness import Logged


class Traced(Rig):
    """A rig with spans of what it does."""

    def __init__(self, spans: Spans, **given: Any) -> None:
        super().__init__(MemoryNetwork(Broker(exchanges={"x": {"k"}, "y": {"k"}})), traces=spans.tracing, **given)
        spans.tracing._wall = self.network.seconds

    def hand_in(self, *messages: Message, carrier: Mapping[str, str] | None = None) -> list[Any]:
        answers: list[Any] = []
        self.publisher.submit_each(messages, carrier=carrier).addCallback(answers.extend)
        self.network.flush()
        return answers

    def headers(self, message_id: str) -> dict[str, Any]:
        """The AMQP headers with which it arrived last."""
        (*_, found) = (each for each in self.broker.published if each.properties.message_id == message_id)
        return dict(found.properties.headers or {})


def message(message_id: str, **given: Any) -> Message:
    return Message(**{"exchange": "x", "routing_key": "k", "message_id": message_id, "body": b"s3cret"} | given)


def test_a_message_of_a_traced_request_is_a_create_span_and_each_delivery_a_publish_span_below_it() -> None:
    spans = Spans()
    rig = Traced(spans)
    rig.start()
    rig.hand_in(message("m", correlation_id="c"), carrier=SAMPLED)
    created, published = spans.one("create x:k"), spans.one("publish x:k")
    assert (created.kind, published.kind) == (SpanKind.PRODUCER, SpanKind.CLIENT)
    assert ids(created)[0] == TRACE_ID
    assert ids(created)[2] == PARENT_ID
    assert ids(published) == (TRACE_ID, ids(published)[1], ids(created)[1])
    assert [link.context.span_id for link in published.links] == [created.context and created.context.span_id]
    assert rig.headers("m") == {"traceparent": traceparent(created), "tracestate": SAMPLED["tracestate"]}
    assert facts(created) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "create",
        "messaging.operation.type": "create",
        "messaging.destination.name": "x:k",
        "messaging.rabbitmq.destination.routing_key": "k",
        "messaging.message.id": "m",
        "messaging.message.body.size": 6,
    }
    assert facts(published) == facts(created) | {
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "server.address": "localhost",
        "server.port": 5672,
        "pubd.outcome": "confirmed",
        "pubd.attempt": 1,
        "pubd.node": facts(published)["pubd.node"],
    }
    assert (created.status.status_code, published.status.status_code) == (StatusCode.UNSET, StatusCode.UNSET)
    assert created.start_time is not None
    assert published.end_time is not None
    assert created.start_time <= published.end_time
    assert "s3cret" not in "".join(span.to_json() for span in spans.ended)
    rig.stop()


def test_a_context_that_comes_with_the_message_stays_as_it_is_and_is_the_parent() -> None:
    spans = Spans()
    rig = Traced(spans)
    rig.start()
    other = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}
    rig.hand_in(message("m", headers={"a": 1, **SAMPLED}), carrier=other)
    rig.hand_in(message("n", headers=dict(SAMPLED)))
    assert spans.names == ["publish x:k", "publish x:k"]
    for span in spans.ended:
        assert ids(span)[0] == TRACE_ID
        assert ids(span)[2] == PARENT_ID
        assert span.links[0].context.trace_state.to_header() == SAMPLED["tracestate"]
    assert rig.headers("m") == {"a": 1, **SAMPLED}
    rig.stop()


def test_what_is_not_recorded_is_carried_on_and_has_no_span() -> None:
    spans = Spans(ratio=1.0)
    rig = Traced(spans)
    rig.start()
    rig.hand_in(message("m"), message("n", headers=dict(UNSAMPLED)), carrier=UNSAMPLED)
    assert spans.names == []
    assert rig.headers("m") == rig.headers("n") == UNSAMPLED
    rig.stop()


@pytest.mark.parametrize("wrong", ["", "x", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", SAMPLED["traceparent"] + ", x"])
def test_a_context_that_is_none_is_as_if_there_were_none(wrong: str) -> None:
    spans = Spans()
    rig = Traced(spans)
    rig.start()
    rig.hand_in(message("m"), carrier={"traceparent": wrong})
    rig.hand_in(message("n", headers={"traceparent": wrong}))
    assert spans.names == []
    assert rig.headers("m") == {}
    assert rig.headers("n") == {"traceparent": wrong}
    rig.stop()


def test_many_of_one_request_share_a_span_with_their_number() -> None:
    spans = Spans()
    rig = Traced(spans)
    rig.start()
    rig.hand_in(
        *[message(f"m{number}") for number in range(50)],
        message("own", headers={"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}),
        carrier=SAMPLED,
    )
    handed = spans.one("send x:k")
    assert handed.kind is SpanKind.PRODUCER
    assert facts(handed)["messaging.batch.message_count"] == 50
    assert facts(handed)["messaging.operation.type"] == "send"
    assert "messaging.message.id" not in facts(handed)
    published = [span for span in spans.ended if span.name == "publish x:k" and ids(span)[0] == TRACE_ID]
    assert sum(facts(span).get("messaging.batch.message_count", 1) for span in published) == 50
    assert len(published) < 10
    assert {ids(span)[2] for span in published} == {ids(handed)[1]}
    assert rig.headers("m49") == rig.headers("m0")
    assert len([span for span in spans.ended if ids(span)[0] == "1" * 32]) == 1
    rig.stop()


def test_what_becomes_of_a_failed_delivery_is_its_status() -> None:
    spans = Spans()
    rig = Traced(spans, policy=Policy(max_attempts=2))
    rig.start()
    rig.hand_in(message("returned", routing_key="nowhere"), carrier=SAMPLED)
    returned = spans.one("publish x:nowhere")
    assert returned.status.status_code is StatusCode.ERROR
    assert returned.status.description == "returned: 312 NO_ROUTE"
    assert facts(returned)["error.type"] == "returned"
    assert facts(returned)["pubd.state"] == "parked"
    assert facts(returned)["pubd.reply_code"] == 312
    rig.peer.hold()
    rig.hand_in(message("nacked"), carrier=SAMPLED)
    rig.peer.nack(rig.channel(), rig.peer.published[-1].tag)
    rig.network.flush()
    nacked = spans.one("publish x:k")
    assert (facts(nacked)["error.type"], facts(nacked)["pubd.state"]) == ("nacked", "deferred")
    assert nacked.status.description == "nacked"
    rig.peer.release()
    rig.network.advance(10.0)
    rig.hand_in(message("poison", expiration="1", headers=dict(SAMPLED)))
    rig.stop()


def test_attempts_are_spans_of_their_own_and_the_last_one_says_that_they_are_used_up() -> None:
    spans = Spans()
    rig = Traced(spans, policy=Policy(max_attempts=2, on_return=OnReturn.RETRY))
    rig.start()
    rig.hand_in(message("m", routing_key="nowhere"), carrier=SAMPLED)
    rig.network.advance(60.0)
    first, second = (span for span in spans.ended if span.name == "publish x:nowhere")
    assert (facts(first)["pubd.state"], facts(first)["pubd.attempt"]) == ("deferred", 1)
    assert (facts(second)["pubd.state"], facts(second)["pubd.attempt"]) == ("parked", 2)
    assert second.status.description is not None
    assert second.status.description.startswith("attempts used up: 2 of 2")
    assert ids(first)[2] == ids(second)[2] == ids(spans.one("create x:nowhere"))[1]
    rig.stop()


def test_lost_deliveries_are_errors_and_the_next_attempt_has_the_same_parent() -> None:
    spans = Spans()
    rig = Traced(spans)
    rig.start()
    rig.hand_in(message("zero"))
    rig.peer.hold()
    rig.hand_in(message("m"), carrier=SAMPLED)
    rig.peer.drop()
    rig.network.advance(60.0)
    lost = spans.one("publish x:k", lambda span: facts(span)["pubd.outcome"] == "lost")
    assert lost.status.status_code is StatusCode.ERROR
    assert facts(lost)["error.type"] == "lost"
    again = spans.one("publish x:k", lambda span: facts(span)["pubd.outcome"] == "confirmed")
    assert ids(lost)[2] == ids(again)[2]
    rig.stop()


def test_refusals_are_errors_of_the_span_and_of_some_their_number() -> None:
    spans = Spans()
    rig = Traced(spans, spool=MemorySpool(limits=Limits(max_rows=1)))
    rig.start()
    answers = rig.hand_in(*[message(f"m{number}", routing_key="nowhere") for number in range(3)], carrier=SAMPLED)
    assert [type(each).__name__ for each in answers] == ["Receipt", "SpoolFull", "SpoolFull"]
    some = spans.one("send x:nowhere")
    assert some.status.status_code is StatusCode.UNSET
    assert facts(some)["pubd.refused"] == 2
    rig.hand_in(message("n"), carrier=SAMPLED)
    refused = spans.one("create x:k")
    assert refused.status.status_code is StatusCode.ERROR
    assert facts(refused)["error.type"] == "SpoolFull"
    failures: list[Failure] = []
    rig.publisher.submit_many([message("o"), message("p")], carrier=SAMPLED).addErrback(failures.append)
    rig.network.flush()
    assert failures[0].check(SpoolFull)
    assert facts(spans.one("send x:k"))["error.type"] == "SpoolFull"
    rig.stop()


def test_the_span_of_the_program_around_it_is_the_parent() -> None:
    spans = Spans()
    rig = Traced(spans)
    rig.start()
    with spans.provider.get_tracer("shop").start_as_current_span("checkout") as checkout:
        rig.submit("m")
    rig.network.flush()
    created = spans.one("create x:k")
    assert ids(created)[2] == f"{checkout.get_span_context().span_id:016x}"
    rig.stop()


def test_a_share_of_the_others_begins_a_trace() -> None:
    spans = Spans(ratio=0.1, random=random.Random(7).random)
    rig = Traced(spans)
    rig.start()
    for first in range(0, 2000, 100):
        rig.hand_in(*[message(f"m{number}") for number in range(first, first + 100)])
    rig.hand_in(message("own", headers=dict(SAMPLED)))
    created = [span for span in spans.ended if span.name == "create x:k"]
    assert 150 < len(created) < 250
    assert len({ids(span)[0] for span in created}) == len(created)
    assert all(span.parent is None for span in created)
    traced = [m for m in range(2000) if "traceparent" in rig.headers(f"m{m}")]
    assert len(traced) == len(created)
    rig.stop()


@pytest.mark.parametrize(
    ("ratio", "low", "high"),
    [(0.0, 0, 0), (1.0, 5000, 5000), (0.5, 2300, 2700), (1e-9, 0, 1), (1e-300, 0, 0), (5e-324, 0, 0)],
)
def test_the_share_is_what_was_asked_for(ratio: float, low: int, high: int) -> None:
    share = Share(ratio, random.Random(1).random)
    places = [place for _ in range(500) for place in share.picks(10)]
    assert all(0 <= place < 10 for place in places)
    assert low <= len(places) <= high


def test_one_key_is_one_message_whatever_its_trace() -> None:
    spans = Spans(ratio=1.0)
    rig = Traced(spans)
    rig.start()
    other = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}
    answers = [
        *rig.hand_in(message("m", idempotency_key="i"), carrier=SAMPLED),
        *rig.hand_in(message("m", idempotency_key="i"), carrier=other),
        *rig.hand_in(message("m", idempotency_key="i", headers=other)),
        *rig.hand_in(message("m", idempotency_key="i")),
    ]
    assert len({receipt.id for receipt in answers}) == 1
    (conflict,) = rig.hand_in(message("m", idempotency_key="i", headers={"a": 1, **other}))
    assert type(conflict).__name__ == "IdempotencyConflict"
    rig.stop()


def test_headers_that_just_fit_into_a_frame_still_do() -> None:
    spans = Spans()
    rig = Traced(spans)
    rig.start()
    rig.hand_in(message("m", headers={"h": "x" * 4000}), carrier=SAMPLED)
    assert "traceparent" not in rig.headers("m")
    assert spans.names == ["create x:k"]
    rig.stop()


class Broken(trace.NoOpTracer):
    """OpenTelemetry with a mistake in it."""

    def start_span(self, *_: Any, **__: Any) -> trace.Span:
        raise ZeroDivisionError


def test_a_mistake_in_tracing_costs_no_message_and_is_told_once(logged: Logged) -> None:
    spans = Spans()
    spans.tracing = Tracing(tracer=Broken())
    rig = Traced(spans)
    rig.start()
    rig.hand_in(message("m"), carrier=SAMPLED)
    rig.hand_in(message("n", headers=dict(SAMPLED)))
    rig.hand_in(message("o", routing_key="nowhere", headers=dict(SAMPLED)))
    assert rig.arrived() == ["m", "n", "o"]
    assert len(logged.flush(ZeroDivisionError)) == 1
    rig.stop()


def test_without_a_tracer_nothing_happens() -> None:
    spans = Spans(ratio=1.0)
    spans.tracing.tracer = None
    rig = Traced(spans)
    rig.start()
    rig.hand_in(message("m"), carrier=SAMPLED)
    rig.hand_in(message("n", routing_key="nowhere"))
    assert spans.names == []
    assert rig.headers("m") == {}
    rig.stop()


def test_settlements_that_never_come_are_not_waited_for_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pubd.operate.tracing.UNDECIDED", 2)
    spans = Spans()
    rig = Traced(spans)
    rig.publisher.observers.settled = lambda *_: None  # type: ignore[method-assign]
    rig.start()
    for name in "abcd":
        rig.hand_in(message(name, routing_key="nowhere"), carrier=SAMPLED)
    ended = [span for span in spans.ended if span.name == "publish x:nowhere"]
    assert len(ended) == 2
    assert all("pubd.state" not in facts(span) for span in ended)
    rig.stop()


@pytest.mark.parametrize(
    ("exchange", "key", "name"),
    [("direct_logs", "warning", "direct_logs:warning"), ("logs", "", "logs"), ("", "q", "q"), ("", "", "amq.default")],
)
def test_destinations_are_named_as_the_conventions_have_it(exchange: str, key: str, name: str) -> None:
    assert span_facts.destination(exchange, key) == name


def test_nothing_but_the_address_of_a_broker_is_told() -> None:
    assert span_facts.server("amqp://shop:s3cret@rabbit:1234/%2F") == {"server.address": "rabbit", "server.port": 1234}
    assert span_facts.server("amqps://shop:***@[::1]/v") == {"server.address": "::1", "server.port": 5671}
    assert span_facts.server("") == {}
    assert span_facts.server("amqp://h:port/") == {}


def test_several_destinations_have_their_exchange_in_common_or_nothing() -> None:
    spans = Spans()
    rig = Traced(spans)
    rig.start()
    rig.hand_in(message("a"), message("b", routing_key="nowhere"), carrier=SAMPLED)
    rig.hand_in(message("c"), message("d", exchange="y"), carrier=SAMPLED)
    assert facts(spans.one("send x"))["messaging.destination.name"] == "x"
    assert "messaging.destination.name" not in facts(spans.one("send"))
    rig.stop()


def test_a_publisher_takes_tracing_from_its_url_too() -> None:
    spans = Spans()
    publisher = Publisher.from_url("amqp://shop:pw@localhost", reactor=MemoryNetwork(Broker()), traces=spans.tracing)
    assert publisher.status().url == spans.tracing.url()
    assert "pw" not in spans.tracing.url()
