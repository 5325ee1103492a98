"""Copies of parked messages for an exchange of the application's own (policy ``park_to``).

In the manner of RabbitMQ's ``x-death``: the header ``x-pubd-parked`` is an array with one table, saying why, when, how
often and where from; an ``expiration`` is moved there, too. The copy is stored before the original is parked, under an
idempotency key, so that a crash between the two neither loses nor doubles it. The original stays parked until a person
decides; retried by that person and parked once more, it is copied once more.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pubd.amqp.encode import dead_lettered, decode_properties
from pubd.entry import Entry
from pubd.spool.base import copy_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.outcome import Settlement
    from pubd.policy import Policies
    from pubd.spool.ids import Ids

HEADER = "x-pubd-parked"


def copies(parked: Sequence[Settlement], policies: Policies, ids: Ids, now: float) -> list[Entry]:
    """What to store before ``parked`` are committed; nothing for policies without ``park_to``."""
    found = []
    for change in parked:
        entry = change.entry
        target = policies.of(entry.exchange, entry.routing_key).park_to
        # A copy that is parked in its turn is not copied again.
        if target is not None and target != entry.exchange:
            found.append(_copy(change, target, ids, now))
    return found


def _copy(change: Settlement, target: str, ids: Ids, now: float) -> Entry:
    entry, reason = change.entry, change.reason
    seq = ids.next()
    expiration = decode_properties(entry.properties).get("expiration")
    death: dict[str, object] = {
        "reason": reason.cause.value if reason else "",
        "code": reason.code if reason else None,
        "text": reason.text if reason else "",
        "exchange": entry.exchange,
        "routing-keys": [entry.routing_key],
        "time": datetime.fromtimestamp(now, UTC),
        "count": change.attempts,
        "id": entry.id,
    }
    if expiration is not None:
        death["original-expiration"] = expiration
    return Entry(
        id=ids.id_of(seq),
        seq=seq,
        exchange=target,
        routing_key=entry.routing_key,
        message_id=entry.message_id,
        mandatory=entry.mandatory,
        properties=dead_lettered(entry.properties, HEADER, [death]),
        body=entry.body,
        accepted_at=now,
        idempotency_key=copy_key(entry.id),
    )
