"""The durable spool: SQLite through apsw, WAL, synchronous=FULL, one connection on one thread.

Group commit: while a commit is synced, whatever else arrives waits in a list, and the next transaction takes all of
it, submissions and settlements alike. A lone submission finds the thread idle and is committed at once. Claims are
answered after the commit of their group, so that they see what woke them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from pubd import failpoints
from pubd.errors import PubdError, SpoolError, SpoolFailed, SpoolFull
from pubd.spool import faults, schema, traces, wal
from pubd.spool.ballast import Ballast
from pubd.spool.base import Books, Limits, each_alone
from pubd.spool.claims import Unfinished
from pubd.spool.ids import TAG_BITS, Ids
from pubd.spool.lock import SpoolLock
from pubd.spool.names import Names
from pubd.spool.snapshot import Copy, SqliteSnapshot
from pubd.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pubd.decision import Decision, Pause
    from pubd.entry import Entry
    from pubd.ledger import Delivery
    from pubd.outcome import Settlement
    from pubd.spool.base import (
        Accepted,
        Counted,
        Decided,
        Exported,
        Flushed,
        Page,
        Query,
        Record,
        Returned,
        Snapshot,
        Swept,
    )
    from pubd.spool.groups import Parked

#: Messages forgotten in one transaction, so that purging never holds up publishing for long.
PURGE_BATCH = 2000
#: Seconds before settlements that could not be written (disk full) are tried again.
RETRY = 1.0
#: How many requests of those go into one transaction.
KEPT_BATCH = 100
#: Milliseconds to wait for another process that has the file open.
BUSY = 5000
#: Pages in the WAL at which they are moved into the database: the WAL stays at about 16 MiB.
CHECKPOINT = 4000
#: Bytes of the disk that stay free where no ``min_free`` was given: what a full WAL needs, and what it may add to the
#: database. With less of it the settlements of what filled the disk could not be stored, and it would stay full.
RESERVE = 2 * CHECKPOINT * 4096
#: Bytes of the disk that are kept for a day on which others fill it, likewise.
BALLAST = RESERVE


@attrs.define(eq=False)
class _Op:
    """One request to the thread. ``writes`` ones share a transaction; ``keep`` ones are tried again on a full disk.

    For ``steers`` ones, an operator's decisions that may free it, the ballast is given back; without it they fail.

    ``apart`` ones are done after the others, outside of any transaction. ``settles`` are the deliveries and
    settlements that it writes.
    """

    call: Callable[[Store], Any]
    answer: Deferred[Any]
    writes: bool = True
    keep: bool = False
    steers: bool = False
    apart: bool = False
    settles: tuple[Sequence[Delivery], Sequence[Settlement]] = ((), ())
    result: Any = None

    def exchanges(self) -> Counter[str]:
        """How many messages of which it settles."""
        confirmed, others = self.settles
        return Counter([*(each.entry.exchange for each in confirmed), *(each.entry.exchange for each in others)])


class SqliteSpool:
    """Fulfils :class:`pubd.spool.base.Spool` in one SQLite file, created 0600.

    ``reactor`` is called from the thread with ``callFromThread``. ``vfs`` names an apsw VFS (for crash tests).
    ``failed`` is called once, on the reactor's thread, when the storage can no longer be trusted: the process should
    end and start again from the file.
    """

    durable = True
    records_confirmed = True
    log = Logger()

    def __init__(
        self,
        path: str | Path,
        *,
        reactor: Any,
        limits: Limits | None = None,
        wall: Callable[[], float] = time.time,
        failed: Callable[[SpoolFailed], None] = lambda _: None,
        vfs: str | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self._directory = str(self.path.parent)
        self._free_bytes: int | None = None
        self.ids: Ids | None = None
        self.timed: Callable[[float], None] = lambda _: None
        self._took: float | None = None
        """What the last commit of messages took (seconds), until that is told."""
        self._reactor = reactor
        self.limits = limits or Limits()
        self._wall = wall
        self._on_failed = failed
        self._vfs = vfs
        self._broken: SpoolFailed | None = None
        self._full = False
        """The last write found no room."""
        self._names: Names | None = None
        """None on a disk in memory."""
        self._lost = False
        """One of them is, and that was logged."""
        self._earlier: Path | None = None
        """What said, before it was opened, that there had been a spool."""
        self._refuse: Callable[[], SpoolError] | None = None
        self._books = Books()
        self._lock: SpoolLock | None = None
        self._thread: threading.Thread | None = None
        self._condition = threading.Condition(threading.Lock())
        self._waiting: list[_Op] = []
        self._closing = False
        self._closed: list[Deferred[None]] = []
        self._wal_pages = 0
        self._checkpoint_at = CHECKPOINT
        # A disk in memory has no other files.
        self._ballast = Ballast(self.path, 0 if vfs else BALLAST)
        self._copies: list[Copy] = []
        """The thread's own."""

    # Spool: on the reactor's thread

    def open(self) -> Deferred[None]:
        if self._thread is not None:
            return fail(SpoolError(f"the spool {self.path} is open already"))
        self._closing, self._closed, self._broken = False, [], None
        self._full, self._names, self._lost, self._refuse = False, None, False, None
        self._earlier = traces.earlier(self.path)
        try:
            # At once: whoever starts several services is to know before it starts the next one.
            self._lock = SpoolLock(self.path)
        except Exception as error:
            return fail(faults.translated(error, self.path))
        opened: Deferred[None] = Deferred()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="pubd-spool", daemon=True)
        self._thread.start()
        return opened

    def close(self) -> Deferred[None]:
        """Commit what waits, then close; fires when the file can be opened again. What could not be stored fails."""
        with self._condition:
            if self._thread is None:
                return succeed(None)
            closed: Deferred[None] = Deferred()
            self._closed.append(closed)
            self._closing = True
            self._condition.notify()
        return closed

    @property
    def refusal(self) -> PubdError | None:
        refuse = self._refuse
        return self._broken if refuse is None else refuse()

    def append(self, entries: Sequence[Entry]) -> Deferred[Sequence[Accepted]]:
        return self._ask(lambda store: store.submissions.append(entries))

    def append_each(self, entries: Sequence[Entry]) -> Deferred[Sequence[Accepted | PubdError]]:
        return self._ask(lambda store: each_alone(store.submissions.append, entries))

    def copy(self, entries: Sequence[Entry], parked: Sequence[Settlement]) -> Deferred[Collection[str]]:
        return self._ask(lambda store: store.submissions.copy(entries), keep=True, settles=((), parked))

    def claim(self, exchange: str, limit: int, max_bytes: int, now: float) -> Deferred[Sequence[Entry]]:
        return self._ask(lambda store: store.claims.claim(exchange, limit, max_bytes, now), writes=False)

    def release(self, entries: Sequence[Entry]) -> None:
        self._ask(lambda store: store.claims.release(entries), writes=False).addErrback(lambda _: None)

    def settle(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> Deferred[Collection[str]]:
        now = self._wall()
        settles = (confirmed, others)
        return self._ask(lambda store: store.settlements.settle(confirmed, others, now), keep=True, settles=settles)

    def backlog(self) -> Deferred[Collection[str]]:
        return self._ask(lambda store: store.claims.backlog(), writes=False)

    def oldest(self) -> Deferred[float | None]:
        return self._ask(lambda store: store.claims.oldest(), writes=False)

    def due(self, exchange: str, after: float) -> Deferred[float | None]:
        return self._ask(lambda store: store.claims.due(exchange, after), writes=False)

    def record(self, id: str) -> Deferred[Record | None]:
        return self._ask(lambda store: store.listing.record(id), writes=False)

    def find(self, query: Query) -> Deferred[Page]:
        return self._ask(lambda store: store.listing.find(query), writes=False)

    def count(self, query: Query) -> Deferred[Counted]:
        return self._ask(lambda store: store.listing.count(query), writes=False)

    def parked(self, limit: int, most: int) -> Deferred[Parked]:
        return self._ask(lambda store: store.listing.parked(limit, most), writes=False)

    def search(self, message_id: str, before: str | None = None) -> Deferred[Page]:
        return self._ask(lambda store: store.listing.search(message_id, before), writes=False)

    def content(self, id: str) -> Deferred[Entry | None]:
        return self._ask(lambda store: store.listing.content(id), writes=False)

    def books(self) -> Books:
        return self._books

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        now = self._wall()
        self._ask(lambda store: store.settlements.lose(deliveries, now), keep=True).addErrback(lambda _: None)
        self.release([delivery.entry for delivery in deliveries])

    def sweep(self, now: float, retain: float) -> Deferred[Swept]:
        return self._ask(partial(_sweep, now, retain))

    def retry(self, ids: Sequence[str], *, probing: bool = False) -> Deferred[Collection[str]]:
        return self._ask(lambda store: store.decisions.retry(ids, probing), steers=not probing)

    def returned(self, limit: int, after: Returned | None = None) -> Deferred[Sequence[Returned]]:
        return self._ask(lambda store: store.operations.returned(limit, after), writes=False)

    def heal(self, group: Returned) -> Deferred[Collection[str]]:
        return self._ask(lambda store: store.operations.heal(group))

    def discard(self, ids: Sequence[str], text: str) -> Deferred[Collection[str]]:
        now = self._wall()
        return self._ask(lambda store: store.decisions.discard(ids, now, text), steers=True)

    def decide(self, decision: Decision, ids: Sequence[str]) -> Deferred[Decided]:
        return self._ask(lambda store: store.decisions.decide(decision, ids), steers=True)

    def flush(self, decision: Decision | None) -> Deferred[Flushed]:
        return self._ask(lambda store: store.decisions.flush(decision), steers=True)

    def pause(self, decision: Decision, exchange: str | None) -> Deferred[bool]:
        return self._ask(lambda store: store.decisions.pause(decision, exchange), steers=True)

    def resume(self, decision: Decision, exchange: str | None) -> Deferred[bool]:
        return self._ask(lambda store: store.decisions.resume(decision, exchange), steers=True)

    def pauses(self) -> Deferred[Sequence[Pause]]:
        return self._ask(lambda store: store.decisions.pauses(), writes=False)

    def exported(self, after: str | None, limit: int, max_bytes: int) -> Deferred[Sequence[Exported]]:
        seq = 0 if after is None or self.ids is None else self.ids.seq_of(after)
        if seq is None:
            return succeed([])
        return self._ask(lambda store: store.exports.page(seq, limit, max_bytes), writes=False)

    def snapshot(self) -> Deferred[Snapshot]:
        return self._ask(self._begin_copy, writes=False, apart=True).addCallback(SqliteSnapshot, self._ask_apart)

    def _ask_apart(self, call: Callable[[], bool | None]) -> Deferred[bool]:
        return self._ask(lambda _: call(), writes=False, apart=True)

    def _ask(
        self,
        call: Callable[[Store], Any],
        *,
        writes: bool = True,
        keep: bool = False,
        steers: bool = False,
        apart: bool = False,
        settles: tuple[Sequence[Delivery], Sequence[Settlement]] = ((), ()),
    ) -> Deferred[Any]:
        if self._broken is not None:
            return fail(self._broken)
        op = _Op(call, Deferred(), writes, keep, steers, apart, settles)
        with self._condition:
            if self._thread is None or self._closing:
                return fail(SpoolError(f"the spool {self.path} is not open"))
            self._waiting.append(op)
            self._condition.notify()
        return op.answer

    def _deliver(self, ops: Sequence[_Op], books: Books, took: float | None = None) -> None:
        self._books = books
        if took is not None:
            self.timed(took)
        for op in ops:
            op.answer.callback(op.result)

    def _not_opened(self, opened: Deferred[None], problem: PubdError) -> None:
        self._end([], problem)
        opened.errback(problem)

    def _end(self, kept: Sequence[_Op], problem: PubdError | None) -> None:
        """The thread is over: what waits is answered with ``problem``, what was ``kept`` at least with why it was."""
        with self._condition:
            left, self._waiting = [*kept, *self._waiting], []
            self._thread = None
        for op in left:
            op.answer.callback(op.result if problem is None else Failure(problem))
        if self._broken is not None:
            self.log.critical("{error}", error=str(self._broken))
            self._on_failed(self._broken)
        closed, self._closed = self._closed, []
        for each in closed:
            each.callback(None)

    # On the spool's own thread

    def _run(self, opened: Deferred[None]) -> None:
        later = self._reactor.callFromThread
        try:
            connection, store = self._open_store()
        except Exception as error:
            problem = error if isinstance(error, PubdError) else faults.translated(error, self.path)
            later(self._not_opened, opened, problem)
            return
        self._books = store.base.books()
        later(opened.callback, None)
        kept: list[_Op] = []
        retry_at = 0.0
        closing = False
        while not closing and self._broken is None:
            short = self._short(kept)
            with self._condition:
                if not self._waiting and not self._closing:
                    self._condition.wait(max(0.0, retry_at - time.monotonic()) if short else None)
                arrived, self._waiting = self._waiting, []
                closing = self._closing
            # Not at each turn: on a full disk there may be many, and claims go on meanwhile.
            retrying = short and (closing or time.monotonic() >= retry_at)
            if retrying:
                kept = self._again(store, kept)
                self._room_again(store, kept)
            self._decide_what_is_refused(store)
            unstored = self._group(store, arrived)
            left = {*unstored, *self._unfinished(arrived, closing)}
            later(self._deliver, [op for op in arrived if op not in left], store.base.books(), self._took)
            self._took = None
            kept += unstored
            if (unstored or store.claims.skipped) and self._broken is None and self._make_room(store):
                kept = self._again(store, kept)
            if retrying or (self._short(kept) and not short):
                retry_at = time.monotonic() + RETRY
            self._decide_what_is_refused(store)
            self._checkpoint(connection, shrunk=store.settlements.shrunk)
            store.settlements.shrunk = False
        if self._broken is not None:
            # What is in the WAL is to be read anew, not to be written further by a connection that was deceived.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._close_store(connection)
        later(self._end, kept, self._broken)

    def _unfinished(self, ops: Sequence[_Op], closing: bool) -> list[_Op]:
        """Claims that have not found anything yet go on in the next group, so that others get their turn in between."""
        unfinished = [op for op in ops if op.result is Unfinished.CLAIM]
        if closing:
            for op in unfinished:
                op.result = []
            return []
        if unfinished:
            with self._condition:
                self._waiting[:0] = unfinished
        return unfinished

    def _checkpoint(self, connection: apsw.Connection, *, shrunk: bool) -> None:
        """Move the WAL into the database, when it is long enough. Not within a commit, where SQLite hides failures.

        Also when the database has ``shrunk``: its file does so only now.
        """
        if (self._wal_pages < self._checkpoint_at and not shrunk) or self._broken is not None:
            return
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except Exception as error:
            problem = faults.translated(error, self.path, connection.system_errno)
            if isinstance(problem, SpoolFailed):
                self._broken = problem
            # Without room for it the WAL stays as it is, and keeps what it has.
            self._checkpoint_at = self._wal_pages + CHECKPOINT
        else:
            self._checkpoint_at = CHECKPOINT

    def _make_room(self, store: Store) -> bool:
        """On a full disk: give the ballast back, and begin the WAL anew in the room that it has; whether there was any.

        From then on nothing new is accepted, until there is room for the ballast again.
        """
        if not self._ballast.give_back():
            return False
        self.log.warn("the disk of {path} is full: what is settled goes into the room kept for it", path=str(self.path))
        self._checkpoint(store.base.db, shrunk=True)
        return True

    def _room_again(self, store: Store, kept: Sequence[_Op]) -> None:
        if self._ballast.given_back and self._ballast.take(self._ask_free()):
            self.log.info("there is room again on the disk of {path}", path=str(self.path))
        if self._full and not kept and not self._ballast.given_back:
            self._full = False
            self._transaction(store, [_Op(lambda store: store.base.touch(), Deferred())])

    def _short(self, kept: Sequence[_Op]) -> bool:
        """Whether it is to be found out from time to time if there is room again."""
        return bool(kept) or self._ballast.given_back or self._full

    def _decide_what_is_refused(self, store: Store) -> None:
        full = partial(faults.full, self.path)
        refuse: Callable[[], SpoolError] | None = full if self._ballast.given_back else None
        if self._names is not None and (lost := self._names.lost()) is not None:
            refuse = partial(faults.nameless, self.path, lost)
            if not self._lost:
                self.log.critical("{error}", error=str(refuse()))
            self._lost = True
        elif self._lost:
            self._lost = False
            self.log.info("the files of {path} are back", path=str(self.path))
        store.submissions.refuse = refuse
        # A submission that is small enough may find room.
        self._refuse = refuse or (full if self._full else None)

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _again(self, store: Store, kept: list[_Op]) -> list[_Op]:
        """Commit and answer what found no room before, a part at a time, in case that there is room for some of it.

        Lanes that wait for it, because they have as much unsettled as they may, are woken by the answers.
        """
        while kept and self._transaction(store, kept[:KEPT_BATCH]):
            for op in kept[:KEPT_BATCH]:
                exchanges = op.exchanges()
                store.claims.kept -= exchanges
                if exchanges and not isinstance(op.result, Failure):
                    op.result = {*op.result, *exchanges}
            self._reactor.callFromThread(self._deliver, kept[:KEPT_BATCH], store.base.books())
            kept = kept[KEPT_BATCH:]
        return kept

    def _group(self, store: Store, ops: Sequence[_Op]) -> list[_Op]:
        """Commit and answer a group; those to be tried again."""
        kept: list[_Op] = []
        writes = [op for op in ops if op.writes]
        began = time.monotonic()
        if writes and self._transaction(store, writes):
            self._took = time.monotonic() - began
        elif writes:
            # Refuse what is new, so that there may be room for what is to be settled.
            kept = [op for op in writes if op.keep or op.steers]
            if kept and self._broken is None and self._transaction(store, kept):
                kept = []
            steers = self._full and any(op.steers for op in kept)
            if steers and self._broken is None and self._make_room(store) and self._transaction(store, kept):
                kept = []
            kept = [op for op in kept if op.keep]
            for op in kept:
                store.claims.kept += op.exchanges()
        reads = [op for op in ops if not op.writes and not op.apart]
        if reads and not self._transaction(store, reads):
            store.claims.may_write = False
            self._transaction(store, reads)
            store.claims.may_write = True
        for op in ops:
            if op.apart:
                self._do_apart(store, op)
        return kept

    def _do_apart(self, store: Store, op: _Op) -> None:
        """What fails here has nothing to do with what is stored."""
        try:
            op.result = op.call(store) if self._broken is None else Failure(self._broken)
        except PubdError as error:
            op.result = Failure(error)
        except Exception as error:
            op.result = Failure(SpoolError(f"{type(error).__name__}: {error}; please report this"))

    def _begin_copy(self, store: Store) -> Copy:
        copy = Copy(store.base.db, self.path, reserve=self._limits_now().min_free or 0)
        self._copies = [*(each for each in self._copies if each.open), copy]
        return copy

    def _transaction(self, store: Store, ops: Sequence[_Op]) -> bool:
        """One transaction for all; False if none of it has happened, then each op has the error as its result."""
        if self._broken is not None:
            for op in ops:
                op.result = Failure(self._broken)
            return False
        self._free_bytes = None
        try:
            store.base.begin()
            for op in ops:
                try:
                    op.result = op.call(store)
                except PubdError as refused:
                    op.result = Failure(refused)
            store.submissions.flush()
            failpoints.reach("before-commit")
            store.base.commit()
            failpoints.reach("after-commit")
        except Exception as error:
            problem = faults.translated(error, self.path, store.base.db.system_errno)
            store.base.roll_back()
            if isinstance(problem, SpoolFailed):
                self._broken = problem
            elif isinstance(problem, SpoolFull):
                self._full = True
            for op in ops:
                op.result = Failure(problem)
            return False
        return True

    def _open_store(self) -> tuple[apsw.Connection, Store]:
        connection: apsw.Connection | None = None
        try:
            traces.check(self.path)
            if self._vfs is None:
                self._keep_damaged_wal()
            self._create()
            connection = connect(self.path, self._vfs)
            connection.set_wal_hook(self._committed)
            self._wal_pages, self._checkpoint_at = 0, CHECKPOINT
            schema.migrate(connection, partial(self._back_up, connection))
            row = connection.execute("SELECT tag, last_seq FROM books").fetchone()
            new = row is None
            if row is None:
                row = (secrets.randbits(TAG_BITS), 0)
                connection.execute("INSERT INTO books (tag) VALUES (?)", row[:1])
            self.ids = Ids(row[0], row[1], self._wall)
            if not self._ballast.take(self._ask_free()):
                self.log.warn(
                    "the disk of {path} has too little room to keep some for a day on which it is full",
                    path=str(self.path),
                )
            if self._vfs is None:
                self._names = Names(self.path, traces.wal_of(self.path))
            store = Store(connection, self.ids, self._limits_now, self._free)
            self._tell(store.base.books(), new=new)
            return connection, store
        except BaseException:
            self._close_store(connection)
            raise

    def _tell(self, books: Books, *, new: bool) -> None:
        path = str(self.path)
        if not new:
            self.log.info(
                "spool {path}: {held} messages held ({ready} ready, {deferred} deferred, {parked} parked), "
                "{accepted} accepted so far",
                path=path,
                held=books.held,
                ready=books.ready,
                deferred=books.deferred,
                parked=books.parked,
                accepted=books.accepted,
            )
        elif self._earlier is None:
            self.log.info("spool {path} is new and empty", path=path)
        else:
            self.log.warn(
                "spool {path} is new and empty, and {earlier} says that there was one before: if its messages are "
                "missed, stop pubd and put its file back",
                path=path,
                earlier=str(self._earlier),
            )

    def _keep_damaged_wal(self) -> None:
        """It is not refused: after power was lost, what was never synced may look like it."""
        try:
            kept = wal.keep_damaged(traces.wal_of(self.path))
        except OSError as error:
            raise SpoolError(
                f"{traces.wal_of(self.path)} may be damaged, and cannot be copied before it is used ({error}): make "
                "room on its disk, or see what is wrong with that"
            ) from error
        if kept is not None:
            damage, copy = kept
            self.log.error(
                "{wal} {damage}; it is kept as {copy}. If power was lost, this may be what was never accepted; "
                "otherwise check the disk, and have submitted again what is missed",
                wal=str(traces.wal_of(self.path)),
                damage=str(damage),
                copy=str(copy),
            )

    def _create(self) -> None:
        """Make the file with its permissions before SQLite does with others; WAL and shm inherit them."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        os.close(fd)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _back_up(self, source: apsw.Connection, version: int) -> None:
        copy = self.path.with_name(f"{self.path.name}.schema-{version}.bak")
        self.log.info("upgrading the spool; its copy before that is {copy}", copy=str(copy))
        copy.touch(0o600)
        target = apsw.Connection(str(copy))
        with target.backup("main", source, "main") as backup:
            backup.step()
        target.close()

    def _limits_now(self) -> Limits:
        # Set on the reactor's thread: a frozen value, which is the one or the other.
        limits = self.limits
        return attrs.evolve(limits, min_free=RESERVE) if limits.min_free is None else limits

    def _free(self) -> int:
        """Asked once for each transaction: what one takes is little beside any reserve."""
        if self._free_bytes is None:
            self._free_bytes = self._ask_free()
        return self._free_bytes

    def _ask_free(self) -> int:
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize

    def _close_store(self, connection: apsw.Connection | None) -> None:
        for copy in self._copies:
            copy.close()
        self._copies.clear()
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close()
            self._ballast.leave()
        if self._lock is not None:
            self._lock.release()


def _sweep(now: float, retain: float, store: Store) -> Swept:
    """Lanes for which something was due when the disk was full look again, too."""
    swept = store.settlements.sweep(now, retain, PURGE_BATCH)
    if not store.claims.skipped:
        return swept
    store.base.at_commit(store.claims.skipped.clear)
    return attrs.evolve(swept, wake=(*swept.wake, *store.claims.skipped))


def connect(path: Path, vfs: str | None = None) -> apsw.Connection:
    """A connection with the settings on which the spool's promises rest."""
    connection = apsw.Connection(str(path), vfs=vfs)
    connection.set_busy_timeout(BUSY)
    # One process, one connection: no shared memory file, no lock to take for each transaction, and no other SQLite (of
    # an older version, as it may be) on the same WAL. Before the WAL is first used, or it is not so.
    connection.pragma("locking_mode", "exclusive")
    # Before the first table, to be able to give room back to the disk. Said again it would be written again, for which
    # a full disk has no room.
    if connection.pragma("auto_vacuum") != 2:
        connection.pragma("auto_vacuum", 2)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 2)
    connection.pragma("journal_size_limit", 64 << 20)
    connection.pragma("temp_store", 2)
    return connection
