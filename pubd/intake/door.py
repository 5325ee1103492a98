"""Door: what an intake knows of the publisher. Who may, how much, and how much at a time.

Each intake has a door of its own, so that the flood of one fills its own budget only and the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from pubd.access import Refusals
from pubd.errors import NotAllowed, PubdError, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from pubd.access import Principal, Quotas
    from pubd.message import Message
    from pubd.receipt import Receipt


class Submissions(Protocol):
    """What a door needs of :class:`pubd.Publisher`."""

    def submit_each(
        self, messages: Sequence[Message], *, principal: str | None = None, carrier: Mapping[str, str] | None = None
    ) -> Deferred[list[Receipt | PubdError]]:
        """Each accepted or refused on its own, in order; never fails."""


class Door:
    """``clock`` counts seconds; ``max_unanswered`` is in bytes, of what was read and is not answered yet."""

    log = Logger()

    def __init__(
        self,
        *,
        publisher: Submissions,
        clock: Any,
        quotas: Quotas,
        max_unanswered: int,
        refusals: Refusals | None = None,
    ) -> None:
        self._publisher = publisher
        self._refusals = refusals or Refusals(clock=clock)
        self._clock = clock
        self._quotas = quotas
        self.max_unanswered = max_unanswered
        self._unanswered = 0
        self._waiting: list[Deferred[None]] = []
        self._begun: dict[object, Deferred[None]] = {}
        """Those who wait and hold a part, in the order in which they came."""
        self._turn: object | None = None
        """Whichever of these may go beyond the budget."""
        self._next: IDelayedCall | None = None

    # What may be read

    @property
    def unanswered(self) -> int:
        """Bytes that were taken and not given back."""
        return self._unanswered

    def take(self, size: int, begun: object | None = None) -> bool:
        """Count ``size`` bytes as read and not answered. False, and nothing is counted, if there is no room for them.

        One that is larger than the whole budget is let in when nothing else is there. ``begun``: who took a part, and
        can give back nothing before it has the rest. Several of these could fill the budget and wait for each other, so
        one at a time may go beyond, by half of the budget, until it is :meth:`done`.
        """
        total = self._unanswered + size
        if self._unanswered and total > self.max_unanswered:
            if begun is None:
                return False
            if self._turn is None:
                self._turn = begun
            if self._turn is not begun or total > self.max_unanswered * 3 // 2:
                return False
        self._unanswered = total
        return True

    def reconfigure(self, max_unanswered: int) -> None:
        """Another budget; whoever waits for room asks anew."""
        self.max_unanswered = max_unanswered
        self.give(0)

    def done(self, begun: object) -> None:
        """It has all of what it began, or is gone: the next one's turn."""
        self._begun.pop(begun, None)
        if self._turn is begun:
            self._turn = None
            self._let_next()

    def give(self, size: int) -> None:
        """These were answered, or their sender is gone."""
        self._unanswered -= size
        if self._unanswered <= self.max_unanswered // 2:
            # Half: or each answer would let in a single message, and batches would be no more.
            waiting, self._waiting = [*self._begun.values(), *self._waiting], []
            self._begun.clear()
            for each in waiting:
                each.callback(None)
        else:
            self._let_next()

    def when_room(self, begun: object | None = None) -> Deferred[None]:
        """Fires when it is worth while to :meth:`take` again; that may still be refused, others wait as well."""
        if self._unanswered <= self.max_unanswered // 2:
            return succeed(None)
        room: Deferred[None] = Deferred(self._waiting_no_more)
        if begun is None:
            self._waiting.append(room)
        else:
            self._begun[begun] = room
        return room

    def _waiting_no_more(self, room: Deferred[None]) -> None:
        if room in self._waiting:
            self._waiting.remove(room)
        for begun, its in list(self._begun.items()):
            if its is room:
                del self._begun[begun]

    def _let_next(self) -> None:
        """Not at once: whoever gives back is in the middle of something, and each one let in may give back at once."""
        if self._begun and self._next is None:
            self._next = self._clock.callLater(0, self._try_next)

    def _try_next(self) -> None:
        self._next = None
        begun = self._turn if self._turn is not None else next(iter(self._begun), None)
        room = self._begun.pop(begun, None) if begun is not None else None
        if room is not None:
            room.callback(None)
        if self._turn is None:
            self._let_next()

    # What is handed in

    def submit(
        self, principal: Principal, messages: Sequence[Message], carrier: Mapping[str, str] | None = None
    ) -> Deferred[list[Receipt | PubdError]]:
        """One answer for each message, in order; never fails. One commit for all that are allowed.

        ``carrier``: headers that may have the trace of whoever hands them in (:meth:`pubd.Publisher.submit`).
        """
        may = principal.may_publish
        allowed = [message for message in messages if may(message)]
        if not allowed:
            return succeed(self._with_refusals(principal, messages, may, []))
        wait = self._quotas.spend(
            principal, len(allowed), sum([len(message.body) for message in allowed]), self._clock.seconds()
        )
        if wait > 0:
            refused = QuotaExceeded(wait)
            answers: list[Receipt | PubdError] = [refused for _ in allowed]
            return succeed(self._with_refusals(principal, messages, may, answers))
        submitted = self._publisher.submit_each(allowed, principal=principal.name, carrier=carrier)
        submitted.addErrback(self._mistaken, len(allowed))
        if len(allowed) < len(messages):
            submitted.addCallback(lambda answers: self._with_refusals(principal, messages, may, answers))
        return submitted

    def _mistaken(self, failure: Failure, count: int) -> list[Receipt | PubdError]:
        self.log.failure("a submission was not answered; please report this", failure)
        return [PubdError("pubd made a mistake, see its log")] * count

    def _with_refusals(
        self,
        principal: Principal,
        messages: Sequence[Message],
        may: Callable[[Message], bool],
        answers: Sequence[Receipt | PubdError],
    ) -> list[Receipt | PubdError]:
        """The answers of the allowed messages, and refusals in the places of the others."""
        following = iter(answers)
        found: list[Receipt | PubdError] = []
        for message in messages:
            if may(message):
                found.append(next(following))
            else:
                self._refusals.not_allowed(principal, message)
                found.append(NotAllowed("you may not publish there"))
        return found
