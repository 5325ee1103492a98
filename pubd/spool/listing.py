"""What an operator asks of the SQLite spool: the record of a message, its content, lists."""

from __future__ import annotations

import heapq
from array import array
from typing import TYPE_CHECKING, Any

from pubd.decision import concerning
from pubd.outcome import Cause, State, Via
from pubd.spool.base import Attempt, Counted, Page, Record
from pubd.spool.database import listed
from pubd.spool.groups import Group, Parked
from pubd.spool.matching import Matching
from pubd.spool.rows import COLUMNS, NUMBER_OF, PARKED, STATES, reason_of, text_of, unchecked_entry_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.decision import Decision
    from pubd.entry import Entry
    from pubd.spool.base import Query
    from pubd.spool.database import Database
    from pubd.spool.decisions import Decisions

#: Rows that one call looks at, where no index leads to those asked for: a few milliseconds.
STEP = 5000
#: Rows of one exchange at the least, where there are many.
LEAST = 50
#: Messages in a page at most: each has its record read.
MAX_PAGE = 1000
#: No seq is higher.
LAST = (1 << 63) - 1
_Source = tuple[str, tuple[Any, ...]]
_TABLE: _Source = ("message WHERE true", ())


def _sources(query: Query, numbers: Sequence[int]) -> tuple[list[_Source], frozenset[str]]:
    """Where messages in order of acceptance come from, by an index where one leads to them; what needs no condition."""
    if query.ordering_key is not None and query.state in (State.READY, State.DEFERRED, State.PARKED):
        # All that are held: the state is still to be looked at.
        table = "message WHERE exchange = ? AND ordering_key = ? AND state < 3"
        return [(table, (number, query.ordering_key)) for number in numbers], frozenset({"exchange", "ordering_key"})
    if query.state is State.READY:
        table = "message WHERE exchange = ? AND state = 0"
        return [(table, (number,)) for number in numbers], frozenset({"exchange", "state"})
    if query.state in (State.DEFERRED, State.PARKED):
        number = NUMBER_OF[query.state]
        table = f"message INDEXED BY message_why WHERE state IN (1, 2) AND state = {number}"
        return [(table, ())], frozenset({"state"})
    return [_TABLE], frozenset()


def _conditions(
    query: Query, matching: Matching, numbers: Sequence[int], covered: frozenset[str]
) -> tuple[str, list[Any]]:
    """SQL for what remains, each part with AND before it, and its bindings. But for the routing key: see Matching."""
    sql: list[str] = []
    bindings: list[Any] = []

    def where(condition: str, *values: Any) -> None:
        sql.append(f" AND {condition}")
        bindings.extend(values)

    if query.state is not None and "state" not in covered:
        where("+state = ?", NUMBER_OF[query.state])
    if query.exchange is not None and "exchange" not in covered:
        where("+exchange = ?", numbers[0])
    if query.ordering_key is not None and "ordering_key" not in covered:
        where("+ordering_key = ?", query.ordering_key)
    if query.accepted_before is not None:
        where("accepted_at < ?", query.accepted_before)
    if query.accepted_after is not None:
        where("accepted_at >= ?", query.accepted_after)
    if matching.prefix:
        where("substr(routing_key, 1, ?) = ?", len(matching.prefix), matching.prefix)
    if query.held is not None or query.reason is not None:
        # Why a message is in its state stands behind its body, which may be large: not read where there is no reason.
        has_reason = "state NOT IN (0, 3)"
        if query.held is False:
            where(f"NOT ({has_reason} AND cause IS NOT NULL AND cause = ?)", Cause.HELD.value)
        elif query.held:
            where(f"({has_reason} AND cause = ?)", Cause.HELD.value)
        if query.reason is not None:
            said = query.reason.lower()
            where(
                f"({has_reason} AND (code IS ? OR instr(lower(cause), ?) > 0 OR instr(lower(text), ?) > 0))",
                matching.code if matching.code is not None else -1,
                said,
                said,
            )
    return "".join(sql), bindings


