"""CloudEvents from the official Python SDK, over a real socket, through RabbitMQ, and back into the SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_twisted
import requests
from cloudevents.core.bindings import amqp, http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.conversion import to_binary, to_structured
from cloudevents.v1.http import CloudEvent as CloudEventOfV1

from tests.conftest import Drained
from tests.integration.serving import Serving, serving
from tests.integration.spooled import bind, declare
from tests.integration.support import in_thread

Drain = Callable[..., list[Drained]]
TIME = datetime(2018, 4, 5, 17, 31, 0, 123000, tzinfo=UTC)
ATTRIBUTES = {
    "id": "A234-1234-1234",
    "source": "https://example.com/mycontext?a=b#c",
    "type": "com.example.someevent",
    "time": TIME,
    "subject": 'größer, 100% "larger" context',
    "dataschema": "https://example.com/schema",
    "datacontenttype": "application/json",
    "comexampleextension1": "value with spaces",
}
DATA = {"appinfoA": "abc", "appinfoB": 123, "appinfoC": [True, None, "ü"]}


def event(data: Any = DATA, **more: Any) -> CloudEvent:
    attributes = {name: value for name, value in (ATTRIBUTES | more).items() if value is not None}
    return CloudEvent(attributes=attributes, data=data)


async def posted(pubd: Serving, path: str, headers: Mapping[str, str], body: bytes | str | None) -> tuple[int, Any]:
    def post() -> tuple[int, Any]:
        answer = requests.post(pubd.url + path, data=body, headers=dict(headers), timeout=30)
        return answer.status_code, answer.json()

    return await in_thread(post)


def as_consumed(message: Drained) -> Any:
    """The SDK's reading of what came out of the queue: its AMQP binding takes ``cloudEvents:`` headers."""
    content_type = message.properties.content_type
    return amqp.from_amqp_event(
        amqp.AMQPMessage(
            properties={} if content_type is None else {"content-type": content_type},
            application_properties=message.properties.headers,
            application_data=message.body,
        )
    )


@pytest.fixture
def route(broker_url: str, unique: Callable[..., str]) -> tuple[str, str]:
    """A topic exchange and a queue that gets everything of it."""
    exchange, queue = unique("exchange"), unique("queue")
    declare(broker_url, exchange, "topic")
    bind(broker_url, exchange, queue, "#")
    return exchange, queue


@pytest.mark.parametrize("mode", [http.to_binary_event, http.to_structured_event])
@pytest_twisted.ensureDeferred
async def test_an_event_comes_out_as_it_went_in(
    mode: Callable[[CloudEvent], http.HTTPMessage], broker_url: str, route: tuple[str, str], drain: Drain
) -> None:
    exchange, queue = route
    sent = event()
    message = mode(sent)
    async with serving(broker_url) as pubd:
        status, answer = await posted(pubd, f"/cloudevents/{exchange}?wait=confirmed", message.headers, message.body)
    assert (status, answer["state"]) == (200, "confirmed")
    (got,) = await in_thread(drain, queue, broker_url)
    received = as_consumed(got)
    assert received.get_attributes() == sent.get_attributes()
    assert received.get_data() == DATA
    assert (got.exchange, got.routing_key) == (exchange, "com.example.someevent")
    assert got.properties.content_type == "application/json"
    assert got.properties.type == "com.example.someevent"
    assert got.properties.timestamp == 1522949460
    assert got.properties.message_id == answer["id"]
    assert got.properties.delivery_mode == 2


@pytest.mark.parametrize("mode", [http.to_binary_event, http.to_structured_event])
@pytest_twisted.ensureDeferred
async def test_binary_data_comes_out_as_it_went_in(
    mode: Callable[[CloudEvent], http.HTTPMessage], broker_url: str, route: tuple[str, str], drain: Drain
) -> None:
    exchange, queue = route
    data = bytes(range(256))
    message = mode(event(data, datacontenttype="application/octet-stream"))
    async with serving(broker_url) as pubd:
        status, _ = await posted(
            pubd, f"/cloudevents/{exchange}?wait=confirmed&routing_key=a.b", message.headers, message.body
        )
    assert status == 200
    (got,) = await in_thread(drain, queue, broker_url)
    assert (got.body, got.properties.content_type) == (data, "application/octet-stream")
    assert got.routing_key == "a.b"


