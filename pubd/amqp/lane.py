"""One confirm-mode channel for one exchange: its window, its ledger, its pump.

Entries are claimed from the supply in order, written to the channel in batches as far as window, bytes and transport
allow, kept in the ledger until RabbitMQ answers, and handed back as outcomes, a batch for each read. Whatever was
claimed and cannot be answered for goes back to the supply: the lane owns nothing across a channel but its suspects.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import attrs
from pika.exceptions import ChannelClosed, ChannelClosedByBroker, ChannelClosedByClient
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pubd.amqp.encode import FrameEncoder
from pubd.amqp.lane_cycle import PUBLISHING, LaneInput, LaneState, next_state
from pubd.amqp.reasons import of_channel
from pubd.errors import InvalidMessage, LinkLost, SpoolError
from pubd.ledger import Delivery, Ledger
from pubd.outcome import Cause, Outcome, Reason, Via
from pubd.probation import (
    CHANNEL_STRIKES,
    CONNECTION_STRIKES,
    MESSAGE_KILLS_CONNECTION,
    Suspects,
    about_one_message,
)
from pubd.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pika.channel import Channel
    from pika.spec import Basic, BasicProperties
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from pubd.amqp.protocol import LinkProtocol
    from pubd.entry import Entry

#: One transport.write: large enough to amortise the call, small enough that back-pressure (64 KiB) has its say.
CHUNK = 1 << 16


class Supply(Protocol):
    """Where a lane's messages come from and its outcomes go to."""

    def claim(self, exchange: str, limit: int, max_bytes: int) -> Deferred[Sequence[Entry]]:
        """The next messages of ``exchange``, in order."""

    def release(self, entries: Sequence[Entry]) -> None:
        """Claimed messages that were not published; they keep their place."""

    def outcomes(self, deliveries: Sequence[Delivery]) -> None:
        """Deliveries that have ended, in order, each with its outcome."""


@attrs.frozen(kw_only=True)
class LaneOptions:
    """``window`` in deliveries, ``window_bytes`` in bytes (a single larger message goes alone), times in seconds."""

    window: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    window_bytes: int = attrs.field(default=16 << 20, validator=attrs.validators.ge(1))
    confirm_timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    idle_timeout: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    backoff: Backoff = Backoff(first=0.5, max=30.0, jitter=0.2)


class LaneEvents(Protocol):
    """What the owner of the lanes wants to know."""

    def lane_closed(self, exchange: str, reason: Reason) -> None:
        """RabbitMQ closed the channel of this lane, or refused to open it."""

    def lane_may_risk(self, exchange: str) -> bool:
        """Whether a lane may publish a suspect of a connection error now: one in flight at a time, over all lanes."""

    def lane_rests(self, exchange: str) -> None:
        """This lane has no suspect in flight any more; others may have waited for that."""


