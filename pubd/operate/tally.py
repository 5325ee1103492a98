"""Tally: counts what happens to messages, as an observer of the publisher.

It is in the middle of publishing: one step for each batch wherever the messages of a batch have something in common.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pubd.operate.distribution import Distribution
from pubd.outcome import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.entry import Entry
    from pubd.ledger import Delivery
    from pubd.outcome import Settlement

#: Exchanges, and principals, that are counted by their names.
NAMES = 200
#: What all others are counted as.
OTHER = "other"
#: The default exchange, whose name is empty, as the HTTP interface and RabbitMQ's management call it.
DEFAULT_EXCHANGE = "amq.default"
#: Who handed in what nobody was asked about, as schedules do. No principal can have this name.
NOBODY = "(none)"


class Names:
    """The first ``most`` names that come are kept, all others are :data:`OTHER`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str | None, str] = {"": DEFAULT_EXCHANGE, None: NOBODY}

    def __call__(self, name: str | None) -> str:
        """What ``name`` is counted as."""
        known = self._known.get(name)
        if known is not None:
            return known
        # Beside the two that are there from the start.
        if name is None or len(self._known) >= self._most + 2:
            return OTHER
        self._known[name] = name
        return name


class Tally:
    """Fulfils :class:`pubd.observer.Observer`. Everything counts from the start of the process."""

    def __init__(self, *, names: int = NAMES) -> None:
        self._exchange = Names(names)
        self._principal = Names(names)
        self.by_exchange: Counter[str] = Counter()
        """Accepted messages."""
        self.by_principal: Counter[str] = Counter()
        """Likewise."""
        self.deliveries: Counter[tuple[str, Outcome]] = Counter()
        """Deliveries that ended, by exchange and outcome."""
        self.settlements: Counter[State] = Counter()
        """What deliveries did to their messages."""
        self.receipts = Distribution()
        """Seconds from submission to receipt, of each message."""
        self.confirms = Distribution()
        """Seconds from publishing to the confirm, of each confirmed delivery."""
        self.commits = Distribution()
        """Seconds that each commit of the spool took."""

    def accepted(self, entries: Sequence[Entry], seconds: float) -> None:
        """See :class:`pubd.observer.Observer`."""
        if not entries:
            return
        self.receipts.observe(seconds, len(entries))
        first = entries[0]
        if len(entries) == 1:
            self.by_exchange[self._exchange(first.exchange)] += 1
            self.by_principal[self._principal(first.principal)] += 1
            return
        for exchange, count in Counter([entry.exchange for entry in entries]).items():
            self.by_exchange[self._exchange(exchange)] += count
        for principal, count in Counter([entry.principal for entry in entries]).items():
            self.by_principal[self._principal(principal)] += count

    def answered(self, deliveries: Sequence[Delivery], now: float) -> None:
        """See :class:`pubd.observer.Observer`."""
        run = 0
        previous: Delivery | None = None
        exchange, outcome, sent_at = "", None, 0.0
        # What was written together has one time, and is mostly answered together and alike: runs are counted.
        for delivery in deliveries:
            if delivery.sent_at == sent_at and delivery.outcome is outcome and delivery.entry.exchange == exchange:
                run += 1
                continue
            if previous is not None:
                self._ended(previous, run, now)
            previous, run = delivery, 1
            exchange, outcome, sent_at = delivery.entry.exchange, delivery.outcome, delivery.sent_at
        if previous is not None:
            self._ended(previous, run, now)

    def _ended(self, one: Delivery, times: int, now: float) -> None:
        """So many deliveries like this one."""
        outcome = one.outcome or Outcome.LOST
        self.deliveries[self._exchange(one.entry.exchange), outcome] += times
        if outcome is Outcome.CONFIRMED:
            self.confirms.observe(now - one.sent_at, times)

    def settled(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:
        """See :class:`pubd.observer.Observer`."""
        if confirmed:
            self.settlements[State.CONFIRMED] += len(confirmed)
        for change in others:
            self.settlements[change.state] += 1

    def committed(self, seconds: float) -> None:
        """See :class:`pubd.observer.Observer`."""
        self.commits.observe(seconds)
