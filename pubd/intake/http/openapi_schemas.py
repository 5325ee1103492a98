"""The schemas of /openapi.json: what goes in and out, as JSON Schema 2020-12.

AMQP counts bytes of UTF-8 where JSON Schema counts characters: what passes here may still be refused with 422.
"""

from __future__ import annotations

from typing import Any

from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.decision import Verb
from pubd.fields import MAX_SHORT_STRING
from pubd.intake.problem import TYPES
from pubd.message import MAX_SECONDS
from pubd.outcome import State

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to the schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def short(description: str, **more: Any) -> Schema:
    """An optional AMQP short string."""
    limits = {"maxLength": MAX_SHORT_STRING} if "enum" not in more else {}
    return {"type": ["string", "null"], **limits, "description": description, **more}


def table(required: list[str], properties: dict[str, Schema], **more: Any) -> Schema:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
        **more,
    }


_WHOLE: Schema = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}


def _moment(description: str, number: Schema) -> Schema:
    return {
        "description": description,
        "anyOf": [
            number,
            {"type": "string", "format": "date-time"},
            {"type": "null"},
        ],
    }


def _duration(description: str, pattern: str = "", **bounds: float) -> Schema:
    return {
        "description": f"{description} A number of seconds, or text such as 500ms, 30s, 5m, 1h30m, 2d.",
        "anyOf": [
            {"type": "number", "exclusiveMaximum": int(MAX_SECONDS), **bounds},
            {"type": "string", "pattern": pattern + r"^\s*[0-9]{1,18}(\.[0-9]{1,9})?\s*([A-Za-z][A-Za-z0-9.\s]*)?$"},
            {"type": "null"},
        ],
    }


#: RFC 4648, section 4.
_BASE64: Schema = {
    "contentEncoding": "base64",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}

MESSAGE = table(
    ["exchange"],
    {
        "exchange": {
            "type": "string",
            "maxLength": MAX_SHORT_STRING,
            "pattern": r"^[^\r\n]*$",
            "description": 'The exchange to publish to; "" is the default exchange.',
        },
        "routing_key": {"type": "string", "maxLength": MAX_SHORT_STRING, "default": ""},
        "body": {"type": ["string", "null"], "description": "Sent as UTF-8."},
        "body_base64": {"type": ["string", "null"], **_BASE64},
        "body_json": {"description": "Sent as compact JSON; content_type is application/json unless it is given."},
        "content_type": short("The media type of the body."),
        "content_encoding": short("Such as gzip; pubd does not look at it."),
        "headers": {"anyOf": [ref("Headers"), {"type": "null"}]},
        "delivery_mode": {"enum": [1, 2, None], "description": "1: transient; 2: persistent, the usual setting."},
        "priority": {"type": ["integer", "null"], "minimum": 0, "maximum": 255},
        "correlation_id": short("For replies."),
        "reply_to": short("A queue for replies.", **{"not": {"const": "amq.rabbitmq.reply-to"}}),
        "expiration": short("RabbitMQ's per-message TTL in milliseconds.", pattern="^[0-9]+$"),
        "message_id": short("Every delivery of the message carries it. pubd gives one if the application does not."),
        "timestamp": _moment("Whole seconds since 1970, or text as RFC 3339 has it.", _WHOLE),
        "type": short("The application's name for this kind of message."),
        "user_id": short("RabbitMQ refuses any other than the user that pubd connects as."),
        "app_id": short("The application."),
        "cluster_id": short("Not used by RabbitMQ."),
        "mandatory": {"type": ["boolean", "null"], "description": "Whether RabbitMQ returns it if there is no queue."},
        "idempotency_key": short("Submitting the same message with the same key again gives the same id."),
        "ordering_key": short("Messages of one exchange with the same key are published one after another."),
        "delay": _duration("Publish it no earlier than this after acceptance.", minimum=0),
        "not_before": _moment(
            "Publish it no earlier than this; not together with delay.",
            {"type": "number", "minimum": 0, "exclusiveMaximum": int(MAX_SECONDS)},
        ),
        "ttl": _duration("How long it may wait to be published, from acceptance.", "(?=.*[1-9])", exclusiveMinimum=0),
    },
    dependentSchemas={
        "delay": {
            "if": {"properties": {"delay": {"type": ["number", "string"]}}},
            "then": {"properties": {"not_before": {"type": "null"}}},
        },
        "body_json": {"properties": {"body": {"type": "null"}, "body_base64": {"type": "null"}}},
        "body_base64": {
            "if": {"properties": {"body_base64": {"type": "string"}}},
            "then": {"properties": {"body": {"type": "null"}}},
        },
    },
    description="One message for one exchange. Give at most one of body, body_base64 and body_json.",
    examples=[{"exchange": "orders", "routing_key": "order.new", "body_json": {"order": 7}, "priority": 5}],
)