class Lane:
    """Publishes the messages of one exchange. ``attach`` and ``detach`` tell it of the link, ``wake`` of work."""

    log = Logger()

    def __init__(
        self,
        exchange: str,
        *,
        clock: IReactorTime,
        supply: Supply,
        events: LaneEvents,
        options: LaneOptions,
        random: Callable[[], float],
    ) -> None:
        self.exchange = exchange
        self.state = LaneState.IDLE
        self.reason: Reason | None = None
        """Why RabbitMQ refused the lane last; None once it has confirmed something again."""
        self.published = 0
        self._clock = clock
        self._supply = supply
        self._events = events
        self._options = options
        self._random = random
        self._connection: LinkProtocol | None = None
        self._channel: Channel | None = None
        self._encoder: FrameEncoder | None = None
        self._ledger = Ledger()
        self._queue: deque[Entry] = deque()
        self._answered: list[Delivery] = []
        self._suspects = Suspects()
        self._refusals = 0
        self._more = False
        self._claiming = False
        self._draining = False
        self.paused = False
        """An operator wants nothing published; set by :meth:`pause` and :meth:`go_on`."""
        self._blocked = False
        self._generation = 0
        self._last_answer = clock.seconds()
        self._unblocked_at = clock.seconds()
        self._busy_until = clock.seconds()
        self._pump_call: IDelayedCall | None = None
        self._retry_call: IDelayedCall | None = None

    # What the owner asks

    @property
    def in_flight(self) -> int:
        """Deliveries that RabbitMQ has not answered."""
        return len(self._ledger)

    @property
    def in_flight_bytes(self) -> int:
        return self._ledger.bytes

    @property
    def suspects(self) -> int:
        """Messages still to be cleared on probation."""
        return len(self._suspects)

    @property
    def risks_connection(self) -> bool:
        """Whether one of the suspects may make RabbitMQ close the connection."""
        return self._suspects.of_connection

    @property
    def working(self) -> bool:
        """Whether it has, or may find, something to publish, or waits for answers."""
        if self.state is LaneState.REFUSED or self.paused:
            return bool(len(self._ledger))
        return self._busy or self._more

    @property
    def disposable(self) -> bool:
        """Nothing is lost when this lane is forgotten."""
        return self.state is LaneState.IDLE and not (self._more or self._claiming or self._queue or self._suspects)

    def overdue(self, now: float) -> bool:
        """Whether RabbitMQ owes answers for too long: none at all, or one particular one for ten times as long."""
        timeout = self._options.confirm_timeout
        if self.state in (LaneState.OPENING, LaneState.CLOSING):
            return now - self._last_answer > timeout
        oldest = self._ledger.oldest
        if oldest is None:
            return False
        # While RabbitMQ took nothing it owed nothing.
        owed_since = max(oldest.sent_at, self._unblocked_at)
        return now - max(owed_since, self._last_answer) > timeout or now - owed_since > 10 * timeout

    def quiet(self, now: float) -> bool:
        """Whether the channel has not been needed for ``idle_timeout``."""
        return self.state is LaneState.OPEN and not self._busy and now - self._busy_until > self._options.idle_timeout

    # What the owner tells

    def attach(self, connection: LinkProtocol) -> None:
        """The link is up, and not blocked."""
        self._connection = connection
        self._blocked = False
        self.wake()

    def detach(self) -> None:
        """The link is gone; the channel was told so by pika before, unless it never opened."""
        self._connection = None
        self._input(LaneInput.LINK_LOST)

    def wake(self) -> None:
        """There may be something to publish, or room for it."""
        self._more = True
        if self._pump_call is None and not self._draining:
            self._pump_call = self._clock.callLater(0, self._pump_now)

    def resume(self) -> None:
        """The transport has room: go on at once, before answers make another lane fill it."""
        self._pump()

    def flush(self) -> None:
        """One read of the link has been taken in: hand its outcomes up and go on publishing."""
        if not self._answered:
            return
        answered, self._answered = self._answered, []
        self._last_answer = self._busy_until = self._clock.seconds()
        if self._refusals:
            self._refusals = 0
            self.reason = None
        self._clear(answered)
        self._supply.outcomes(answered)
        self._pump()
        if self.risks_connection and not len(self._ledger):
            self._events.lane_rests(self.exchange)

    def block(self) -> None:
        """RabbitMQ takes nothing for now: write nothing."""
        self._blocked = True

    def unblock(self) -> None:
        """RabbitMQ takes messages again; its time for answering starts now."""
        self._blocked = False
        self._last_answer = self._unblocked_at = self._clock.seconds()
        self.wake()

    def reconfigure(self, options: LaneOptions) -> None:
        """Other options, from the next message on; what is in flight stays so."""
        self._options = options
        if self.state in PUBLISHING:
            self.wake()

    def pause(self) -> None:
        """Publish nothing for now; what is in flight is still answered, what was claimed goes back."""
        self.paused = True
        self._more |= bool(self._queue)
        self._release_queue()

    def go_on(self) -> None:
        """Publish again."""
        self.paused = False
        self.wake()

    def retry_now(self) -> None:
        """Do not wait any longer to find out whether RabbitMQ still refuses."""
        if self._retry_call is not None and self._retry_call.active():
            self._retry_call.cancel()
            self._retry()

    def close_when_quiet(self) -> None:
        """Close the channel; it is opened again when there is work."""
        self._input(LaneInput.QUIET)

    def drain(self) -> None:
        """Publish nothing more; what is in flight is still answered."""
        self._draining = True
        self._release_queue()

    def stop(self) -> None:
        """Forget timers; called once, after the link has been stopped."""
        self.drain()
        for call in (self._pump_call, self._retry_call):
            if call is not None and call.active():
                call.cancel()
        self._pump_call = self._retry_call = None

    # The life cycle

    def _input(self, happened: LaneInput) -> None:
        before, self.state = self.state, next_state(self.state, happened)
        if self.state is before:
            return
        if before is LaneState.REFUSED and self._retry_call is not None:
            if self._retry_call.active():
                self._retry_call.cancel()
            self._retry_call = None
        if self.state in (LaneState.OPENING, LaneState.CLOSING):
            self._last_answer = self._clock.seconds()
        if self.state is LaneState.OPENING:
            self._open()
        elif self.state is LaneState.REFUSED:
            self._back_off()
        elif self.state is LaneState.CLOSING:
            assert self._channel is not None
            self._channel.close()
        elif self.state is LaneState.IDLE and self._more:
            self.wake()

    def _back_off(self) -> None:
        delay = self._options.backoff.delay(self._refusals, self._random)
        self._refusals += 1
        self._retry_call = self._clock.callLater(delay, self._retry)
        self.log.warn(
            "lane {exchange!r} {reason}; its messages wait, trying again in {delay:.1f} s",
            exchange=self.exchange,
            reason=self.reason,
            delay=delay,
        )

    def _retry(self) -> None:
        """Ask RabbitMQ again, if there is still a message for which that matters."""
        self._retry_call = None
        if self._claiming or self._draining:
            self._input(LaneInput.RETRY)
            return
        self._claiming, self._more = True, False
        waiting = self._supply.claim(self.exchange, 1, self._options.window_bytes)
        waiting.addCallbacks(self._looked, self._look_failed)

    def _looked(self, entries: Sequence[Entry]) -> None:
        self._claiming = False
        if entries:
            self._more = True
            self._supply.release(entries)
        else:
            self._acquit_the_absent()
        if self.state is not LaneState.REFUSED:
            # The link was lost meanwhile, and may be back.
            if self._more:
                self.wake()
            return
        if not self._more:
            self.log.info("lane {exchange!r} rests: no message waits for it any more", exchange=self.exchange)
        self._input(LaneInput.RETRY if self._more else LaneInput.QUIET)

    def _look_failed(self, failure: Failure) -> None:
        self._more = True
        self._claim_failed(failure)
        if self.state is LaneState.REFUSED:
            self._input(LaneInput.RETRY)

    def _open(self) -> None:
        Deferred.fromCoroutine(self._open_channel()).addErrback(self._open_failed)

    async def _open_channel(self) -> None:
        connection = self._connection
        if connection is None:
            self._input(LaneInput.LINK_LOST)
            return
        try:
            channel = await connection.open_channel()
        except LinkLost as lost:
            # A connection that is ending says so itself, by detach.
            if connection is self._connection and connection.usable:
                self._refused(lost.reason)
            return
        if connection is not self._connection:
            return
        self._channel = channel
        self._ledger = Ledger(Via(connection.node, channel.channel_number))
        self._encoder = FrameEncoder(channel.channel_number, connection.frame_max)
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        # Queued behind one another by pika. If one of them fails the channel is closed and nothing more is answered.
        if self.exchange:
            # The default exchange always exists and may not be declared.
            channel.exchange_declare(self.exchange, passive=True, callback=lambda _: None)
        connection.listen(channel.channel_number, self._on_answer)
        channel.confirm_delivery(lambda _: None, callback=lambda _: self._on_select_ok(channel))

    def _open_failed(self, failure: Failure) -> None:
        """pika refused to ask at all (no free channel number, a broker without publisher confirms, ...)."""
        self._channel = None
        self._refused(Reason(cause=Cause.REFUSED, text=f"{type(failure.value).__name__}: {failure.value}"))

    def _on_select_ok(self, channel: Channel) -> None:
        number = channel.channel_number
        if channel is not self._channel:
            return
        if self.reason is not None and not self._refusals:
            self.reason = None
        self._last_answer = self._busy_until = self._clock.seconds()
        self._input(LaneInput.OPENED_SUSPICIOUS if self._suspects else LaneInput.OPENED)
        self.log.debug("lane {exchange!r} is open on channel {number}", exchange=self.exchange, number=number)
        self.wake()

    def _on_channel_closed(self, channel: Channel, error: Exception) -> None:
        number = channel.channel_number
        if channel is not self._channel:
            return
        if self._connection is not None:
            self._connection.forget(number)
        self._channel = self._encoder = None
        self._generation += 1
        by_broker = isinstance(error, ChannelClosedByBroker)
        reason = of_channel(error)
        if not isinstance(error, ChannelClosed) and self._connection is not None:
            # pika tells the channels of a lost connection nothing of why it was lost.
            reason = self._connection.reason or reason
        # What RabbitMQ answered in this same read was answered.
        ended, self._answered = self._answered, []
        lost = self._ledger.lose(reason)
        ended += lost
        unknown = [delivery for delivery in lost if delivery.outcome is Outcome.LOST]
        happened = LaneInput.LINK_LOST
        if by_broker and about_one_message(reason):
            self._suspect(unknown, reason, CHANNEL_STRIKES)
            if self.state is LaneState.OPENING:
                self.reason = _refusal(reason)
            happened = LaneInput.SUSPECTED
        elif by_broker:
            self.reason = _refusal(reason)
            happened = LaneInput.REFUSED
        elif isinstance(error, ChannelClosedByClient):
            happened = LaneInput.CLOSED
        elif reason.code in MESSAGE_KILLS_CONNECTION:
            self._suspect(unknown, reason, CONNECTION_STRIKES)
        self._suspects.clear(delivery.entry for delivery in ended if delivery.outcome is not Outcome.LOST)
        # An idle lane whose channel closes has no reason to open it again.
        self._more |= bool(ended or self._queue)
        self._release_queue()
        if ended:
            self._supply.outcomes(ended)
        if by_broker:
            self._events.lane_closed(self.exchange, reason)
        self._input(happened)

    def _refused(self, reason: Reason) -> None:
        self.reason = _refusal(reason)
        self._input(LaneInput.REFUSED)

    def _suspect(self, unknown: Sequence[Delivery], reason: Reason, strikes: int) -> None:
        culprit = self._suspects.accuse(unknown, reason, strikes)
        if culprit is None and unknown:
            self.log.warn(
                "lane {exchange!r}: {reason}; replaying {count} messages one at a time to find the culprit",
                exchange=self.exchange,
                reason=reason,
                count=len(self._suspects),
            )

    # The pump

    @property
    def _busy(self) -> bool:
        return bool(self._queue or self._claiming or len(self._ledger))

    def _window(self) -> int:
        """One at a time on probation, and after a refusal until RabbitMQ has confirmed something."""
        return 1 if self._suspects or self._refusals else self._options.window

    def _pump_now(self) -> None:
        self._pump_call = None
        self._pump()

    def _pump(self) -> None:
        connection = self._connection
        if connection is None or self._draining or self.paused or not connection.usable:
            return
        if self.state is LaneState.IDLE and self._more:
            self._input(LaneInput.WORK)
        elif self.state in PUBLISHING and not (connection.paused or self._blocked):
            if not self._suspects.of_connection or self._events.lane_may_risk(self.exchange):
                self._publish(connection)
            self._claim()

    def _acquit_the_absent(self) -> None:
        """Suspects are claimed before anything newer: those that do not come are settled, or wait behind another."""
        if self._suspects and not len(self._ledger) and not (self._queue and self._queue[0] in self._suspects):
            self._suspects.acquit()
            self._cleared()

    def _cleared(self) -> None:
        self._input(LaneInput.CLEARED)
        self._events.lane_rests(self.exchange)

    def _publish(self, connection: LinkProtocol) -> None:
        if self._queue:
            self._acquit_the_absent()
        queue, ledger, encoder = self._queue, self._ledger, self._encoder
        assert encoder is not None
        assert self._channel is not None
        window, window_bytes = self._window(), self._options.window_bytes
        now = self._clock.seconds()
        poison: list[Delivery] = []
        # Every write asks anew whether connection and channel still take frames: a write may end either.
        while queue and not connection.paused and connection.usable and self._channel.is_open:
            chunk: list[bytes] = []
            size, room = 0, window - len(ledger)
            while queue and room > len(chunk) and size < CHUNK:
                entry = queue[0]
                if ledger.bytes + entry.size > window_bytes and len(ledger):
                    break
                try:
                    frames = encoder.publish(entry)
                except InvalidMessage as error:
                    reason = Reason(cause=Cause.POISON, text=str(error))
                    poison.append(Delivery(entry, 0, now, entry.size, Outcome.POISON, reason))
                    queue.popleft()
                    continue
                if not ledger.add(entry, now):
                    break
                queue.popleft()
                chunk.append(frames)
                size += len(frames)
            if not chunk:
                break
            self.published += len(chunk)
            connection.write_frames(b"".join(chunk))
        if poison:
            # Only now: whoever hears of it may want to stop, or to submit, at once.
            self._clear(poison)
            self._supply.outcomes(poison)

    def _clear(self, answered: Sequence[Delivery]) -> None:
        if self._suspects.clear(delivery.entry for delivery in answered):
            self._cleared()

    def _claim(self) -> None:
        """Ask for more when a quarter of the window is free, so that the next batch is here when acks make room.

        What is claimed and not settled never exceeds one window, and so do the duplicates after a crash: the spool
        answers a claim after it has committed the settlements that came before.
        """
        window = self._options.window
        room = window - len(self._queue) - len(self._ledger)
        if self._claiming or not self._more or room < max(1, window // 4):
            return
        self._claiming = True
        self._more = False
        generation = self._generation
        claimed = self._supply.claim(self.exchange, room, self._options.window_bytes)
        claimed.addCallbacks(self._claimed, self._claim_failed, callbackArgs=(generation,))

    def _claimed(self, entries: Sequence[Entry], generation: int) -> None:
        self._claiming = False
        if not entries:
            self._acquit_the_absent()
            if self._more:
                # Something came while the spool was looking.
                self.wake()
            return
        self._more = True
        if generation != self._generation or self._draining or self.paused:
            self._supply.release(entries)
            self.wake()
            return
        self._queue.extend(entries)
        self._pump()

    def _claim_failed(self, failure: Failure) -> None:
        self._claiming = False
        if failure.check(SpoolError):
            self.log.error(
                "lane {exchange!r} could not claim from the spool: {error}",
                exchange=self.exchange,
                error=str(failure.value),
            )
            return
        self.log.failure("lane {exchange!r} could not claim from the spool", failure, exchange=self.exchange)

    def _release_queue(self) -> None:
        if self._queue:
            queue, self._queue = self._queue, deque()
            self._supply.release(queue)

    # What RabbitMQ says; the connection and pika call these, an exception in them would kill the connection

    def _on_answer(self, tag: int, multiple: bool, acked: bool) -> None:
        answered = self._ledger.ack(tag, multiple) if acked else self._ledger.nack(tag, multiple)
        if not answered:
            self.log.error(
                "lane {exchange!r}: RabbitMQ answered delivery tag {tag}, which is not in flight",
                exchange=self.exchange,
                tag=tag,
            )
        self._answered += answered

    def _on_return(self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        reason = Reason(cause=Cause.RETURNED, code=method.reply_code, text=method.reply_text)
        if not self._ledger.returned(properties.message_id or "", reason):
            self.log.error(
                "lane {exchange!r}: RabbitMQ returned message {message_id}, which is not in flight",
                exchange=self.exchange,
                message_id=properties.message_id,
            )


def _refusal(reason: Reason) -> Reason:
    """To the deliveries the channel is lost; to the lane it is refused."""
    return attrs.evolve(reason, cause=Cause.REFUSED)
