"""History: the last hour and the last day of a running pubd, in bounded memory, for whoever draws or watches it.

Nothing is counted here: at intervals it is written down what :class:`Tally`, books and link say anyway. A restart
begins with nothing.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pubd.amqp.lifecycle import LinkState
from pubd.errors import SpoolError
from pubd.operate.distribution import quantile
from pubd.outcome import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted.python.failure import Failure

    from pubd.operate.health import Watched
    from pubd.operate.tally import Tally

#: Seconds between looks at the link: what is shorter may not be seen.
LOOK = 1.0
#: Looks in a sample, and samples that are kept: 5 s for an hour, and 1 min for a day.
FINE, COARSE = (5, 720), (60, 1440)


@attrs.frozen(kw_only=True)
class Sample:
    """What happened in an interval, and what there was at its end (in a coarse one: at most).

    ``number`` counts the samples of a series, also past a restart; ``at`` is in the clock's seconds. Rates are in
    messages a second. ``oldest`` is the age in seconds of the first message that is ready or in flight, 0: there is
    none; None: the spool did not say. The latencies (seconds) are None where nothing was confirmed. ``blocked`` and
    ``down`` are shares of the interval in which RabbitMQ blocked the connection, and in which there was none.
    """

    number: int
    at: float
    accepted: float
    confirmed: float
    returned: float
    nacked: float
    lost: float
    ready: int
    in_flight: int
    deferred: int
    parked: int
    bytes: int
    oldest: float | None
    confirm_p50: float | None
    confirm_p99: float | None
    blocked: float
    down: float


#: What a sample says, in this order; all but when it was.
COLUMNS = tuple(field.name for field in attrs.fields(Sample) if field.name not in ("number", "at"))


@attrs.frozen(kw_only=True)
class Counts:
    """How far everything that only grows had come."""

    at: float
    looks: int
    blocked: int
    down: int
    rates: tuple[int, ...]
    confirms: tuple[int, ...]


@attrs.frozen(kw_only=True)
class Held:
    """What there is."""

    ready: int
    in_flight: int
    deferred: int
    parked: int
    bytes: int
    oldest: float | None

    def most(self, other: Held) -> Held:
        """The larger one of each."""
        its = attrs.asdict(other)
        largest: dict[str, Any] = {
            name: max((number for number in (mine, its[name]) if number is not None), default=None)
            for name, mine in attrs.asdict(self).items()
        }
        return Held(**largest)


class Series:
    """The last ``most`` samples of ``looks`` looks each; ``number`` is the first one's."""

    def __init__(self, looks: int, most: int, number: int) -> None:
        self.interval = looks * LOOK
        """Seconds; a reactor that is busy may make it longer."""
        self.span = most * self.interval
        self.next = number
        """Number of the next sample."""
        self._looks = looks
        self._samples: deque[Sample] = deque(maxlen=most)
        self._counts: Counts | None = None
        self._held: Held | None = None

    def start(self, counts: Counts) -> None:
        """From here it counts."""
        self._counts, self._held = counts, None

    def add(self, counts: Counts, held: Held) -> None:
        """How it is now; it makes a sample when it is time."""
        before = self._counts
        assert before is not None
        self._held = held = held if self._held is None else self._held.most(held)
        looks = counts.looks - before.looks
        if looks < self._looks:
            return
        seconds = max(counts.at - before.at, 1e-3)
        accepted, confirmed, returned, nacked, lost = (
            (now - then) / seconds for now, then in zip(counts.rates, before.rates, strict=True)
        )
        confirms = [now - then for now, then in zip(counts.confirms, before.confirms, strict=True)]
        self._samples.append(
            Sample(
                number=self.next,
                at=counts.at,
                # Here, and not each time that somebody looks at an hour of them.
                **_rounded(
                    accepted=accepted,
                    confirmed=confirmed,
                    returned=returned,
                    nacked=nacked,
                    lost=lost,
                    **attrs.asdict(held),
                    confirm_p50=quantile(confirms, 0.5),
                    confirm_p99=quantile(confirms, 0.99),
                    blocked=(counts.blocked - before.blocked) / looks,
                    down=(counts.down - before.down) / looks,
                ),
            )
        )
        self.next += 1
        self._counts, self._held = counts, None

    def samples(self, *, last: float, after: int | None = None) -> list[Sample]:
        """Those of the ``last`` seconds; of them those with a number over ``after``, unless that is still to come."""
        count = min(len(self._samples), max(1, round(last / self.interval)))
        if after is not None and after < self.next:
            count = min(count, self.next - 1 - after)
        return [*islice(self._samples, len(self._samples) - count, None)]


