"""What an operator does to messages in the SQLite spool: retry, discard, release what may be routed again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pubd.outcome import Cause
from pubd.spool.base import Returned, copy_key
from pubd.spool.database import again
from pubd.spool.rows import COUNTERS, DEFERRED, HEAD_COLUMNS, PARKED, size_of, text_of
from pubd.spool.settlements import new_heads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.spool.database import Database

#: As in the index of that name.
_RETURNED = f"state = 2 AND cause = '{Cause.RETURNED.value}'"
_REVIVED = "state = 0, due = NULL, attempts = 0, cause = NULL, code = NULL, text = NULL"


#: Parked messages that are released in one transaction.
HEAL_BATCH = 2000


class Operations:
    """By id; ids that are not this spool's are passed over."""

    def __init__(self, base: Database) -> None:
        self._base = base

    def retry(self, ids: Sequence[str], probing: bool) -> list[str]:
        """Parked and deferred messages are ready again, attempts counted anew; the exchanges to wake."""
        exchanges = set()
        for seq in self._base.seqs(ids):
            row = self._base.db.execute("SELECT state, exchange FROM message WHERE seq = ?", (seq,)).fetchone()
            if row and row[0] in (DEFERRED, PARKED):
                self._base.db.execute(f"UPDATE message SET {_REVIVED} WHERE seq = ?", (seq,))
                self._base.count(**{COUNTERS[row[0]]: -1}, ready=1)
                if row[0] == PARKED and not probing:
                    key = copy_key(self._base.ids.id_of(seq))
                    self._base.db.execute("DELETE FROM idempotency WHERE key = ?", (key,))
                name = self._base.names[row[1]]
                self._base.at_commit(partial(again, self._base.shelves[name], seq))
                exchanges.add(name)
        return list(exchanges)

    def discard(self, ids: Sequence[str], now: float, text: str) -> list[str]:
        """Drop messages that are not in flight; the ids of those dropped."""
        dropped = []
        for seq in self._base.seqs(ids):
            row = self._base.db.execute(
                f"SELECT state, exchange, {HEAD_COLUMNS} FROM message WHERE seq = ? AND state < 3", (seq,)
            ).fetchone()
            if not row or seq in self._base.claimed:
                continue
            state, number, _, routing_key, *_, ordering_key, _, _, _, _, content = row
            size = size_of(self._base.names[number], routing_key, content)
            batch = self._base.new_batch(now, None, [seq])
            self._base.db.execute(
                "UPDATE message SET state = 5, due = NULL, body = NULL, batch = ?, tag = NULL, cause = ?, code = NULL, "
                "text = ? WHERE seq = ?",
                (batch, Cause.DISCARDED.value, text, seq),
            )
            self._base.count(**{COUNTERS[state]: -1}, discarded=1, bytes=-size)
            self._base.at_commit(partial(self._base.forget, self._base.shelves[self._base.names[number]]))
            dropped.append(self._base.ids.id_of(seq))
            if ordering_key is not None:
                new_heads(self._base, [(self._base.names[number], text_of(ordering_key))])
        return dropped

    def returned(self, limit: int, after: Returned | None) -> list[Returned]:
        """The groups. One step in the index for each of them, however many messages it has."""
        base, groups = self._base, list[Returned]()
        number, key = (base.shelves[after.exchange].number, after.routing_key) if after is not None else (-1, "")
        while len(groups) < limit:
            # Not as one comparison of (exchange, routing_key): for that SQLite reads through the group.
            row = self._first_returned("exchange = ? AND routing_key > ?", number, key)
            row = row or self._first_returned("exchange > ?", number)
            if row is None:
                break
            number, key, seq = row
            groups.append(Returned(base.names[number], key, base.ids.id_of(seq)))
        return groups

    def _first_returned(self, after: str, *bindings: int | str) -> Any:
        return self._base.one(
            f"SELECT exchange, routing_key, seq FROM message WHERE {_RETURNED} AND {after} "
            "ORDER BY exchange, routing_key, seq LIMIT 1",
            bindings,
        )

    def heal(self, group: Returned) -> list[str]:
        """The first of the group: their rows are touched, not read, and not so many that publishing would wait."""
        base = self._base
        shelf = base.shelf(group.exchange)
        rows = base.rows(
            f"UPDATE message SET {_REVIVED} WHERE seq IN (SELECT seq FROM message WHERE {_RETURNED} AND exchange = ? "
            "AND routing_key = ? ORDER BY seq LIMIT ?) RETURNING seq",
            (shelf.number, group.routing_key, HEAL_BATCH),
        )
        if rows:
            base.at_commit(partial(base.rewind, shelf, min(seq for (seq,) in rows)))
        base.count(parked=-len(rows), ready=len(rows))
        return [base.ids.id_of(seq) for (seq,) in rows]
