"""The front door of the AMQP room: one link, its topology, and a lane for each exchange that has messages.

Knows nothing of intakes or stores: messages come from a :class:`pubd.amqp.lane.Supply`, outcomes go back to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from pubd.amqp import topology
from pubd.amqp.lane import Lane, LaneOptions, Supply
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.amqp.link import Link
from pubd.amqp.moving import Move
from pubd.errors import LinkLost
from pubd.probation import about_one_message
from pubd.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from pubd.amqp.link import LinkEvents
    from pubd.amqp.protocol import LinkProtocol
    from pubd.amqp.url import BrokerUrl
    from pubd.outcome import Reason

#: Seconds between looks at deadlines and idle lanes.
ROUND = 0.5
#: RabbitMQ's reply code for an exchange that is not there.
_NOT_FOUND = 404


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
class MoveStatus:
    """A move to other brokers that is under way, while the former connection publishes. ``url`` without password."""

    url: str
    reason: Reason | None
    """Why there is no connection as yet; None: it is being made, or stands."""


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
    move: MoveStatus | None = None


@attrs.frozen(kw_only=True)
class Target:
    """Where to publish to: brokers of one cluster, what we are called there, and what is declared there."""

    urls: tuple[BrokerUrl, ...]
    connection_name: str
    topology: topology.Topology = attrs.field(factory=topology.Topology)


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
        self._target = Target(
            urls=tuple(urls), connection_name=connection_name, topology=declare or topology.Topology()
        )
        self._options = options or LaneOptions()
        self._events = events
        self._lanes: dict[str, Lane] = {}
        self._published_by_gone = 0
        self._connection: LinkProtocol | None = None
        """The connection, once its topology has been declared."""
        self._refused: Sequence[topology.Refused] = ()
        self._held: Mapping[str, Reason] = {}
        self._backoff = Backoff(first=1.0, max=30.0, jitter=0.2)
        self._failures = 0
        self._retry_call: IDelayedCall | None = None
        self._draining = False
        self._paused: frozenset[str | None] = frozenset()
        self._started = False
        self._move: Move | None = None
        """To the brokers of the present target, while another link still publishes."""
        self._resting = False
        self._leaving = False
        """The link that was moved away from is being closed, and the lanes have channels there as yet."""
        self._closing: list[Deferred[None]] = []
        """Each fires when a link that is not needed any more has been closed."""
        self._undeclared: frozenset[str] = frozenset()
        """Exchanges about which something new is being declared at this connection: nothing goes there before."""
        self._declaring: list[Deferred[None]] = []
        """Who waits for that."""
        self._link = self._make_link(self)
        self._linked = self._target
        """What the link was made for, but for what is declared."""
        self._rounds = LoopingCall(self._round)
        self._rounds.clock = reactor

    def _make_link(self, events: LinkEvents) -> Link:
        return Link(
            reactor=self._reactor,
            urls=self._target.urls,
            events=events,
            connection_name=self._target.connection_name,
            random=self._random,
        )

    def start(self) -> None:
        """Connect, and stay connected until :meth:`stop`."""
        self._started = True
        self._link.start()
        self._rounds.start(ROUND, now=False).addErrback(self._rounds_failed)

    async def stop(self) -> None:
        """Close channels, then the connection; always ends. What was in flight is lost to this process."""
        self.drain()
        if self._rounds.running:
            self._rounds.stop()
        self._cancel_retry()
        self._tell_declared()
        self._close(self._link)
        for closed in list(self._closing):
            await _another(closed)
        for lane in self._lanes.values():
            lane.stop()

    def drain(self) -> None:
        """Publish nothing more; answers for what is in flight are still taken."""
        self._draining = True
        if self._move is not None:
            self._close(self._end_move())
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

    def reconfigure(self, target: Target | None, options: LaneOptions) -> Deferred[None]:
        """Publish as ``options`` say and to ``target`` (None: to the same) from now on.

        What is new there is declared at once; to other brokers publishing moves over when a connection to them stands
        (:mod:`pubd.amqp.moving`). Fires, and never fails, when what is new has been declared at the present connection,
        or cannot be.
        """
        target = target or self._target
        former, self._target = self._target, target
        if options != self._options:
            self._options = options
            for lane in self._lanes.values():
                lane.reconfigure(options)
        if not _same_place(former, target):
            self._go_elsewhere()
        if target.topology == former.topology:
            return succeed(None)
        if self._move is not None:
            self._move.redeclare(target.topology)
        for gone in former.topology:
            if gone not in target.topology:
                self.log.info("{declaration} is not declared any more; RabbitMQ keeps it", declaration=str(gone))
        if self._connection is None:
            # What there is at the next connection is declared there.
            return succeed(None)
        self._cancel_retry()
        self._undeclared = frozenset(
            exchange
            for declaration in target.topology
            if declaration not in former.topology
            for exchange in target.topology.dependants(declaration)
        )
        for exchange in self._undeclared:
            if exchange in self._lanes:
                self._lanes[exchange].block()
        declared: Deferred[None] = Deferred()
        self._declaring.append(declared)
        self._declare_now(self._connection)
        return declared

    def _tell_declared(self) -> None:
        declaring, self._declaring = self._declaring, []
        for each in declaring:
            each.callback(None)

    # Moving to another connection

    def _go_elsewhere(self) -> None:
        """The brokers are others, or we are."""
        if self._move is not None:
            self._close(self._end_move())
        if _same_place(self._linked, self._target) or self._draining:
            return
        if self._connection is not None:
            self._begin_move()
            return
        # Nothing is published: there is nothing to wait for.
        self._replace(self._make_link(self))
        if self._started:
            self._link.start()

    def _begin_move(self) -> None:
        """Anew, where one is under way."""
        if self._move is not None:
            self._close(self._end_move())
        self._move = Move(
            clock=self._reactor,
            mover=self,
            make=self._make_link,
            declare=self._target.topology,
            patience=self._options.confirm_timeout,
        )
        self._move.start()

    def _end_move(self) -> Link:
        assert self._move is not None
        move, self._move = self._move, None
        move.end()
        self.go_on()
        return move.link

    def _replace(self, link: Link) -> Deferred[None]:
        """``link`` is the one that counts; fires when the former has been closed."""
        former, self._link = self._link, link
        self._linked = self._target
        self._cancel_retry()
        link.hand_over(self)
        return self._close(former)

    def _close(self, link: Link) -> Deferred[None]:
        closed = link.stop()
        self._closing.append(closed)
        return closed.addCallback(lambda _: self._closing.remove(closed))

    def rest(self) -> None:
        """See :class:`pubd.amqp.moving.Mover`."""
        self._resting = True
        for lane in self._lanes.values():
            lane.block()

    def go_on(self) -> None:
        """See :class:`pubd.amqp.moving.Mover`."""
        if self._resting:
            self._resting = False
            self._unblock()

    def adopt(self, link: Link, connection: LinkProtocol, refused: Sequence[topology.Refused]) -> None:
        """See :class:`pubd.amqp.moving.Mover`."""
        self._move = None
        self._resting = False
        self._leaving = True
        self._replace(link).addCallback(lambda _: self._left(connection, refused))

    def _left(self, connection: LinkProtocol, refused: Sequence[topology.Refused]) -> None:
        """The former connection is closed, and the lanes' channels with it."""
        self._leaving = False
        present = self._link.connection
        if present is connection:
            self._failures = 0
            self._declared(connection, refused)
        elif present is not None:
            self.link_ready(present)

    def _unblock(self) -> None:
        """Those lanes that nothing keeps from publishing."""
        if self._link.blocked is not None or self._resting:
            return
        for lane in list(self._lanes.values()):
            if lane.exchange not in self._undeclared and lane.exchange not in self._held:
                lane.unblock()

    @property
    def in_flight(self) -> int:
        """Deliveries that RabbitMQ has not answered."""
        return sum(lane.in_flight for lane in self._lanes.values())

    @property
    def hopeful(self) -> bool:
        """Whether something may still be published or answered before somebody repairs anything.

        Not where every broker refuses us, nor where all that waits is for exchanges that RabbitMQ refuses. A broker
        that is away, or that blocks us, may be back at any moment.
        """
        if self._link.state is LinkState.REFUSED:
            return False
        return any(lane.working and lane.exchange not in self._held for lane in self._lanes.values())

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ takes nothing at present, and so may answer nothing more."""
        return self._link.blocked is not None

    def status(self) -> BrokerStatus:
        """Everything an operator may want to see of this broker, at this moment."""
        link, move = self._link, self._move
        return BrokerStatus(
            url=str(link.url),
            link=link.state,
            reason=link.reason,
            blocked=link.blocked,
            published=self._published_by_gone + sum(lane.published for lane in self._lanes.values()),
            lanes=tuple(self._lane_status(lane) for lane in self._lanes.values()),
            refused=tuple(self._refused),
            move=MoveStatus(url=str(move.link.url), reason=move.reason) if move is not None else None,
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
        if self._link.blocked is not None or self._resting or lane.exchange in self._undeclared:
            lane.block()

    def _round(self) -> None:
        """Look for overdue answers and idle lanes."""
        if self._move is not None:
            self._move.look()
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
        if reason.code == _NOT_FOUND:
            self._declare_again(exchange)
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
        if self._leaving:
            # The lanes have channels of the former connection as yet.
            return
        self._failures = 0
        self._declare_now(connection)

    def link_lost(self, reason: Reason) -> None:  # noqa: ARG002 (the link has logged it and keeps it)
        """The lanes' channels were told before, each by pika."""
        self._connection = None
        self._held = {}
        self._undeclared = frozenset()
        self._cancel_retry()
        self._tell_declared()
        for lane in list(self._lanes.values()):
            lane.detach()
        if self._move is not None and not self._leaving:
            # To these brokers it does not go back.
            self._replace(self._end_move())
            if self._link.connection is not None:
                self.link_ready(self._link.connection)

    def link_blocked(self, text: str) -> None:  # noqa: ARG002 (as for link_lost)
        """RabbitMQ takes no more for now (``connection.blocked``): nothing is sent until it does."""
        for lane in self._lanes.values():
            lane.block()

    def link_unblocked(self) -> None:
        """RabbitMQ takes messages again."""
        self._unblock()

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
        if self._move is not None:
            self._move.look()

    async def _declare(self, connection: LinkProtocol) -> None:
        declared = self._target.topology
        try:
            refused = await topology.declare(connection, declared)
        except LinkLost as lost:
            if connection is self._link.connection:
                self._declare_later(connection, lost.reason)
            return
        if connection is self._link.connection and declared == self._target.topology:
            self._declared(connection, refused)

    def _declared(self, connection: LinkProtocol, refused: Sequence[topology.Refused]) -> None:
        declared, self._undeclared = self._undeclared, frozenset()
        self._refused = refused
        self._held = {
            exchange: item.reason for item in refused for exchange in self._target.topology.dependants(item.declaration)
        }
        self._connection = connection
        if refused:
            if self._events is not None:
                self._events.channel_closed(refused[0].reason)
            held = ", ".join(sorted(self._held)) or "(none)"
            self._declare_later(connection, f"{len(refused)} refused; exchanges {held} wait")
        else:
            self._failures = 0
        for lane in list(self._lanes.values()):
            if lane.exchange in self._held:
                lane.block()
            self._attach(lane)
            if lane.exchange in declared:
                lane.retry_now()
        self._tell_declared()

    def _declare_again(self, exchange: str) -> None:
        """Somebody deleted an exchange that is ours to declare, and its bindings with it."""
        ours = any(each.name == exchange and not each.passive for each in self._target.topology.exchanges)
        if not ours or self._connection is None or self._retry_call is not None or self._move is not None:
            return
        # Between the exchange and its bindings a message would be returned.
        self._undeclared |= {exchange}
        self._lanes[exchange].block()
        self._declare_later(self._connection, f"exchange {exchange!r} is gone")

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


def _same_place(one: Target, other: Target) -> bool:
    return (one.urls, one.connection_name) == (other.urls, other.connection_name)


def _another(first: Deferred[None]) -> Deferred[None]:
    """One Deferred more for the same event."""
    waiter: Deferred[None] = Deferred()
    first.addBoth(lambda _: waiter.callback(None))
    return waiter
