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

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from pubd.accepting import Accepting
from pubd.account import Account
from pubd.amqp.broker import Broker
from pubd.amqp.url import BrokerUrl
from pubd.deciding import APPLICATION, Deciding
from pubd.decision import Verb
from pubd.draining import Draining
from pubd.errors import InvalidOption, PubdError, PublisherDraining, PublisherStopped, SpoolError
from pubd.finding import Finding
from pubd.healing import Healing
from pubd.observer import Observers
from pubd.options import Options
from pubd.outcome import Outcome, State
from pubd.parked import ParkedLog
from pubd.parking import copies
from pubd.pausing import Pausing
from pubd.policy import Policies
from pubd.receipt import Receipts
from pubd.settling import Settling
from pubd.spool.groups import Parked
from pubd.spool.url import spool_from_url
from pubd.sweeping import Sweeping
from pubd.wakeups import Wakeups

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from pubd.amqp.broker import BrokerEvents, BrokerStatus, Target
    from pubd.amqp.lane import LaneOptions, Supply
    from pubd.amqp.topology import Topology
    from pubd.decision import Pause
    from pubd.entry import Entry
    from pubd.ledger import Delivery
    from pubd.message import Message
    from pubd.observer import Traces
    from pubd.outcome import Settlement
    from pubd.receipt import Receipt
    from pubd.spool.base import Books, Counted, Exported, Limits, Page, Query, Record, Snapshot, Spool, Swept

#: Parked messages of which it is told why, and groups of these: in a few milliseconds, however many are parked.
GROUPED, GROUPS = 5000, 100
#: Seconds for which a stop waits for answers of a RabbitMQ that blocks us.
BLOCKED = 1.0


