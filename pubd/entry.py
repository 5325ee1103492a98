"""Entry: an accepted message in the form in which it is stored and published."""

from __future__ import annotations

import attrs

#: What the method frame, the frame headers and the ledger's own row take, in bytes, beside properties and body.
OVERHEAD = 256


# Not kw_only: one is made for each message, and attributes that are given by their places cost half.
@attrs.define(eq=False)
class Entry:
    """One accepted message, encoded once when it was submitted.

    ``properties`` are the property flags and values of an AMQP content header, ready for the wire, with
    ``message_id`` and ``delivery_mode`` filled in; to the spool they are opaque. Not frozen, because the spool
    numbers it (``seq``, the order of acceptance; 0 until stored) and counts its ``attempts``: these two belong to
    the spool alone. Identity is equality: an entry is one place in the spool.
    """

    id: str
    exchange: str
    routing_key: str
    message_id: str
    mandatory: bool
    properties: bytes
    body: bytes
    accepted_at: float = 0.0
    seq: int = 0
    attempts: int = 0
    due: float | None = None
    """Not to be published before (epoch seconds)."""
    expires_at: float | None = None
    """Not to be published after (epoch seconds): then it is settled as expired."""
    ordering_key: str | None = None
    """Published only when every earlier message of the same exchange and key is settled."""
    idempotency_key: str | None = None
    principal: str | None = None
    """Who handed it in, by the name in ``[[principal]]``; None where nobody asked."""
    fingerprint: bytes = b""
    """Digest of the content, to tell the same submission from another one with the same idempotency key."""

    size: int = attrs.field(init=False)
    """Bytes counted against windows and limits."""

    @size.default
    def _size(self) -> int:
        return OVERHEAD + len(self.exchange) + len(self.routing_key) + len(self.properties) + len(self.body)
