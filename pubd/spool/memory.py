"""A spool in memory: for the example's short way in, for tests, and for what may be lost with the process."""

from __future__ import annotations

import heapq
import math
import secrets
import time
from collections import deque
from copy import copy
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from pubd.decision import MOST, MOST_OPERATIONS, Decision, Operation, Pause, Verb, concerning
from pubd.errors import IdempotencyConflict, SpoolFull, SpoolWithoutFile
from pubd.outcome import Cause, Outcome, Reason, Settlement, State, Via
from pubd.spool.base import (
    TTL_PASSED,
    Accepted,
    Attempt,
    Books,
    Counted,
    Decided,
    Exported,
    Flushed,
    Limits,
    Page,
    Record,
    Returned,
    Swept,
    accepted,
    copy_key,
    each_alone,
)
from pubd.spool.groups import Group, Parked
from pubd.spool.ids import TAG_BITS, Ids
from pubd.spool.matching import Matching
from pubd.spool.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from pubd.entry import Entry
    from pubd.errors import PubdError
    from pubd.ledger import Delivery
    from pubd.spool.base import Query, Snapshot

DEFAULT_MAX_BYTES = 1 << 30
#: Messages that one call looks at, when they are listed.
STEP = 5000
#: Messages expired, and messages forgotten, by one sweep.
SWEEP_BATCH = 2000


@attrs.define(eq=False)
class _Note:
    """What is to be known of a message beyond that it is ready or in flight."""

    state: State = State.READY
    due: float | None = None
    reason: Reason | None = None
    failures: dict[int, Attempt] = attrs.Factory(dict)
    decisions: tuple[Decision, ...] = ()


_PLAIN = _Note()


