"""``POST /cloudevents/{exchange}``: CloudEvents of all three content modes, answered as messages are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.errors import InvalidMessage
from pubd.intake.http.answer import Answer, Refusal
from pubd.intake.http.batch import batch_answer
from pubd.intake.http.cloudevents import BATCH, STRUCTURED, Mode, from_headers, from_object, mode_of
from pubd.intake.http.messages import when_settled
from pubd.intake.http.publish import DEFAULT_EXCHANGE
from pubd.intake.http.request import idempotency_key
from pubd.intake.http.results import stored_answer
from pubd.intake.strict_json import kind, loads

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from twisted.internet.defer import Deferred

    from pubd.intake.door import Door
    from pubd.intake.http.request import Request
    from pubd.intake.http.waits import Waits
    from pubd.message import Message


class CloudEvents:
    """Takes events. ``clock`` gives others their turns while a batch is handed in."""

    def __init__(self, *, door: Door, waits: Waits, clock: Any) -> None:
        self._door = door
        self._waits = waits
        self._clock = clock

    def post(self, request: Request) -> Answer | Deferred[Answer] | Coroutine[Any, Any, Answer]:
        """Answers once the event is stored, or settled; a batch with one result for each event, in order."""
        arguments = request.arguments(("wait", "timeout", "routing_key"))
        seconds, key, routing_key = self._waits.asked(arguments), idempotency_key(request), arguments.get("routing_key")
        (exchange,) = request.parts
        if exchange == DEFAULT_EXCHANGE:
            exchange = ""
        mode = mode_of(request.headers.get("content-type", ""))
        if mode is None:
            raise Refusal(
                "unsupported-media-type",
                f"of the event formats pubd knows {STRUCTURED} and {BATCH}, in UTF-8; binary mode takes any data",
                field="content-type",
            )
        if mode is Mode.BATCH:
            return self._batch(request, exchange, routing_key, seconds, key)
        if mode is Mode.STRUCTURED:
            event = loads(request.body)
            message = from_object(event, exchange=exchange, routing_key=routing_key, idempotency_key=key)
        else:
            message = from_headers(
                request.headers, request.body, exchange=exchange, routing_key=routing_key, idempotency_key=key
            )
        submitted = self._door.submit(request.principal, (message,), request.headers)
        if seconds is None:
            return submitted.addCallback(stored_answer)
        return when_settled(submitted, self._waits, seconds)

    async def _batch(
        self, request: Request, exchange: str, routing_key: str | None, seconds: float | None, key: str | None
    ) -> Answer:
        def element(event: Any, key: str | None) -> Message | InvalidMessage:
            try:
                return from_object(event, exchange=exchange, routing_key=routing_key, idempotency_key=key)
            except InvalidMessage as error:
                return error.with_traceback(None)

        events = loads(request.body)
        if not isinstance(events, list):
            raise InvalidMessage("", f"a batch is a JSON array of events, not {kind(events)}")
        return await batch_answer(
            events,
            element,
            request,
            door=self._door,
            waits=self._waits,
            clock=self._clock,
            seconds=seconds,
            key=key,
        )
