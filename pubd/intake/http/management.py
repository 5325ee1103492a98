"""``POST /api/exchanges/{vhost}/{name}/publish`` of RabbitMQ's management plugin, for clients that know nothing else.

What it takes and gives was measured with RabbitMQ 3.10.8; docs/management.rst says where pubd differs, and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.errors import InvalidMessage, MessageDiscarded, MessageParked, PubdError
from pubd.intake import notation
from pubd.intake.http.answer import Answer, Refusal, json_answer
from pubd.intake.problem import problem_of
from pubd.intake.strict_json import kind, loads
from pubd.message import Message
from pubd.outcome import Cause
from pubd.receipt import Confirmed, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pubd.intake.door import Door
    from pubd.intake.http.request import Request
    from pubd.intake.http.waits import Settled, Waits
    from pubd.intake.problem import Problem
    from pubd.outcome import Reason

#: How the management API writes the default exchange, which has no name.
DEFAULT_EXCHANGE = "amq.default"

_REQUIRED = ("routing_key", "properties", "payload", "payload_encoding")
_STRINGS = frozenset(
    (
        "content_type",
        "content_encoding",
        "correlation_id",
        "reply_to",
        "expiration",
        "message_id",
        "type",
        "user_id",
        "app_id",
        "cluster_id",
    )
)
_INTEGERS = frozenset(("delivery_mode", "priority", "timestamp"))


class ManagementPublish:
    """Publishes and waits for what becomes of it. ``vhosts`` are those that pubd publishes to.

    ``refusal`` tells why RabbitMQ takes nothing for an exchange at the moment, if it is so.
    """

    def __init__(
        self,
        *,
        door: Door,
        waits: Waits,
        vhosts: Collection[str],
        refusal: Callable[[str], Reason | None] = lambda _: None,
    ) -> None:
        self._door = door
        self._waits = waits
        self._vhosts = vhosts
        self._refusal = refusal

    async def publish(self, request: Request) -> Answer:
        """Answers as the management plugin does, errors included."""
        vhost, name = request.parts
        try:
            seconds = self._seconds(request)
            if vhost not in self._vhosts:
                return failure_answer(404, "Object Not Found", f"pubd does not publish to virtual host {vhost[:80]!r}")
            message = message_of(request.body, exchange=name)
        except PubdError as error:
            return error_answer(error)
        (accepted,) = await self._door.submit(request.principal, [message], request.headers)
        if not isinstance(accepted, Receipt):
            return error_answer(accepted)
        settled = await self._waits.outcome(accepted, seconds)
        return outcome_answer(accepted.id, settled, self._refusal(message.exchange))

    def _seconds(self, request: Request) -> float:
        arguments = request.arguments(("timeout",))
        seconds = self._waits.asked({"wait": "confirmed", **arguments})
        assert seconds is not None
        return seconds


def message_of(raw: bytes, *, exchange: str) -> Message:
    """The message of a request's body. Raises InvalidMessage.

    As the plugin does it takes further keys and ignores them: rabbitmqadmin sends ``vhost`` and ``exchange``, too.
    """
    given = loads(raw)
    if not isinstance(given, dict):
        raise InvalidMessage("", "must be a JSON object")
    for key in _REQUIRED:
        if key not in given:
            raise InvalidMessage(key, "is missing")
    return Message(
        exchange="" if exchange == DEFAULT_EXCHANGE else exchange,
        routing_key=_string(given["routing_key"], "routing_key"),
        body=_body(given["payload"], given["payload_encoding"]),
        # Without it RabbitMQ would not say whether there was a queue.
        mandatory=True,
        **_properties(given["properties"]),
    )


def _body(payload: Any, encoding: Any) -> bytes:
    text = _string(payload, "payload")
    if encoding == "string":
        return text.encode()
    if encoding != "base64":
        raise InvalidMessage("payload_encoding", 'must be "string" or "base64"')
    return notation.base64_of(text, "payload")


def _properties(given: Any) -> dict[str, Any]:
    if given == []:
        return {}  # as some languages write an empty table
    if not isinstance(given, dict):
        raise InvalidMessage("properties", f"must be a JSON object, not {kind(given)}")
    properties: dict[str, Any] = {}
    for name, value in given.items():
        field = f"properties.{name[:40]}"
        if name == "headers":
            properties[name] = {} if value in ([], None) else notation.headers(value)
        elif name in _INTEGERS:
            properties[name] = int(value) if isinstance(value, str) and _is_number(value) else value
        elif name in _STRINGS:
            properties[name] = str(value) if name == "expiration" and type(value) is int else _string(value, field)
        else:
            known = ", ".join(sorted(_STRINGS | _INTEGERS | {"headers"}))
            raise InvalidMessage(field, f"is no property of AMQP 0-9-1; these are: {known}")
    return properties


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _string(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(field, f"must be a string, not {kind(value)}")
    return value


# Answers


def outcome_answer(id: str, settled: Settled, refusal: Reason | None = None) -> Answer:
    """What became of message ``id`` in time; ``refusal`` is why RabbitMQ takes nothing for its exchange."""
    if isinstance(settled, Confirmed):
        return json_answer({"routed": True, "id": id, "state": "confirmed"})
    if isinstance(settled, MessageParked) and settled.reason.cause is Cause.RETURNED:
        return json_answer({"routed": False, "id": id, "state": "parked"})
    if isinstance(settled, MessageDiscarded) and settled.reason and settled.reason.cause is Cause.RETURNED:
        return json_answer({"routed": False, "id": id, "state": "discarded"})
    if settled is not None:
        return error_answer(settled)
    because = f" ({refusal})" if refusal is not None else ""
    reason = (
        f"RabbitMQ has not answered yet{because}; pubd keeps message {id} and will publish it: do not send it again"
    )
    return failure_answer(504, "timeout", reason, id=id)


def error_answer(error: PubdError) -> Answer:
    """Any error of pubd's in the plugin's form: what rabbitmqadmin prints is the ``reason`` of a 400."""
    problem = error.problem if isinstance(error, Refusal) else problem_of(error)
    if problem.type in ("not-allowed", "not-authenticated"):
        return failure_answer(401, "not_authorised", "Access refused.")
    if problem.status in (400, 409, 422):
        return failure_answer(400, "bad_request", _reason(problem), id=problem.id)
    headers = () if problem.retry_after is None else ((b"Retry-After", b"%d" % problem.retry_after),)
    return failure_answer(problem.status, problem.type, _reason(problem), id=problem.id, headers=headers)


def failure_answer(
    status: int,
    error: str,
    reason: str,
    *,
    id: str | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Answer:
    """``error`` and ``reason`` as the plugin has them; ``id`` of a message that was accepted all the same."""
    value: Mapping[str, str] = {"error": error, "reason": reason} | ({} if id is None else {"id": id})
    return json_answer(value, status, headers=headers)


def _reason(problem: Problem) -> str:
    return f"{problem.field}: {problem.detail}" if problem.field else problem.detail
