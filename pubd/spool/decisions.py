"""What operators decide about messages and exchanges in the SQLite spool, and the record of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pubd.decision import MOST, MOST_OPERATIONS, Decision, Operation, Pause, Verb
from pubd.outcome import Cause
from pubd.spool.base import Decided, Flushed, copy_key
from pubd.spool.database import again, expect, listed
from pubd.spool.rows import COUNTERS, DEFERRED, DISCARDED, PARKED, READY, size_of, text_of
from pubd.spool.settlements import new_heads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.spool.database import Database

#: Deferred messages that one flush makes ready, so that it never takes long.
FLUSH_BATCH = 2000
#: So many of one exchange that became ready are remembered; more are read anew.
FEW = 100

_READY = "state = 0, due = NULL, cause = NULL, code = NULL, text = NULL"
# What it takes to count a message out, without its content, which may be large.
_ROW = (
    "seq, state, exchange, cause, due, CAST(ordering_key AS BLOB), CAST(routing_key AS BLOB), "
    "length(properties) + coalesce(length(body), 0)"
)


def _applies(verb: Verb, state: int, cause: str | None) -> bool:
    """Whether it can be done to an open message that is not in flight."""
    held = cause == Cause.HELD.value
    if verb is Verb.RETRY:
        return state == DEFERRED or (state == PARKED and not held)
    if verb is Verb.HOLD:
        return state != PARKED
    return held if verb is Verb.RELEASE else True


class Decisions:
    """A number of messages in a few statements; ids that are not this spool's are passed over."""

    def __init__(self, base: Database) -> None:
        self._base = base
        self.operations: list[Operation] = [
            Operation(decision=Decision(verb=Verb(verb), who=who, at=at, text=text), exchange=exchange)
            for at, verb, who, text, exchange in base.rows(
                "SELECT at, verb, who, text, exchange FROM operation ORDER BY number"
            )
        ]
        """The latest ones, as of the last commit."""

    def decide(self, decision: Decision, ids: Sequence[str]) -> Decided:
        """Carry it out, and note it with each message that it changed."""
        base = self._base
        seqs, wake = self.carry_out(decision.verb, ids, decision.text, decision.at)
        if seqs:
            base.db.execute(
                "INSERT INTO decision (seq, number, at, verb, who, text) "
                "SELECT seq, 1 + coalesce((SELECT max(number) FROM decision WHERE decision.seq = message.seq), 0), "
                "?, ?, ?, ? FROM message WHERE seq IN carray(?)",
                (decision.at, decision.verb.value, decision.who, decision.text, listed(seqs)),
            )
            base.db.execute(
                "DELETE FROM decision WHERE seq IN carray(?) AND number <= "
                f"(SELECT max(number) FROM decision AS newest WHERE newest.seq = decision.seq) - {MOST}",
                (listed(seqs),),
            )
        return Decided(tuple(map(base.ids.id_of, seqs)), tuple(wake))

    def retry(self, ids: Sequence[str], probing: bool) -> list[str]:
        """Without a record; the exchanges to wake."""
        return self.carry_out(Verb.RETRY, ids, "", 0.0, probing=probing)[1]

    def discard(self, ids: Sequence[str], now: float, text: str) -> list[str]:
        """Likewise; the ids of those dropped."""
        return [self._base.ids.id_of(seq) for seq in self.carry_out(Verb.DISCARD, ids, text, now)[0]]

    def carry_out(
        self, verb: Verb, ids: Sequence[str], text: str, now: float, *, probing: bool = False
    ) -> tuple[list[int], list[str]]:
        """The seqs of those that were changed, in the order of ``ids``, and the exchanges to wake."""
        base = self._base
        asked = list(dict.fromkeys(base.seqs(ids)))
        if not asked:
            return [], []
        rows = {
            row[0]: row
            for row in base.rows(f"SELECT {_ROW} FROM message WHERE seq IN carray(?) AND state < 3", (listed(asked),))
            if row[0] not in base.claimed and _applies(verb, row[1], row[3])
        }
        seqs = [seq for seq in asked if seq in rows]
        chosen = [rows[seq] for seq in seqs]
        if not chosen:
            return [], []
        if verb is Verb.RETRY:
            base.db.execute(f"UPDATE message SET {_READY}, attempts = 0 WHERE seq IN carray(?)", (listed(seqs),))
            parked = [] if probing else [(copy_key(base.ids.id_of(row[0])),) for row in chosen if row[1] == PARKED]
            if parked:
                base.db.executemany("DELETE FROM idempotency WHERE key = ?", parked)
            return seqs, self._moved(chosen, READY)
        if verb is Verb.RELEASE:
            return seqs, self._release(chosen, now)
        if verb is Verb.HOLD:
            self._hold(chosen, seqs, text)
            return seqs, []
        return seqs, self._discard(chosen, seqs, text, now)

    def _moved(self, rows: Sequence[Any], state: int) -> list[str]:
        """They are in ``state``, ready or parked, now; their exchanges."""
        base = self._base
        for row in rows:
            base.count(**{COUNTERS[row[1]]: -1})
        base.count(**{COUNTERS[state]: len(rows)})
        if state == READY:
            return self._ready([(row[0], row[2]) for row in rows])
        return list({base.names[row[2]] for row in rows})

    def _ready(self, rows: Sequence[tuple[int, int]]) -> list[str]:
        """Messages, each with the number of its exchange, became ready: their exchanges."""
        base = self._base
        by_exchange: dict[int, list[int]] = {}
        for seq, exchange in rows:
            by_exchange.setdefault(exchange, []).append(seq)
        for exchange, seqs in by_exchange.items():
            shelf = base.shelves[base.names[exchange]]
            if len(seqs) > FEW:
                base.at_commit(partial(base.rewind, shelf, min(seqs)))
            else:
                for seq in seqs:
                    base.at_commit(partial(again, shelf, seq))
        return [base.names[exchange] for exchange in by_exchange]

    def _hold(self, rows: Sequence[Any], seqs: Sequence[int], text: str) -> None:
        base = self._base
        base.db.execute(
            # A delay that was asked for goes on after the release.
            "UPDATE message SET state = 2, due = CASE WHEN state = 1 AND cause IS NULL THEN due END, cause = ?, "
            "code = NULL, text = ? WHERE seq IN carray(?)",
            (Cause.HELD.value, text, listed(seqs)),
        )
        for exchange in {row[2] for row in rows if row[1] == READY}:
            base.at_commit(partial(base.forget, base.shelves[base.names[exchange]]))
        self._moved(rows, PARKED)

    def _release(self, rows: Sequence[Any], now: float) -> list[str]:
        base = self._base
        waiting = [row for row in rows if row[4] is not None and row[4] > now]
        ready = [row for row in rows if row[4] is None or row[4] <= now]
        base.db.execute(
            "UPDATE message SET state = CASE WHEN due > ?1 THEN 1 ELSE 0 END, due = CASE WHEN due > ?1 THEN due END, "
            "cause = NULL, code = NULL, text = NULL WHERE seq IN carray(?2)",
            (now, listed([row[0] for row in rows])),
        )
        for _, _, exchange, _, due, *_ in waiting:
            base.at_commit(partial(expect, base.shelves[base.names[exchange]], due))
        base.count(parked=-len(waiting), deferred=len(waiting))
        return list({*self._moved(ready, READY), *(base.names[row[2]] for row in waiting)})

    def _discard(self, rows: Sequence[Any], seqs: Sequence[int], text: str, now: float) -> list[str]:
        base = self._base
        batch = base.new_batch(now, None, seqs)
        base.db.execute(
            "UPDATE message SET state = 5, due = NULL, body = NULL, batch = ?, tag = NULL, cause = ?, code = NULL, "
            "text = ? WHERE seq IN carray(?)",
            (batch, Cause.DISCARDED.value, text, listed(seqs)),
        )
        keys = set()
        for _, state, exchange, _, _, ordering_key, routing_key, content in rows:
            name = base.names[exchange]
            base.count(**{COUNTERS[state]: -1}, bytes=-size_of(name, routing_key, content))
            if ordering_key is not None:
                keys.add((name, text_of(ordering_key)))
        for exchange in {row[2] for row in rows}:
            base.at_commit(partial(base.forget, base.shelves[base.names[exchange]]))
        base.count(**{COUNTERS[DISCARDED]: len(rows)})
        return new_heads(base, keys)

    # About exchanges

    def flush(self, decision: Decision | None) -> Flushed:
        """Some of what is deferred because it failed is ready."""
        base = self._base
        rows = base.rows(
            f"UPDATE message SET {_READY} WHERE seq IN (SELECT seq FROM message INDEXED BY message_backed_off "
            "WHERE state = 1 AND cause IS NOT NULL AND seq > 0 ORDER BY seq LIMIT ?) RETURNING seq, exchange",
            (FLUSH_BATCH,),
        )
        wake = self._ready(rows)
        base.count(deferred=-len(rows), ready=len(rows))
        if decision is not None:
            self._note(Operation(decision=decision))
        return Flushed(len(rows), tuple(wake))

    def pause(self, decision: Decision, exchange: str | None) -> bool:
        """False where it was paused already: then it stays as it was."""
        base = self._base
        if base.one("SELECT 1 FROM pause WHERE exchange IS ?", (exchange,)) is not None:
            return False
        base.db.execute(
            "INSERT INTO pause (exchange, at, who, text) VALUES (?, ?, ?, ?)",
            (exchange, decision.at, decision.who, decision.text),
        )
        self._note(Operation(decision=decision, exchange=exchange))
        return True

    def resume(self, decision: Decision, exchange: str | None) -> bool:
        """False where it was not paused."""
        if not self._base.rows("DELETE FROM pause WHERE exchange IS ? RETURNING 1", (exchange,)):
            return False
        self._note(Operation(decision=decision, exchange=exchange))
        return True

    def pauses(self) -> list[Pause]:
        """All of them, the first one first."""
        return [
            Pause(exchange=exchange, at=at, who=who, text=text)
            for exchange, at, who, text in self._base.rows("SELECT exchange, at, who, text FROM pause ORDER BY rowid")
        ]

    def _note(self, operation: Operation) -> None:
        base, decision = self._base, operation.decision
        base.db.execute(
            "INSERT INTO operation (at, verb, who, text, exchange) VALUES (?, ?, ?, ?, ?)",
            (decision.at, decision.verb.value, decision.who, decision.text, operation.exchange),
        )
        base.db.execute(
            f"DELETE FROM operation WHERE number <= (SELECT max(number) FROM operation) - {MOST_OPERATIONS}"
        )
        base.at_commit(partial(self._remember, operation))

    def _remember(self, operation: Operation) -> None:
        self.operations = [*self.operations, operation][-MOST_OPERATIONS:]

    def of(self, seqs: Sequence[int]) -> dict[int, list[Decision]]:
        """The decisions about each of these messages, in order."""
        found: dict[int, list[Decision]] = {}
        for seq, at, verb, who, text in self._base.rows(
            "SELECT seq, at, verb, who, text FROM decision WHERE seq IN carray(?) ORDER BY seq, number",
            (listed(seqs),),
        ):
            found.setdefault(seq, []).append(Decision(verb=Verb(verb), who=who, at=at, text=text))
        return found
