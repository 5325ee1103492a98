"""The Spool protocol that every store fulfils, and the account it keeps.

A spool keeps accepted messages in order of acceptance. What a lane claims stays in the spool (*in flight* is not a
stored state) until it is settled; after a crash whatever was claimed is simply ready again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from pubd.errors import IdempotencyConflict, PubdError, SpoolFull
from pubd.outcome import Cause, Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from twisted.internet.defer import Deferred

    from pubd.decision import Decision, Pause
    from pubd.entry import Entry
    from pubd.ledger import Delivery
    from pubd.outcome import Settlement, Via
    from pubd.spool.groups import Parked
    from pubd.spool.ids import Ids

#: Why a message is in the state expired.
TTL_PASSED = Reason(cause=Cause.TTL, text="before it could be published")


@attrs.frozen(kw_only=True)
class Limits:
    """Past any of these a submission is refused; None is no limit. ``min_free`` is the disk's; sizes in bytes.

    Where ``min_free`` is 0 the disk's own word decides; where it is None a store on a disk takes what it needs itself.
    """

    max_bytes: int | None = None
    max_rows: int | None = None
    min_free: int | None = None

    def check(self, *, held: int, bytes: int, rows: int, size: int, free: Callable[[], int] | None) -> None:
        """Raise SpoolFull if ``rows`` more messages of ``size`` bytes would pass a limit; ``free`` asks the disk."""
        if not rows:
            return
        if self.max_bytes is not None and bytes + size > self.max_bytes:
            raise SpoolFull(
                "max_bytes",
                f"{bytes:,} of {self.max_bytes:,} bytes are held and {size:,} more were submitted; "
                "wait until messages are confirmed, or raise the limit",
            )
        if self.max_rows is not None and held + rows > self.max_rows:
            raise SpoolFull(
                "max_rows",
                f"{held:,} of {self.max_rows:,} messages are held and {rows:,} more were submitted; "
                "wait until messages are confirmed, or raise the limit",
            )
        if self.min_free and free is not None and (left := free()) - size < self.min_free:
            raise SpoolFull(
                "min_free",
                f"the disk has {left:,} bytes free and {self.min_free:,} are kept in reserve; make room on it",
            )


@attrs.frozen(kw_only=True)
class Books:
    """How many messages the spool took, and where each of them is now."""

    accepted: int = 0
    confirmed: int = 0
    expired: int = 0
    discarded: int = 0
    ready: int = 0
    deferred: int = 0
    parked: int = 0
    in_flight: int = 0
    """Claimed by a lane and not settled yet."""
    bytes: int = 0
    """Size of everything that is still held."""

    @property
    def held(self) -> int:
        """Messages that pubd still answers for."""
        return self.ready + self.deferred + self.parked + self.in_flight

    @property
    def difference(self) -> int:
        """accepted - (confirmed + expired + discarded + held): anything but 0 is an alarm."""
        return self.accepted - (self.confirmed + self.expired + self.discarded + self.held)


@attrs.define
class Accepted:
    """The spool's answer for one entry: the message that it is now, or was already (``new`` false).

    Not frozen, because one is made for each submission, and attrs freezes at twice the cost.
    """

    id: str
    message_id: str
    state: State
    new: bool
    attempts: int = 0
    reason: Reason | None = None


def each_alone(
    append: Callable[[Sequence[Entry]], Sequence[Accepted]], entries: Sequence[Entry]
) -> list[Accepted | PubdError]:
    """What ``append``, which takes all or raises before it changes anything, says of each entry alone, in order."""
    try:
        return list(append(entries))
    except (IdempotencyConflict, SpoolFull) as refused:
        if len(entries) == 1:
            return [refused]
    # By halves: of a large batch with one wrong entry only a few appends are repeated.
    half = len(entries) // 2
    return each_alone(append, entries[:half]) + each_alone(append, entries[half:])


def accepted(entry: Entry, *, new: bool) -> Accepted:
    """The answer for an entry of the submission under way."""
    state = State.READY if entry.due is None else State.DEFERRED
    return Accepted(entry.id, entry.message_id, state, new)


@attrs.frozen
class Attempt:
    """A delivery that did not end as confirmed, numbered from 1 through all retries of the message.

    Lost ones share an entry with number 0, and ``times`` counts them.
    """

    number: int
    at: float
    times: int
    outcome: str
    node: str | None
    channel: int | None
    tag: int | None
    code: int | None
    text: str | None


@attrs.frozen
class Returned:
    """Messages parked as returned that share exchange and routing key; ``first`` is the id of the oldest."""

    exchange: str
    routing_key: str
    first: str


def copy_key(id: str) -> str:
    """The idempotency key of the copy that is made of a parked message: there is one, until a person retries it."""
    return f"x-pubd-parked:{id}"


@attrs.frozen(kw_only=True)
class Record:
    """What the spool knows of one message, without its body."""

    id: str
    message_id: str
    exchange: str
    routing_key: str
    state: State
    in_flight: bool
    attempts: int
    accepted_at: float
    principal: str | None
    """Who handed it in, where that is known."""
    due: float | None
    reason: Reason | None
    """Why it is deferred, parked, expired or discarded."""
    settled_at: float | None
    via: Via | None
    tag: int | None
    """The delivery that settled it, if one did."""
    failures: tuple[Attempt, ...]
    decisions: tuple[Decision, ...] = ()
    """What operators decided about it, and about its exchange while it was held."""


@attrs.frozen
class Decided:
    """``ids`` of the messages that a decision changed, in the order in which they were given; exchanges to ``wake``."""

    ids: tuple[str, ...]
    wake: tuple[str, ...]


@attrs.frozen
class Flushed:
    """How many messages a flush made ready, and the exchanges of these."""

    count: int
    wake: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Query:
    """Which messages are to be listed, in order of acceptance. What is None does not matter.

    ``routing_key`` is a pattern as in a topic binding; ``reason`` a reply code, or a part of the cause or of the text;
    ``held``: whether an operator holds it. ``accepted_after`` is inclusive, ``accepted_before`` not (epoch seconds).
    ``after`` is the id of the last message seen; ``limit`` counts messages.
    """

    state: State | None = None
    exchange: str | None = None
    routing_key: str | None = None
    ordering_key: str | None = None
    reason: str | None = None
    held: bool | None = None
    accepted_before: float | None = None
    accepted_after: float | None = None
    limit: int = 100
    after: str | None = None


@attrs.frozen
class Page:
    """Messages in order of acceptance. ``next`` is what to ask for ``after``; None: there are no more.

    A page may be short, or empty, and have a ``next``: a spool looks at a bounded number of messages at a time.
    """

    records: tuple[Record, ...]
    next: str | None


@attrs.frozen
class Exported:
    """One open message; ``damaged`` ones fail their checksum, and what is left of them may be wrong."""

    entry: Entry
    state: State
    damaged: bool


class Snapshot(Protocol):
    """A copy of the spool's file, made step by step; the spool goes on meanwhile, and what it commits is in it.

    ``fd`` is the file, without a name, to be read once the copy is done. To be closed in any case.
    """

    fd: int

    def step(self) -> Deferred[bool]:
        """Copy a little more, some milliseconds; whether all is copied. Fails with SpoolError: start anew."""

    def close(self) -> None:
        """Give it up, or be done with it."""


@attrs.frozen
class Counted:
    """How many of the messages looked at were asked for; ``next`` as of :class:`Page`."""

    count: int
    next: str | None


@attrs.frozen
class Swept:
    """What a sweep did: messages that expired, how many settled ones were forgotten, exchanges to wake.

    The ``expired`` may come without their properties and bodies.
    """

    expired: tuple[Entry, ...]
    purged: int
    wake: tuple[str, ...]


class Spool(Protocol):
    """Where accepted messages are kept. Everything goes in batches; a batch of one takes the same path.

    Times are epoch seconds. A Deferred fails with :class:`pubd.errors.SpoolError`, and then nothing of it has happened.
    """

    durable: bool
    """Whether messages survive the end of the process."""
    records_confirmed: bool
    """Whether what was confirmed at once, without an idempotency key, has a record too until it is swept."""
    timed: Callable[[float], None]
    """Called with how long each commit took, in seconds, where there are any."""
    limits: Limits
    """Past which submissions are refused; others may be set at any time, and hold for the next one."""
    ids: Ids | None
    """Numbers entries (``seq``, ``id``) before they are appended; None until the spool is open."""

    @property
    def refusal(self) -> PubdError | None:
        """Why a submission would be refused now, as far as the store itself knows: what holds until somebody acts.

        A full disk is one as of the last commit, and is tried again each second; limits are not looked at.
        """

    def open(self) -> Deferred[None]:
        """Make ready for use."""

    def close(self) -> Deferred[None]:
        """Finish what is under way and let go of the store."""

    def backlog(self) -> Deferred[Collection[str]]:
        """Exchanges that have ready or deferred messages."""

    def oldest(self) -> Deferred[float | None]:
        """When the first of the messages that are ready or in flight was accepted; None if there are none."""

    def due(self, exchange: str, after: float) -> Deferred[float | None]:
        """When (later than ``after``) the next deferred message of ``exchange`` is due, if any is."""

    def append(self, entries: Sequence[Entry]) -> Deferred[Sequence[Accepted]]:
        """Accept all of ``entries`` or none; fires once they are stored (and synced, if durable), in order.

        An ``idempotency_key`` that is known with the same fingerprint gives the message it belongs to instead of a new
        one, with another fingerprint :class:`pubd.errors.IdempotencyConflict`; so does one that is the id of a message
        of this spool that it still knows, as exports have it for those without a key. Past a limit it fails with
        :class:`pubd.errors.SpoolFull` naming it.
        """

    def append_each(self, entries: Sequence[Entry]) -> Deferred[Sequence[Accepted | PubdError]]:
        """As :meth:`append`, but each one is accepted or refused on its own; refusals stand in its place."""

    def copy(self, entries: Sequence[Entry], parked: Sequence[Settlement]) -> Deferred[Collection[str]]:
        """Store copies of messages that are about to be ``parked``; the exchanges to wake.

        As part of settling them: no limit refuses copies, and on a full disk they wait for room.
        """

    def claim(self, exchange: str, limit: int, max_bytes: int, now: float) -> Deferred[Sequence[Entry]]:
        """The next ready messages of ``exchange`` in order of acceptance, now in the hands of the caller.

        At most ``limit`` of them and, but for the first, at most ``max_bytes``. Deferred ones whose time has come are
        ready; expired ones are passed over; of an ordering key only the first unsettled message is given. Each is to
        be settled or released.
        """

    def release(self, entries: Sequence[Entry]) -> None:
        """Give claimed messages back as they were; they will be claimed again in their old place, no attempt spent."""

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        """Release the messages of lost deliveries, and note the loss in their records."""

    def settle(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> Deferred[Collection[str]]:
        """End or change the state of claimed messages; fires once stored (and synced, if durable).

        Gives the exchanges in which the next message of an ordering key became claimable.
        """

    def sweep(self, now: float, retain: float) -> Deferred[Swept]:
        """Settle what has expired and forget what was settled more than ``retain`` seconds ago; a bounded number."""

    def retry(self, ids: Sequence[str], *, probing: bool = False) -> Deferred[Collection[str]]:
        """Make parked and deferred messages ready, attempts counted anew; the exchanges to wake.

        The keys of their copies (:func:`copy_key`) are forgotten, so that who is parked again is copied again; not if
        it is only ``probing`` whether RabbitMQ would take them by now.

        Not what an operator holds. Nobody's decision, and so without a record: for healing.
        """

    def discard(self, ids: Sequence[str], text: str) -> Deferred[Collection[str]]:
        """Settle messages that are not in flight as discarded, for the reason ``text``; the ids of those discarded."""

    def decide(self, decision: Decision, ids: Sequence[str]) -> Deferred[Decided]:
        """Do to messages that are not in flight what an operator decided, and note it in their records; one commit.

        RETRY makes parked and deferred ones ready, attempts counted anew, but not those that are held. HOLD parks ready
        and deferred ones, as :attr:`pubd.outcome.Cause.HELD`. RELEASE makes held ones what they were, with their
        attempts, in their old places: deferred if a delay that was asked for is not over, else ready. DISCARD settles
        whatever is open. The others are left as they are.
        """

    def flush(self, decision: Decision | None) -> Deferred[Flushed]:
        """Make some of the messages ready that are deferred because RabbitMQ did not take them.

        A bounded number, and none that was to be delayed. The ``decision``, if there is one, is noted.
        """

    def pause(self, decision: Decision, exchange: str | None) -> Deferred[bool]:
        """Note that nothing is to be published to ``exchange`` (None: at all); False: it was so already.

        The spool itself goes on giving what is claimed.
        """

    def resume(self, decision: Decision, exchange: str | None) -> Deferred[bool]:
        """End the pause of exactly this ``exchange`` (None: that of all); False: there was none."""

    def pauses(self) -> Deferred[Sequence[Pause]]:
        """Those in force, the first one first; as durable as the messages."""

    def returned(self, limit: int, after: Returned | None = None) -> Deferred[Sequence[Returned]]:
        """Up to ``limit`` groups of messages parked as returned, by exchange and routing key, from ``after`` on.

        Fewer than ``limit`` are the last ones.
        """

    def heal(self, group: Returned) -> Deferred[Collection[str]]:
        """Make the oldest parked messages of ``group`` ready, attempts counted anew; their ids.

        A bounded number: called again and again, it gives none once nothing of the group is parked.
        """

    def record(self, id: str) -> Deferred[Record | None]:
        """What is known of a message; None if nothing is, or no more."""

    def find(self, query: Query) -> Deferred[Page]:
        """List messages; never looks at so many at once that publishing would wait."""

    def count(self, query: Query) -> Deferred[Counted]:
        """Count messages, whatever the ``limit``; likewise."""

    def parked(self, limit: int, most: int) -> Deferred[Parked]:
        """Why messages are parked: the first ``limit`` of them by exchange and reason, at ``most`` so many groups.

        The largest group is the first, of two of one size that with the older message. A few milliseconds for
        thousands.
        """

    def search(self, message_id: str, before: str | None = None) -> Deferred[Page]:
        """Those that the application gave this ``message_id``, the last one accepted first, as :meth:`find` lists.

        No index leads to them, which each message would pay for: a bounded number is looked at, and ``next`` is what to
        give as ``before`` to look on. None: everything was looked at.
        """

    def content(self, id: str) -> Deferred[Entry | None]:
        """The message itself; without its body once it is settled, None if nothing is known of it.

        What is damaged in the store comes as it is.
        """

    def exported(self, after: str | None, limit: int, max_bytes: int) -> Deferred[Sequence[Exported]]:
        """The next open messages, whole, in order of acceptance after the one with this id, settled or not.

        At most ``limit`` and, but for the first, ``max_bytes``; none: there are no more. An id that is not this
        spool's gives none.
        """

    def snapshot(self) -> Deferred[Snapshot]:
        """Begin a copy of the file. Fails with SpoolError where there is none, SpoolFull if the disk has no room."""

    def books(self) -> Books:
        """The account as of the last commit."""
