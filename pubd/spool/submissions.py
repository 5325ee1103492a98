"""Accepting messages into the SQLite spool: limits, idempotency keys, one INSERT for a batch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pubd import failpoints
from pubd.errors import IdempotencyConflict
from pubd.spool.base import Accepted, accepted
from pubd.spool.database import expect
from pubd.spool.rows import STATES, reason_of, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.entry import Entry
    from pubd.errors import SpoolError
    from pubd.spool.base import Limits
    from pubd.spool.database import Database


#: Messages kept in memory after their commit, of all exchanges together, and the largest body of one, in bytes.
FRESH, FRESH_BODY = 4096, 4096

_COLUMNS = (
    "seq, state, exchange, routing_key, message_id, mandatory, accepted_at, attempts, due, expires_at, ordering_key, "
    "principal, properties, body, checksum"
)
_ROWS = (128, 32, 8, 1)
_ROW = "(?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)"
_INSERT = {rows: f"INSERT INTO message ({_COLUMNS}) VALUES {', '.join([_ROW] * rows)}" for rows in _ROWS}


class Submissions:
    """``limits`` gives those that hold now, ``free`` the bytes that the disk has left."""

    def __init__(self, base: Database, limits: Callable[[], Limits], free: Callable[[], int]) -> None:
        self._base = base
        self._limits = limits
        self._free = free
        self._waiting: list[Entry] = []
        """Accepted in the transaction under way, to be written before its commit."""
        self.refuse: Callable[[], SpoolError] | None = None
        """Says why nothing new is accepted: what is held needs all the room, or the file is not to be found again."""

    def append(self, entries: Sequence[Entry]) -> list[Accepted]:
        """Accept all or raise before anything was changed; :meth:`flush` writes what a whole group has submitted."""
        fresh, answers = self._known(entries)
        if fresh and self.refuse is not None:
            raise self.refuse()
        size = sum(entry.size for entry in fresh)
        base = self._base
        self._limits().check(held=base.held, bytes=base.bytes, rows=len(fresh), size=size, free=self._free)
        self._accept(fresh, size)
        return answers

    def copy(self, entries: Sequence[Entry]) -> list[str]:
        """Accept what is made of messages that were accepted, past all limits; the exchanges to wake."""
        fresh, _ = self._known(entries)
        self._accept(fresh, sum(entry.size for entry in fresh))
        return list({entry.exchange for entry in entries})

    def _accept(self, fresh: Sequence[Entry], size: int) -> None:
        base = self._base
        if not self._waiting:
            base.at_roll_back(self._waiting.clear)
        self._waiting += fresh
        keys = [(entry.idempotency_key, entry.seq, entry.fingerprint) for entry in fresh if entry.idempotency_key]
        if keys:
            base.db.executemany("INSERT INTO idempotency (key, seq, fingerprint) VALUES (?, ?, ?)", keys)
        deferred = [entry for entry in fresh if entry.due is not None]
        for entry in deferred:
            base.at_commit(partial(expect, base.shelf(entry.exchange), entry.due or 0.0))
        base.count(accepted=len(fresh), ready=len(fresh) - len(deferred), deferred=len(deferred), bytes=size)

    def flush(self) -> None:
        """Write what was accepted. Many rows a statement: each call of SQLite lets go of the interpreter's lock."""
        if not self._waiting:
            return
        entries = self._waiting.copy()
        self._waiting.clear()
        base, start = self._base, 0
        base.at_commit(partial(self._remember, entries))
        while start < len(entries):
            rows = next(count for count in _ROWS if count <= len(entries) - start)
            values: list[Any] = []
            for entry in entries[start : start + rows]:
                values += row_of(entry, base.shelf(entry.exchange).number)
            base.db.execute(_INSERT[rows], values)
            start += rows
        failpoints.reach("after-append")

    def _remember(self, entries: Sequence[Entry]) -> None:
        """Lanes that keep up are given what was just written without its being read."""
        for entry in entries:
            shelf = self._base.shelf(entry.exchange)
            if shelf.caught_up and entry.due is None:
                if self._base.fresh < FRESH and len(entry.body) <= FRESH_BODY:
                    shelf.fresh[entry.seq] = entry
                    self._base.fresh += 1
                else:
                    shelf.caught_up = False

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
            if row is None and (seq := self._base.ids.seq_of_key(key)) is not None and self._has(seq):
                # The key that an export gives to a message that had none.
                row = seq, entry.fingerprint
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

    def _has(self, seq: int) -> bool:
        self.flush()
        return self._base.db.execute("SELECT 1 FROM message WHERE seq = ?", (seq,)).fetchone() is not None

    def _accepted(self, seq: int) -> Accepted:
        self.flush()  # it may be of this very group
        message_id, state, attempts, cause, code, text = self._base.one(
            "SELECT message_id, state, attempts, cause, code, text FROM message WHERE seq = ?", (seq,)
        )
        id = self._base.ids.id_of(seq)
        return Accepted(
            id, message_id or id, STATES[state], new=False, attempts=attempts, reason=reason_of(cause, code, text)
        )
