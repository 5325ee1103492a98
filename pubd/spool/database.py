"""The database under the SQLite spool: one connection, one transaction helper, the books, and what is in flight.

Everything here runs on the spool's own thread. What is claimed is known by memory only: a cursor for each exchange
(everything ready above it has not been claimed in this run) and the seqs below it that are to be claimed again. Both
are small, whatever the backlog.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import apsw
import attrs

from pubd.spool.base import Books

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pubd.entry import Entry
    from pubd.outcome import Via
    from pubd.spool.ids import Ids

_BOOKS = ("accepted", "confirmed", "expired", "discarded", "ready", "deferred", "parked", "bytes")
_WRITE_BOOKS = f"UPDATE books SET {', '.join(f'{name} = :{name}' for name in (*_BOOKS, 'last_seq'))}"


@attrs.define(eq=False)
class Shelf:
    """What has been claimed of one exchange, and what need not be read because it has just been written."""

    name: str
    number: int
    cursor: int = 0
    again: list[int] = attrs.Factory(list)
    """Heap of seqs that are ready and to be claimed in their place; some may be claimed or settled by then."""
    caught_up: bool = False
    """Everything ready above the cursor is in ``fresh`` or ``again``: there is nothing to read."""
    fresh: OrderedDict[int, Entry] = attrs.Factory(OrderedDict)
    """Messages above the cursor as they were committed, in order."""
    next_due: float | None = 0.0
    """When something deferred may be due; None if nothing is deferred."""

    @property
    def next_seq(self) -> float:
        """Before which the cursor and ``fresh`` give nothing more; what they give next is this or later."""
        if self.fresh:
            return next(iter(self.fresh))
        return math.inf if self.caught_up else self.cursor + 1

    @property
    def known_to(self) -> float:
        """Above which reading on will come to everything that is ready; below it are ``fresh`` and ``again`` only."""
        return math.inf if self.caught_up else next(reversed(self.fresh), self.cursor)


class Database:
    """Not thread-safe: it belongs to one thread."""

    def __init__(self, connection: apsw.Connection, ids: Ids) -> None:
        self.db = connection
        self.ids = ids
        self.shelves: dict[str, Shelf] = {}
        self.names: dict[int, str] = {}
        self.claimed: set[int] = set()
        self.fresh = 0
        """Entries in the ``fresh`` of all shelves."""
        self._effects: list[Callable[[], None]] = []
        self._undo: list[Callable[[], None]] = []
        for number, name in connection.execute("SELECT number, name FROM exchange"):
            self._add(number, name)
        self._batch: int = self.one("SELECT coalesce(max(batch), 0) FROM settlement")[0]
        self._books: dict[str, int] = dict(zip(_BOOKS, self.one(f"SELECT {', '.join(_BOOKS)} FROM books"), strict=True))
        self._committed = dict(self._books)

    # Transactions

    def begin(self) -> None:
        """Everything until commit or roll_back is one transaction."""
        self.db.execute("BEGIN IMMEDIATE")

    def touch(self) -> None:
        """Write the first page as it is: whether the disk takes anything."""
        self.db.pragma("user_version", self.db.pragma("user_version"))

    def commit(self) -> None:
        """Write the books, commit and sync; if it raises, roll back: nothing of the transaction has happened."""
        if self._books != self._committed:
            self.db.execute(_WRITE_BOOKS, self._books | {"last_seq": self.ids.last_seq})
        self.db.execute("COMMIT")
        self._committed = dict(self._books)
        self._undo.clear()
        effects, self._effects = self._effects, []
        for effect in effects:
            effect()

    def roll_back(self) -> None:
        """Forget the transaction."""
        self._effects.clear()
        undo, self._undo = self._undo, []
        for each in undo:
            each()
        self._books = dict(self._committed)
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def at_commit(self, effect: Callable[[], None]) -> None:
        """What the transaction means for the memory: done when it is committed, forgotten when it is rolled back."""
        self._effects.append(effect)

    def at_roll_back(self, undo: Callable[[], None]) -> None:
        """How to take back what was done to the memory at once."""
        self._undo.append(undo)

    # The books

    def count(self, **changes: int) -> None:
        """Add to the books of the transaction under way."""
        for name, change in changes.items():
            self._books[name] += change

    @property
    def held(self) -> int:
        """Messages not settled, in the transaction under way."""
        return self._books["ready"] + self._books["deferred"] + self._books["parked"]

    @property
    def bytes(self) -> int:
        """Their size."""
        return self._books["bytes"]

    def books(self) -> Books:
        """As of the last commit."""
        books = self._committed
        in_flight = len(self.claimed)
        return Books(**(books | {"ready": books["ready"] - in_flight}), in_flight=in_flight)

    # Small things

    def one(self, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        """The first row."""
        return self.db.execute(sql, bindings).fetchone()

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
        """All rows."""
        return self.db.execute(sql, bindings).fetchall()

    def shelf(self, exchange: str) -> Shelf:
        """The shelf of an exchange, made if there is none."""
        shelf = self.shelves.get(exchange)
        if shelf is None:
            (number,) = self.one(
                "INSERT INTO exchange (name) VALUES (?) ON CONFLICT DO UPDATE SET name = name RETURNING number",
                (exchange,),
            )
            shelf = self._add(number, exchange)
            # Its row goes with the transaction; another exchange would get the number.
            self.at_roll_back(partial(self._remove, shelf))
        return shelf

    def forget(self, shelf: Shelf) -> None:
        """Rows changed behind ``fresh``: read on from the cursor."""
        self.fresh -= len(shelf.fresh)
        shelf.fresh.clear()
        shelf.caught_up = False

    def rewind(self, shelf: Shelf, seq: int) -> None:
        """Many messages from ``seq`` on became ready: read on from there, so that none of them is kept in memory."""
        self.forget(shelf)
        shelf.cursor = min(shelf.cursor, seq - 1)

    def _add(self, number: int, name: str) -> Shelf:
        shelf = self.shelves[name] = Shelf(name, number)
        self.names[number] = name
        return shelf

    def _remove(self, shelf: Shelf) -> None:
        del self.shelves[shelf.name], self.names[shelf.number]

    def seqs(self, ids: Sequence[str]) -> Iterator[int]:
        """The seqs of those ids that are this spool's."""
        return (seq for seq in map(self.ids.seq_of, ids) if seq is not None)

    def new_batch(self, at: float, via: Via | None, seqs: Sequence[int], tags: Sequence[int] = ()) -> int:
        """A new row of settlements that have time and channel in common; ``tags`` go with the seqs."""
        self._batch = batch = self._batch + 1
        self.db.execute(
            "INSERT INTO settlement (batch, at, node, channel, seqs, tags) VALUES (?, ?, ?, ?, ?, ?)",
            (
                batch,
                at,
                via.node if via else None,
                via.channel if via else None,
                array("q", seqs).tobytes(),
                array("q", tags).tobytes(),
            ),
        )
        return batch


def again(shelf: Shelf, seq: int) -> None:
    """A message became ready: unless something else will come to it, it is claimed by its number."""
    if seq <= shelf.known_to and seq not in shelf.fresh:
        heapq.heappush(shelf.again, seq)


def listed(seqs: Iterable[int]) -> Any:
    """Seqs for ``WHERE seq IN carray(?)``: one statement for a batch, and so one release of the interpreter's lock."""
    return apsw.carray(array("q", seqs))


def expect(shelf: Shelf, due: float) -> None:
    """A message was deferred."""
    if shelf.next_due is None or due < shelf.next_due:
        shelf.next_due = due
