"""What the spool asks of SQLite all the time goes by an index: no statement reads a whole table, or sorts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

from pubd.decision import Decision, Verb
from pubd.entry import Entry
from pubd.ledger import Delivery
from pubd.outcome import Cause, Outcome, Reason, Settlement, State, Via
from pubd.spool import schema
from pubd.spool.base import Limits, Query
from pubd.spool.ids import Ids
from pubd.spool.sqlite import connect
from pubd.spool.store import Store

VIA = Via("node", 1)
NOW = 1000.0
#: Tables of a few rows, lists given with the statement, the exchanges by their names; a part of a table with a LIMIT.
HARMLESS = re.compile(r"SCAN (books|pause|carray|\(subquery-1\)|\d+-ROW VALUES CLAUSE|\d+ CONSTANT ROWS?)")
#: The first row in the table's own order; the sorting of what is known of one message; that of a part of an index.
EXCEPTIONS = (
    "FROM settlement ORDER BY batch LIMIT 1",
    "FROM attempt WHERE seq = ? ORDER BY at, number",
    "ORDER BY seq LIMIT ?) GROUP BY exchange, cause, code, text ORDER BY count(*) DESC, min(seq) LIMIT ?",
)


@attrs.define
class Asked:
    """A store, and the statements that it has run."""

    store: Store
    statements: dict[str, Any]
    """With the bindings that each had last."""
    ids: Ids

    def transaction(self, act: Callable[[Store], Any]) -> Any:
        self.store.base.begin()
        result = act(self.store)
        self.store.submissions.flush()
        self.store.base.commit()
        return result

    def append(self, count: int, **given: Any) -> list[Entry]:
        entries = []
        for _ in range(count):
            seq = self.ids.next()
            id = self.ids.id_of(seq)
            entry = Entry(
                id=id, exchange="e", routing_key="k", message_id=id, mandatory=True, properties=b"", body=b"b", seq=seq
            )
            for name, value in given.items():
                setattr(entry, name, value)
            entries.append(entry)
        self.transaction(lambda store: store.submissions.append(entries))
        return entries

    def claim(self, limit: int, now: float = NOW) -> list[Entry]:
        claimed: list[Entry] = self.transaction(lambda store: store.claims.claim("e", limit, 1 << 20, now))
        return claimed


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    connection = connect(tmp_path / "spool.db")
    schema.migrate(connection, lambda _: None)
    connection.execute("INSERT INTO books (tag) VALUES (1)")
    ids = Ids(1, 0, lambda: NOW)
    statements: dict[str, Any] = {}
    store = Store(connection, ids, Limits, lambda: 1 << 40)

    def note(_: Any, sql: str, bindings: Any) -> bool:
        statements[" ".join(sql.split())] = bindings
        return True

    connection.exec_trace = note
    yield Asked(store, statements, ids)
    connection.close()


def confirmed(entry: Entry, tag: int) -> Delivery:
    return Delivery(entry, tag, NOW, entry.size, Outcome.CONFIRMED, via=VIA)


def changed(entry: Entry, state: State, due: float | None = None) -> Settlement:
    outcome = Outcome.RETURNED if state is State.PARKED else Outcome.NACKED
    reason = Reason(cause=Cause.RETURNED if state is State.PARKED else Cause.NACKED, code=312, text="NO_ROUTE")
    return Settlement(
        entry=entry, state=state, attempts=1, due=due, reason=reason, outcome=outcome, via=VIA, tag=entry.seq
    )


def a_busy_day(asked: Asked) -> None:
    """Everything that happens without an operator's doing, and what one does to single messages."""
    asked.append(200)
    asked.append(4, ordering_key="o")
    asked.append(4, due=NOW + 1)
    asked.append(4, expires_at=NOW + 2)
    asked.append(2, idempotency_key="i", fingerprint=b"f")
    first = asked.claim(50)
    asked.transaction(lambda store: store.claims.release(first[40:]))
    asked.transaction(
        lambda store: store.settlements.settle(
            [confirmed(entry, n) for n, entry in enumerate(first[:30], 1)],
            [changed(entry, State.PARKED) for entry in first[30:35]]
            + [changed(entry, State.DEFERRED, NOW + 5) for entry in first[35:38]],
            NOW,
        )
    )
    asked.transaction(lambda store: store.settlements.lose([confirmed(entry, 1) for entry in first[38:40]], NOW))
    rest = asked.claim(500, NOW + 1)
    asked.transaction(
        lambda store: store.settlements.settle([confirmed(entry, n) for n, entry in enumerate(rest, 1)], [], NOW + 1)
    )
    assert asked.transaction(lambda store: store.claims.backlog()) == ["e"]
    assert asked.transaction(lambda store: store.claims.due("e", NOW)) == NOW + 5
    asked.transaction(lambda store: store.claims.oldest())
    asked.transaction(lambda store: store.settlements.sweep(NOW + 3, 1.0, 1000))
    asked.transaction(lambda store: store.listing.record(first[30].id))
    for state in (None, State.READY, State.DEFERRED, State.PARKED, State.CONFIRMED):
        for query in (
            Query(state=state),
            Query(state=state, exchange="e"),
            Query(state=state, exchange="e", routing_key="k.#", accepted_before=NOW, accepted_after=NOW - 9),
            Query(state=state, reason="312", held=False),
            Query(state=state, ordering_key="o"),
        ):
            asked.transaction(partial(lambda query, store: store.listing.find(query), query))
            asked.transaction(partial(lambda query, store: store.listing.count(query), query))
    asked.transaction(lambda store: store.listing.content(first[30].id))
    assert asked.transaction(lambda store: store.listing.parked(3, 10)).seen == 3
    asked.transaction(lambda store: store.exports.page(0, 100, 1 << 20))
    asked.transaction(lambda store: store.listing.search("nobody's", first[30].id))
    (group,) = asked.transaction(lambda store: store.operations.returned(10, None))
    asked.transaction(lambda store: store.operations.returned(10, group))
    asked.transaction(lambda store: store.decisions.retry([first[30].id], False))
    for verb, place in ((Verb.RETRY, 32), (Verb.HOLD, 32), (Verb.RELEASE, 32), (Verb.DISCARD, 31)):
        decision = Decision(verb=verb, who="me", at=NOW, text="why")
        decided = asked.transaction(partial(_decide, decision, first[place].id))
        assert decided.ids == (first[place].id,)
    decision = Decision(verb=Verb.FLUSH, who="me", at=NOW)
    assert asked.transaction(lambda store: store.decisions.flush(decision)).wake == ("e",)
    for exchange in ("e", None):
        asked.transaction(partial(lambda name, store: store.decisions.pause(decision, name), exchange))
        asked.transaction(partial(lambda name, store: store.decisions.resume(decision, name), exchange))
    assert asked.transaction(lambda store: store.decisions.pauses()) == []
    asked.transaction(lambda store: store.operations.heal(group))


