"""The Spool protocol that every store fulfils, and the account it keeps.

A spool keeps accepted messages in order of acceptance. What a lane claims stays in the spool (*in flight* is not a
stored state) until it is settled; after a crash whatever was claimed is simply ready again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from twisted.internet.defer import Deferred

    from pubd.entry import Entry
    from pubd.outcome import Settlement


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


@attrs.frozen(kw_only=True)
class Limits:
    """Past any of these a submission is refused; None is no limit. ``min_free`` is the disk's; sizes in bytes."""

    max_bytes: int | None = None
    max_rows: int | None = None
    min_free: int | None = None


class Spool(Protocol):
    """Where accepted messages are kept. Everything goes in batches; a batch of one takes the same path."""

    durable: bool
    """Whether messages survive the end of the process."""

    def open(self) -> Deferred[None]:
        """Make ready for use. Errback: :class:`pubd.errors.SpoolError`, with what to do."""

    def backlog(self) -> Deferred[Collection[str]]:
        """Exchanges that have ready or deferred messages."""

    def due(self, exchange: str, after: float) -> Deferred[float | None]:
        """When (epoch seconds, later than ``after``) the next deferred message of ``exchange`` is due, if any is."""

    def append(self, entries: Sequence[Entry]) -> Deferred[None]:
        """Accept all of ``entries`` or none; fires once they are stored (and synced, if durable), numbered in order.

        Errback: :class:`pubd.errors.SpoolFull` naming the limit, or another :class:`pubd.errors.SpoolError`.
        """

    def claim(self, exchange: str, limit: int, max_bytes: int, now: float) -> Deferred[Sequence[Entry]]:
        """The next ready messages of ``exchange`` in order of acceptance, now in the hands of the caller.

        At most ``limit`` of them and, but for the first, at most ``max_bytes``. Deferred ones whose time has come
        (``now``, epoch seconds) are ready. Each is to be settled or released.
        """

    def release(self, entries: Sequence[Entry]) -> None:
        """Give claimed messages back as they were; they will be claimed again in their old place, no attempt spent."""

    def settle(self, confirmed: Sequence[Entry], others: Sequence[Settlement]) -> Deferred[None]:
        """End or change the state of claimed messages; fires once stored (and synced, if durable)."""

    def books(self) -> Books:
        """The account at this moment."""

    def close(self) -> Deferred[None]:
        """Finish what is under way and let go of the store."""
