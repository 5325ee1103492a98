"""Observer: what happens to messages, told in batches to whoever counts, measures or shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pubd.entry import Entry
    from pubd.ledger import Delivery
    from pubd.outcome import Settlement


class Observer(Protocol):
    """Called on the reactor's thread, in the middle of publishing: must be quick, keep nothing, and never raise."""

    def accepted(self, entries: Sequence[Entry], seconds: float) -> None:
        """These were stored, ``seconds`` after they were handed in, and their receipts are about to be given out."""

    def answered(self, deliveries: Sequence[Delivery], now: float) -> None:
        """These deliveries have their outcome at ``now``, in the seconds in which they have their ``sent_at``."""

    def settled(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:
        """This became of them, and is stored."""

    def committed(self, seconds: float) -> None:
        """The spool wrote and synced a batch, which took so long."""


class Traces(Observer, Protocol):
    """An observer that also takes part: it may give messages a trace context on their way into the spool."""

    url: Callable[[], str]
    """The broker that is published to; whoever publishes sets it."""

    def submitted(self, entries: Sequence[Entry], carrier: Mapping[str, str] | None) -> Callable[[Any], Any] | None:
        """These are about to be stored; their properties may be changed here, and with them their ``size``.

        ``carrier`` has the ``traceparent`` of whoever hands them in; None: there is no such thing. What is returned
        gets what is answered (a receipt, a list of receipts and errors, or a Failure), and gives it back.
        """


class Observers:
    """Several as one."""

    def __init__(self) -> None:
        self._all: tuple[Observer, ...] = ()

    def add(self, observer: Observer) -> None:
        """Tell this one as well, from now on."""
        self._all += (observer,)

    def remove(self, observer: Observer) -> None:
        """Not any more."""
        self._all = tuple(each for each in self._all if each is not observer)

    def accepted(self, entries: Sequence[Entry], seconds: float) -> None:
        """See :class:`Observer`."""
        for each in self._all:
            each.accepted(entries, seconds)

    def answered(self, deliveries: Sequence[Delivery], now: float) -> None:
        """See :class:`Observer`."""
        for each in self._all:
            each.answered(deliveries, now)

    def settled(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:
        """See :class:`Observer`."""
        for each in self._all:
            each.settled(confirmed, others)

    def committed(self, seconds: float) -> None:
        """See :class:`Observer`."""
        for each in self._all:
            each.committed(seconds)
