"""What an operator asks of the SQLite spool: the record of a message, its content, lists."""

from __future__ import annotations

import heapq
from array import array
from typing import TYPE_CHECKING, Any

from pubd.outcome import State, Via
from pubd.spool.base import Attempt, Page, Record
from pubd.spool.database import listed
from pubd.spool.rows import COLUMNS, NUMBER_OF, STATES, reason_of, text_of, unchecked_entry_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pubd.entry import Entry
    from pubd.spool.base import Query
    from pubd.spool.database import Database

#: Rows that one call looks at, where no index leads to those asked for: a few milliseconds.
STEP = 5000
#: Messages in a page at most: each has its record read.
MAX_PAGE = 1000


class Listing:
    """Reads only."""

    def __init__(self, base: Database) -> None:
        self._base = base

    def record(self, id: str) -> Record | None:
        """Everything known of one message but its body."""
        seq = self._base.ids.seq_of(id)
        return next(iter(self._records([seq])), None) if seq is not None else None

    def content(self, id: str) -> Entry | None:
        """The message, damaged or not."""
        seq = self._base.ids.seq_of(id)
        row = self._base.one(
            "SELECT exchange, due, (SELECT key FROM idempotency WHERE idempotency.seq = message.seq), "
            f"{COLUMNS} FROM message WHERE seq = ?",
            (seq,),
        )
        if not row:
            return None
        number, due, key, *rest = row
        entry = unchecked_entry_of(rest, self._base.names[number], self._base.ids)
        entry.due, entry.idempotency_key = due, key
        return entry

    def find(self, query: Query) -> Page:
        """Up to ``query.limit`` messages, looking at :data:`STEP` rows at most where there is no index."""
        limit = min(max(query.limit, 1), MAX_PAGE)
        after = self._base.ids.seq_of(query.after) if query.after is not None else 0
        if after is None:
            return Page((), None)
        exchanges = None
        if query.exchange is not None:
            shelf = self._base.shelves.get(query.exchange)
            if shelf is None:
                return Page((), None)
            exchanges = [shelf.number]
        if query.state is State.READY:
            seqs, more = self._ready(exchanges, after, limit)
        else:
            seqs, more = self._walked(query.state, exchanges, after, limit)
        return Page(tuple(self._records(seqs)), self._base.ids.id_of(more) if more is not None else None)

    def _ready(self, exchanges: Sequence[int] | None, after: int, limit: int) -> tuple[list[int], int | None]:
        """By the index that lanes claim by, which is by exchange."""
        sql = "SELECT seq FROM message WHERE state = 0 AND exchange = ? AND seq > ? ORDER BY seq LIMIT ?"
        numbers = self._base.names if exchanges is None else exchanges
        parts = [[seq for (seq,) in self._base.rows(sql, (number, after, limit))] for number in numbers]
        seqs = list(heapq.merge(*parts))[:limit]
        return seqs, seqs[-1] if len(seqs) == limit else None

    def _walked(
        self, state: State | None, exchanges: Sequence[int] | None, after: int, limit: int
    ) -> tuple[list[int], int | None]:
        """In order of acceptance, through those in the state where an index has them, else through all."""
        number = NUMBER_OF[state] if state is not None else None
        if state in (State.DEFERRED, State.PARKED):
            rows: Iterable[Any] = self._base.rows(
                "SELECT seq, state, exchange FROM message INDEXED BY message_waiting "
                f"WHERE state IN (1, 2) AND state = {number} AND seq > ? ORDER BY seq LIMIT ?",
                (after, STEP),
            )
        else:
            rows = self._base.rows(
                "SELECT seq, state, exchange FROM message WHERE seq > ? ORDER BY seq LIMIT ?", (after, STEP)
            )
        seqs: list[int] = []
        seen, last = 0, after
        for last, stored, exchange in rows:
            seen += 1
            if (number is None or stored == number) and (exchanges is None or exchange in exchanges):
                seqs.append(last)
                if len(seqs) == limit:
                    return seqs, last
        return seqs, last if seen == STEP else None

    def _records(self, seqs: Sequence[int]) -> list[Record]:
        if not seqs:
            return []
        rows = self._base.rows(
            "SELECT m.seq, m.state, m.exchange, CAST(m.routing_key AS BLOB), CAST(m.message_id AS BLOB), m.attempts, "
            "m.accepted_at, CAST(m.principal AS BLOB), m.due, m.cause, m.code, m.text, m.tag, "
            "s.at, s.node, s.channel, s.seqs, s.tags "
            "FROM message m LEFT JOIN settlement s ON s.batch = m.batch WHERE m.seq IN carray(?) ORDER BY m.seq",
            (listed(seqs),),
        )
        failures: dict[int, list[Attempt]] = {}
        for seq, *attempt in self._base.rows(
            "SELECT seq, number, at, times, outcome, node, channel, tag, code, text FROM attempt "
            "WHERE seq IN carray(?)",
            (listed(seqs),),
        ):
            failures.setdefault(seq, []).append(Attempt(*attempt))
        return [self._record(row, failures.get(row[0], [])) for row in rows]

    def _record(self, row: Sequence[Any], failures: list[Attempt]) -> Record:
        seq, state, exchange, routing_key, message_id, attempts, accepted_at, principal, *rest = row
        due, cause, code, text, tag, at, node, channel, seqs, tags = rest
        if tags:
            tag = array("q", tags)[array("q", seqs).index(seq)]
        id = self._base.ids.id_of(seq)
        return Record(
            id=id,
            message_id=text_of(message_id) if message_id else id,
            exchange=self._base.names[exchange],
            routing_key=text_of(routing_key),
            state=STATES[state],
            in_flight=seq in self._base.claimed,
            attempts=attempts,
            accepted_at=accepted_at,
            principal=text_of(principal) if principal is not None else None,
            due=due,
            reason=reason_of(cause, code, text),
            settled_at=at,
            via=Via(node, channel) if node is not None else None,
            tag=tag if at is not None else None,
            failures=tuple(sorted(failures, key=lambda each: (each.at, each.number))),
        )