HEADERS: Schema = {
    "type": "object",
    "additionalProperties": ref("HeaderValue"),
    "propertyNames": {"maxLength": MAX_SHORT_STRING},
    "description": "AMQP headers; all properties together have to fit into one frame of 131072 bytes.",
}

HEADER_VALUE: Schema = {
    "description": "What AMQP has and JSON lacks is an object with one key that begins with $.",
    "anyOf": [
        {"type": ["string", "boolean", "null"]},
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        {"type": "array", "items": ref("HeaderValue")},
        {
            "type": "object",
            "propertyNames": {"pattern": r"^[^$]*$|^[^$].*$", "maxLength": MAX_SHORT_STRING},
            "additionalProperties": ref("HeaderValue"),
        },
        table(["$binary"], {"$binary": {"type": "string", **_BASE64}}),
        table(["$timestamp"], {"$timestamp": _moment("Seconds since 1970, or RFC 3339.", _WHOLE)}),
        table(["$decimal"], {"$decimal": {"type": "string"}}),
        table(["$table"], {"$table": {"type": "object", "additionalProperties": ref("HeaderValue")}}),
    ],
}

PROBLEM = table(
    ["type", "title", "status", "detail"],
    {
        "type": {"enum": sorted(TYPES), "description": "What programs look at; it does not change."},
        "title": {"type": "string"},
        "status": {"type": "integer", "enum": sorted({status for status, _ in TYPES.values()})},
        "detail": {"type": "string", "description": "A sentence for people: what is wrong and what to do."},
        "field": {"type": "string", "description": "The part of the request that it is about."},
        "id": {"type": "string", "description": "Of the message, which was accepted."},
        "retry_after": {"type": "integer", "minimum": 0, "description": "Seconds after which to come back."},
        "problems": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Of invalid-configuration: each mistake with its place.",
        },
    },
    description="RFC 9457.",
)

_ERROR = table(
    ["type", "detail"],
    {name: PROBLEM["properties"][name] for name in ("type", "detail", "field", "id", "retry_after")},
)

RELOADED = table(
    ["state", "changes", "hints"],
    {
        "state": {"const": "reloaded", "description": "The configuration as it is now is in use."},
        "changes": {
            "type": "array",
            "items": table(
                ["table", "key", "old", "new"],
                {
                    "table": {"type": "string", "description": "As it stands in pubd.toml."},
                    "key": {"type": ["string", "null"], "description": "null: the table itself came or went."},
                    "old": {"type": ["string", "null"], "description": "As in pubd.toml; null: it was not there."},
                    "new": {
                        "type": ["string", "null"],
                        "description": "null: it is gone; as old: changed, and never shown.",
                    },
                },
            ),
        },
        "hints": {"type": "array", "items": {"type": "string"}, "description": "Suspicions about it, as pubd check."},
    },
)

STORED = table(
    ["id", "state"],
    {
        "id": {"type": "string", "description": "pubd's id of the message."},
        "state": {"const": "stored", "description": "It is synced to disk; pubd will publish it."},
    },
)
CONFIRMED = table(
    ["id", "state"],
    {"id": STORED["properties"]["id"], "state": {"const": "confirmed", "description": "RabbitMQ took it."}},
)
RESULT: Schema = {
    "description": "What became of one message of a batch.",
    "anyOf": [ref("Stored"), ref("Confirmed"), table(["error"], {"error": _ERROR})],
}

# CloudEvents 1.0.2, JSON format

_TEXT: Schema = {"type": "string", "minLength": 1, "pattern": r"^[^\x00-\x1f\x7f-\x9f\ufffe\uffff\ufdd0-\ufdef]+$"}