class BrokerSide(Protocol):
    """What a publisher needs of :class:`pubd.amqp.broker.Broker`."""

    def start(self) -> None:
        """Connect and stay connected."""

    async def stop(self) -> None:
        """Close; always ends."""

    def drain(self) -> None:
        """Publish nothing more, take answers."""

    def pause(self, exchanges: Iterable[str | None]) -> None:
        """Publish to none of these (None: all), and to all others."""

    def retry_now(self) -> None:
        """Try what waits to be tried again."""

    def wake(self, exchanges: Iterable[str]) -> None:
        """These exchanges have messages."""

    def reconfigure(self, target: Target | None, options: LaneOptions) -> Deferred[None]:
        """Publish there (None: where it does) and so from now on.

        Fires, and never fails, when what is new has been declared, or cannot be.
        """

    @property
    def in_flight(self) -> int:
        """Deliveries without an answer."""

    @property
    def hopeful(self) -> bool:
        """Whether something may still be published or answered before somebody repairs anything."""

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ takes nothing at present."""

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
        failed: Callable[[SpoolError], None] = lambda _: None,
        traces: Traces | None = None,
    ) -> None:
        self._reactor = reactor
        self._spool = spool
        self._connect = connect
        self._options = options or Options()
        self._wall = wall
        self._random = random
        self._failed = failed
        self._policies = Policies(self._options.policies, self._options.policy)
        self._target: Target | None = None
        """Where to publish to, once that is another place than at first."""
        self._open: Deferred[None] | None = None
        self.observers = Observers()
        """Who else is told of what happens to messages."""
        spool.timed = self.observers.committed
        self._finding = Finding(spool=spool, clock=lambda: float(reactor.seconds()))
        self._traces = traces
        if traces is not None:
            traces.url = lambda: self._broker.status().url
            self.observers.add(traces)
        self._assemble()

    def _assemble(self) -> None:
        """What lives from one start to the next stop."""
        reactor, spool, wall = self._reactor, self._spool, self._wall
        self._receipts = Receipts()
        self._draining = Draining(reactor)
        self._parked_log = ParkedLog(reactor)
        self._wakeups = Wakeups(clock=reactor, wall=wall, spool=spool, wake=self._wake)
        self._healing = Healing(
            clock=reactor, spool=spool, policies=self._policies, wake=self._wake, released=self._reopened
        )
        self._settling = Settling(
            spool=spool,
            policies=self._policies,
            receipts=self._receipts,
            wakeups=self._wakeups,
            wake=self._wake,
            wall=wall,
            random=self._random,
            count_spool_time=self._options.expiration_counts_spool_time,
            parked_log=self._parked_log,
            parked=self._copy_parked,
            answered=self._answered,
            done=self._done,
        )
        self._deciding = Deciding(
            spool=spool, receipts=self._receipts, wake=self._wake, look=self._wakeups.look, wall=wall
        )
        self._broker = self._connect(self._settling)
        self._pausing = Pausing(spool=spool, apply=self._broker.pause, wake=self._wake, wall=wall)
        if self._target is not None:
            self._broker.reconfigure(self._target, self._options.lanes)
        self._sweeping = Sweeping(
            clock=reactor, wall=wall, spool=spool, retain=lambda: self._options.retain, swept=self._swept
        )
        self._accepting = Accepting(
            spool=spool,
            receipts=self._receipts,
            options=self._options,
            wall=wall,
            clock=reactor.seconds,
            announce=self._announce,
            appended=self._draining.look,
            traces=self._traces,
        )
        self._stopping = False
        self._stopped: Deferred[None] | None = None
        self.draining = False
        """Whether submissions are refused until :meth:`accept`."""

    @classmethod
    def from_url(
        cls,
        url: str | BrokerUrl | Sequence[str | BrokerUrl],
        *,
        spool: str | Spool = "memory:",
        reactor: Any = None,
        name: str = "pubd",
        topology: Topology | None = None,
        options: Options | None = None,
        events: BrokerEvents | None = None,
        limits: Limits | None = None,
        failed: Callable[[SpoolError], None] = lambda _: None,
        random: Callable[[], float] = random_module.random,
        wall: Callable[[], float] = time.time,
        traces: Traces | None = None,
    ) -> Publisher:
        """A publisher for the RabbitMQ at ``url`` (or the first of several that answers).

        ``name`` is shown by RabbitMQ as part of the connection's name. ``limits`` are those of a spool given as URL;
        without them ``memory:`` holds 1 GiB, and a file what the disk has room for. ``failed`` is called when the spool
        cannot be opened or its storage fails: the process should end. ``traces`` makes spans of what happens
        (``pubd.operate.tracing.Tracing``). Raises :class:`pubd.errors.InvalidOption`.
        """
        if reactor is None:
            from twisted.internet import reactor
        urls = [each if isinstance(each, BrokerUrl) else BrokerUrl.parse(each) for each in _several(url)]
        options = options or Options()
        if isinstance(spool, str):
            spool = spool_from_url(spool, reactor=reactor, limits=limits, wall=wall, failed=failed)
        elif limits is not None:
            raise InvalidOption("limits: give them to the spool itself; here they go with the URL of one")

        def connect(supply: Supply) -> Broker:
            return Broker(
                reactor=reactor,
                urls=urls,
                supply=supply,
                connection_name=connection_name(name),
                random=random,
                declare=topology,
                options=options.lanes,
                events=events,
            )

        return cls(
            reactor=reactor,
            spool=spool,
            connect=connect,
            options=options,
            random=random,
            wall=wall,
            failed=failed,
            traces=traces,
        )

    def reconfigure(
        self, options: Options, *, target: Target | None = None, limits: Limits | None = None
    ) -> Deferred[None]:
        """Go on with other options, from the next message and outcome on; with ``target`` publish to other brokers, or
        declare other things; ``limits`` are the spool's. Nothing is dropped, and nothing published twice for it.

        Fires, and never fails, when what is new has been declared, or cannot be at present.
        """
        self._options = options
        self._policies.reconfigure(options.policies, options.policy)
        self._healing.reconfigure()
        self._settling.count_spool_time = options.expiration_counts_spool_time
        self._accepting.options = options
        if limits is not None:
            self._spool.limits = limits
        if target is not None:
            self._target = target
        return self._broker.reconfigure(self._target, options.lanes)

    # For applications

    def submit(
        self, message: Message, *, principal: str | None = None, carrier: Mapping[str, str] | None = None
    ) -> Deferred[Receipt]:
        """Hand in one message; fires with its receipt once it is stored (and synced, with a durable spool).

        ``principal`` is noted as who handed it in. ``carrier`` may have a ``traceparent`` (W3C) and ``tracestate`` that
        the message's trace goes on from; it matters where there is tracing. Errback:
        :class:`pubd.errors.SpoolFull`, another :class:`~pubd.errors.SpoolError`, or
        :class:`~pubd.errors.PublisherStopped`; then nothing was accepted.
        """
        if (refused := self._refused()) is not None:
            return fail(refused)
        if not self._ready:
            return self._opened().addCallback(lambda _: self.submit(message, principal=principal, carrier=carrier))
        return self._accepting.one(message, principal, carrier)

    def submit_many(
        self, messages: Iterable[Message], *, principal: str | None = None, carrier: Mapping[str, str] | None = None
    ) -> Deferred[list[Receipt]]:
        """Hand in several messages, all of them or none; one commit. Receipts come in the same order."""
        if (refused := self._refused()) is not None:
            return fail(refused)
        if not self._ready:
            handed = list(messages)
            return self._opened().addCallback(lambda _: self.submit_many(handed, principal=principal, carrier=carrier))
        return self._accepting.many(messages, principal, carrier)

    def submit_each(
        self, messages: Iterable[Message], *, principal: str | None = None, carrier: Mapping[str, str] | None = None
    ) -> Deferred[list[Receipt | PubdError]]:
        """Hand in several messages, each accepted or refused on its own; one commit. Answers come in the same order.

        Never fails: what would be the errback of :meth:`submit` stands in the place of the receipt.
        """
        if (refused := self._refused()) is not None:
            return succeed([refused for _ in messages])
        if not self._ready:
            handed = list(messages)
            return self._opened().addCallback(lambda _: self.submit_each(handed, principal=principal, carrier=carrier))
        return self._accepting.each(messages, principal, carrier)

    def _refused(self) -> PubdError | None:
        if self._open is None or self._stopping:
            why = "is stopping" if self._stopping else "was not started: add it to your application or startService()"
            return PublisherStopped(f"the publisher {why}; nothing was accepted")
        if self._open.called and self._spool.ids is None:
            return SpoolError("the spool could not be opened, see the log; nothing was accepted")
        if self.draining:
            return PublisherDraining("pubd is draining: it publishes what it has and accepts nothing; come back later")
        return None

    def drain(self) -> None:
        """Refuse submissions from now on (:class:`pubd.errors.PublisherDraining`), and go on publishing what is there.

        Until :meth:`accept`, or the next start. Nothing is left when neither books nor ``submissions_under_way``
        have anything that is ready, in flight or deferred.
        """
        self.draining = True

    def accept(self) -> None:
        """Take submissions again."""
        self.draining = False

    @property
    def submissions_under_way(self) -> int:
        """Batches that were handed in and are not committed yet."""
        return self._accepting.under_way

    @property
    def refusal(self) -> PubdError | None:
        """Why a submission would be refused now, as far as publisher and spool know; None: it would not, but may wait.

        On a full disk one is tried all the same, and may be small enough.
        """
        refused = self._refused()
        return self._spool.refusal if refused is None and self._ready else refused

    @property
    def ready(self) -> bool:
        """Whether a submission would be taken now, as far as the publisher knows."""
        return self._ready and self._refused() is None

    @property
    def _ready(self) -> bool:
        # The spool's thread sets the ids at any moment: nobody may overtake those who wait until it is open.
        return self._spool.ids is not None and self._open is not None and self._open.called

    def _announce(self, entries: Sequence[Entry], seconds: float) -> None:
        """To the lanes, or to whoever wakes them in time."""
        self.observers.accepted(entries, seconds)
        self._wake({entry.exchange for entry in entries if entry.due is None})
        for entry in entries:
            if entry.due is not None:
                self._wakeups.at(entry.exchange, entry.due)

    def retry(self, ids: Sequence[str], *, who: str = APPLICATION) -> Deferred[Collection[str]]:
        """Publish parked and deferred messages again, now, with their attempts counted anew; not those that are held.

        As with the other decisions it fires, once that is stored, with the ids of those that it changed, and ``who`` it
        was is in their records.
        """
        return self._deciding.about(Verb.RETRY, ids, who)

    def _reopened(self, ids: Collection[str]) -> None:
        """Whoever asks for their settlement waits for the next one."""
        for id in ids:
            self._receipts.changed(id, State.READY, 0, None)

    def hold(self, ids: Sequence[str], reason: str, *, who: str = APPLICATION) -> Deferred[Collection[str]]:
        """Park messages that are ready or deferred, and not in flight, until they are released."""
        return self._deciding.about(Verb.HOLD, ids, who, reason)

    def release(self, ids: Sequence[str], *, who: str = APPLICATION) -> Deferred[Collection[str]]:
        """Let held messages go on from where they were, in their old places, with the attempts they had."""
        return self._deciding.about(Verb.RELEASE, ids, who)

    def discard(self, ids: Sequence[str], reason: str, *, who: str = APPLICATION) -> Deferred[Collection[str]]:
        """Drop messages that are not in flight."""
        return self._deciding.about(Verb.DISCARD, ids, who, reason)

    def flush(self, *, who: str = APPLICATION) -> Deferred[int]:
        """Try everything now: messages that back off, the connection, refused exchanges and declarations, healing.

        Fires with the number of messages that backed off. A delay that was asked for goes on.
        """
        self._broker.retry_now()
        self._healing.now()
        return Deferred.fromCoroutine(self._deciding.flush(who))

    def pause(self, exchange: str | None = None, reason: str = "", *, who: str = APPLICATION) -> Deferred[bool]:
        """Publish nothing to ``exchange`` (None: at all) until it is resumed, after a restart neither with a durable
        spool; what was published is still answered, and messages are accepted. False: it was paused before.
        """
        return Deferred.fromCoroutine(self._pausing.pause(exchange, who, reason))

    def resume(self, exchange: str | None = None, *, who: str = APPLICATION) -> Deferred[bool]:
        """End the pause of this exchange, or (None) that of all; those of single exchanges stay. False: none was."""
        return Deferred.fromCoroutine(self._pausing.resume(exchange, who))

    @property
    def pauses(self) -> Sequence[Pause]:
        """What is paused, by whom and since when."""
        return self._pausing.all

    def record(self, id: str) -> Deferred[Record | None]:
        """What is known of a message: its state, and every attempt that did not succeed; None if nothing is known."""
        return self._spool.record(id)

    def find(self, query: Query) -> Deferred[Page]:
        """List messages in order of acceptance; a page that is short and has a ``next`` ended for want of time."""
        return Deferred.fromCoroutine(self._finding.find(query))

    def count(self, query: Query) -> Deferred[Counted]:
        """Count messages, whatever the query's limit; where there is a ``next`` it ended for want of time."""
        return Deferred.fromCoroutine(self._finding.count(query))

    def search(self, message_id: str, before: str | None = None, limit: int = 100) -> Deferred[Page]:
        """Messages to which the application gave this ``message_id``, the last one accepted first.

        As no index leads to them it may end before everything was looked at: then ``next`` is what to go on ``before``.
        """
        return Deferred.fromCoroutine(self._finding.search(message_id, before, limit))

    def parked(self) -> Deferred[Parked]:
        """Why messages are parked, by exchange and reason: the largest groups of those that were accepted first."""
        if not self._spool.books().parked:
            return succeed(Parked())
        return self._spool.parked(GROUPED, GROUPS)

    def content(self, id: str) -> Deferred[Entry | None]:
        """The message itself; without its body once it is settled. None if nothing is known of it."""
        return self._spool.content(id)

    def exported(self, after: str | None, limit: int, max_bytes: int) -> Deferred[Sequence[Exported]]:
        """The next open messages, whole, in order of acceptance; none: there are no more."""
        return self._spool.exported(after, limit, max_bytes)

    def snapshot(self) -> Deferred[Snapshot]:
        """Begin a copy of the spool's file. Errback: :class:`pubd.errors.SpoolError`; there is no file, or no room."""
        return self._spool.snapshot()

    def last_id(self) -> str | None:
        """The id of the message that was numbered last; None: the spool is not open."""
        ids = self._spool.ids
        return ids.id_of(ids.last_seq) if ids is not None else None

    def oldest(self) -> Deferred[float | None]:
        """When (epoch seconds) the first of the messages that are ready or in flight was accepted; None: there is none.

        Errback: :class:`pubd.errors.SpoolError`. It answers as soon as the spool's thread does, and so tells whether it
        does.
        """
        return self._spool.oldest()

    def account(self) -> Account:
        """The books and the deliveries so far."""
        counts = self._settling.counts
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
        if self._stopped is not None:
            self._assemble()
        self._open = Deferred.fromCoroutine(self._start())

    def stopService(self) -> Deferred[None]:
        """Refuse submissions, wait for RabbitMQ's answers up to ``drain_timeout``, close channels and connection.

        Always fires. What is not settled by then is told :class:`pubd.errors.PublisherStopped`.
        """
        super().stopService()
        if self._open is None:
            return succeed(None)
        if self._stopped is None:
            self._stopping = True
            self._stopped = Deferred.fromCoroutine(self._stop())
        return _another(self._stopped)

    async def _start(self) -> None:
        try:
            await self._spool.open()
            await self._pausing.load()
            backlog = await self._spool.backlog()
        except SpoolError as error:
            self.log.critical("the spool cannot be opened: {error}", error=str(error))
            self._failed(error)
            return
        except Exception as mistake:
            self.log.failure("the spool cannot be opened; please report this")
            self._failed(SpoolError(f"{type(mistake).__name__}: {mistake}"))
            return
        if self._stopping:
            return
        self._broker.start()
        self._wake(backlog)
        for exchange in backlog:
            self._wakeups.look(exchange)
        self._healing.start()
        self._sweeping.start()

    async def _stop(self) -> None:
        await self._opened()
        self._healing.stop()
        self._sweeping.stop()
        until = self._reactor.seconds() + self._options.drain_timeout
        if not self._spool.durable:
            # What is accepted but not published would be gone with the process.
            await self._drained(lambda: self._publishable(until), until)
        self._broker.drain()
        if self._broker.blocked:
            # What RabbitMQ has read it answers; what it has not read, it does not.
            until = min(until, self._reactor.seconds() + BLOCKED)
        await self._drained(lambda: self._broker.in_flight, until)
        await self._broker.stop()
        await self._drained(lambda: 0, until)
        books = self._spool.books()
        await self._spool.close()
        self._open = None
        self._wakeups.stop()
        self._parked_log.stop()
        self._receipts.stop()
        self._report(books)

    def _publishable(self, until: float) -> int:
        """How many messages may be published before ``until`` (reactor seconds) without anybody's help."""
        books = self._spool.books()
        if self._pausing.everything:
            return books.in_flight
        if self._broker.hopeful or self._wakeups.within(until - self._reactor.seconds()):
            return books.held - books.parked
        return 0

    async def _drained(self, left: Callable[[], int], until: float) -> None:
        """Wait for ``left()`` and the commits under way to become 0, but not beyond ``until`` (reactor seconds)."""
        remaining = left() + self._uncommitted
        timeout = max(0.0, until - self._reactor.seconds())
        if not remaining:
            return
        self.log.info("stopping: waiting up to {timeout:.0f} s for {count} messages", timeout=timeout, count=remaining)
        await self._draining.drained(lambda: left() + self._uncommitted, timeout)

    @property
    def _uncommitted(self) -> int:
        return self._accepting.under_way + self._settling.under_way

    def _opened(self) -> Deferred[None]:
        """Fires once the spool has been opened, or not; each caller gets a Deferred of its own."""
        return succeed(None) if self._open is None else _another(self._open)

    # Between the parts

    def _wake(self, exchanges: Collection[str]) -> None:
        if exchanges:
            self._broker.wake(exchanges)

    def _answered(self, deliveries: Sequence[Delivery]) -> None:
        self.observers.answered(deliveries, self._reactor.seconds())

    def _done(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:
        self.observers.settled(confirmed, others)
        self._healing.settled(confirmed, others)
        self._draining.look()

    async def _store_copies(self, parked: Sequence[Settlement]) -> None:
        ids = self._spool.ids
        assert ids is not None
        entries = copies(parked, self._policies, ids, self._wall())
        if entries:
            self._wake(await self._spool.copy(entries, parked))

    def _copy_parked(self, parked: Sequence[Settlement]) -> Deferred[None]:
        return Deferred.fromCoroutine(self._store_copies(parked))

    def _swept(self, swept: Swept) -> None:
        for entry in swept.expired:
            self._receipts.changed(entry.id, State.EXPIRED, entry.attempts, None)
        self._wake(swept.wake)

    def _report(self, books: Books) -> None:
        if self._spool.ids is None:
            # Never opened, which was said: what it holds is not known.
            self.log.info("stopped")
        elif not books.held:
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


def connection_name(name: str) -> str:
    """What RabbitMQ's management shows: whose connection it is, and which process's."""
    return f"{name}@{socket.gethostname()}:{os.getpid()}"


def _another(first: Deferred[None]) -> Deferred[None]:
    """One Deferred more for the same event."""
    waiter: Deferred[None] = Deferred()
    first.addBoth(lambda _: waiter.callback(None))
    return waiter


def _several(url: str | BrokerUrl | Sequence[str | BrokerUrl]) -> Sequence[str | BrokerUrl]:
    return [url] if isinstance(url, str | BrokerUrl) else url
