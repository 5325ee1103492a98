"""The supply of the lanes: what they publish comes from the spool here, what became of it goes back here.

Outcomes become settlements; these are committed; only then receipts are told and whoever waits behind is woken.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pubd import failpoints
from pubd.amqp.encode import aged
from pubd.errors import SpoolError
from pubd.outcome import Outcome, State
from pubd.settle import settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pubd.entry import Entry
    from pubd.ledger import Delivery
    from pubd.outcome import Settlement
    from pubd.parked import ParkedLog
    from pubd.policy import Policies
    from pubd.receipt import Receipts
    from pubd.spool.base import Spool
    from pubd.wakeups import Wakeups


class Settling:
    """Fulfils :class:`pubd.amqp.lane.Supply`.

    ``answered`` is called with deliveries that have their outcome; ``parked`` with settlements that will park their
    messages, before these are committed, and its Deferred is waited for; ``done`` after each commit, with what it
    settled. ``count_spool_time`` lowers AMQP expirations by the time that messages have spent in the spool.
    """

    log = Logger()

    def __init__(
        self,
        *,
        spool: Spool,
        policies: Policies,
        receipts: Receipts,
        wakeups: Wakeups,
        wake: Callable[[Collection[str]], None],
        wall: Callable[[], float],
        random: Callable[[], float],
        count_spool_time: bool = False,
        parked_log: ParkedLog,
        parked: Callable[[Sequence[Settlement]], Deferred[None]],
        answered: Callable[[Sequence[Delivery]], None] = lambda _: None,
        done: Callable[[Sequence[Delivery], Sequence[Settlement]], None],
    ) -> None:
        self._spool = spool
        self._policies = policies
        self._receipts = receipts
        self._wakeups = wakeups
        self._wake = wake
        self._wall = wall
        self._random = random
        self.count_spool_time = count_spool_time
        self._parked_log = parked_log
        self._parked = parked
        self._answered = answered
        self._done = done
        self.counts = dict.fromkeys(Outcome, 0)
        self.under_way = 0
        """Batches of settlements that are not committed yet."""

    def claim(self, exchange: str, limit: int, max_bytes: int) -> Deferred[Sequence[Entry]]:
        """See :class:`pubd.amqp.lane.Supply`."""
        now = self._wall()
        claimed = self._spool.claim(exchange, limit, max_bytes, now)
        return claimed.addCallback(_aged, now) if self.count_spool_time else claimed

    def release(self, entries: Sequence[Entry]) -> None:
        """See :class:`pubd.amqp.lane.Supply`."""
        self._spool.release(entries)

    def outcomes(self, deliveries: Sequence[Delivery]) -> None:
        """See :class:`pubd.amqp.lane.Supply`."""
        confirmed: list[Delivery] = []
        lost: list[Delivery] = []
        others: list[Settlement] = []
        now = self._wall()
        for delivery in deliveries:
            if delivery.outcome is Outcome.CONFIRMED:
                confirmed.append(delivery)
                continue
            entry = delivery.entry
            policy = self._policies.of(entry.exchange, entry.routing_key)
            change = settlement(delivery, policy, now, self._random)
            if change is None:
                lost.append(delivery)
            else:
                others.append(change)
                self.counts[change.outcome or Outcome.LOST] += 1
        self.counts[Outcome.CONFIRMED] += len(confirmed)
        self.counts[Outcome.LOST] += len(lost)
        if lost:
            self._spool.lose(lost)
        self._answered(deliveries)
        failpoints.reach("after-ack")
        parked = [change for change in others if change.state is State.PARKED]
        if parked:
            self.under_way += 1
            Deferred.fromCoroutine(self._park(parked)).addErrback(self._broken)
            others = [change for change in others if change.state is not State.PARKED]
        if confirmed or others:
            self.under_way += 1
            self._commit(confirmed, others).addErrback(self._broken)

    async def _park(self, parked: Sequence[Settlement]) -> None:
        """For themselves: their copies may have to wait for room on a full disk."""
        try:
            await self._parked(parked)
        except SpoolError as error:
            self.log.error("parked messages could not be copied: {error}", error=str(error))
        except Exception:
            # Parked they are all the same, or they would stay in flight for good.
            self.log.failure("parked messages could not be copied")
        await self._commit([], parked)

    def _commit(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> Deferred[Any]:
        stored = self._spool.settle(confirmed, others)
        stored.addBoth(self._committed)
        return stored.addCallback(self._tell, confirmed, others)

    def _committed(self, result: Any) -> Any:
        self.under_way -= 1
        return result

    def _tell(self, wake: Collection[str], confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:
        self._receipts.confirmed(confirmed)
        for change in others:
            entry = change.entry
            if change.state is State.PARKED:
                self._parked_log.note(change)
            elif change.due is not None:
                self._wakeups.at(entry.exchange, change.due)
            self._receipts.changed(entry.id, change.state, change.attempts, change.reason)
        if wake:
            self._wake(wake)
        self._done(confirmed, others)

    def _broken(self, failure: Any) -> None:
        if failure.check(SpoolError):
            # Told once by the spool itself; the messages are published again after the next start.
            self.log.error("settlements could not be stored: {error}", error=failure.getErrorMessage())
        else:
            self.log.failure("settlements were not told", failure)


def _aged(entries: Sequence[Entry], now: float) -> Sequence[Entry]:
    """Copies where need be, for this delivery alone: the spool's own may be claimed, and aged, once more."""
    found = []
    for entry in entries:
        properties = aged(entry.properties, now - entry.accepted_at)
        if properties is not entry.properties:
            entry = copy(entry)
            entry.properties = properties
        found.append(entry)
    return found