def _nullable(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


_KNOWN: dict[str, Schema] = {
    "specversion": {"type": "string", "const": "1.0"},
    "id": _TEXT,
    "source": {"type": "string", "minLength": 1, "format": "uri-reference", "description": "With id, what is unique."},
    "type": {**_TEXT, "maxLength": MAX_SHORT_STRING, "description": "The routing key, unless that is given."},
    "subject": _nullable(_TEXT),
    "time": {"type": ["string", "null"], "format": "date-time"},
    "datacontenttype": {
        "type": ["string", "null"],
        "maxLength": MAX_SHORT_STRING,
        "pattern": r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+/[-!#$%&'*+.^_`|~0-9A-Za-z]+( *;[ -~]*)?$",
    },
    "dataschema": {"type": ["string", "null"], "minLength": 1, "format": "uri"},
}

CLOUD_EVENT: Schema = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        **_KNOWN,
        "data": {"description": "Any JSON; a string where datacontenttype is no JSON."},
        "data_base64": {"type": ["string", "null"], **_BASE64},
    },
    "patternProperties": {
        f"^(?!({'|'.join(_KNOWN)}|data)$)[a-z0-9]+$": {
            "description": "An extension attribute.",
            "anyOf": [
                {"type": ["boolean", "null"]},
                {"type": "string", "pattern": r"^[^\x00-\x1f\x7f-\x9f\ufffe\uffff\ufdd0-\ufdef]*$"},
                {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
            ],
        }
    },
    "additionalProperties": False,
    "dependentSchemas": {
        "data_base64": {
            "if": {"properties": {"data_base64": {"type": "string"}}},
            "then": {"not": {"required": ["data"]}},
        },
    },
    "description": "A CloudEvent 1.0 in the JSON format. Not data and data_base64 together.",
    "examples": [
        {
            "specversion": "1.0",
            "id": "A234-1234-1234",
            "source": "/mycontext",
            "type": "com.example.someevent",
            "data": {"order": 7},
        }
    ],
}

# RabbitMQ's management plugin


def _or_text(schema: Schema, pattern: str) -> Schema:
    return {"anyOf": [schema, {"type": "string", "pattern": f"^{pattern}$"}, {"type": "null"}]}


_STRING: Schema = {"type": "string", "maxLength": MAX_SHORT_STRING}

MANAGEMENT_PUBLISH: Schema = {
    "type": "object",
    "required": ["routing_key", "properties", "payload", "payload_encoding"],
    "properties": {
        "routing_key": _STRING,
        "payload": {"type": "string"},
        "payload_encoding": {"enum": ["string", "base64"]},
        "properties": {
            "anyOf": [
                {"type": "array", "maxItems": 0},
                table(
                    [],
                    {
                        **dict.fromkeys(
                            (
                                "content_type",
                                "content_encoding",
                                "correlation_id",
                                "message_id",
                                "type",
                                "user_id",
                                "app_id",
                                "cluster_id",
                            ),
                            _STRING,
                        ),
                        "reply_to": {**_STRING, "not": {"const": "amq.rabbitmq.reply-to"}},
                        "expiration": {
                            "anyOf": [
                                {"type": "string", "pattern": "^[0-9]+$"},
                                {"type": "integer", "minimum": 0, "maximum": 315_360_000_000},
                            ]
                        },
                        "delivery_mode": _or_text({"enum": [1, 2]}, "[12]"),
                        "priority": _or_text(
                            {"type": "integer", "minimum": 0, "maximum": 255},
                            "([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])",
                        ),
                        "timestamp": _or_text({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, "[0-9]{1,19}"),
                        "headers": {
                            "anyOf": [ref("Headers"), {"type": "array", "maxItems": 0}, {"type": "null"}],
                        },
                    },
                ),
            ],
        },
    },
    "if": {"properties": {"payload_encoding": {"const": "base64"}}},
    "then": {"properties": {"payload": _BASE64}},
    "description": "Further keys are ignored, as the plugin does it.",
    "examples": [{"routing_key": "k", "properties": {}, "payload": "hello", "payload_encoding": "string"}],
}

MANAGEMENT_ROUTED = table(
    ["routed", "id", "state"],
    {
        "routed": {"type": "boolean", "description": "Whether RabbitMQ had a queue for it."},
        "id": {"type": "string", "description": "pubd's id of the message."},
        "state": {"enum": ["confirmed", "parked", "discarded"], "description": "What pubd holds it as."},
    },
)

MANAGEMENT_ERROR = table(
    ["error", "reason"],
    {
        "error": {"type": "string"},
        "reason": {"type": "string"},
        "id": {"type": "string", "description": "Of the message, if it was accepted."},
    },
)

# What pubd holds

_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_INTEGER_OR_NULL: Schema = {"type": ["integer", "null"]}

STATE: Schema = {"enum": [state.value for state in State]}


def _reason(description: str) -> Schema:
    found = table(
        ["cause", "code", "text"],
        {"cause": {"type": "string"}, "code": _INTEGER_OR_NULL, "text": {"type": "string"}},
    )
    return {"description": description, "anyOf": [found, {"type": "null"}]}


_FAILURE: dict[str, Schema] = {
    "number": {"type": "integer", "minimum": 1},
    "outcome": {"type": "string"},
    "at": _TIME,
    "times": {"type": "integer", "description": "Lost deliveries, one after another, are one entry."},
    "node": _TEXT_OR_NULL,
    "channel": _INTEGER_OR_NULL,
    "tag": _INTEGER_OR_NULL,
    "code": _INTEGER_OR_NULL,
    "text": _TEXT_OR_NULL,
}

_DECISION: dict[str, Schema] = {
    "verb": {"enum": [verb.value for verb in Verb]},
    "at": _TIME,
    "who": {"type": "string"},
    "text": {"type": "string", "description": "Why, where that was said."},
}

_RECORD: dict[str, Schema] = {
    "id": {"type": "string"},
    "message_id": {"type": "string", "description": "The AMQP property that every delivery carries."},
    "exchange": {"type": "string"},
    "routing_key": {"type": "string"},
    "state": STATE,
    "in_flight": {"type": "boolean", "description": "Published, and not answered yet."},
    "attempts": {"type": "integer", "minimum": 0, "description": "Counts against max_attempts."},
    "accepted_at": _TIME,
    "principal": {**_TEXT_OR_NULL, "description": "Who handed it in."},
    "due": {**_TIME, "description": "Not to be published before."},
    "settled_at": _TIME,
    "reason": _reason("Why it is deferred, parked, expired or discarded."),
    "node": _TEXT_OR_NULL,
    "channel": _INTEGER_OR_NULL,
    "tag": _INTEGER_OR_NULL,
    "failures": {"type": "array", "items": table(list(_FAILURE), _FAILURE)},
    "decisions": {
        "type": "array",
        "items": table(list(_DECISION), _DECISION),
        "description": "Of operators: about it, and about its exchange while it was held.",
    },
}

RECORD = table(
    list(_RECORD),
    _RECORD
    | {"message": {"type": "object", "description": "As it was handed in; with ?body=true or ?properties=true."}},
)

PAGE = table(
    ["messages", "next"],
    {
        "messages": {"type": "array", "items": ref("Record")},
        "next": {**_TEXT_OR_NULL, "description": "Give it as after for the next page; null: this was the last one."},
    },
)

COUNTED = table(["count", "next"], {"count": {"type": "integer", "minimum": 0}, "next": PAGE["properties"]["next"]})

CHANGED = table(["id", "state"], {"id": {"type": "string"}, "state": STATE})

_TROUBLE = table(
    ["type", "detail"],
    {
        "type": {"type": "string", "examples": ["spool-full", "link-waiting", "blocked", "exchange-refused"]},
        "detail": {"type": "string", "description": "In RabbitMQ's words, where it gave any."},
        "exchange": {"type": "string", "description": "Only messages for it wait."},
        "since": {"type": "string", "format": "date-time"},
    },
)
HEALTH = table(
    ["status"],
    {"status": {"enum": ["ok", "unavailable"]}, "reasons": {"type": "array", "items": _TROUBLE}},
)

DECIDED: Schema = {
    "description": "What was done about one message, or why nothing was.",
    "anyOf": [ref("Changed"), table(["error"], {"error": _ERROR})],
}


def _every(properties: dict[str, Schema], **more: Any) -> Schema:
    """An object that has all of these properties."""
    return table(list(properties), properties, **more)


_COUNT: Schema = {"type": "integer", "minimum": 0}

_PAUSE = _every(
    {
        "exchange": {**_TEXT_OR_NULL, "description": "null: all of them."},
        "since": _TIME,
        "who": {"type": "string"},
        "text": {"type": "string", "description": "Why, where that was said."},
    }
)
PAUSES = _every(
    {
        "changed": {"type": "boolean", "description": "Whether it was not so before."},
        "pauses": {"type": "array", "items": _PAUSE, "description": "All that are in force now."},
    }
)
FLUSHED = _every({"messages": {**_COUNT, "description": "How many backed off, and are ready now."}})

_PARKED = _every(
    {
        "groups": {
            "type": "array",
            "items": _every(
                {
                    "exchange": {"type": "string"},
                    "reason": _reason("Why they are parked."),
                    "count": _COUNT,
                    "oldest": {**_TIME, "description": "When the first of them was accepted."},
                    "id": {"type": "string", "description": "The first one's."},
                }
            ),
            "description": "By exchange and reason, the largest first, 100 at most.",
        },
        "others": {**_COUNT, "description": "Groups that are left out."},
        "seen": {
            **_COUNT,
            "description": "Parked messages that were looked at, the first ones accepted: all, or some thousands.",
        },
    }
)

STATUS = _every(
    {
        "version": {"type": "string"},
        "pid": _COUNT,
        "time": _TIME,
        "uptime": {"type": "number", "minimum": 0, "description": "Seconds since the start."},
        "accepting": {"type": "boolean", "description": "Whether submissions are taken now."},
        "refusal": {**_TEXT_OR_NULL, "description": "Why a submission would be refused now."},
        "troubles": {
            "type": "array",
            "items": _TROUBLE,
            "description": "What keeps pubd from accepting or publishing, as /readyz and /publishz say it.",
        },
        "link": _every(
            {
                "state": {"enum": [state.value for state in LinkState]},
                "url": {"type": "string", "description": "The broker's, without the password."},
                "reason": _reason("Why it is not connected, or was not the last time."),
                "blocked": {**_TEXT_OR_NULL, "description": "RabbitMQ's words, while it blocks the connection."},
            }
        ),
        "moving": {
            **_every(
                {
                    "url": {"type": "string", "description": "The new broker's, without the password."},
                    "reason": _reason("Why there is no connection to it; null: it is being made, or stands."),
                }
            ),
            "type": ["object", "null"],
            "description": "After a reload with other brokers: where publishing moves to; link still publishes.",
        },
        "refused": {
            "type": "array",
            "items": _every({"declaration": {"type": "string"}, "reason": _reason("RabbitMQ's words.")}),
            "description": "Declarations of pubd.toml that RabbitMQ refused.",
        },
        "lanes": {
            "type": "array",
            "items": _every(
                {
                    "exchange": {"type": "string"},
                    "state": {"enum": [state.value for state in LaneState]},
                    "reason": _reason("Why RabbitMQ refused it last."),
                    "in_flight": _COUNT,
                    "bytes": _COUNT,
                    "suspects": {
                        **_COUNT,
                        "description": "Messages of which one may have made RabbitMQ close the channel.",
                    },
                    "paused": {"type": "boolean"},
                }
            ),
            "description": "One for each exchange that messages are published to.",
        },
        "pauses": {
            "type": "array",
            "items": _PAUSE,
            "description": "What operators have paused: nothing is published there.",
        },
        "books": _every(
            {
                **dict.fromkeys(
                    (
                        *("accepted", "confirmed", "expired", "discarded"),
                        *("ready", "deferred", "parked", "in_flight", "held", "bytes"),
                    ),
                    _COUNT,
                ),
                "difference": {
                    "type": "integer",
                    "description": "accepted - (confirmed + expired + discarded + held): anything but 0 is an alarm.",
                },
            }
        ),
        "deliveries": _every(
            dict.fromkeys(("published", "pending", "acked", "nacked", "returned", "lost", "poison"), _COUNT),
            description="Since the start.",
        ),
        "oldest": {**_TIME, "description": "When the oldest message that is ready or in flight was accepted."},
        "parked": {"anyOf": [_PARKED, {"type": "null"}], "description": "null: the spool did not answer."},
        "clock": {
            "anyOf": [
                _every({"seconds": {"type": "number"}, "at": _TIME}),
                {"type": "null"},
            ],
            "description": "The last time that somebody set the clock (forward, or back), or the machine slept.",
        },
        "spool": _every(
            {
                "path": {**_TEXT_OR_NULL, "description": "null: in memory."},
                "answers": {"type": "boolean", "description": "Whether it did just now."},
                "max_bytes": _INTEGER_OR_NULL,
                "max_messages": _INTEGER_OR_NULL,
                "min_free": _INTEGER_OR_NULL,
                "free": {**_INTEGER_OR_NULL, "description": "Bytes that its disk has free."},
                "retain": {"type": "number", "description": "Seconds for which settled messages stay known."},
            }
        ),
        "intakes": {
            "type": "array",
            "items": _every(
                {
                    "name": {"type": "string"},
                    "listens": {"type": "array", "items": {"type": "string"}},
                    "connections": _INTEGER_OR_NULL,
                }
            ),
        },
    }
)


def _over_time(description: str, **value: Any) -> Schema:
    return {"type": "array", "items": value or {"type": "number", "minimum": 0}, "description": description}


_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_NUMBER_OR_NULL: Schema = {"type": ["number", "null"], "minimum": 0}

HISTORY = _every(
    {
        "interval": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds from one sample to the next."},
        "last": {
            "type": "integer",
            "description": "Number of the newest sample: what to give as after, together with the same last=, for what "
            "follows it.",
        },
        "time": _over_time("End of each sample in seconds since 1970; always rising.", type="number"),
        "accepted": _over_time("Messages a second."),
        "confirmed": _over_time("Messages a second."),
        "returned": _over_time("Deliveries a second, as are the following."),
        "nacked": _over_time("Refused by RabbitMQ."),
        "lost": _over_time("Connection or channel gone before an answer."),
        "ready": _over_time("Messages.", **_COUNT),
        "in_flight": _over_time("Messages.", **_COUNT),
        "deferred": _over_time("Messages.", **_COUNT),
        "parked": _over_time("Messages.", **_COUNT),
        "bytes": _over_time("Size of everything that is held.", **_COUNT),
        "oldest": _over_time(
            "Age in seconds of the first message that is ready or in flight; 0: there is none; null: the spool did not "
            "answer.",
            **_NUMBER_OR_NULL,
        ),
        "confirm_p50": _over_time("Seconds to RabbitMQ's confirm; null: there was none.", **_NUMBER_OR_NULL),
        "confirm_p99": _over_time("Seconds to RabbitMQ's confirm; null: there was none.", **_NUMBER_OR_NULL),
        "blocked": _over_time("Share of the time in which RabbitMQ blocked the connection.", **_SHARE),
        "down": _over_time("Share of the time in which there was no connection.", **_SHARE),
    },
    description="All arrays are of one length.",
)

DRAINING = _every(
    {
        "draining": {"type": "boolean", "description": "Whether submissions are refused."},
        "stop": {"type": "boolean", "description": "Whether pubd ends when nothing is left."},
        "left": {**_COUNT, "description": "Messages to be waited for, and batches that are just being stored."},
        **dict.fromkeys(("ready", "in_flight", "deferred", "parked"), _COUNT),
    }
)

EVENT: Schema = {
    "description": "Those of pubd itself (watching, alive, skipped, stopping) have their time only, and a count.",
    "type": "object",
    "required": ["event", "time"],
    "properties": {
        "event": {"type": "string"},
        "time": _TIME,
        "count": {**_COUNT, "description": "How many events were skipped."},
        "id": {"type": "string"},
        "message_id": {"type": "string"},
        "exchange": {"type": "string"},
        "routing_key": {"type": "string"},
        "state": STATE,
        "attempts": _COUNT,
        "reason": _reason("Why, in RabbitMQ's words."),
        "due": _TIME,
        "seconds": {"type": ["number", "null"], "description": "From publishing, or handing in, to this."},
    },
}

SCHEMAS: dict[str, Schema] = {
    "Draining": DRAINING,
    "Event": EVENT,
    "History": HISTORY,
    "Decided": DECIDED,
    "Status": STATUS,
    "Pauses": PAUSES,
    "Flushed": FLUSHED,
    "Message": MESSAGE,
    "Headers": HEADERS,
    "HeaderValue": HEADER_VALUE,
    "Stored": STORED,
    "Confirmed": CONFIRMED,
    "Result": RESULT,
    "Problem": PROBLEM,
    "Record": RECORD,
    "Page": PAGE,
    "Counted": COUNTED,
    "Changed": CHANGED,
    "Health": HEALTH,
    "Reloaded": RELOADED,
    "CloudEvent": CLOUD_EVENT,
    "ManagementPublish": MANAGEMENT_PUBLISH,
    "ManagementRouted": MANAGEMENT_ROUTED,
    "ManagementError": MANAGEMENT_ERROR,
}
