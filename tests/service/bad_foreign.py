"""What the routes for others' clients refuse: requests as bytes, and the status that each is answered with."""

from __future__ import annotations

import gzip
import json
from typing import Any

from tests.web import get, post

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
STRUCTURED = "Content-Type: application/cloudevents+json\r\n"
BATCH = "Content-Type: application/cloudevents-batch+json\r\n"
BINARY = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n"
JSON = "Content-Type: application/json\r\n"
PUBLISH = {"routing_key": "k", "properties": {}, "payload": "x", "payload_encoding": "string"}


def event(body: Any = EVENT, headers: str = STRUCTURED, query: str = "", exchange: str = "x") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post(raw, path=f"/cloudevents/{exchange}{query}", headers=headers)


def changed(**given: Any) -> bytes:
    return event(EVENT | given)


def binary(headers: str, body: bytes = b"") -> bytes:
    """Headers beside, or instead of, those of a good event."""
    names = {line.partition(":")[0] for line in headers.split("\r\n")}
    kept = "".join(f"{line}\r\n" for line in BINARY.split("\r\n") if line and line.partition(":")[0] not in names)
    return event(body, kept + headers)


def without(name: str) -> bytes:
    return event({key: value for key, value in EVENT.items() if key != name})


def publish(body: Any = PUBLISH, path: str = "/api/exchanges/%2F/x/publish", headers: str = JSON) -> bytes:
    return post(body if isinstance(body, bytes) else json.dumps(body).encode(), path=path, headers=headers)


def changing(**given: Any) -> bytes:
    return publish(PUBLISH | given)


def properties(**given: Any) -> bytes:
    return changing(properties=given)


