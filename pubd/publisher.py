"""Publisher joins spool and lanes: it owns submit, settle and drain, and is a Twisted service.

Data flows one way: ``submit`` stores messages and wakes the lanes; these claim, publish and report outcomes; outcomes
become settlements in the spool; only then receipts are told.
"""

from __future__ import annotations

import os
import random as random_module
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import uuid_utils
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from pubd.account import Account
from pubd.amqp.broker import Broker
from pubd.amqp.encode import encode_properties
from pubd.amqp.lane import LaneOptions
from pubd.amqp.url import BrokerUrl
from pubd.entry import Entry
from pubd.errors import PubdError, PublisherStopped, SpoolError
from pubd.outcome import Outcome, State
from pubd.parked import ParkedLog
from pubd.policy import Policy
from pubd.receipt import Receipts
from pubd.settle import settlement
from pubd.spool.url import spool_from_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from pubd.amqp.broker import BrokerEvents, BrokerStatus
    from pubd.amqp.lane import Supply
    from pubd.amqp.topology import Topology
    from pubd.ledger import Delivery
    from pubd.message import Message
    from pubd.outcome import Settlement
    from pubd.receipt import Receipt
    from pubd.spool.base import Books, Spool

PERSISTENT, TRANSIENT = 2, 1


@attrs.frozen(kw_only=True)
class Options:
    """What a publisher does where a message does not say, and how long it waits for RabbitMQ when it stops."""

    mandatory: bool = True
    persistent: bool = True
    drain_timeout: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    policy: Policy = Policy()
    lanes: LaneOptions = LaneOptions()


class BrokerSide(Protocol):
    """What a publisher needs of :class:`pubd.amqp.broker.Broker`."""

    def start(self) -> None:
        """Connect and stay connected."""

    async def stop(self) -> None:
        """Close; always ends."""

    def drain(self) -> None:
        """Publish nothing more, take answers."""

    def wake(self, exchanges: Iterable[str]) -> None:
        """These exchanges have messages."""

    @property
    def in_flight(self) -> int:
        """Deliveries without an answer."""

    def status(self) -> BrokerStatus:
        """Link and lanes."""


