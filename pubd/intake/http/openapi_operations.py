"""The operations of /openapi.json by path and method; what they share is added in :mod:`pubd.intake.http.openapi`.

``answers`` has, for each status beside those that every such request may get, a sentence and the schema of its JSON.
"""

from __future__ import annotations

from typing import Any

import attrs

from pubd.fields import MAX_SHORT_STRING
from pubd.intake.http.decisions import MAX_REASON
from pubd.intake.http.listing import AGE, MOST, PAGE
from pubd.intake.http.openapi_schemas import STATE, Schema, ref, table
from pubd.intake.http.tail import OUTCOMES

Parameter = dict[str, Any]


@attrs.frozen(kw_only=True)
class Operation:
    """``body`` is the schema for each media type; ``problems`` are further statuses with problem+json."""

    id: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: dict[str, Schema] | None = None
    body_needed: bool = True
    answers: dict[int, tuple[str, Schema]]
    problems: tuple[int, ...] = ()
    media: str = "application/json"
    """Of the answers."""
    error: Schema | None = None
    """Of application/json errors, where they have a form of their own beside problem+json."""


#: An id as pubd writes it; capitals are taken, too.
UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def _query(name: str, description: str, schema: Schema | None = None, **more: Any) -> Parameter:
    kind = {} if "content" in more else {"schema": schema or {"type": "string"}}
    return {"name": name, "in": "query", "description": description, **kind, **more}


def _path(name: str, description: str, schema: Schema | None = None) -> Parameter:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema or {"type": "string", "minLength": 1},
    }


def _header(name: str, description: str, schema: Schema) -> Parameter:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_SHORT: Schema = {"type": "string", "maxLength": MAX_SHORT_STRING}
#: Numbers with a unit, as 500ms, 5s and 1m are.
_DURATION: Schema = {"type": "string", "pattern": r"^[0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m)?$"}

WAIT = _query(
    "wait",
    "Answer when the message is stored (synced to disk), or when RabbitMQ has confirmed it.",
    {"enum": ["stored", "confirmed"], "default": "stored"},
)
TIMEOUT = _query(
    "timeout",
    "With wait=confirmed: how long to wait, at most max_wait of the configuration (60s unless it says otherwise).",
    _DURATION,
    example="5s",
)
KEY = _header(
    "Idempotency-Key",
    "Submitting the same again with the same key gives the same id. In a batch, element n has the key KEY:n, from 0.",
    {"type": "string", "minLength": 1, "maxLength": MAX_SHORT_STRING, "pattern": "^[ -~]+$"},
)
_EXCHANGE = _path(
    "exchange",
    "The exchange; amq.default is the default exchange.",
    {"type": "string", "minLength": 1, "maxLength": MAX_SHORT_STRING, "pattern": r"^[^\r\n]*$"},
)
_ONE_EXCHANGE = _query("exchange", "Only this one; empty is the default exchange.", _SHORT)
_IDS: Schema = {"type": "array", "minItems": 1, "maxItems": MOST, "items": {"type": "string"}}
_ID = _path("id", "pubd's id of the message.")

_AGE: Schema = {"type": "string", "pattern": f"^({AGE})$"}
_FILTERS = (
    _query("state", "Only those in this state.", STATE),
    _query("exchange", "Only those for this exchange; empty is the default exchange."),
    _query(
        "routing_key", "Only those whose routing key matches this pattern, as a topic binding would.", example="order.#"
    ),
    _query("ordering_key", "Only those with this ordering key."),
    _query(
        "reason", "Only those with this reply code as their reason, or with this in its cause or text.", example="312"
    ),
    _query("held", "Only those that an operator holds; or only the others.", {"enum": ["true", "false"]}),
    _query("older_than", "Only those that were accepted before that long.", _AGE, example="1h"),
    _query("newer_than", "Only those that were accepted since.", _AGE, example="5m"),
)
_AFTER = _query("after", "The next of the former page.", {"type": "string", "format": "uuid", "pattern": UUID})

_STORED = {202: ("Stored; with wait=confirmed: not confirmed in time, and pubd goes on with it.", ref("Stored"))}
_SETTLED = {200: ("Confirmed by RabbitMQ.", ref("Confirmed"))}
_ONE: dict[int, tuple[str, Schema]] = {**_SETTLED, **_STORED}
_ONE_OR_MANY: dict[int, tuple[str, Schema]] = {
    200: (
        "For one message with wait=confirmed: confirmed by RabbitMQ. For an array, and for lines, one result each.",
        {"anyOf": [ref("Confirmed"), {"type": "array", "items": ref("Result")}]},
    ),
    **_STORED,
}
_LINES: Schema = {"description": "One Message in each line; OpenAPI 3.1 has no words for that."}
#: What a submission may get beside what every request may get.
_SUBMITTING = (403, 409, 422, 429, 507)


