"""The front door of the AMQP room: one link, its topology, and a lane for each exchange that has messages.

Knows nothing of intakes or stores: messages come from a :class:`pubd.amqp.lane.Supply`, outcomes go back to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from pubd.amqp import topology
from pubd.amqp.lane import Lane, LaneOptions, Supply
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.link import Link
from pubd.errors import LinkLost
from pubd.probation import about_one_message
from pubd.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from pubd.amqp.lifecycle import LinkState
    from pubd.amqp.protocol import LinkProtocol
    from pubd.amqp.url import BrokerUrl
    from pubd.outcome import Reason

#: Seconds between looks at deadlines and idle lanes.
ROUND = 0.5


@attrs.frozen(kw_only=True)
class LaneStatus:
    """A lane as an operator sees it."""

    exchange: str
    state: LaneState
    reason: Reason | None
    in_flight: int
    in_flight_bytes: int
    suspects: int
    paused: bool = False


@attrs.frozen(kw_only=True)
class BrokerStatus:
    """The link and its lanes as an operator sees them."""

    url: str
    link: LinkState
    reason: Reason | None
    blocked: str | None
    published: int
    """Deliveries written to RabbitMQ so far."""
    lanes: Sequence[LaneStatus]
    refused: Sequence[topology.Refused]
    """Declarations that RabbitMQ refused."""


class BrokerEvents(Protocol):
    """What a composition root may want to act on; the messages' own fate goes to the supply."""

    def channel_closed(self, reason: Reason) -> None:
        """RabbitMQ closed a channel of pubd's."""


