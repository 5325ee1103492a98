"""Submission: from the message that was handed in to the entry that is stored. Pure, but for the ids it takes."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs

from pubd.amqp.encode import encode_properties
from pubd.entry import Entry

if TYPE_CHECKING:
    from pubd.message import Message
    from pubd.options import Options
    from pubd.spool.ids import Ids

PERSISTENT, TRANSIENT = 2, 1
#: Headers that a client with tracing writes anew with each attempt to hand in the same message.
TRACE = frozenset(("traceparent", "tracestate"))


def entry_of(message: Message, ids: Ids, options: Options, now: float, principal: str | None = None) -> Entry:
    """Encode ``message`` for its whole life, accepted at ``now``. Raises InvalidMessage past ``max_body``."""
    return numbered(message, ids.next(), ids, options, now, principal)


def numbered(message: Message, seq: int, ids: Ids, options: Options, now: float, principal: str | None) -> Entry:
    """The same with a ``seq`` that was taken before, as many at once as a batch has messages."""
    if options.max_body is not None:
        message.check_limits(max_body=options.max_body)
    id = ids.id_of(seq)
    message_id = message.message_id or id
    mode = message.delivery_mode or (PERSISTENT if options.persistent else TRANSIENT)
    entry = Entry(
        id,
        message.exchange,
        message.routing_key,
        message_id,
        options.mandatory if message.mandatory is None else message.mandatory,
        encode_properties(message, message_id=message_id, delivery_mode=mode),
        message.body,
        now,
        seq,
    )
    entry.principal = principal
    if message.simple:
        return entry
    entry.ordering_key = message.ordering_key
    if message.delay or message.not_before is not None:
        due = now + message.delay if message.delay else message.not_before
        entry.due = due if due is not None and due > now else None
    if message.ttl is not None:
        entry.expires_at = now + message.ttl
    if message.idempotency_key is not None:
        entry.idempotency_key = message.idempotency_key
        entry.fingerprint = _fingerprint(message, entry, mode)
    return entry


def _fingerprint(message: Message, entry: Entry, mode: int) -> bytes:
    """Digest of all that the application said; not of the id that pubd gave, nor of a trace: they differ each time."""
    if message.headers is not None and not TRACE.isdisjoint(message.headers):
        headers = {name: value for name, value in message.headers.items() if name not in TRACE}
        message = attrs.evolve(message, headers=headers or None)
    properties = encode_properties(message, message_id=message.message_id or "", delivery_mode=mode)
    told = (message.ordering_key, message.delay, message.not_before, message.ttl, entry.mandatory)
    digest = blake2b(digest_size=16)
    for part in (
        message.exchange.encode(),
        message.routing_key.encode(),
        properties,
        message.body,
        repr(told).encode(),
    ):
        digest.update(struct.pack(">Q", len(part)))
        digest.update(part)
    return digest.digest()