class Listing:
    """Reads only."""

    def __init__(self, base: Database, decisions: Decisions) -> None:
        self._base = base
        self._decisions = decisions

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
        """Up to ``query.limit`` messages, looking at :data:`STEP` rows at most where no index leads to them."""
        seqs, more = self._look(query, min(max(query.limit, 1), MAX_PAGE))
        return Page(tuple(self._records(seqs)), self._base.ids.id_of(more) if more is not None else None)

    def count(self, query: Query) -> Counted:
        """The same for any number of messages."""
        seqs, more = self._look(query, None)
        return Counted(len(seqs), self._base.ids.id_of(more) if more is not None else None)

    def parked(self, limit: int, most: int) -> Parked:
        """Out of the index alone, but for the moments of acceptance: no row is read that is not told of."""
        base = self._base
        rows = base.rows(
            "SELECT exchange, cause, code, text, count(*), min(seq), sum(count(*)) OVER (), count(*) OVER () FROM "
            "(SELECT seq, exchange, cause, code, text FROM message INDEXED BY message_why "
            f"WHERE state IN (1, 2) AND state = {PARKED} ORDER BY seq LIMIT ?) "
            "GROUP BY exchange, cause, code, text ORDER BY count(*) DESC, min(seq) LIMIT ?",
            (limit, most),
        )
        if not rows:
            return Parked()
        accepted = dict(
            base.rows("SELECT seq, accepted_at FROM message WHERE seq IN carray(?)", (listed(row[5] for row in rows),))
        )
        groups = tuple(
            Group(
                exchange=base.names[exchange],
                reason=reason_of(cause, code, text),
                count=count,
                oldest=accepted[seq],
                id=base.ids.id_of(seq),
            )
            for exchange, cause, code, text, count, seq, *_ in rows
        )
        *_, seen, different = rows[0]
        return Parked(groups=groups, others=different - len(groups), seen=seen)

    def _look(self, query: Query, limit: int | None) -> tuple[list[int], int | None]:
        """The seqs of some messages, and where to go on."""
        base, matching = self._base, Matching(query)
        after = base.ids.seq_of(query.after) if query.after is not None else 0
        if after is None or matching.is_impossible:
            return [], None
        if query.accepted_after is not None:
            # Seqs are made of the time of acceptance, if not exactly of the same moment.
            after = max(after, base.ids.seq_at(query.accepted_after - 1.0))
        numbers = list(base.names)
        if query.exchange is not None:
            shelf = base.shelves.get(query.exchange)
            if shelf is None:
                return [], None
            numbers = [shelf.number]
        sources, covered = _sources(query, numbers)
        sql, bindings = _conditions(query, matching, numbers, covered)
        until = self._until(sources, after) if sql or limit is None else None
        columns = "seq, CAST(routing_key AS BLOB)" if matching.routes is not None else "seq"
        most = -1 if limit is None or matching.routes is not None else limit
        parts = [
            base.rows(
                f"SELECT {columns} FROM {table} AND seq > ? AND seq <= ?{sql} ORDER BY seq LIMIT ?",
                (*own, after, until if until is not None else LAST, *bindings, most),
            )
            for table, own in sources
        ]
        seqs: list[int] = []
        for seq, *key in heapq.merge(*parts):
            if matching.routes is None or matching.routes(text_of(*key)):
                seqs.append(seq)
                if len(seqs) == limit:
                    return seqs, seq
        return seqs, until

    def _until(self, sources: Sequence[_Source], after: int) -> int | None:
        """Where :data:`STEP` rows of all together, about, have been looked at; None: there are not so many."""
        share = max(STEP // max(len(sources), 1), LEAST)
        ends = []
        for table, own in sources:
            row = self._base.one(
                f"SELECT seq FROM {table} AND seq > ? ORDER BY seq LIMIT 1 OFFSET ?", (*own, after, share - 1)
            )
            ends += [] if row is None else [row[0]]
        return min(ends, default=None)

    def search(self, message_id: str, before: str | None) -> Page:
        """Those among the :data:`STEP` rows before, the newest first."""
        end = self._base.ids.seq_of(before) if before is not None else LAST
        if end is None:
            return Page((), None)
        first, seen, found = self._base.one(
            "SELECT min(seq), count(*), group_concat(seq) FILTER (WHERE message_id = ?) "
            "FROM (SELECT seq, message_id FROM message WHERE seq < ? ORDER BY seq DESC LIMIT ?)",
            (message_id, end, STEP),
        )
        seqs = sorted(map(int, found.split(",")), reverse=True) if found is not None else []
        more = first if seen == STEP else None
        if len(seqs) > MAX_PAGE:
            seqs, more = seqs[:MAX_PAGE], seqs[MAX_PAGE - 1]
        return Page(tuple(reversed(self._records(seqs))), self._base.ids.id_of(more) if more is not None else None)

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
        decisions = self._decisions.of(seqs)
        return [self._record(row, failures.get(row[0], []), decisions.get(row[0], [])) for row in rows]

    def _record(self, row: Sequence[Any], failures: list[Attempt], decisions: list[Decision]) -> Record:
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
            decisions=concerning(
                decisions,
                self._decisions.operations,
                exchange=self._base.names[exchange],
                accepted_at=accepted_at,
                settled_at=at,
            ),
        )
