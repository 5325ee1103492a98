"""An open message as a line of an export, offline and online: what a submission takes, and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.errors import InvalidMessage
from pubd.intake import wire

if TYPE_CHECKING:
    from pubd.spool.base import Exported


def exported_object(exported: Exported) -> dict[str, Any]:
    """The message as JSON, with its state; what is damaged is marked."""
    state = {"state": exported.state.value}
    if not exported.damaged:
        try:
            return wire.encode(exported.entry) | state
        except InvalidMessage:
            pass  # Stored as it is, and never to be read: as good as damaged.
    return wire.remains(exported.entry) | state | {"damaged": True}
