"""Claiming from the SQLite spool, in order, by batches."""

from __future__ import annotations

import enum
import heapq
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger

from pubd.outcome import Cause
from pubd.spool.database import again, expect
from pubd.spool.rows import COLUMNS, DEFERRED, READY, entry_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pubd.entry import Entry
    from pubd.spool.database import Database, Shelf

#: Deferred messages made ready by one claim at most, so that it never takes long; the next one goes on. So many are
#: remembered, more are read anew.
RIPE_BATCH, RIPE_FEW = 10_000, 1000
#: Messages that one claim looks at without finding any, as behind the head of an ordering key.
LOOKS = 5000
_CORRUPT = (Cause.CORRUPT.value, "its checksum does not match")


class Unfinished(enum.Enum):
    """No answer yet."""

    CLAIM = enum.auto()


class Claims:
    """What lanes take, and give back."""

    log = Logger()

    def __init__(self, base: Database) -> None:
        self._base = base
        self.may_write = True
        """False on a full disk: what is ready is claimed, what would have to be written first waits."""
        self.skipped: set[str] = set()
        """Exchanges for which there was something that had to wait for that."""
        self.kept = Counter[str]()
        """Messages, by exchange, whose settlements wait for room on a full disk. They count as claimed: whoever has a
        window of them open has no more than a window to publish again after a crash."""

    def claim(self, exchange: str, limit: int, max_bytes: int, now: float) -> list[Entry] | Unfinished:
        """The next ready messages. Damaged ones are parked on the way, deferred ones that are due become ready.

        Unfinished: there were none among those that were looked at, and there are more; claim once more.
        """
        shelf = self._base.shelves.get(exchange)
        limit -= self.kept[exchange]
        if shelf is None or limit < 1:
            return []
        if shelf.next_due is not None and shelf.next_due <= now:
            if self.may_write:
                self._ripen(shelf, now)
            else:
                self.skipped.add(exchange)
        claimed: list[Entry] = []
        damaged: set[int] = set()
        size = looked = 0
        self._base.at_roll_back(partial(self.release, claimed))
        for seq, entry in self._candidates(shelf, limit):
            looked += 1
            if entry is None:
                damaged.add(seq)
            elif self._claimable(shelf, entry, now):
                size += entry.size
                if claimed and size > max_bytes:
                    heapq.heappush(shelf.again, seq)
                    break
                claimed.append(entry)
                self._base.claimed.add(seq)
                if len(claimed) == limit:
                    break
            if looked >= LOOKS:
                break
        for seq in sorted(damaged):
            self._base.at_roll_back(partial(again, shelf, seq))
            if self.may_write:
                self._damaged(shelf, seq)
            else:
                again(shelf, seq)
                self.skipped.add(exchange)
        return claimed if claimed or looked < LOOKS else Unfinished.CLAIM

    def _candidates(self, shelf: Shelf, limit: int) -> Iterator[tuple[int, Entry | None]]:
        """Ready messages in order, each with its entry, or None where its row is damaged.

        One may come twice, if it became ready for two reasons (released, and head of its key); none that is claimed.
        """
        base = self._base
        while True:
            while shelf.again and shelf.again[0] < shelf.next_seq:
                seq = heapq.heappop(shelf.again)
                if seq in base.claimed:
                    continue
                row = base.db.execute(f"SELECT {COLUMNS} FROM message WHERE seq = ? AND state = 0", (seq,)).fetchone()
                if row:
                    yield seq, entry_of(row, shelf.name, base.ids)
            if shelf.fresh:
                seq, entry = shelf.fresh.popitem(last=False)
                base.fresh -= 1
                shelf.cursor = seq
                yield seq, entry
            elif shelf.caught_up:
                return
            else:
                yield from self._read_on(shelf, limit)

    def _read_on(self, shelf: Shelf, limit: int) -> Iterator[tuple[int, Entry | None]]:
        """The next rows above the cursor. One by one, because their bodies may be large, and max_bytes may end it."""
        read = 0
        for row in self._base.db.execute(
            f"SELECT {COLUMNS} FROM message WHERE state = 0 AND exchange = ? AND seq > ? ORDER BY seq LIMIT ?",
            (shelf.number, shelf.cursor, limit),
        ):
            read += 1
            shelf.cursor = row[0]
            if row[0] not in self._base.claimed:
                yield row[0], entry_of(row, shelf.name, self._base.ids)
        # All of them, and nothing is committed while the thread is here.
        shelf.caught_up = read < limit

    def _claimable(self, shelf: Shelf, entry: Entry, now: float) -> bool:
        if entry.expires_at is not None and entry.expires_at <= now:
            return False  # the next sweep settles it
        if entry.ordering_key is None:
            return True
        # Only the head of a key; its successor is claimed again when the head is settled.
        head = self._base.db.execute(
            "SELECT 1 FROM message WHERE exchange = ? AND ordering_key = ? AND state < 3 AND seq < ? LIMIT 1",
            (shelf.number, entry.ordering_key, entry.seq),
        ).fetchone()
        return head is None

    def _damaged(self, shelf: Shelf, seq: int) -> None:
        self._base.db.execute("UPDATE message SET state = 2, cause = ?, text = ? WHERE seq = ?", (*_CORRUPT, seq))
        self._base.count(ready=-1, parked=1)
        self.log.error(
            "message {id} for {exchange!r} is damaged in the spool and parked, not published; check the disk, "
            "then look at it with pubd export or discard it",
            id=self._base.ids.id_of(seq),
            exchange=shelf.name,
        )

    def _ripen(self, shelf: Shelf, now: float) -> None:
        self._base.at_roll_back(partial(expect, shelf, now))
        ripe = self._base.rows(
            "UPDATE message SET state = 0, due = NULL, cause = NULL, code = NULL, text = NULL "
            "WHERE seq IN (SELECT seq FROM message WHERE state = 1 AND exchange = ? AND due <= ? ORDER BY due LIMIT ?) "
            "RETURNING seq",
            (shelf.number, now, RIPE_BATCH),
        )
        if len(ripe) > RIPE_FEW:
            self._base.rewind(shelf, min(seq for (seq,) in ripe))
        else:
            for (seq,) in ripe:
                again(shelf, seq)
        self._base.count(ready=len(ripe), deferred=-len(ripe))
        (shelf.next_due,) = self._base.one(
            "SELECT min(due) FROM message WHERE state = 1 AND exchange = ?", (shelf.number,)
        )

    def release(self, entries: Sequence[Entry]) -> None:
        """Claimed messages are ready again in their old place."""
        for entry in entries:
            self._base.claimed.discard(entry.seq)
            heapq.heappush(self._base.shelves[entry.exchange].again, entry.seq)

    def backlog(self) -> list[str]:
        """Exchanges with ready or deferred messages."""
        shelves = self._base.shelves.values()
        return [shelf.name for shelf in shelves if self._any(READY, shelf) or self._any(DEFERRED, shelf)]

    def oldest(self) -> float | None:
        """When the first message that is ready or in flight was accepted. One look into an index for each exchange."""
        sql = "SELECT seq FROM message WHERE state = 0 AND exchange = ? ORDER BY seq LIMIT 1"
        shelves = self._base.shelves.values()
        firsts = [row[0] for shelf in shelves if (row := self._base.one(sql, (shelf.number,))) is not None]
        if not firsts:
            return None
        return self._base.one("SELECT accepted_at FROM message WHERE seq = ?", (min(firsts),))[0]  # type: ignore[no-any-return]  # a row of SQLite has no types

    def due(self, exchange: str, after: float) -> float | None:
        """When the next deferred message after ``after`` is due."""
        shelf = self._base.shelves.get(exchange)
        if shelf is None:
            return None
        (due,) = self._base.one(
            "SELECT min(due) FROM message WHERE state = 1 AND exchange = ? AND due > ?", (shelf.number, after)
        )
        return due  # type: ignore[no-any-return]  # a row of SQLite has no types

    def _any(self, state: int, shelf: Shelf) -> bool:
        sql = f"SELECT 1 FROM message WHERE state = {state} AND exchange = ? LIMIT 1"
        return self._base.db.execute(sql, (shelf.number,)).fetchone() is not None