class Publisher(Service):
    """Takes messages, stores them, publishes them with publisher confirms, and says what became of each.

    ``reactor`` gives time and connections; ``wall`` is the time of day in epoch seconds.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        spool: Spool,
        connect: Callable[[Supply], BrokerSide],
        options: Options | None = None,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
        new_id: Callable[[], str] = lambda: str(uuid_utils.uuid7()),
    ) -> None:
        self._reactor = reactor
        self._spool = spool
        self._options = options or Options()
        self._wall = wall
        self._random = random
        self._new_id = new_id
        self._broker = connect(self)
        self._receipts = Receipts()
        self._parked_log = ParkedLog(reactor)
        self._due: dict[str, IDelayedCall] = {}
        self._counts = dict.fromkeys(Outcome, 0)
        self._under_way = 0
        """Commits of submissions and settlements that have not come back."""
        self._open: Deferred[None] | None = None
        self._stopping = False
        self._closed = False
        self._quiet: Deferred[None] | None = None
        self._left: Callable[[], int] = int
        """Waited for by stopService: fires when there is nothing left to drain."""

    @classmethod
    def from_url(
        cls,
        url: str | Sequence[str],
        *,
        spool: str | Spool = "memory:",
        reactor: Any = None,
        name: str = "pubd",
        topology: Topology | None = None,
        options: Options | None = None,
        events: BrokerEvents | None = None,
        random: Callable[[], float] = random_module.random,
        wall: Callable[[], float] = time.time,
    ) -> Publisher:
        """A publisher for the RabbitMQ at ``url`` (or the first of several that answers).

        ``name`` is shown by RabbitMQ as part of the connection's name. Raises :class:`pubd.errors.InvalidOption`.
        """
        if reactor is None:
            from twisted.internet import reactor
        urls = [BrokerUrl.parse(each) for each in ([url] if isinstance(url, str) else url)]
        options = options or Options()

        def connect(supply: Supply) -> Broker:
            return Broker(
                reactor=reactor,
                urls=urls,
                supply=supply,
                connection_name=f"{name}@{socket.gethostname()}:{os.getpid()}",
                random=random,
                declare=topology,
                options=options.lanes,
                events=events,
            )

        return cls(
            reactor=reactor,
            spool=spool_from_url(spool) if isinstance(spool, str) else spool,
            connect=connect,
            options=options,
            random=random,
            wall=wall,
        )

    # For applications

    def submit(self, message: Message) -> Deferred[Receipt]:
        """Hand in one message; fires with its receipt once it is stored (and synced, with a durable spool).

        Errback: :class:`pubd.errors.SpoolFull`, another :class:`~pubd.errors.SpoolError`, or
        :class:`~pubd.errors.PublisherStopped`; then nothing was accepted.
        """
        return self._hand_in([message], single=True)

    def submit_many(self, messages: Iterable[Message]) -> Deferred[list[Receipt]]:
        """Hand in several messages, all of them or none; one commit. Receipts come in the same order."""
        return self._hand_in(messages, single=False)

    def _hand_in(self, messages: Iterable[Message], *, single: bool) -> Deferred[Any]:
        if self._open is None or self._stopping:
            why = "is stopping" if self._stopping else "was not started: add it to your application or startService()"
            return fail(PublisherStopped(f"the publisher {why}; nothing was accepted"))
        try:
            entries = self._entries(messages)
        except PubdError as error:
            return fail(error)
        self._under_way += 1
        # One callback, not a chain of small ones: each step of a Deferred costs as much as encoding a message.
        return self._spool.append(entries).addCallbacks(
            self._accepted, self._commit_over, callbackArgs=(entries, single)
        )

    def account(self) -> Account:
        """The books and the deliveries so far."""
        counts = self._counts
        return Account(
            books=self._spool.books(),
            published=self._broker.status().published,
            pending=self._broker.in_flight,
            acked=counts[Outcome.CONFIRMED],
            nacked=counts[Outcome.NACKED],
            returned=counts[Outcome.RETURNED],
            lost=counts[Outcome.LOST],
            poison=counts[Outcome.POISON],
        )

    def status(self) -> BrokerStatus:
        """The link and its lanes."""
        return self._broker.status()

    # The service

    def startService(self) -> None:
        """Open the spool, connect, and publish what waits."""
        super().startService()
        self._stopping = self._closed = False
        self._open = Deferred.fromCoroutine(self._start())

    def stopService(self) -> Deferred[None]:
        """Refuse submissions, wait for RabbitMQ's answers up to ``drain_timeout``, close channels and connection.

        Always fires. What is not settled by then is told :class:`pubd.errors.PublisherStopped`.
        """
        super().stopService()
        if self._open is None or self._stopping:
            return succeed(None)
        self._stopping = True
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        try:
            await self._spool.open()
            backlog = await self._spool.backlog()
        except SpoolError as error:
            self.log.critical("the spool cannot be opened: {error}", error=str(error))
            return
        if self._stopping:
            return
        self._broker.start()
        self._broker.wake(backlog)
        for exchange in backlog:
            self._wake_when_due(exchange)

    async def _stop(self) -> None:
        opened = self._open
        assert opened is not None
        await opened
        until = self._reactor.seconds() + self._options.drain_timeout
        if not self._spool.durable:
            # What is accepted but not published would be gone with the process.
            await self._drained(lambda: self._spool.books().held - self._spool.books().parked, until)
        self._broker.drain()
        await self._drained(lambda: self._broker.in_flight, until)
        await self._broker.stop()
        await self._drained(lambda: 0, until)
        books = self._spool.books()
        await self._spool.close()
        self._open = None
        self._closed = True
        for call in self._due.values():
            call.cancel()
        self._due.clear()
        self._parked_log.stop()
        for receipt in self._receipts:
            receipt.stop()
        self._report(books)

    async def _drained(self, left: Callable[[], int], until: float) -> None:
        """Wait for ``left()`` and the commits under way to become 0, but not beyond ``until`` (reactor seconds)."""
        remaining = left() + self._under_way
        timeout = max(0.0, until - self._reactor.seconds())
        if not remaining:
            return
        self.log.info("stopping: waiting up to {timeout:.0f} s for {count} messages", timeout=timeout, count=remaining)
        quiet: Deferred[None] = Deferred()
        deadline = self._reactor.callLater(timeout, quiet.callback, None)
        self._quiet, self._left = quiet, left
        self._check_quiet()
        await quiet
        self._quiet = None
        if deadline.active():
            deadline.cancel()

    def _check_quiet(self) -> None:
        if self._quiet is not None and not self._quiet.called and not (self._left() + self._under_way):
            self._quiet.callback(None)

    def _report(self, books: Books) -> None:
        if not books.held:
            self.log.info("stopped; every accepted message is settled")
        elif self._spool.durable:
            self.log.info("stopped; {held} messages wait in the spool for the next start", held=books.held)
        else:
            self.log.warn(
                "stopped; {held} messages were held in memory and are gone ({parked} of them parked): "
                "submit them again, or use a durable spool",
                held=books.held,
                parked=books.parked,
            )

    # The supply of the lanes

    def claim(self, exchange: str, limit: int, max_bytes: int) -> Deferred[Sequence[Entry]]:
        """See :class:`pubd.amqp.lane.Supply`."""
        return self._spool.claim(exchange, limit, max_bytes, self._wall())

    def release(self, entries: Sequence[Entry]) -> None:
        """See :class:`pubd.amqp.lane.Supply`."""
        self._spool.release(entries)

    def outcomes(self, deliveries: Sequence[Delivery]) -> None:
        """See :class:`pubd.amqp.lane.Supply`."""
        confirmed: list[Entry] = []
        lost: list[Entry] = []
        others: list[Settlement] = []
        now = self._wall()
        counts = self._counts
        for delivery in deliveries:
            outcome = delivery.outcome
            if outcome is Outcome.CONFIRMED:
                confirmed.append(delivery.entry)
                continue
            assert outcome is not None
            counts[outcome] += 1
            change = settlement(delivery, self._options.policy, now, self._random)
            if change is None:
                lost.append(delivery.entry)
            else:
                others.append(change)
        counts[Outcome.CONFIRMED] += len(confirmed)
        if lost:
            self._spool.release(lost)
        if confirmed or others:
            self._under_way += 1
            settled = self._spool.settle(confirmed, others)
            settled.addBoth(self._commit_over)
            settled.addCallback(lambda _: self._settled(confirmed, others))
            settled.addErrback(lambda failure: self.log.failure("settlements could not be stored", failure))
        self._check_quiet()

    # Between the two

    def _entries(self, messages: Iterable[Message]) -> list[Entry]:
        options, new_id, now = self._options, self._new_id, self._wall()
        default_mode = PERSISTENT if options.persistent else TRANSIENT
        entries = []
        for message in messages:
            id = new_id()
            message_id = message.message_id or id
            entries.append(
                Entry(
                    id=id,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    message_id=message_id,
                    mandatory=options.mandatory if message.mandatory is None else message.mandatory,
                    properties=encode_properties(
                        message, message_id=message_id, delivery_mode=message.delivery_mode or default_mode
                    ),
                    body=message.body,
                    accepted_at=now,
                )
            )
        return entries

    def _accepted(self, _: None, entries: Sequence[Entry], single: bool) -> list[Receipt] | Receipt:
        self._commit_over(None)
        add = self._receipts.add
        receipts = [add(entry.id, entry.message_id) for entry in entries]
        self._broker.wake({entry.exchange for entry in entries})
        return receipts[0] if single else receipts

    def _settled(self, confirmed: Sequence[Entry], others: Sequence[Settlement]) -> None:
        receipts = self._receipts
        if receipts:
            for entry in confirmed:
                receipt = receipts.pop(entry.id)
                if receipt is not None:
                    receipt.settle(State.CONFIRMED, entry.attempts)
        for change in others:
            entry = change.entry
            if change.state is State.PARKED:
                self._parked_log.note(change)
            elif change.due is not None:
                self._wake_at(entry.exchange, change.due)
            receipt = receipts.get(entry.id)
            if receipt is not None:
                receipt.settle(change.state, change.attempts, change.reason)

    def _commit_over(self, result: Any) -> Any:
        self._under_way -= 1
        if self._quiet is not None:
            # After the callbacks of this commit.
            self._reactor.callLater(0, self._check_quiet)
        return result

    def _wake_at(self, exchange: str, due: float) -> None:
        """Wake the lane at ``due``, unless it is to be woken before."""
        if self._closed:
            return
        delay, call = max(0.0, due - self._wall()), self._due.get(exchange)
        if call is None:
            self._due[exchange] = self._reactor.callLater(delay, self._wake_due, exchange)
        elif call.getTime() - self._reactor.seconds() > delay:
            call.reset(delay)

    def _wake_due(self, exchange: str) -> None:
        del self._due[exchange]
        self._broker.wake([exchange])
        self._wake_when_due(exchange)

    def _wake_when_due(self, exchange: str) -> None:
        """Wake the lane again for the deferred message after those that are due now."""
        next_due = self._spool.due(exchange, self._wall())
        next_due.addCallback(lambda due: None if due is None else self._wake_at(exchange, due))
        next_due.addErrback(lambda failure: self.log.failure("the spool could not say what is due", failure))