class Broker:
    """Publishes what the supply has, on one link. Started and stopped once."""

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        urls: Sequence[BrokerUrl],
        supply: Supply,
        connection_name: str,
        random: Callable[[], float],
        declare: topology.Topology | None = None,
        options: LaneOptions | None = None,
        events: BrokerEvents | None = None,
    ) -> None:
        self._reactor = reactor
        self._supply = supply
        self._random = random
        self._topology = declare or topology.Topology()
        self._options = options or LaneOptions()
        self._events = events
        self._lanes: dict[str, Lane] = {}
        self._published_by_gone = 0
        self._connection: LinkProtocol | None = None
        """The connection, once its topology has been declared."""
        self._refused: list[topology.Refused] = []
        self._held: Mapping[str, Reason] = {}
        self._backoff = Backoff(first=1.0, max=30.0, jitter=0.2)
        self._failures = 0
        self._retry_call: IDelayedCall | None = None
        self._draining = False
        self._paused: frozenset[str | None] = frozenset()
        self._link = Link(reactor=reactor, urls=urls, events=self, connection_name=connection_name, random=random)
        self._rounds = LoopingCall(self._round)
        self._rounds.clock = reactor

    def start(self) -> None:
        """Connect, and stay connected until :meth:`stop`."""
        self._link.start()
        self._rounds.start(ROUND, now=False).addErrback(self._rounds_failed)

    async def stop(self) -> None:
        """Close channels, then the connection; always ends. What was in flight is lost to this process."""
        self.drain()
        if self._rounds.running:
            self._rounds.stop()
        self._cancel_retry()
        await self._link.stop()
        for lane in self._lanes.values():
            lane.stop()

    def drain(self) -> None:
        """Publish nothing more; answers for what is in flight are still taken."""
        self._draining = True
        for lane in self._lanes.values():
            lane.drain()

    def pause(self, exchanges: Iterable[str | None]) -> None:
        """Publish to none of these (None stands for all) from now on, and to all others again."""
        self._paused = frozenset(exchanges)
        for lane in self._lanes.values():
            paused = self._is_paused(lane.exchange)
            if paused and not lane.paused:
                lane.pause()
            elif lane.paused and not paused:
                lane.go_on()

    def retry_now(self) -> None:
        """What waits to be tried again (connecting, declaring, an exchange) is tried at once."""
        self._link.retry_now()
        for lane in list(self._lanes.values()):
            lane.retry_now()
        if self._retry_call is not None and self._link.connection is not None:
            self._cancel_retry()
            self._declare_now(self._link.connection)

    def wake(self, exchanges: Iterable[str]) -> None:
        """These exchanges may have something to publish."""
        if self._draining:
            return
        for exchange in exchanges:
            lane = self._lanes.get(exchange)
            if lane is None:
                lane = self._add(exchange)
            lane.wake()

    @property
    def in_flight(self) -> int:
        """Deliveries that RabbitMQ has not answered."""
        return sum(lane.in_flight for lane in self._lanes.values())

    def status(self) -> BrokerStatus:
        """Everything an operator may want to see of this broker, at this moment."""
        link = self._link
        return BrokerStatus(
            url=str(link.url),
            link=link.state,
            reason=link.reason,
            blocked=link.blocked,
            published=self._published_by_gone + sum(lane.published for lane in self._lanes.values()),
            lanes=tuple(self._lane_status(lane) for lane in self._lanes.values()),
            refused=tuple(self._refused),
        )

    def _lane_status(self, lane: Lane) -> LaneStatus:
        held = self._held.get(lane.exchange)
        return LaneStatus(
            exchange=lane.exchange,
            state=LaneState.REFUSED if held else lane.state,
            reason=held or lane.reason,
            in_flight=lane.in_flight,
            in_flight_bytes=lane.in_flight_bytes,
            suspects=lane.suspects,
            paused=lane.paused,
        )

    # Lanes

    def _add(self, exchange: str) -> Lane:
        lane = self._lanes[exchange] = Lane(
            exchange,
            clock=self._reactor,
            supply=self._supply,
            events=self,
            options=self._options,
            random=self._random,
        )
        if self._is_paused(exchange):
            lane.pause()
        self._attach(lane)
        return lane

    def _is_paused(self, exchange: str) -> bool:
        return None in self._paused or exchange in self._paused

    def _attach(self, lane: Lane) -> None:
        if self._connection is None or lane.exchange in self._held:
            return
        lane.attach(self._connection)
        if self._link.blocked is not None:
            lane.block()

    def _round(self) -> None:
        """Look for overdue answers and idle lanes."""
        now = self._reactor.seconds()
        connection = self._connection
        for lane in list(self._lanes.values()):
            if connection is not None and self._link.blocked is None and lane.overdue(now):
                self._link.abort(
                    f"RabbitMQ has not answered on exchange {lane.exchange!r} (lane {lane.state.value}) "
                    f"for {self._options.confirm_timeout:g} s with {lane.in_flight} deliveries in flight"
                )
                return
            if lane.quiet(now):
                lane.close_when_quiet()
            elif lane.disposable:
                del self._lanes[lane.exchange]
                self._published_by_gone += lane.published
                lane.stop()

    def _rounds_failed(self, failure: Failure) -> None:
        self.log.failure("looking for overdue confirms failed; going on", failure)
        self._rounds.start(ROUND, now=False).addErrback(self._rounds_failed)

    def lane_closed(self, exchange: str, reason: Reason) -> None:
        """A lane's channel was closed by RabbitMQ."""
        # Not a line for each of many bad messages: the lane says that it looks for the culprits, and these get parked.
        level = LogLevel.debug if about_one_message(reason) else LogLevel.warn
        self.log.emit(
            level, "RabbitMQ closed the channel of exchange {exchange!r}: {reason}", exchange=exchange, reason=reason
        )
        self.lane_rests(exchange)
        if self._events is not None:
            self._events.channel_closed(reason)

    def lane_may_risk(self, exchange: str) -> bool:
        """No other lane has a suspect of a connection error in flight, which would be accused along with this one's."""
        return not any(
            lane.in_flight for lane in self._lanes.values() if lane.exchange != exchange and lane.risks_connection
        )

    def lane_rests(self, exchange: str) -> None:
        """The other lanes with such a suspect may go on."""
        for lane in self._lanes.values():
            if lane.exchange != exchange and lane.risks_connection:
                lane.wake()

    # The link

    def link_ready(self, connection: LinkProtocol) -> None:
        """Connected: declare, then publish."""
        self._failures = 0
        self._declare_now(connection)

    def link_lost(self, reason: Reason) -> None:  # noqa: ARG002 (the link has logged it and keeps it)
        """The lanes' channels were told before, each by pika."""
        self._connection = None
        self._held = {}
        self._cancel_retry()
        for lane in list(self._lanes.values()):
            lane.detach()

    def link_blocked(self, text: str) -> None:  # noqa: ARG002 (as for link_lost)
        """RabbitMQ takes no more for now (``connection.blocked``): nothing is sent until it does."""
        for lane in self._lanes.values():
            lane.block()

    def link_unblocked(self) -> None:
        """RabbitMQ takes messages again."""
        for lane in list(self._lanes.values()):
            lane.unblock()

    def link_resumed(self) -> None:
        """The transport has room again; each time another lane is first."""
        for exchange in list(self._lanes)[:1]:
            self._lanes[exchange] = self._lanes.pop(exchange)
        for lane in list(self._lanes.values()):
            lane.resume()

    def link_flush(self) -> None:
        """Everything that one read brought is known."""
        for lane in list(self._lanes.values()):
            lane.flush()

    async def _declare(self, connection: LinkProtocol) -> None:
        try:
            refused = await topology.declare(connection, self._topology)
        except LinkLost as lost:
            if connection is self._link.connection:
                self._declare_later(connection, lost.reason)
            return
        if connection is not self._link.connection:
            return
        self._refused = refused
        self._held = {
            exchange: item.reason for item in refused for exchange in self._topology.dependants(item.declaration)
        }
        self._connection = connection
        if refused:
            if self._events is not None:
                self._events.channel_closed(refused[0].reason)
            held = ", ".join(sorted(self._held)) or "(none)"
            self._declare_later(connection, f"{len(refused)} refused; exchanges {held} wait")
        for lane in list(self._lanes.values()):
            self._attach(lane)

    def _declare_later(self, connection: LinkProtocol, why: object) -> None:
        delay = self._backoff.delay(self._failures, self._random)
        self._failures += 1
        self.log.error("declarations: {why}; declaring again in {delay:.1f} s", why=str(why), delay=delay)
        self._retry_call = self._reactor.callLater(delay, self._declare_now, connection)

    def _declare_now(self, connection: LinkProtocol) -> None:
        self._retry_call = None
        Deferred.fromCoroutine(self._declare(connection)).addErrback(
            lambda failure: self.log.failure("declaring the topology failed", failure)
        )

    def _cancel_retry(self) -> None:
        if self._retry_call is not None:
            self._retry_call.cancel()
            self._retry_call = None
