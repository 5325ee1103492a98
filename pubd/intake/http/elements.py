"""Batches: each element is a message or a mistake on its own, and may have its idempotency key from the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.errors import InvalidMessage
from pubd.intake.strict_json import kind
from pubd.intake.wire import decode_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.errors import PubdError
    from pubd.intake.door import Door
    from pubd.intake.http.request import Request
    from pubd.message import Message
    from pubd.receipt import Receipt


def keyed(value: Any, key: str) -> Message:
    """The message of a JSON value, under the idempotency key of the request. Raises InvalidMessage."""
    if not isinstance(value, dict):
        raise InvalidMessage("", f"must be one JSON object, not {kind(value)}")
    if value.get("idempotency_key") not in (None, key):
        raise InvalidMessage("idempotency_key", "differs from the Idempotency-Key of the request; give one of them")
    return decode_object({**value, "idempotency_key": key})


def element(value: Any, key: str | None) -> Message | InvalidMessage:
    """The message of one element of a batch, or what is wrong with it."""
    try:
        if key is not None:
            return keyed(value, key)
        if not isinstance(value, dict):
            raise InvalidMessage("", f"must be one JSON object, not {kind(value)}")
        return decode_object(value)
    except InvalidMessage as error:
        return error.with_traceback(None)


async def submit_good(
    door: Door, request: Request, some: Sequence[Message | InvalidMessage]
) -> list[Receipt | PubdError]:
    """The answers to those that are messages, in the places of these among the others."""
    good = [each for each in some if not isinstance(each, InvalidMessage)]
    answers = iter(await door.submit(request.principal, good, request.headers)) if good else iter(())
    return [each if isinstance(each, InvalidMessage) else next(answers) for each in some]
