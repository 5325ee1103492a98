"""Ways of driving pubd: what the crash test needs of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from pubd.message import Message

#: Messages of a batch with their numbers.
Batch = Sequence[tuple[int, Message]]


class Gone(Exception):
    """pubd is dead, and all that it said before has been heard."""


class Ear(Protocol):
    """Is told what becomes of messages, as soon as it is known."""

    def accepted(self, ids: Iterable[tuple[int, str]]) -> None:
        """These numbers were answered with these ids."""

    def ended(self, number: int, how: str) -> None:
        """``how`` is confirmed or parked."""

    def wrong(self, what: str) -> None:
        """Something that is not to be."""


class Way(Protocol):
    """How messages are handed in. What is handed in within a session is accepted in that order."""

    async def begin(self) -> None:
        """Wait until pubd takes messages. Raises Gone."""

    async def submit(self, session: int, batch: Batch, ear: Ear) -> None:
        """Hand it in at once, and return when each message was answered. Raises Gone."""

    async def settled(self) -> bool:
        """Whether nothing waits for RabbitMQ any more. Raises Gone."""

    async def gone(self) -> None:
        """Wait for pubd's death."""

    async def end(self) -> None:
        """Everything is settled."""


def as_json(message: Message) -> dict[str, Any]:
    """What a client that knows nothing of pubd's classes would write."""
    names = ("exchange", "routing_key", "delivery_mode", "content_type", "ordering_key", "idempotency_key")
    given = {name: getattr(message, name) for name in names}
    return {name: value for name, value in given.items() if value is not None} | {"body": message.body.decode()}


def hear(answer: Mapping[str, Any], number: int, ear: Ear) -> tuple[int, str] | None:
    """The number with its id, if the answer says that the message was accepted; how it ended goes to ``ear``."""
    error = answer.get("error", answer)
    id, state, problem = error.get("id"), answer.get("state"), error.get("type")
    if id is None or (state not in ("stored", "confirmed") and problem not in ("returned", "parked")):
        ear.wrong(f"message {number} was answered with {answer}")
        return None
    if state != "stored":
        ear.ended(number, "confirmed" if state else "parked")
    return number, id