def _decide(decision: Decision, id: str, store: Store) -> Any:
    return store.decisions.decide(decision, [id])


def plan(connection: apsw.Connection, sql: str, bindings: Any) -> list[str]:
    """What SQLite would do, a sentence for each step."""
    return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, bindings)]


def test_what_is_done_all_the_time_reads_no_table_and_sorts_nothing(asked: Asked) -> None:
    a_busy_day(asked)
    asked.store.base.db.exec_trace = None
    slow = []
    kinds = set()
    for sql, bindings in sorted(asked.statements.items()):
        kinds.add(sql.split()[0])
        if sql.split()[0] in ("BEGIN", "COMMIT", "PRAGMA") or sql.endswith(EXCEPTIONS):
            continue
        for step in plan(asked.store.base.db, sql, bindings):
            if ("SCAN" in step and not HARMLESS.search(step)) or "TEMP B-TREE" in step:
                slow.append((step, sql))
    assert slow == []
    assert {"SELECT", "INSERT", "UPDATE", "DELETE"} <= kinds


def test_why_messages_are_parked_is_read_from_an_index_alone_up_to_a_number(asked: Asked) -> None:
    a_busy_day(asked)
    asked.store.base.db.exec_trace = None
    ((sql, bindings),) = [each for each in asked.statements.items() if "GROUP BY exchange, cause" in each[0]]
    steps = plan(asked.store.base.db, sql, bindings)
    assert "SEARCH message USING COVERING INDEX message_why (state=?)" in steps
    assert [step for step in steps if "SCAN message" in step] == []
    assert "LIMIT ?) GROUP BY" in sql, "what is sorted is not more than that"
