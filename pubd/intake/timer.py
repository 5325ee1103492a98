"""The intake of pika's example: a message every interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pubd.errors import MessageParked, PubdError, PublisherStopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.message import Message
    from pubd.receipt import Receipt

T = TypeVar("T")


class Submit(Protocol):
    """``Publisher.submit``."""

    def __call__(self, message: Message) -> Deferred[Receipt]:
        """Store the message; fires with its receipt."""


class TimerIntake(Service):
    """Submits ``make()`` every ``interval`` seconds; with ``count``, until so many were confirmed.

    ``finished`` is called once when ``count`` messages were confirmed. Messages that were parked do not count: others
    are made in their place, so at any time at most as many are on their way as are still missing.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        submit: Submit,
        make: Callable[[], Message],
        interval: float,
        count: int | None = None,
        finished: Callable[[], None] = lambda: None,
    ) -> None:
        self._submit = submit
        self._make = make
        self._interval = interval
        self._missing = count
        self._on_way = 0
        self._refused = 0
        """Since the last one that was accepted."""
        self._finished = finished
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    def startService(self) -> None:
        """The first message goes at once."""
        super().startService()
        self._loop.start(self._interval).addErrback(
            lambda failure: self.log.failure("the timer stopped; no more messages are made", failure)
        )

    def stopService(self) -> Deferred[None]:
        """No more messages; those on their way are the publisher's."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return succeed(None)

    def _tick(self) -> None:
        if self._missing is not None and self._on_way >= self._missing:
            return
        self._on_way += 1
        Deferred.fromCoroutine(self._one()).addBoth(self._over).addErrback(
            lambda failure: self.log.failure("a message of the timer was lost sight of", failure)
        )

    def _over(self, result: T) -> T:
        self._on_way -= 1
        return result

    async def _one(self) -> None:
        try:
            receipt = await self._submit(self._make())
        except PublisherStopped:
            return
        except PubdError as error:
            self._was_refused(error)
            return
        self._was_accepted()
        try:
            await receipt.settled()
        except (PublisherStopped, MessageParked):
            # The publisher tells of parked messages.
            return
        except PubdError as error:
            self.log.warn("{error}", error=str(error))
        else:
            self._confirmed()

    def _was_refused(self, error: PubdError) -> None:
        """A full spool refuses at every tick: that is said once."""
        self._refused += 1
        if self._refused == 1:
            self.log.warn("{error}", error=str(error))

    def _was_accepted(self) -> None:
        if self._refused:
            self.log.info("messages are accepted again; {count} were refused", count=self._refused)
            self._refused = 0

    def _confirmed(self) -> None:
        if self._missing is None:
            return
        self._missing -= 1
        if self._missing == 0:
            if self._loop.running:
                self._loop.stop()
            self._finished()