class MemorySpool:
    """Fulfils :class:`pubd.spool.base.Spool` without a disk: what it holds ends with the process.

    ``wall`` gives epoch seconds. ``max_bytes`` stands for limits that name no other; ``min_free`` is not looked at.
    Messages confirmed at their first attempt, without an idempotency key, are counted and forgotten, so that the
    memory goes with what is held; every other one has its record until it is swept.
    """

    durable = False
    records_confirmed = False
    refusal: PubdError | None = None

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        wall: Callable[[], float] = time.time,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self.ids: Ids | None = Ids(secrets.randbits(TAG_BITS), 0, wall)
        self._ids = self.ids
        self.timed: Callable[[float], None] = lambda _: None
        self.limits = limits or Limits(max_bytes=max_bytes)
        self._wall = wall
        self._shelves: dict[str, Shelf] = {}
        self._held: dict[int, Entry] = {}
        """Everything not settled, by seq."""
        self._claimed: set[int] = set()
        self._notes: dict[int, _Note] = {}
        self._parked: set[int] = set()
        self._expiring: list[tuple[float, int]] = []
        """Heap; what is settled or parked by its time is passed over then."""
        self._keys: dict[str, tuple[int, bytes]] = {}
        self._records: dict[int, Record] = {}
        self._rests: dict[int, Entry] = {}
        """What was settled, without its body; as ``_records``."""
        self._settled: deque[tuple[float, int, str | None]] = deque()
        """When, seq and idempotency key of everything in ``_records``."""
        self._pauses: dict[str | None, Pause] = {}
        self._operations: list[Operation] = []
        self._accepted = 0
        self._deferred = 0
        self._bytes = 0
        self._ended = dict.fromkeys((State.CONFIRMED, State.EXPIRED, State.DISCARDED), 0)

    def open(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)

    def backlog(self) -> Deferred[Collection[str]]:
        return succeed([name for name, shelf in self._shelves.items() if shelf.held > shelf.parked])

    def oldest(self) -> Deferred[float | None]:
        # In order of acceptance. What is neither ready nor in flight is passed over: 10 ms for 100,000 parked ones.
        notes = self._notes
        for seq, entry in self._held.items():
            note = notes.get(seq)
            if note is None or note.state is State.READY:
                return succeed(entry.accepted_at)
        return succeed(None)

    def due(self, exchange: str, after: float) -> Deferred[float | None]:
        shelf = self._shelves.get(exchange)
        return succeed(shelf.next_due(after, self._is_due) if shelf is not None else None)

    # Submission

    def append(self, entries: Sequence[Entry]) -> Deferred[Sequence[Accepted]]:
        try:
            return succeed(self._append(entries))
        except (IdempotencyConflict, SpoolFull) as refused:
            return fail(refused)

    def append_each(self, entries: Sequence[Entry]) -> Deferred[Sequence[Accepted | PubdError]]:
        return succeed(each_alone(self._append, entries))

    def copy(
        self,
        entries: Sequence[Entry],
        parked: Sequence[Settlement],  # noqa: ARG002  # the protocol's: here nothing has to wait for room
    ) -> Deferred[Collection[str]]:
        self._append(entries, Limits())
        return succeed({entry.exchange for entry in entries})

    def _append(self, entries: Sequence[Entry], limits: Limits | None = None) -> list[Accepted]:
        """All of them; raises before anything is changed."""
        fresh, answers = self._known(entries)
        size = sum(entry.size for entry in fresh)
        limits = limits or self.limits
        limits.check(held=len(self._held), bytes=self._bytes, rows=len(fresh), size=size, free=None)
        for entry in fresh:
            shelf = self._shelves.get(entry.exchange)
            if shelf is None:
                shelf = self._shelves[entry.exchange] = Shelf()
            self._held[entry.seq] = entry
            shelf.held += 1
            if entry.due is None:
                shelf.fresh.append(entry)
            else:
                self._defer(entry, entry.due, self._note(entry.seq))
            if entry.ordering_key is not None:
                shelf.keys.setdefault(entry.ordering_key, deque()).append(entry.seq)
            if entry.expires_at is not None:
                heapq.heappush(self._expiring, (entry.expires_at, entry.seq))
            if entry.idempotency_key is not None:
                self._keys[entry.idempotency_key] = (entry.seq, entry.fingerprint)
        self._accepted += len(fresh)
        self._bytes += size
        return answers

    def _known(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Accepted]]:
        """Which of them are new, and the answer for each. Raises IdempotencyConflict."""
        fresh: list[Entry] = []
        answers: list[Accepted] = []
        seen: dict[str, Entry] = {}
        for entry in entries:
            key = entry.idempotency_key
            if key is not None:
                known = self._keys.get(key) or self._own(key, entry.fingerprint)
                first = seen.setdefault(key, entry)
                if (known[1] if known else first.fingerprint) != entry.fingerprint:
                    raise IdempotencyConflict(key)
                if known or first is not entry:
                    answers.append(self._again(known[0]) if known else accepted(first, new=False))
                    continue
            fresh.append(entry)
            answers.append(accepted(entry, new=True))
        return fresh, answers

    def _own(self, key: str, fingerprint: bytes) -> tuple[int, bytes] | None:
        """What an export gives as key to a message that had none: its id."""
        seq = self._ids.seq_of_key(key)
        return (seq, fingerprint) if seq is not None and (seq in self._held or seq in self._records) else None

    def _again(self, seq: int) -> Accepted:
        record = self._record(seq)
        assert record is not None, "a key is forgotten with its message"
        return Accepted(record.id, record.message_id, record.state, False, record.attempts, record.reason)

    # Claims

    def claim(self, exchange: str, limit: int, max_bytes: int, now: float) -> Deferred[Sequence[Entry]]:
        shelf = self._shelves.get(exchange)
        if shelf is None:
            return succeed([])
        for entry in shelf.ripe(now, self._held, self._is_due):
            self._ready(entry)
        claimed: list[Entry] = []
        size = 0
        while len(claimed) < limit and (candidate := shelf.pop()) is not None:
            if not self._claimable(shelf, candidate, now):
                continue
            size += candidate.size
            if claimed and size > max_bytes:
                shelf.put_back(candidate)
                break
            self._claimed.add(candidate.seq)
            claimed.append(candidate)
        return succeed(claimed)

    def _claimable(self, shelf: Shelf, entry: Entry, now: float) -> bool:
        """Shelves may show a message that is settled, claimed or not ready any more, or not yet the head of its key."""
        seq = entry.seq
        return (
            self._is_ready(seq)
            # What has expired is settled by the next sweep.
            and (entry.expires_at is None or entry.expires_at > now)
            and (entry.ordering_key is None or shelf.head(entry.ordering_key, self._held) == seq)
        )

    def _is_ready(self, seq: int) -> bool:
        return seq in self._held and seq not in self._claimed and self._notes.get(seq, _PLAIN).state is State.READY

    def _is_due(self, seq: int, due: float) -> bool:
        """Whether the message is still deferred until then."""
        note = self._notes.get(seq)
        return note is not None and note.due == due and note.state is State.DEFERRED

    def release(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._claimed.remove(entry.seq)
            # Ours, whatever was done to the one that was claimed.
            self._shelves[entry.exchange].put_back(self._held[entry.seq])

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        now = self._wall()
        for delivery in deliveries:
            note = self._note(delivery.entry.seq)
            times = note.failures[0].times + 1 if 0 in note.failures else 1
            note.failures[0] = _attempt(0, now, times, Outcome.LOST, delivery.via, delivery.tag, delivery.reason)
        self.release([delivery.entry for delivery in deliveries])

    # Settlement

    def settle(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> Deferred[Collection[str]]:
        now = self._wall()
        heads: set[tuple[str, str]] = set()
        for delivery in confirmed:
            entry = delivery.entry
            self._claimed.remove(entry.seq)
            if entry.idempotency_key is not None or entry.seq in self._notes:
                self._remember(entry, State.CONFIRMED, None, now, delivery.via, delivery.tag)
            self._end(entry, State.CONFIRMED, heads)
        for change in others:
            self._change(change, now, heads)
        return succeed(self._new_heads(heads))

    def _change(self, change: Settlement, now: float, heads: set[tuple[str, str]]) -> None:
        entry, shelf = self._held[change.entry.seq], self._shelves[change.entry.exchange]
        note = self._note(entry.seq)
        self._claimed.remove(entry.seq)
        entry.attempts = change.attempts
        note.reason = change.reason
        if change.outcome is not None:
            number = 1 + max(note.failures, default=0)
            note.failures[number] = _attempt(number, now, 1, change.outcome, change.via, change.tag, change.reason)
        if change.state is State.DEFERRED:
            assert change.due is not None, "what is deferred has a time"
            self._defer(entry, change.due, note)
        elif change.state is State.READY:
            shelf.put_back(entry)
        elif change.state is State.PARKED:
            note.state = State.PARKED
            shelf.parked += 1
            self._parked.add(entry.seq)
        else:
            self._remember(entry, change.state, change.reason, now, change.via, change.tag)
            self._end(entry, change.state, heads)

    def _defer(self, entry: Entry, due: float, note: _Note) -> None:
        note.state, note.due = State.DEFERRED, due
        self._shelves[entry.exchange].defer(entry.seq, due)
        self._deferred += 1

    def _end(self, entry: Entry, state: State, heads: set[tuple[str, str]]) -> None:
        """The message, not in flight any more, is settled."""
        seq = entry.seq
        shelf = self._shelves[entry.exchange]
        note = self._notes.pop(seq, None)
        if note is not None:
            self._leave(seq, shelf, note)
        del self._held[seq]
        self._bytes -= entry.size
        self._ended[state] += 1
        shelf.held -= 1
        if not shelf.held:
            del self._shelves[entry.exchange]
        elif entry.ordering_key is not None:
            heads.add((entry.exchange, entry.ordering_key))

    def _leave(self, seq: int, shelf: Shelf, note: _Note) -> None:
        """Deferred or parked no more."""
        if note.state is State.DEFERRED:
            self._deferred -= 1
        elif note.state is State.PARKED:
            self._parked.remove(seq)
            shelf.parked -= 1
        note.state, note.due, note.reason = State.READY, None, None

    def _remember(
        self, entry: Entry, state: State, reason: Reason | None, at: float, via: Via | None, tag: int | None
    ) -> None:
        self._records[entry.seq] = attrs.evolve(
            self._open_record(entry.seq, entry),
            state=state,
            in_flight=False,
            due=None,
            reason=reason,
            settled_at=at,
            via=via,
            tag=tag,
        )
        rest = self._rests[entry.seq] = copy(entry)
        rest.body = b""
        self._settled.append((at, entry.seq, entry.idempotency_key))

    def _new_heads(self, keys: Iterable[tuple[str, str]]) -> list[str]:
        """The first message of each key is claimable, if it is ready; the exchanges in which there are some."""
        wake: set[str] = set()
        for exchange, key in keys:
            shelf = self._shelves.get(exchange)
            head = shelf.head(key, self._held) if shelf is not None else None
            if shelf is not None and head is not None and self._is_ready(head):
                shelf.put_back(self._held[head])
                wake.add(exchange)
        return list(wake)

    # Time

    def sweep(self, now: float, retain: float) -> Deferred[Swept]:
        expired: list[Entry] = []
        later: list[tuple[float, int]] = []
        heads: set[tuple[str, str]] = set()
        while self._expiring and self._expiring[0][0] <= now and len(expired) < SWEEP_BATCH:
            at, seq = heapq.heappop(self._expiring)
            if seq in self._claimed:
                later.append((at, seq))
            elif seq in self._held and seq not in self._parked:
                entry = self._held[seq]
                self._remember(entry, State.EXPIRED, TTL_PASSED, now, None, None)
                self._end(entry, State.EXPIRED, heads)
                expired.append(entry)
        for each in later:
            heapq.heappush(self._expiring, each)
        return succeed(Swept(tuple(expired), self._purge(now - retain), tuple(self._new_heads(heads))))

    def _purge(self, before: float) -> int:
        purged = 0
        while self._settled and self._settled[0][0] < before and purged < SWEEP_BATCH:
            _, seq, key = self._settled.popleft()
            del self._records[seq], self._rests[seq]
            # It may belong to another message by now: see retry.
            if key is not None and self._keys.get(key, (None,))[0] == seq:
                del self._keys[key]
            purged += 1
        return purged

    # Operations

    def retry(self, ids: Sequence[str], *, probing: bool = False) -> Deferred[Collection[str]]:
        return succeed(self._carry_out(Verb.RETRY, ids, "", self._wall(), probing=probing)[1])

    def discard(self, ids: Sequence[str], text: str) -> Deferred[Collection[str]]:
        return succeed(self._carry_out(Verb.DISCARD, ids, text, self._wall())[0])

    def decide(self, decision: Decision, ids: Sequence[str]) -> Deferred[Decided]:
        changed, wake = self._carry_out(decision.verb, ids, decision.text, decision.at, decision)
        return succeed(Decided(tuple(changed), tuple(wake)))

    def _carry_out(
        self,
        verb: Verb,
        ids: Sequence[str],
        text: str,
        now: float,
        decision: Decision | None = None,
        probing: bool = False,
    ) -> tuple[list[str], list[str]]:
        """The ids of those that were changed, and the exchanges to wake. ``decision`` is noted with each."""
        changed: list[str] = []
        wake: set[str] = set()
        heads: set[tuple[str, str]] = set()
        for seq in self._seqs(ids):
            entry = self._held.get(seq)
            if entry is None or seq in self._claimed or not _applies(verb, self._notes.get(seq, _PLAIN)):
                continue
            if decision is not None:
                note = self._note(seq)
                note.decisions = (*note.decisions, decision)[-MOST:]
            changed.append(entry.id)
            if verb is Verb.HOLD:
                self._hold(entry, text)
            elif verb is Verb.DISCARD:
                self._remember(entry, State.DISCARDED, Reason(cause=Cause.DISCARDED, text=text), now, None, None)
                self._end(entry, State.DISCARDED, heads)
            elif verb is Verb.RELEASE:
                wake.add(self._let_go(entry, now))
            else:
                if seq in self._parked and not probing:
                    self._keys.pop(copy_key(entry.id), None)
                wake.add(self._revive(entry))
        wake.update(self._new_heads(heads))
        return changed, list(wake)

    def _hold(self, entry: Entry, text: str) -> None:
        note, shelf = self._note(entry.seq), self._shelves[entry.exchange]
        # A delay that was asked for goes on after the release.
        due = note.due if note.reason is None else None
        self._leave(entry.seq, shelf, note)
        note.state, note.due, note.reason = State.PARKED, due, Reason(cause=Cause.HELD, text=text)
        shelf.parked += 1
        self._parked.add(entry.seq)

    def _let_go(self, entry: Entry, now: float) -> str:
        """What is held is as it was."""
        note = self._notes[entry.seq]
        due = note.due
        if entry.expires_at is not None:
            heapq.heappush(self._expiring, (entry.expires_at, entry.seq))
        self._ready(entry)
        if due is not None and due > now:
            self._defer(entry, due, note)
        return entry.exchange

    def _revive(self, entry: Entry) -> str:
        entry.attempts = 0
        if entry.expires_at is not None:
            heapq.heappush(self._expiring, (entry.expires_at, entry.seq))
        self._ready(entry)
        return entry.exchange

    def _ready(self, entry: Entry) -> None:
        shelf = self._shelves[entry.exchange]
        self._leave(entry.seq, shelf, self._notes[entry.seq])
        shelf.put_back(entry)

    def flush(self, decision: Decision | None) -> Deferred[Flushed]:
        backed_off = [
            seq for seq, note in self._notes.items() if note.state is State.DEFERRED and note.reason is not None
        ]
        for seq in backed_off:
            self._ready(self._held[seq])
        if decision is not None:
            self._operate(Operation(decision=decision))
        return succeed(Flushed(len(backed_off), tuple({self._held[seq].exchange for seq in backed_off})))

    def pause(self, decision: Decision, exchange: str | None) -> Deferred[bool]:
        if exchange in self._pauses:
            return succeed(False)
        self._pauses[exchange] = Pause(exchange=exchange, at=decision.at, who=decision.who, text=decision.text)
        self._operate(Operation(decision=decision, exchange=exchange))
        return succeed(True)

    def resume(self, decision: Decision, exchange: str | None) -> Deferred[bool]:
        if self._pauses.pop(exchange, None) is None:
            return succeed(False)
        self._operate(Operation(decision=decision, exchange=exchange))
        return succeed(True)

    def pauses(self) -> Deferred[Sequence[Pause]]:
        return succeed(tuple(self._pauses.values()))

    def _operate(self, operation: Operation) -> None:
        self._operations = [*self._operations, operation][-MOST_OPERATIONS:]

    def returned(self, limit: int, after: Returned | None = None) -> Deferred[Sequence[Returned]]:
        groups: dict[tuple[str, str], str] = {}
        for seq in sorted(self._parked):
            if self._was_returned(seq):
                entry = self._held[seq]
                groups.setdefault((entry.exchange, entry.routing_key), entry.id)
        last = (after.exchange, after.routing_key) if after is not None else ("",)
        return succeed([Returned(*group, groups[group]) for group in sorted(groups) if group > last][:limit])

    def heal(self, group: Returned) -> Deferred[Collection[str]]:
        entries = [self._held[seq] for seq in self._parked if self._was_returned(seq)]
        route = (group.exchange, group.routing_key)
        healed = [entry for entry in entries if (entry.exchange, entry.routing_key) == route]
        for entry in healed:
            self._revive(entry)
        return succeed([entry.id for entry in healed])

    def _was_returned(self, seq: int) -> bool:
        reason = self._notes[seq].reason
        return reason is not None and reason.cause is Cause.RETURNED

    def record(self, id: str) -> Deferred[Record | None]:
        seq = self._ids.seq_of(id)
        return succeed(self._record(seq) if seq is not None else None)

    def find(self, query: Query) -> Deferred[Page]:
        seqs, more = self._look(query, max(query.limit, 1))
        records = [record for seq in seqs if (record := self._record(seq)) is not None]
        return succeed(Page(tuple(records), self._ids.id_of(more) if more is not None else None))

    def count(self, query: Query) -> Deferred[Counted]:
        seqs, more = self._look(query, None)
        return succeed(Counted(len(seqs), self._ids.id_of(more) if more is not None else None))

    def parked(self, limit: int, most: int) -> Deferred[Parked]:
        found: dict[tuple[str, Reason | None], list[int]] = {}
        seqs = sorted(self._parked)[:limit]
        for seq in seqs:
            found.setdefault((self._held[seq].exchange, self._notes[seq].reason), []).append(seq)
        # The first of each stands before those of the ones that were found later.
        largest = sorted(found.items(), key=lambda group: -len(group[1]))[:most]
        groups = tuple(
            Group(
                exchange=exchange,
                reason=reason,
                count=len(group),
                oldest=self._held[group[0]].accepted_at,
                id=self._held[group[0]].id,
            )
            for (exchange, reason), group in largest
        )
        return succeed(Parked(groups=groups, others=len(found) - len(groups), seen=len(seqs)))

    def _look(self, query: Query, limit: int | None) -> tuple[list[int], int | None]:
        """The seqs of some messages, and where to go on."""
        after = self._ids.seq_of(query.after) if query.after is not None else 0
        matching = Matching(query)
        if after is None or matching.is_impossible:
            return [], None
        found: list[int] = []
        looked, last = 0, after
        for seq in self._in_order(query.state):
            if seq <= after:
                continue
            if looked == STEP:
                return found, last
            looked, last = looked + 1, seq
            if self._is_asked_for(seq, query, matching):
                found.append(seq)
                if len(found) == limit:
                    return found, seq
        return found, None

    def _in_order(self, state: State | None) -> Iterable[int]:
        """The seqs of all messages that may be in the state."""
        if state is State.PARKED:
            return sorted(self._parked)
        if state is State.DEFERRED:
            return sorted(seq for seq, note in self._notes.items() if note.state is state)
        # What is held stands in order of acceptance; what is settled does not.
        return heapq.merge(self._held, sorted(self._records))

    def _is_asked_for(self, seq: int, query: Query, matching: Matching) -> bool:
        entry = self._held.get(seq)
        if entry is None:
            entry, settled = self._rests[seq], self._records[seq]
            state, reason = settled.state, settled.reason
        else:
            note = self._notes.get(seq, _PLAIN)
            state, reason = note.state, note.reason
        return (
            query.state in (None, state)
            and query.exchange in (None, entry.exchange)
            and matching.message_fits(entry.routing_key, entry.ordering_key, entry.accepted_at)
            and matching.reason_fits(
                reason.cause.value if reason else None, reason.code if reason else None, reason.text if reason else None
            )
        )

    def search(self, message_id: str, before: str | None = None) -> Deferred[Page]:
        end = self._ids.seq_of(before) if before is not None else math.inf
        if end is None:
            return succeed(Page((), None))
        # Those that pubd named are found by their id.
        seqs = [seq for seq, entry in self._held.items() if entry.message_id == message_id != entry.id]
        seqs += [seq for seq, record in self._records.items() if record.message_id == message_id != record.id]
        records = [record for seq in sorted(seqs, reverse=True) if seq < end and (record := self._record(seq))]
        return succeed(Page(tuple(records), None))

    def content(self, id: str) -> Deferred[Entry | None]:
        seq = self._ids.seq_of(id)
        if seq is None:
            return succeed(None)
        return succeed(self._held.get(seq) or self._rests.get(seq))

    def exported(self, after: str | None, limit: int, max_bytes: int) -> Deferred[Sequence[Exported]]:
        seq = self._ids.seq_of(after) if after is not None else 0
        found: list[Exported] = []
        size = 0
        # In order of acceptance, as they were stored.
        for entry in self._held.values() if seq is not None else ():
            if seq is not None and entry.seq > seq:
                size += entry.size
                if len(found) == limit or (found and size > max_bytes):
                    break
                note = self._notes.get(entry.seq, _PLAIN)
                shown = copy(entry)
                shown.due = note.due
                found.append(Exported(shown, note.state, False))
        return succeed(found)

    def snapshot(self) -> Deferred[Snapshot]:
        return fail(
            SpoolWithoutFile("the spool is in memory: there is no file to copy; 'pubd export' gives what is open")
        )

    def books(self) -> Books:
        ended, in_flight, parked = self._ended, len(self._claimed), len(self._parked)
        return Books(
            accepted=self._accepted,
            confirmed=ended[State.CONFIRMED],
            expired=ended[State.EXPIRED],
            discarded=ended[State.DISCARDED],
            ready=len(self._held) - in_flight - parked - self._deferred,
            deferred=self._deferred,
            parked=parked,
            in_flight=in_flight,
            bytes=self._bytes,
        )

    def _seqs(self, ids: Sequence[str]) -> list[int]:
        return [seq for seq in map(self._ids.seq_of, ids) if seq is not None]

    def _note(self, seq: int) -> _Note:
        note = self._notes.get(seq)
        if note is None:
            note = self._notes[seq] = _Note()
        return note

    def _record(self, seq: int) -> Record | None:
        entry = self._held.get(seq)
        if entry is None:
            settled = self._records.get(seq)
            return self._with_operations(settled) if settled is not None else None
        return self._with_operations(self._open_record(seq, entry))

    def _with_operations(self, record: Record) -> Record:
        decisions = concerning(
            record.decisions,
            self._operations,
            exchange=record.exchange,
            accepted_at=record.accepted_at,
            settled_at=record.settled_at,
        )
        return record if decisions == record.decisions else attrs.evolve(record, decisions=decisions)

    def _open_record(self, seq: int, entry: Entry) -> Record:
        note = self._notes.get(seq, _PLAIN)
        return Record(
            id=entry.id,
            message_id=entry.message_id,
            exchange=entry.exchange,
            routing_key=entry.routing_key,
            state=note.state,
            in_flight=seq in self._claimed,
            attempts=entry.attempts,
            accepted_at=entry.accepted_at,
            principal=entry.principal,
            due=note.due,
            reason=note.reason,
            settled_at=None,
            via=None,
            tag=None,
            failures=tuple(sorted(note.failures.values(), key=lambda each: (each.at, each.number))),
            decisions=note.decisions,
        )


def _applies(verb: Verb, note: _Note) -> bool:
    """Whether it can be done to an open message that is not in flight."""
    held = note.reason is not None and note.reason.cause is Cause.HELD
    if verb is Verb.RETRY:
        return note.state is not State.READY and not held
    if verb is Verb.HOLD:
        return note.state is not State.PARKED
    return held if verb is Verb.RELEASE else True


def _attempt(
    number: int, at: float, times: int, outcome: Outcome, via: Via | None, tag: int | None, reason: Reason | None
) -> Attempt:
    return Attempt(
        number,
        at,
        times,
        outcome.value,
        via.node if via else None,
        via.channel if via else None,
        tag,
        reason.code if reason else None,
        reason.text if reason else None,
    )
