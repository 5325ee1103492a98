"""Healing: messages that were parked as returned are released, in order, when RabbitMQ routes them again.

AMQP cannot ask whether a routing key is routed, so the oldest parked message of each exchange and routing key is
published again, every ``heal_interval`` seconds: returned again, it is parked again; confirmed, all of its group are
released. Only for policies that say ``heal``, and for a bounded number of groups a round; where there are more, the
next round goes on behind them. ``released`` is called with the ids of messages that are ready again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pubd.errors import SpoolError
from pubd.outcome import State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pubd.ledger import Delivery
    from pubd.outcome import Settlement
    from pubd.policy import Policies
    from pubd.spool.base import Returned, Spool

#: Groups probed in one round, and probes that may wait for an answer.
GROUPS = 100
#: Groups looked at in one round: those of policies that do not heal are passed over.
LOOKS = 1000


class Healing:
    """Does nothing at all unless some policy heals."""

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        spool: Spool,
        policies: Policies,
        wake: Callable[[Collection[str]], None],
        released: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        self._spool = spool
        self._policies = policies
        self._wake = wake
        self._released = released
        self._last: Returned | None = None
        """Where the next round goes on, so that routes which stay away do not keep others from being looked at."""
        self._probes: dict[str, Returned] = {}
        self._releasing: set[tuple[str, str]] = set()
        """Routes (exchange, routing key) whose groups are being released."""
        self._loop = LoopingCall(self._round)
        self._loop.clock = clock
        self._looking = False
        self._started = False

    def start(self) -> None:
        """Begin to look, one interval from now."""
        self._started = True
        self._begin(now=False)

    def now(self) -> None:
        """Look at once, unless that is being done; the next look is one interval later."""
        if self._loop.running and not self._looking:
            self._loop.stop()
            self._begin(now=True)

    def _begin(self, *, now: bool) -> None:
        interval = self._interval
        if interval is not None:
            self._loop.start(interval, now=now).addErrback(
                lambda failure: self.log.failure("nothing is healed any more", failure)
            )

    def stop(self) -> None:
        """Look no more."""
        self._started = False
        self._halt()

    def reconfigure(self) -> None:
        """The policies are others now."""
        if self._started and self._interval != (self._loop.interval if self._loop.running else None):
            self._halt()
            self._begin(now=False)

    @property
    def _interval(self) -> float | None:
        return min((policy.heal_interval for policy in self._policies.all if policy.heal), default=None)

    def _halt(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def settled(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:
        """Hear what was committed: a probe that was confirmed releases its group."""
        if not (self._probes or self._releasing):
            return
        for delivery in confirmed:
            self._confirmed(delivery.entry.id)
        for change in others:
            if change.state is State.PARKED:
                self._releasing.discard((change.entry.exchange, change.entry.routing_key))
            if change.state is State.CONFIRMED:
                self._confirmed(change.entry.id)
            elif change.state is not State.DEFERRED:
                self._probes.pop(change.entry.id, None)

    def _confirmed(self, id: str) -> None:
        group = self._probes.pop(id, None)
        if group is not None:
            Deferred.fromCoroutine(self._heal(group))

    async def _round(self) -> None:
        self._looking = True
        try:
            await self._forget()
            # A probe that waits for its answer stands for its route: the oldest that is parked is another by now.
            under_way = {(probe.exchange, probe.routing_key) for probe in self._probes.values()}
            probed = 0
            for group in await self._groups():
                if probed == GROUPS or len(self._probes) >= GROUPS:
                    break
                self._last = group
                policy = self._policies.of(group.exchange, group.routing_key)
                if policy.heal and (group.exchange, group.routing_key) not in under_way:
                    probed += 1
                    await self._probe(group)
        except SpoolError as error:
            self.log.error("looking for messages to heal failed: {error}", error=str(error))
        finally:
            self._looking = False

    async def _groups(self) -> Sequence[Returned]:
        """What this round may look at: groups after those of the last round, and behind the last of all the first."""
        groups = list(await self._spool.returned(LOOKS, self._last))
        if len(groups) < LOOKS and self._last is not None:
            seen = {(group.exchange, group.routing_key) for group in groups}
            first = await self._spool.returned(LOOKS - len(groups))
            groups += [group for group in first if (group.exchange, group.routing_key) not in seen]
        return groups

    async def _probe(self, group: Returned) -> None:
        self._probes[group.first] = group
        woken: Collection[str] = ()
        try:
            woken = await self._spool.retry([group.first], probing=True)
        finally:
            if not woken:
                # A person was faster, or the spool failed.
                self._probes.pop(group.first, None)
        if woken:
            self._released([group.first])
        self._wake(woken)

    async def _forget(self) -> None:
        """Probes that ended without an answer of RabbitMQ, as by a person's hand or their own ttl."""
        for id in list(self._probes):
            record = await self._spool.record(id)
            if record is not None and record.state is State.CONFIRMED:
                self._confirmed(id)
            elif record is None or record.state not in (State.READY, State.DEFERRED):
                self._probes.pop(id, None)

    async def _heal(self, group: Returned) -> None:
        route = (group.exchange, group.routing_key)
        self._releasing.add(route)
        try:
            released = await self._spool.heal(group)
            if released:
                self.log.info(
                    "RabbitMQ routes {exchange!r} {routing_key!r} again: its parked messages are released",
                    exchange=group.exchange,
                    routing_key=group.routing_key,
                )
            # Batch by batch, until all are released, or one of them was returned: then the route is gone again.
            while released:
                self._released(released)
                self._wake([group.exchange])
                released = await self._spool.heal(group) if route in self._releasing else ()
        except SpoolError as error:
            self.log.error("releasing parked messages failed: {error}", error=str(error))
        finally:
            self._releasing.discard(route)
