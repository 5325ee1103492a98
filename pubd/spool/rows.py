"""Rows of the message table <-> entries."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pubd.entry import OVERHEAD, Entry
from pubd.outcome import Cause, Reason, State

if TYPE_CHECKING:
    from pubd.spool.ids import Ids

READY, DEFERRED, PARKED, CONFIRMED, EXPIRED, DISCARDED = range(6)
STATES = (State.READY, State.DEFERRED, State.PARKED, State.CONFIRMED, State.EXPIRED, State.DISCARDED)
NUMBER_OF = {state: number for number, state in enumerate(STATES)}
COUNTERS = ("ready", "deferred", "parked", "confirmed", "expired", "discarded")

#: Text as bytes, because damaged text is not UTF-8, and to decode it would raise.
COLUMNS = (
    "seq, CAST(routing_key AS BLOB), CAST(message_id AS BLOB), mandatory, accepted_at, attempts, expires_at, "
    "CAST(ordering_key AS BLOB), CAST(principal AS BLOB), properties, body, checksum"
)
#: The same without the content, which may be large; the size of that comes last.
HEAD_COLUMNS = (
    "seq, CAST(routing_key AS BLOB), CAST(message_id AS BLOB), mandatory, accepted_at, attempts, expires_at, "
    "CAST(ordering_key AS BLOB), CAST(principal AS BLOB), x'', x'', 0, length(properties) + coalesce(length(body), 0)"
)


def checksum(
    exchange: bytes,
    routing_key: bytes,
    message_id: bytes | None,
    mandatory: int,
    ordering_key: bytes | None,
    properties: bytes,
    body: bytes,
) -> int:
    """CRC-32 of what is published of a message, and of what decides where and when."""
    head = _head(exchange, routing_key, message_id, mandatory, ordering_key)
    return zlib.crc32(body, zlib.crc32(properties, zlib.crc32(head)))


@lru_cache(maxsize=1024)
def _route_checksum(exchange: str, routing_key: str, mandatory: int) -> int:
    """Of the head of a message with pubd's own id and without an ordering key: many have the same."""
    return zlib.crc32(_head(exchange.encode(), routing_key.encode(), None, mandatory, None))


def _head(
    exchange: bytes, routing_key: bytes, message_id: bytes | None, mandatory: int, ordering_key: bytes | None
) -> bytes:
    return b"%b\0%b\0%b\0%d\0%b" % (exchange, routing_key, message_id or b"", mandatory, ordering_key or b"")


def checksum_of(entry: Entry) -> int:
    """The checksum of a whole entry."""
    message_id, ordering_key, mandatory = entry.message_id, entry.ordering_key, int(entry.mandatory)
    if message_id == entry.id and ordering_key is None:
        head = _route_checksum(entry.exchange, entry.routing_key, mandatory)
    else:
        head = zlib.crc32(
            _head(
                entry.exchange.encode(),
                entry.routing_key.encode(),
                None if message_id == entry.id else message_id.encode(),
                mandatory,
                ordering_key.encode() if ordering_key else None,
            )
        )
    return zlib.crc32(entry.body, zlib.crc32(entry.properties, head))


def entry_of(row: Any, exchange: str, ids: Ids) -> Entry | None:
    """The entry in a row of COLUMNS; None if the row is damaged."""
    _, routing_key, message_id, mandatory, _, _, _, ordering_key, _, properties, body, crc = row
    if body is None or crc != checksum(
        exchange.encode(), routing_key, message_id, mandatory, ordering_key, properties, body
    ):
        return None
    return unchecked_entry_of(row, exchange, ids)


def unchecked_entry_of(row: Any, exchange: str, ids: Ids) -> Entry:
    """The entry in a row of COLUMNS, damaged or not."""
    seq, routing_key, message_id, mandatory, accepted_at, attempts, expires_at, ordering_key, principal, *content = row
    properties, body, *_ = content
    id = ids.id_of(seq)
    return Entry(
        id,
        exchange,
        text_of(routing_key),
        text_of(message_id) if message_id else id,
        bool(mandatory),
        properties,
        body or b"",
        accepted_at,
        seq,
        attempts,
        expires_at=expires_at,
        ordering_key=text_of(ordering_key) if ordering_key is not None else None,
        principal=text_of(principal) if principal is not None else None,
    )


def size_of(exchange: str, routing_key: bytes, content: int) -> int:
    """Entry.size of the entry in a row. (SQLite's length() of text ends at a NUL.)"""
    return OVERHEAD + len(exchange) + len(text_of(routing_key)) + content


def text_of(stored: bytes) -> str:
    """Text as it was stored; what is no UTF-8 (the row is damaged) shows as U+FFFD."""
    return stored.decode("utf-8", "replace")


def row_of(entry: Entry, exchange: int) -> tuple[Any, ...]:
    """What the INSERT of a message takes."""
    return (
        entry.seq,
        READY if entry.due is None else DEFERRED,
        exchange,
        entry.routing_key,
        None if entry.message_id == entry.id else entry.message_id,
        int(entry.mandatory),
        entry.accepted_at,
        entry.due,
        entry.expires_at,
        entry.ordering_key,
        entry.principal,
        entry.properties,
        entry.body,
        checksum_of(entry),
    )


@lru_cache(maxsize=1024)
def reason_of(cause: str | None, code: int | None, text: str | None) -> Reason | None:
    """The reason that stands in a row."""
    return None if cause is None else Reason(cause=Cause(cause), code=code, text=text or "")