@pytest.mark.parametrize("mode", [to_binary, to_structured])
@pytest_twisted.ensureDeferred
async def test_the_api_of_the_sdks_first_version_works_too(
    mode: Callable[[Any], tuple[dict[str, str], bytes]],
    broker_url: str,
    route: tuple[str, str],
    drain: Drain,
) -> None:
    exchange, queue = route
    sent = CloudEventOfV1({"type": "com.example.v1", "source": "urn:x", "subject": "with space"}, {"a": 1})
    headers, body = mode(sent)
    async with serving(broker_url) as pubd:
        status, _ = await posted(pubd, f"/cloudevents/{exchange}?wait=confirmed", headers, body)
    assert status == 200
    (got,) = await in_thread(drain, queue, broker_url)
    assert got.properties.headers["cloudEvents:id"] == sent["id"]
    assert got.properties.headers["cloudEvents:time"] == sent["time"]
    assert got.properties.headers["cloudEvents:subject"] == "with space"
    assert as_consumed(got).get_data() == {"a": 1}


@pytest_twisted.ensureDeferred
async def test_a_batch_is_answered_event_by_event(broker_url: str, route: tuple[str, str], drain: Drain) -> None:
    exchange, queue = route
    write = JSONFormat().write
    events = [write(event(id=str(number))) for number in range(3)]
    events.insert(1, b'{"specversion":"1.0","id":"x","type":"t"}')
    body = b"[" + b",".join(events) + b"]"
    async with serving(broker_url) as pubd:
        status, answer = await posted(
            pubd,
            f"/cloudevents/{exchange}?wait=confirmed",
            {"content-type": "application/cloudevents-batch+json; charset=UTF-8"},
            body,
        )
        empty = await posted(
            pubd, f"/cloudevents/{exchange}", {"content-type": "application/cloudevents-batch+json"}, b"[]"
        )
    assert status == 200
    assert [result.get("state", "error") for result in answer] == ["confirmed", "error", "confirmed", "confirmed"]
    assert answer[1]["error"]["field"] == "source"
    assert empty == (200, [])
    taken = await in_thread(drain, queue, broker_url)
    assert [one.properties.headers["cloudEvents:id"] for one in taken] == ["0", "1", "2"]


@pytest_twisted.ensureDeferred
async def test_an_event_that_is_sent_again_is_the_same_message(
    broker_url: str, route: tuple[str, str], drain: Drain
) -> None:
    exchange, queue = route
    path = f"/cloudevents/{exchange}?wait=confirmed"
    binary, structured = http.to_binary_event(event()), http.to_structured_event(event())
    async with serving(broker_url) as pubd:
        first = await posted(pubd, path, binary.headers, binary.body)
        again = await posted(pubd, path, binary.headers, binary.body)
        other = http.to_binary_event(event(id="another"))
        assert await posted(pubd, path, other.headers, other.body) != first
        changed = http.to_structured_event(event({"changed": True}))
        status, problem = await posted(pubd, path, changed.headers, changed.body)
        # json.dumps of the SDK puts spaces where pubd has none: the body differs, and so does the message.
        differs, _ = await posted(pubd, path, structured.headers, structured.body)
    assert again == first
    assert (status, problem["type"], differs) == (409, "idempotency-conflict", 409)
    assert len(await in_thread(drain, queue, broker_url)) == 2


@pytest_twisted.ensureDeferred
async def test_what_is_no_event_is_named_and_not_stored(broker_url: str, route: tuple[str, str]) -> None:
    exchange, _ = route
    good = http.to_binary_event(event())
    wrong: list[tuple[dict[str, str], bytes, int, str | None]] = [
        ({}, b"x", 422, "specversion"),
        ({**good.headers, "ce-source": "no uri"}, b"", 422, "source"),
        ({**good.headers, "ce-time": "now"}, b"", 422, "time"),
        ({**good.headers, "ce-My-Ext": "x"}, b"", 422, "my-ext"),
        ({"content-type": "application/cloudevents+json"}, b"{}", 422, "specversion"),
        ({"content-type": "application/cloudevents+json"}, b"{", 400, None),
        ({"content-type": "application/cloudevents+json"}, b"[]", 400, None),
        ({"content-type": "application/cloudevents-batch+json"}, b"{}", 400, None),
        ({"content-type": "application/cloudevents+avro"}, b"x", 415, "content-type"),
        ({"content-type": "application/cloudevents+json; charset=utf-16"}, b"x", 415, "content-type"),
    ]
    async with serving(broker_url) as pubd:
        for headers, body, status, field in wrong:
            answer = await posted(pubd, f"/cloudevents/{exchange}", headers, body)
            assert (answer[0], answer[1].get("field")) == (status, field), answer
        assert pubd.publisher.account().books.accepted == 0