class History(Service):
    """``clock`` counts seconds, ``wall`` is the time of day."""

    log = Logger()

    def __init__(self, *, clock: Any, wall: Callable[[], float], publisher: Watched, tally: Tally) -> None:
        self._clock = clock
        self._wall = wall
        self._publisher = publisher
        self._tally = tally
        # By the time of day, so that whoever asks for what follows a number gets it after a restart, too.
        self.fine, self.coarse = (Series(*each, int(wall() / each[0] / LOOK)) for each in (FINE, COARSE))
        self._looks = self._blocked = self._down = 0
        self._oldest: float | None = None
        """When the oldest message was accepted, as the spool said last."""
        self._asking = self._answered = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        """Write down from now on."""
        super().startService()
        self._looks = self._blocked = self._down = 0
        counts = self.counts()
        self.fine.start(counts)
        self.coarse.start(counts)
        self._loop.start(LOOK, now=False).addErrback(self._broken)

    def stopService(self) -> None:
        """What is there, stays."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def series(self, last: float) -> Series:
        """The finest one that reaches so many seconds back."""
        return self.fine if last <= self.fine.span else self.coarse

    def moment(self, at: float) -> float:
        """Epoch seconds of a sample, as the time of day is now: a clock that was set does not turn their order."""
        ago: float = self._clock.seconds() - at
        return self._wall() - ago

    def _look(self) -> None:
        try:
            self._looks += 1
            link = self._publisher.status().link
            self._blocked += link is LinkState.BLOCKED
            self._down += link not in (LinkState.BLOCKED, LinkState.READY)
            left = -self._looks % FINE[0]
            if left == 1:
                # A look before the sample, which so finds the answer of a spool that is well.
                self._ask()
            elif left == 0:
                self._write()
        except Exception:
            self.log.failure("the history has a gap; going on")

    def _write(self) -> None:
        counts, held = self.counts(), self.held()
        self.fine.add(counts, held)
        self.coarse.add(counts, held)
        self._answered = False

    def _ask(self) -> None:
        """One question at a time, however long it takes: a spool that hangs is not to find thousands of them."""
        if not self._asking:
            self._asking = True
            self._publisher.oldest().addCallbacks(self._told, self._not_told)

    def _told(self, oldest: float | None) -> None:
        self._asking, self._answered, self._oldest = False, True, oldest

    def _not_told(self, failure: Failure) -> None:
        self._asking = False
        if failure.check(SpoolError) is None:
            self.log.failure("the oldest message was not found; going on", failure)

    def counts(self) -> Counts:
        """How far it is now."""
        tally = self._tally
        ended: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        for (_, outcome), count in tally.deliveries.items():
            ended[outcome] += count
        return Counts(
            at=self._clock.seconds(),
            looks=self._looks,
            blocked=self._blocked,
            down=self._down,
            rates=(
                sum(tally.by_exchange.values()),
                tally.settlements[State.CONFIRMED],
                ended[Outcome.RETURNED],
                ended[Outcome.NACKED],
                ended[Outcome.LOST],
            ),
            confirms=tally.confirms.counts,
        )

    def held(self) -> Held:
        """What there is now."""
        books = self._publisher.account().books
        oldest = None
        if self._answered:
            oldest = max(0.0, self._wall() - self._oldest) if self._oldest is not None else 0.0
        return Held(
            ready=books.ready,
            in_flight=books.in_flight,
            deferred=books.deferred,
            parked=books.parked,
            bytes=books.bytes,
            oldest=oldest,
        )

    def _broken(self, failure: Failure) -> None:
        self.log.failure("the history is not written any more", failure)


def columns(samples: Sequence[Sample]) -> Iterator[tuple[str, list[float | int | None]]]:
    """The samples by what they say, each over time."""
    for name in COLUMNS:
        yield name, [*map(attrgetter(name), samples)]


def _rounded(**values: float | None) -> dict[str, Any]:
    """As exact as anybody reads them."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}
