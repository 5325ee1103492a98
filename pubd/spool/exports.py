"""Every open message of the SQLite spool, page by page, while it is in use. Reads only."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from pubd.spool.base import Exported
from pubd.spool.database import listed
from pubd.spool.rows import COLUMNS, STATES, entry_of, unchecked_entry_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.spool.database import Database


class Exports:
    """By the indices of what is open: settled messages, of which there may be many, are not looked at."""

    def __init__(self, base: Database) -> None:
        self._base = base

    def page(self, after: int, limit: int, max_bytes: int) -> list[Exported]:
        """Up to ``limit`` open messages with a seq above ``after`` in order, and, but for the first, ``max_bytes``."""
        base = self._base
        exported: list[Exported] = []
        size = 0
        seqs = self._seqs(after, limit)
        if not seqs:
            return exported
        for state, due, key, number, *row in base.db.execute(
            "SELECT state, due, (SELECT key FROM idempotency WHERE idempotency.seq = message.seq), exchange, "
            f"{COLUMNS} FROM message WHERE seq IN carray(?) ORDER BY seq",
            (listed(seqs),),
        ):
            name = base.names.get(number, "")
            entry = unchecked_entry_of(row, name, base.ids)
            entry.due, entry.idempotency_key = due, key
            size += entry.size
            if exported and size > max_bytes:
                break
            exported.append(Exported(entry, STATES[state], entry_of(row, name, base.ids) is None))
        return exported

    def _seqs(self, after: int, limit: int) -> Sequence[int]:
        rows = self._base.rows
        ready = "SELECT seq FROM message WHERE state = 0 AND exchange = ? AND seq > ? ORDER BY seq LIMIT ?"
        waiting = (
            "SELECT seq FROM message INDEXED BY message_why "
            "WHERE state IN (1, 2) AND state = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        parts = [rows(ready, (number, after, limit)) for number in self._base.names]
        parts += [rows(waiting, (state, after, limit)) for state in (1, 2)]
        return [seq for (seq,) in heapq.merge(*parts)][:limit]
