"""Writing what became of messages: settlements in batches, attempts that failed, expiry, purging."""

from __future__ import annotations

from array import array
from functools import partial
from typing import TYPE_CHECKING

from pubd import failpoints
from pubd.spool.base import TTL_PASSED, Swept
from pubd.spool.database import again, expect, listed
from pubd.spool.rows import COUNTERS, HEAD_COLUMNS, NUMBER_OF, PARKED, READY, size_of, unchecked_entry_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pubd.entry import Entry
    from pubd.ledger import Delivery
    from pubd.outcome import Outcome, Settlement
    from pubd.spool.database import Database

#: Free pages (of 4 KiB) that are never given back, and how many go in one sweep at most: few enough to go unnoticed.
KEEP_PAGES, SHRINK_PAGES = 2048, 512
#: Messages in one row of settlements: what is purged in one step.
BATCH = 2000


class Settlements:
    """Ends of messages, and steps towards them."""

    def __init__(self, base: Database) -> None:
        self._base = base
        self.shrunk = False
        """Pages were given back since this was last reset: the file shrinks with the next checkpoint."""

    def settle(self, confirmed: Sequence[Delivery], others: Sequence[Settlement], now: float) -> list[str]:
        """Write what became of claimed messages; exchanges in which an ordering key has a new head."""
        # By identity: the deliveries of one channel share their Via, and to hash it would cost more than all else here.
        ended: dict[int, list[Delivery]] = {}
        for delivery in confirmed:
            ended.setdefault(id(delivery.via), []).append(delivery)
        for deliveries in ended.values() if len(confirmed) <= BATCH else _parts(ended.values()):
            via = deliveries[0].via
            seqs = [delivery.entry.seq for delivery in deliveries]
            batch = self._base.new_batch(now, via, seqs, [delivery.tag for delivery in deliveries])
            self._base.db.execute(
                "UPDATE message SET state = 3, body = NULL, cause = NULL, code = NULL, text = NULL, tag = NULL, "
                "batch = ? WHERE seq IN carray(?)",
                (batch, listed(seqs)),
            )
        size = sum(delivery.size for delivery in confirmed)
        self._base.count(ready=-len(confirmed), confirmed=len(confirmed), bytes=-size)
        for change in others:
            self._change(change, now)
        entries = [delivery.entry for delivery in confirmed] + [change.entry for change in others]
        self._base.at_commit(lambda: self._base.claimed.difference_update([entry.seq for entry in entries]))
        return new_heads(self._base, {(entry.exchange, entry.ordering_key) for entry in entries if entry.ordering_key})

    def _change(self, change: Settlement, now: float) -> None:
        entry, shelf = change.entry, self._base.shelf(change.entry.exchange)
        reason, state = change.reason, NUMBER_OF[change.state]
        batch = self._base.new_batch(now, change.via, [entry.seq]) if state > PARKED else None
        self._base.db.execute(
            "UPDATE message SET state = ?, attempts = ?, due = ?, cause = ?, code = ?, text = ?, batch = ?, tag = ?, "
            f"body = {'NULL' if batch else 'body'} WHERE seq = ?",
            (
                state,
                change.attempts,
                change.due,
                reason.cause.value if reason else None,
                reason.code if reason else None,
                reason.text if reason else None,
                batch,
                change.tag,
                entry.seq,
            ),
        )
        if change.outcome is not None:
            self._attempt(change, change.outcome, now)
        self._base.count(**{"ready": -1})
        self._base.count(**{COUNTERS[state]: 1})
        if batch:
            self._base.count(bytes=-entry.size)
        if state == READY:
            self._base.at_commit(lambda: again(shelf, entry.seq))
        elif change.due is not None:
            self._base.at_commit(partial(expect, shelf, change.due))

    def _attempt(self, change: Settlement, outcome: Outcome, now: float) -> None:
        via, reason = change.via, change.reason
        self._base.db.execute(
            # Not the count of attempts, which an operator's retry begins anew: what came before is to stay known.
            "INSERT INTO attempt (seq, number, at, times, outcome, node, channel, tag, code, text) "
            "SELECT ?1, 1 + coalesce(max(number), 0), ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8 FROM attempt WHERE seq = ?1",
            (
                change.entry.seq,
                now,
                outcome.value,
                via.node if via else None,
                via.channel if via else None,
                change.tag,
                reason.code if reason else None,
                reason.text if reason else None,
            ),
        )

    def lose(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Note that RabbitMQ did not answer for these: one row a message, however often it happens (attempt 0)."""
        self._base.db.executemany(
            "INSERT INTO attempt (seq, number, at, times, outcome, node, channel, tag, code, text) "
            "VALUES (?, 0, ?, 1, 'lost', ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at, times = times + 1, "
            "node = excluded.node, channel = excluded.channel, tag = excluded.tag, code = excluded.code, "
            "text = excluded.text",
            [
                (
                    delivery.entry.seq,
                    now,
                    delivery.via.node if delivery.via else None,
                    delivery.via.channel if delivery.via else None,
                    delivery.tag,
                    delivery.reason.code if delivery.reason else None,
                    delivery.reason.text if delivery.reason else None,
                )
                for delivery in deliveries
            ],
        )

    def sweep(self, now: float, retain: float, limit: int) -> Swept:
        """Settle what has expired, forget what was settled longer than ``retain`` ago, about ``limit`` of each."""
        expired = self._expire(now, limit)
        wake = new_heads(self._base, {(entry.exchange, entry.ordering_key) for entry in expired if entry.ordering_key})
        swept = Swept(tuple(expired), self._purge(now - retain, limit), tuple(wake))
        if not swept.purged:
            self._shrink()
        return swept

    def _shrink(self) -> None:
        """Give some pages back to the disk, where most of the file is free: what little is free is used again soon."""
        (free,), (pages,) = self._base.one("PRAGMA freelist_count"), self._base.one("PRAGMA page_count")
        if free > max(KEEP_PAGES, pages // 2):
            self._base.rows(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
            self.shrunk = True

    def _expire(self, now: float, limit: int) -> list[Entry]:
        rows = self._base.rows(
            f"SELECT state, exchange, {HEAD_COLUMNS} FROM message WHERE state < 2 AND expires_at <= ? "
            "ORDER BY expires_at LIMIT ?",
            (now, limit + len(self._base.claimed)),
        )
        expired: list[Entry] = []
        for state, number, *row in rows:
            name = self._base.names[number]
            if row[0] not in self._base.claimed and len(expired) < limit:
                expired.append(unchecked_entry_of(row, name, self._base.ids))
                self._base.at_commit(partial(self._base.forget, self._base.shelves[name]))
                self._base.count(**{COUNTERS[state]: -1}, bytes=-size_of(name, row[1], row[-1]))
        if expired:
            seqs = [entry.seq for entry in expired]
            batch = self._base.new_batch(now, None, seqs)
            self._base.db.execute(
                "UPDATE message SET state = 4, due = NULL, body = NULL, batch = ?, tag = NULL, cause = ?, code = NULL, "
                "text = ? WHERE seq IN carray(?)",
                (batch, TTL_PASSED.cause.value, TTL_PASSED.text, listed(seqs)),
            )
            self._base.count(expired=len(expired))
        return expired

    def _purge(self, before: float, limit: int) -> int:
        purged = 0
        while purged < limit:
            row = self._base.db.execute("SELECT batch, at, seqs FROM settlement ORDER BY batch LIMIT 1").fetchone()
            if not row or row[1] >= before:
                break
            seqs = array("q", row[2])
            for table in ("message", "attempt", "decision", "idempotency"):
                self._base.db.execute(f"DELETE FROM {table} WHERE seq IN carray(?)", (listed(seqs),))
            failpoints.reach("during-purge")
            self._base.db.execute("DELETE FROM settlement WHERE batch = ?", (row[0],))
            purged += len(seqs)
        return purged


def _parts(batches: Iterable[list[Delivery]]) -> Iterator[list[Delivery]]:
    """The same in batches that are not too large to be purged at once, whatever the window is."""
    for deliveries in batches:
        for start in range(0, len(deliveries), BATCH):
            yield deliveries[start : start + BATCH]


def new_heads(base: Database, keys: Iterable[tuple[str, str]]) -> list[str]:
    """The first message of each key is claimable, if it is ready: the exchanges in which there are some."""
    exchanges = set()
    for exchange, ordering_key in keys:
        shelf = base.shelf(exchange)
        row = base.db.execute(
            "SELECT seq, state FROM message WHERE exchange = ? AND ordering_key = ? AND state < 3 ORDER BY seq LIMIT 1",
            (shelf.number, ordering_key),
        ).fetchone()
        if row and row[1] == READY and row[0] not in base.claimed:
            base.at_commit(partial(again, shelf, row[0]))
            exchanges.add(exchange)
    return list(exchanges)
