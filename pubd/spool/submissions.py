"""Accepting messages into the SQLite spool: limits, idempotency keys, one INSERT for a batch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pubd.errors import IdempotencyConflict
from pubd.spool.base import Accepted, accepted
from pubd.spool.database import expect
from pubd.spool.rows import STATES, reason_of, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.entry import Entry
    from pubd.spool.base import Limits
    from pubd.spool.database import Database


class Submissions:
    """``free`` gives the bytes that the disk has left."""

    def __init__(self, base: Database, limits: Limits, free: Callable[[], int]) -> None:
        self._base = base
        self._limits = limits
        self._free = free

    def append(self, entries: Sequence[Entry]) -> list[Accepted]:
        """Store all or raise before anything was written."""
        fresh, answers = self._known(entries)
        size = sum(entry.size for entry in fresh)
        base = self._base
        self._limits.check(held=base.held, bytes=base.bytes, rows=len(fresh), size=size, free=self._free)
        base.db.executemany(
            "INSERT INTO message (seq, state, exchange, routing_key, message_id, mandatory, accepted_at, attempts, "
            "due, expires_at, ordering_key, properties, body, checksum) VALUES (?,?,?,?,?,?,?,0,?,?,?,?,?,?)",
            [row_of(entry, base.shelf(entry.exchange).number) for entry in fresh],
        )
        keys = [(entry.idempotency_key, entry.seq, entry.fingerprint) for entry in fresh if entry.idempotency_key]
        if keys:
            base.db.executemany("INSERT INTO idempotency (key, seq, fingerprint) VALUES (?, ?, ?)", keys)
        deferred = [entry for entry in fresh if entry.due is not None]
        for entry in deferred:
            base.at_commit(partial(expect, base.shelf(entry.exchange), entry.due or 0.0))
        base.count(accepted=len(fresh), ready=len(fresh) - len(deferred), deferred=len(deferred), bytes=size)
        return answers

    def _known(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Accepted]]:
        """Which of them are new, and the receipt for each: an idempotency key seen before gives the earlier one."""
        seen: dict[str, Entry] = {}
        fresh: list[Entry] = []
        answers: list[Accepted] = []
        for entry in entries:
            key = entry.idempotency_key
            if key is None:
                fresh.append(entry)
                answers.append(accepted(entry, new=True))
                continue
            row = self._base.db.execute("SELECT seq, fingerprint FROM idempotency WHERE key = ?", (key,)).fetchone()
            first = seen.setdefault(key, entry)
            fingerprint = row[1] if row else first.fingerprint
            if fingerprint != entry.fingerprint:
                raise IdempotencyConflict(key)
            if row:
                answers.append(self._accepted(row[0]))
            elif first is entry:
                fresh.append(entry)
                answers.append(accepted(entry, new=True))
            else:
                answers.append(accepted(first, new=False))
        return fresh, answers

    def _accepted(self, seq: int) -> Accepted:
        message_id, state, attempts, cause, code, text = self._base.one(
            "SELECT message_id, state, attempts, cause, code, text FROM message WHERE seq = ?", (seq,)
        )
        id = self._base.ids.id_of(seq)
        return Accepted(
            id, message_id or id, STATES[state], new=False, attempts=attempts, reason=reason_of(cause, code, text)
        )