CLOUDEVENTS: dict[str, tuple[bytes, int]] = {
    "no body": (event(b""), 400),
    "no JSON": (event(b"{"), 400),
    "an array that is no batch": (event([EVENT]), 400),
    "a string": (event("x"), 400),
    "NaN": (event(b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":NaN}'), 400),
    "no UTF-8": (event(b'{"specversion":"1.0","id":"\xff"}'), 400),
    "nested a thousand deep": (event(b'{"data":' + b"[" * 1000 + b"]" * 1000 + b"}"), 400),
    "a key twice": (event(b'{"specversion":"1.0","specversion":"1.0"}'), 422),
    "no specversion": (without("specversion"), 422),
    "no id": (without("id"), 422),
    "no source": (without("source"), 422),
    "no type": (without("type"), 422),
    "an old specversion": (changed(specversion="0.3"), 422),
    "specversion as a number": (changed(specversion=1.0), 422),
    "an empty id": (changed(id=""), 422),
    "an id that is a number": (changed(id=7), 422),
    "a control character in the id": (changed(id="a\nb"), 422),
    "NUL in the id": (changed(id="\0"), 422),
    "a source that is no URI": (changed(source="no uri"), 422),
    "a type longer than a routing key": (changed(type="t" * 256), 422),
    "a time that is none": (changed(time="yesterday"), 422),
    "the 30th of February": (changed(time="2018-02-30T00:00:00Z"), 422),
    "a schema that is relative": (changed(dataschema="/relative"), 422),
    "a content type that is none": (changed(datacontenttype="json"), 422),
    "an extension in capitals": (changed(Ext="x"), 422),
    "an extension that is an object": (changed(ext={"a": 1}), 422),
    "an extension of 2^31": (changed(ext=2**31), 422),
    "data twice": (changed(data=1, data_base64="AA=="), 422),
    "base64 that is none": (changed(data_base64="AP8"), 422),
    "headers larger than a frame": (changed(ext="x" * 140_000), 422),
    "a batch that is an object": (event(EVENT, BATCH), 400),
    "a batch that is no JSON": (event(b"[", BATCH), 400),
    "a batch of 10,001": (event(b"[" + b",".join([b"0"] * 10_001) + b"]", BATCH), 413),
    "a format that there is not": (event(EVENT, "Content-Type: application/cloudevents+avro\r\n"), 415),
    "another charset": (event(EVENT, "Content-Type: application/cloudevents+json; charset=utf-16\r\n"), 415),
    "br": (event(EVENT, STRUCTURED + "Content-Encoding: br\r\n"), 415),
    "gzip that ends too early": (
        event(gzip.compress(json.dumps(EVENT).encode())[:-4], STRUCTURED + "Content-Encoding: gzip\r\n"),
        400,
    ),
    "over the limit": (event(b"x" * 150_001), 413),
    "binary without attributes": (event(b"x", ""), 422),
    "binary without an id": (binary("ce-id: \r\n"), 422),
    "binary with a broken escape": (binary("ce-id: 100%\r\n"), 422),
    "binary with bytes that are no UTF-8": (binary("ce-id: %C0%A0\r\n"), 422),
    "binary with NUL": (binary("ce-id: %00\r\n"), 422),
    "binary with an odd name": (binary("ce-my-ext: x\r\n"), 422),
    "binary with an attribute twice": (binary("ce-specversion: 1.0\r\nce-specversion: 1.0\r\n"), 422),
    "binary with a content type that is none": (binary("Content-Type: nonsense\r\n"), 422),
    "wait for something": (event(query="?wait=later"), 400),
    "a timeout without wait": (event(query="?timeout=5s"), 400),
    "an unknown name in the query": (event(query="?exchange=y"), 400),
    "an escape that is no UTF-8": (event(query="?routing_key=%ff"), 400),
    "a routing key of 256 bytes": (event(query="?routing_key=" + "k" * 256), 422),
    "an exchange of 256 bytes": (event(exchange="x" * 256), 422),
    "an empty Idempotency-Key": (event(EVENT, STRUCTURED + "Idempotency-Key:\r\n"), 400),
    "another method": (get("/cloudevents/x"), 405),
    "a path with more in it": (post(b"{}", path="/cloudevents/x/y", headers=STRUCTURED), 404),
}

MANAGEMENT: dict[str, tuple[bytes, int]] = {
    "no body": (publish(b""), 400),
    "no JSON": (publish(b"{"), 400),
    "an array": (publish([PUBLISH]), 400),
    "null": (publish(b"null"), 400),
    "NaN": (publish(b'{"a":NaN}'), 400),
    "no UTF-8": (publish(b'{"payload":"\xff"}'), 400),
    "half of a surrogate pair": (publish(b'{"payload":"\\ud800"}'), 400),
    "nested a thousand deep": (publish(b'{"properties":' + b"[" * 1000 + b"]" * 1000 + b"}"), 400),
    "a key twice": (publish(b'{"payload":"x","payload":"y"}'), 400),
    "no routing key": (publish({key: PUBLISH[key] for key in PUBLISH if key != "routing_key"}), 400),
    "no properties": (publish({key: PUBLISH[key] for key in PUBLISH if key != "properties"}), 400),
    "no payload": (publish({key: PUBLISH[key] for key in PUBLISH if key != "payload"}), 400),
    "no encoding": (publish({key: PUBLISH[key] for key in PUBLISH if key != "payload_encoding"}), 400),
    "a routing key that is a number": (changing(routing_key=5), 400),
    "a routing key of 256 bytes": (changing(routing_key="é" * 128), 400),
    "a payload that is an object": (changing(payload={}), 400),
    "base64 that is none": (changing(payload="@@", payload_encoding="base64"), 400),
    "an encoding that there is not": (changing(payload_encoding="utf8"), 400),
    "properties that are a list": (changing(properties=[1]), 400),
    "properties that are null": (changing(properties=None), 400),
    "a property that there is not": (properties(**{"content-type": "x"}), 400),
    "a property with a line break": (properties(**{"a\r\nb": "x"}), 400),
    "priority 256": (properties(priority=256), 400),
    "priority 1.5": (properties(priority=1.5), 400),
    "2^64": (properties(timestamp=2**64), 400),
    "a number of 5,000 digits": (publish(b'{"properties":{"timestamp":' + b"9" * 5000 + b"}}"), 400),
    "delivery mode 3": (properties(delivery_mode=3), 400),
    "delivery mode true": (properties(delivery_mode=True), 400),
    "an expiration that is none": (properties(expiration="soon"), 400),
    "headers that are a string": (properties(headers="x"), 400),
    "CC that is no list": (properties(headers={"CC": "x"}), 400),
    "a fraction in the headers": (properties(headers={"f": 1.5}), 400),
    "headers larger than a frame": (properties(headers={"big": "x" * 140_000}), 400),
    "direct reply-to": (properties(reply_to="amq.rabbitmq.reply-to"), 400),
    "over the limit": (publish(b"x" * 150_001), 413),
    "another virtual host": (publish(path="/api/exchanges/other/x/publish"), 404),
    "an exchange of 256 bytes": (publish(path=f"/api/exchanges/%2F/{'x' * 256}/publish"), 400),
    "an escape that is no UTF-8": (publish(path="/api/exchanges/%ff/x/publish"), 400),
    "path traversal": (publish(path="/api/exchanges/../x/publish"), 404),
    "a timeout that is none": (publish(path="/api/exchanges/%2F/x/publish?timeout=soon"), 400),
    "an unknown name in the query": (publish(path="/api/exchanges/%2F/x/publish?vhost=y"), 400),
    "br": (publish(headers=JSON + "Content-Encoding: br\r\n"), 415),
    "another method": (get("/api/exchanges/%2F/x/publish"), 405),
    "another part of that API": (get("/api/queues"), 404),
}