def _ids(reason: str | None) -> Schema:
    why = {"reason": {"type": "string", "maxLength": MAX_REASON, "description": reason}} if reason else {}
    return table(["ids"], {"ids": _IDS, **why})


def _decision(
    verb: str, one: str, many: str, description: str, *, reason: str | None = None
) -> dict[tuple[str, str], Operation]:
    """About one message, and about many."""
    return {
        (f"/messages/{{id}}/{verb}", "POST"): Operation(
            id=verb,
            summary=one,
            description=description,
            parameters=(_ID, *([_query("reason", reason)] if reason else [])),
            answers={200: ("It is done, or was so before.", ref("Changed"))},
            problems=(404, 409),
        ),
        (f"/messages/{verb}", "POST"): Operation(
            id=f"{verb}Many",
            summary=many,
            description=f"In one commit. {description}",
            body={"application/json": _ids(reason)},
            answers={200: ("For each id, in order.", {"type": "array", "items": ref("Decided")})},
        ),
    }


_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("/messages", "POST"): Operation(
        id="submit",
        summary="Hand in messages",
        description="One JSON object, an array of them, or any number of lines (NDJSON), answered while they come. "
        "In an array and in lines each element is accepted or refused on its own.",
        parameters=(WAIT, TIMEOUT, KEY),
        body={
            "application/json": {
                "anyOf": [ref("Message"), {"type": "array", "items": {}, "description": "Of messages."}]
            },
            "application/x-ndjson": _LINES,
            "application/ndjson": _LINES,
            "application/jsonl": _LINES,
        },
        answers=_ONE_OR_MANY,
        problems=_SUBMITTING,
    ),
    ("/messages", "GET"): Operation(
        id="list",
        summary="List messages",
        description="In order of acceptance.",
        parameters=(
            *_FILTERS,
            _query(
                "limit",
                "How many at most.",
                {"type": "integer", "minimum": 1, "maximum": MOST, "default": PAGE},
            ),
            _AFTER,
        ),
        answers={200: ("A page of messages.", ref("Page"))},
    ),
    ("/messages/count", "GET"): Operation(
        id="count",
        summary="Count messages",
        description="Where there is a next it took long enough: add what comes after.",
        parameters=(*_FILTERS, _AFTER),
        answers={200: ("How many there are up to next.", ref("Counted"))},
    ),
    ("/messages/{id}", "GET"): Operation(
        id="show",
        summary="What became of a message",
        parameters=(
            _ID,
            _query("body", "With the message itself.", {"enum": ["true", "false"]}),
            _query("properties", "With the message itself but for its body.", {"enum": ["true", "false"]}),
        ),
        answers={200: ("Its state, and every delivery that was not confirmed.", ref("Record"))},
        problems=(404,),
    ),
    ("/messages/{id}", "DELETE"): Operation(
        id="discard",
        summary="Discard a message",
        description="For one that is not confirmed or expired, and not on its way to RabbitMQ at this moment.",
        parameters=(_ID, _query("reason", "Why; kept with the message.")),
        answers={200: ("It is discarded.", ref("Changed"))},
        problems=(404, 409),
    ),
    **_decision(
        "retry",
        "Publish a message again, now",
        "Publish messages again, now",
        "What is parked or deferred, and not held by an operator; attempts are counted anew.",
    ),
    **_decision(
        "hold",
        "Do not publish a message until it is released",
        "Do not publish messages until they are released",
        "What is ready or deferred, and not on its way to RabbitMQ at this moment, is parked.",
        reason="Why; kept with the message.",
    ),
    **_decision(
        "release",
        "Let a held message go on",
        "Let held messages go on",
        "In their old places, with the attempts that they had; a delay that was asked for and is not over goes on.",
    ),
    ("/messages/discard", "POST"): Operation(
        id="discardMany",
        summary="Discard messages",
        description="In one commit. Those that are on their way to RabbitMQ at this moment, or settled, are not.",
        body={"application/json": _ids("Kept with the messages.")},
        answers={200: ("For each id, in order.", {"type": "array", "items": ref("Decided")})},
    ),
    ("/reload", "POST"): Operation(
        id="reload",
        summary="Read the configuration again",
        description="As SIGHUP does. It is checked as a whole first: with a mistake nothing is changed. Answered when "
        "it is in use, and what is new has been declared or five seconds have passed.",
        answers={200: ("It is in use.", ref("Reloaded"))},
        problems=(422,),
    ),
    ("/publish/{exchange}/{routing_key*}", "POST"): Operation(
        id="publish",
        summary="Hand in a raw body",
        description="The body is the message as it comes, Content-Type its content type, Content-Encoding its content "
        "encoding. The routing key may have slashes in it.",
        parameters=(
            _EXCHANGE,
            _path("routing_key", "The rest of the path.", _SHORT | {"minLength": 1}),
            WAIT,
            TIMEOUT,
            KEY,
            _query("priority", "0 to 255.", {"type": "integer", "minimum": 0, "maximum": 255}),
            _query("delivery_mode", "1: transient; 2: persistent.", {"enum": [1, 2]}),
            _query("expiration", "RabbitMQ's per-message TTL in milliseconds.", _SHORT | {"pattern": "^[0-9]+$"}),
            _query("timestamp", "Whole seconds since 1970.", {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}),
            _query("not_before", "Seconds since 1970.", {"type": "number", "minimum": 0, "exclusiveMaximum": 2**36}),
            _query("mandatory", "Whether to return it if there is no queue.", {"enum": ["true", "false"]}),
            _query("delay", "Publish it no earlier than this after acceptance.", _DURATION),
            _query(
                "ttl",
                "How long it may wait to be published.",
                _DURATION | {"pattern": f"(?=.*[1-9]){_DURATION['pattern']}"},
            ),
            *(
                _query(name, f"The property {name} of the message.", _SHORT)
                for name in (
                    "app_id",
                    "cluster_id",
                    "content_encoding",
                    "content_type",
                    "correlation_id",
                    "idempotency_key",
                    "message_id",
                    "ordering_key",
                    "reply_to",
                    "type",
                    "user_id",
                )
            ),
            _query(
                "headers",
                "AMQP headers as a JSON object; header.NAME=VALUE gives a single one with a text.",
                content={"application/json": {"schema": ref("Headers")}},
            ),
        ),
        body={"*/*": {}},
        body_needed=False,
        answers=_ONE,
        problems=_SUBMITTING,
    ),
    ("/cloudevents/{exchange}", "POST"): Operation(
        id="cloudevents",
        summary="Hand in CloudEvents 1.0",
        description="In structured or batched mode as JSON; with any other Content-Type in binary mode: the body is "
        "the data, and each attribute a header ce-NAME. The idempotency key is made of exchange, source and id.",
        parameters=(
            _EXCHANGE,
            _query("routing_key", "Instead of the event's type.", _SHORT),
            WAIT,
            TIMEOUT,
            KEY,
            *(
                _header(f"ce-{name}", f"Binary mode: the attribute {name}, percent-encoded.", {"type": "string"})
                for name in ("specversion", "id", "source", "type", "subject", "time", "dataschema")
            ),
        ),
        body={
            "application/cloudevents+json": ref("CloudEvent"),
            "application/cloudevents-batch+json": {"type": "array", "items": {}, "description": "Of CloudEvents."},
            "*/*": {},
        },
        body_needed=False,
        answers=_ONE_OR_MANY,
        problems=_SUBMITTING,
    ),
    ("/api/exchanges/{vhost}/{name}/publish", "POST"): Operation(
        id="managementPublish",
        summary="Publish as RabbitMQ's management plugin does",
        description="For rabbitmqadmin and programs written for that API. Waits until RabbitMQ has answered.",
        parameters=(
            _path("vhost", "The virtual host that pubd publishes to; / is written %2F.") | {"example": "/"},
            {**_EXCHANGE, "name": "name"},
            {**TIMEOUT, "description": "How long to wait, at most max_wait; 30s if it is not given."},
        ),
        body={"application/json": ref("ManagementPublish")},
        answers={200: ("Whether there was a queue for it.", ref("ManagementRouted"))},
        problems=(429, 507),
        error=ref("ManagementError"),
    ),
    ("/flush", "POST"): Operation(
        id="flush",
        summary="Try everything now",
        description="Messages that RabbitMQ did not take and that back off, the connection, refused exchanges and "
        "declarations, and healing. A delay that was asked for goes on.",
        answers={200: ("It is being tried.", ref("Flushed"))},
    ),
    ("/pause", "POST"): Operation(
        id="pause",
        summary="Publish nothing for now",
        description="To one exchange, or to any; until it is resumed, after a restart, too. Messages are accepted.",
        parameters=(_ONE_EXCHANGE, _query("reason", "Why; shown to everybody who looks.")),
        answers={200: ("It is paused, or was so before.", ref("Pauses"))},
        problems=(409,),
    ),
    ("/resume", "POST"): Operation(
        id="resume",
        summary="Publish again",
        description="Ends the pause of this exchange, or the pause of all; those of single exchanges stay then.",
        parameters=(_ONE_EXCHANGE,),
        answers={200: ("It is not paused.", ref("Pauses"))},
    ),
    ("/status", "GET"): Operation(
        id="status",
        summary="Link, lanes, books, spool and intakes at this moment",
        answers={200: ("All of it.", ref("Status"))},
    ),
    ("/history", "GET"): Operation(
        id="history",
        summary="Rates, what was held, and latencies over the last hour or day",
        description="Kept in memory, from the start of the process: a sample every 5 seconds for an hour, and one a "
        "minute for a day, which has the highest of what was held.",
        parameters=(
            _query("last", "How far back; more than 1h: by the minute.", _DURATION, example="15m"),
            _query(
                "after",
                "Only samples after the one with this number, if there is one: the last of the former answer.",
                {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
            ),
        ),
        answers={200: ("One array for each kind of number, over time.", ref("History"))},
    ),
    ("/tail", "GET"): Operation(
        id="tail",
        summary="What becomes of messages, while it happens",
        description="One Event in each line, until the client goes or pubd stops. Who reads too slowly is told how "
        "many were skipped; nothing is held up.",
        parameters=(
            _query("exchange", "Only those for this exchange."),
            _query(
                "outcome",
                f"Only these, with commas between them: {', '.join(OUTCOMES)}; all but accepted unless it is given.",
                {"type": "string", "pattern": f"^({'|'.join(OUTCOMES)})(,({'|'.join(OUTCOMES)}))*$"},
            ),
            _query("for", "End after this time.", _DURATION),
        ),
        media="application/x-ndjson",
        answers={200: ("Lines.", ref("Event"))},
    ),
    ("/drain", "GET"): Operation(
        id="draining",
        summary="How much is left to publish, and whether anything is accepted",
        answers={200: ("At this moment.", ref("Draining"))},
    ),
    ("/drain", "POST"): Operation(
        id="drain",
        summary="Accept nothing more, and publish what is there",
        description="Until DELETE /drain, or a restart. Submissions are refused with 503 (draining).",
        body={
            "application/json": table(
                [],
                {
                    "stop": {"type": "boolean", "default": False, "description": "End when nothing is left."},
                    "deferred": {"type": "boolean", "default": True, "description": "Deferred messages count."},
                },
            )
        },
        body_needed=False,
        answers={200: ("It drains.", ref("Draining"))},
    ),
    ("/drain", "DELETE"): Operation(
        id="accept", summary="Accept messages again", answers={200: ("It does.", ref("Draining"))}
    ),
    ("/export", "GET"): Operation(
        id="export",
        summary="Every message that is ready, deferred or parked",
        description="One message in each line, as POST /messages takes it, with its state; in order of acceptance. "
        "pubd goes on publishing: what is confirmed before its turn comes is not there.",
        parameters=(
            _query(
                "after",
                "Only those accepted after this one, known or not.",
                {"type": "string", "format": "uuid", "pattern": UUID},
            ),
        ),
        media="application/x-ndjson",
        answers={200: ("Lines.", {"type": "object"})},
    ),
    ("/backup", "POST"): Operation(
        id="backup",
        summary="A copy of the spool",
        description="An SQLite database, consistent and complete, made while pubd goes on. Nothing comes until it is "
        "copied; an answer that breaks off is worth nothing.",
        media="application/vnd.sqlite3",
        answers={200: ("The file.", {"type": "string"})},
        problems=(409, 507),
    ),
    ("/livez", "GET"): Operation(
        id="livez", summary="Whether pubd answers", answers={200: ("It does.", ref("Health"))}
    ),
    ("/readyz", "GET"): Operation(
        id="readyz",
        summary="Whether pubd takes messages now",
        answers={200: ("It does.", ref("Health")), 503: ("It does not, for these reasons.", ref("Health"))},
    ),
    ("/publishz", "GET"): Operation(
        id="publishz",
        summary="Whether pubd can publish to RabbitMQ now",
        answers={
            200: ("It can.", ref("Health")),
            503: ("It cannot, or not to some exchanges, for these reasons.", ref("Health")),
        },
    ),
    ("/metrics", "GET"): Operation(
        id="metrics",
        summary="Metrics for Prometheus",
        description="In its text format, or as OpenMetrics where Accept asks for that.",
        media="text/plain",
        answers={200: ("The metrics.", {"type": "string"})},
    ),
    ("/openapi.json", "GET"): Operation(
        id="openapi", summary="This document", answers={200: ("OpenAPI 3.1.", {"type": "object"})}
    ),
}


def operation(path: str, method: str) -> Operation:
    """Of this path and method; KeyError: it is not described, which is a mistake."""
    return _OPERATIONS[path, method]


def described() -> set[tuple[str, str]]:
    """Every path and method that is described."""
    return set(_OPERATIONS)
