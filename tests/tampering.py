"""Messages as no Message could be made: what RabbitMQ says to them is to be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pubd.message import Message


def tamper(message: Message, field: str, value: Any) -> None:
    """Set a field around all checks."""
    object.__setattr__(message, field, value)
    object.__setattr__(message, "simple", False)
