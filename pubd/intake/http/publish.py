"""``POST /publish/{exchange}/{routing_key}``: the body as it is, properties in the query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from pubd.errors import InvalidMessage
from pubd.intake.http.answer import Answer, Refusal
from pubd.intake.http.messages import when_settled
from pubd.intake.http.request import idempotency_key
from pubd.intake.http.results import stored_answer
from pubd.intake.wire import KEYS, decode_object, loads
from pubd.message import Message

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from twisted.internet.defer import Deferred

    from pubd.intake.door import Door
    from pubd.intake.http.request import Request
    from pubd.intake.http.waits import Waits

#: How the default exchange, which has no name, is written in a path.
DEFAULT_EXCHANGE = "amq.default"
#: What ``header.NAME=VALUE`` begins with.
HEADER = "header."

_ELSEWHERE = {"body", "body_base64", "body_json", "exchange", "routing_key"}
_ASKED = ("wait", "timeout")
#: What the query takes.
KNOWN = frozenset((KEYS - _ELSEWHERE) | set(_ASKED) | {f"{HEADER}*"})
_NUMBERS = frozenset(("priority", "delivery_mode", "timestamp", "not_before"))


class Publish:
    """Takes raw bodies."""

    def __init__(self, *, door: Door, waits: Waits) -> None:
        self._door = door
        self._waits = waits

    def post(self, request: Request) -> Answer | Deferred[Answer] | Coroutine[Any, Any, Answer]:
        """Answers once the message is stored, or settled."""
        message, seconds = self._message(request)
        submitted = self._door.submit(request.principal, (message,), request.headers)
        if seconds is None:
            return submitted.addCallback(stored_answer)
        return when_settled(submitted, self._waits, seconds)

    def _message(self, request: Request) -> tuple[Message, float | None]:
        exchange, routing_key = request.parts
        given: dict[str, Any] = {
            "exchange": "" if exchange == DEFAULT_EXCHANGE else exchange,
            "routing_key": routing_key,
            "content_type": _text(request, "content-type"),
            # The body goes through as it is, and so its coding is the message's.
            "content_encoding": _text(request, "content-encoding"),
            "idempotency_key": idempotency_key(request),
        }
        if not request.query:
            return Message(body=request.body, **given), None
        arguments = request.arguments(KNOWN)
        seconds = self._waits.asked(arguments)
        for name, value in _properties(arguments).items():
            if given.get(name) not in (None, value):
                raise Refusal("malformed", f"differs from the header {name.replace('_', '-')}; give one", field=name)
            given[name] = value
        message = decode_object({name: value for name, value in given.items() if value is not None})
        return attrs.evolve(message, body=request.body), seconds


def _properties(arguments: dict[str, str]) -> dict[str, Any]:
    """What the query says, as the JSON of a message has it."""
    properties: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    for name, text in arguments.items():
        if name.startswith(HEADER):
            headers[name.removeprefix(HEADER)] = text
        elif name == "headers":
            properties["headers"] = loads(text.encode())
        elif name in _NUMBERS:
            properties[name] = _number(text)
        elif name == "mandatory":
            if text not in ("true", "false"):
                raise InvalidMessage(name, "must be true or false")
            properties[name] = text == "true"
        elif name not in _ASKED:
            properties[name] = text
    if headers:
        others = properties.setdefault("headers", {})
        if not isinstance(others, dict) or not others.keys().isdisjoint(headers):
            raise InvalidMessage("headers", "must be an object, and not name what header.NAME names as well")
        others.update(headers)
    return properties


def _number(text: str) -> int | float | str:
    """A number, where it is one; the codec says what else it may be."""
    if text.isascii() and text.isdigit() and len(text) <= 20:
        return int(text)
    try:
        return float(text) if text.isascii() and "." in text and len(text) <= 30 else text
    except ValueError:
        return text


def _text(request: Request, name: str) -> str | None:
    value = request.headers.get(name)
    if value is not None and not value.isascii():
        raise Refusal("malformed", "has bytes beyond ASCII; percent-encode them in the query instead", field=name)
    return value or None
