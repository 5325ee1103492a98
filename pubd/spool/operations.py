"""What is done to many messages of the SQLite spool at once: release what may be routed again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pubd.outcome import Cause
from pubd.spool.base import Returned

if TYPE_CHECKING:
    from pubd.spool.database import Database

#: As in the index of that name.
_RETURNED = f"state = 2 AND cause = '{Cause.RETURNED.value}'"
_REVIVED = "state = 0, due = NULL, attempts = 0, cause = NULL, code = NULL, text = NULL"
#: Parked messages that are released in one transaction.
HEAL_BATCH = 2000


class Operations:
    """By exchange and routing key."""

    def __init__(self, base: Database) -> None:
        self._base = base

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
