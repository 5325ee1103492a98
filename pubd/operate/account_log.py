"""The running account in the log: a line when something changed, at most one each ``interval``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.account import Account


class AccountLog(Service):
    """Logs ``account()`` in the words of pika's example, and an imbalance of the books as an error."""

    log = Logger()

    def __init__(self, *, clock: Any, account: Callable[[], Account], interval: float = 1.0) -> None:
        self._account = account
        self._last: Account | None = None
        self._loop = LoopingCall(self.write)
        self._loop.clock = clock
        self._interval = interval

    def startService(self) -> None:
        super().startService()
        self._loop.start(self._interval, now=False).addErrback(
            lambda failure: self.log.failure("the account is not logged any more", failure)
        )

    def stopService(self) -> Deferred[None]:
        """What changed since the last line is told once more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
            self.write()
        return succeed(None)

    def write(self) -> None:
        """Log the account if it has changed since the last line."""
        account = self._account()
        if account == self._last or not (account.published or account.books.accepted):
            return
        self._last = account
        self.log.info(
            "Published {published} messages, {pending} have yet to be confirmed, "
            "{acked} were acked and {nacked} were nacked, {returned} were returned and {lost} were lost; "
            "{held} held ({parked} parked)",
            # Plain numbers, which a JSON log keeps.
            published=account.published,
            pending=account.pending,
            acked=account.acked,
            nacked=account.nacked,
            returned=account.returned,
            lost=account.lost,
            held=account.books.held,
            parked=account.books.parked,
        )
        if account.books.difference:
            self.log.error(
                "the books do not balance: {difference} of {accepted} accepted messages are unaccounted for; "
                "please report this as a bug with the lines above",
                difference=account.books.difference,
                accepted=account.books.accepted,
            )
