"""Accepting: from messages that were handed in, through one append to the spool, to their receipts.

What is handed in one by one while the spool is busy goes there together, as the next batch; each has its own answer.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail

from pubd.errors import PubdError
from pubd.submission import entry_of, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from twisted.python.failure import Failure

    from pubd.entry import Entry
    from pubd.message import Message
    from pubd.observer import Traces
    from pubd.options import Options
    from pubd.receipt import Receipt, Receipts
    from pubd.spool.base import Accepted, Spool

#: Batches under way in the spool before single submissions wait to be a batch of their own: one is being synced, the
#: next one is ready for the spool's thread when it is done.
APPENDS = 2
_NEW = attrgetter("new")


class Accepting:
    """For a spool that is open. ``announce`` is called with what was accepted, and in how many seconds (of ``clock``),
    before the receipts are given out.

    ``appended`` is called whenever a batch was committed or refused. ``carrier``: see
    :class:`pubd.observer.Traces`.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        receipts: Receipts,
        options: Options,
        wall: Callable[[], float],
        clock: Callable[[], float],
        announce: Callable[[Sequence[Entry], float], None],
        appended: Callable[[], None],
        traces: Traces | None = None,
    ) -> None:
        self._spool = spool
        self._receipts = receipts
        self.options = options
        self._wall = wall
        self._clock = clock
        self._announce = announce
        self._on_appended = appended
        self._traces = traces
        self._singles: list[tuple[Entry, Deferred[Receipt]]] = []
        """Submitted one by one, and waiting for a batch to be committed."""
        self.under_way = 0
        """Batches that are not committed yet."""

    def one(
        self, message: Message, principal: str | None, carrier: Mapping[str, str] | None = None
    ) -> Deferred[Receipt]:
        """See :meth:`pubd.Publisher.submit`."""
        ids = self._spool.ids
        assert ids is not None
        try:
            entry = entry_of(message, ids, self.options, self._wall(), principal)
        except PubdError as error:
            return fail(error)
        answer: Deferred[Receipt] = Deferred()
        if self._traces is not None and (told := self._traces.submitted((entry,), carrier)) is not None:
            answer.addBoth(told)
        self._singles.append((entry, answer))
        if self.under_way < APPENDS:
            self._append_singles()
        return answer

    def many(
        self, messages: Iterable[Message], principal: str | None, carrier: Mapping[str, str] | None = None
    ) -> Deferred[list[Receipt]]:
        """See :meth:`pubd.Publisher.submit_many`."""
        ids, options, now = self._spool.ids, self.options, self._wall()
        assert ids is not None
        messages = list(messages)
        numbers = zip(messages, ids.take(len(messages)), strict=True)
        try:
            entries = [numbered(message, seq, ids, options, now, principal) for message, seq in numbers]
        except PubdError as error:
            return fail(error)
        told = self._traces.submitted(entries, carrier) if self._traces is not None else None
        self._append_singles()
        self.under_way += 1
        # One callback, not a chain of small ones: each step of a Deferred costs as much as encoding a message.
        appended = self._spool.append(entries)
        accepted: Deferred[list[Receipt]] = appended.addCallbacks(
            self._accepted, self._refused, callbackArgs=(entries, self._clock())
        )
        return accepted if told is None else accepted.addBoth(told)

    def each(
        self, messages: Iterable[Message], principal: str | None, carrier: Mapping[str, str] | None = None
    ) -> Deferred[list[Receipt | PubdError]]:
        """See :meth:`pubd.Publisher.submit_each`."""
        ids, options, now = self._spool.ids, self.options, self._wall()
        assert ids is not None
        answers: list[PubdError | None] = []
        entries: list[Entry] = []
        messages = list(messages)
        for message, seq in zip(messages, ids.take(len(messages)), strict=True):
            try:
                entries.append(numbered(message, seq, ids, options, now, principal))
            except PubdError as error:
                answers.append(error)
            else:
                answers.append(None)
        told = self._traces.submitted(entries, carrier) if self._traces is not None and entries else None
        self._append_singles()
        appended = self._append_each(entries)
        if told is not None:
            appended.addBoth(told)
        return appended if len(entries) == len(answers) else appended.addCallback(_in_their_places, answers)

    def _append_singles(self) -> None:
        """Those who wait: one batch."""
        if not self._singles:
            return
        singles, self._singles = self._singles, []
        answers = [answer for _, answer in singles]
        self._append_each([entry for entry, _ in singles]).addCallbacks(
            _answer, _fail, callbackArgs=(answers,), errbackArgs=(answers,)
        )

    def _append_each(self, entries: Sequence[Entry]) -> Deferred[list[Receipt | PubdError]]:
        self.under_way += 1
        appended: Deferred[Any] = self._spool.append_each(entries)
        return appended.addCallbacks(
            self._each_accepted, self._none_accepted, (entries, self._clock()), errbackArgs=(entries,)
        )

    def _accepted(self, accepted: Sequence[Accepted], entries: Sequence[Entry], since: float) -> list[Receipt]:
        self._appended()
        if not all(map(_NEW, accepted)):
            # Known by their idempotency keys: accepted, and told of, when they came first.
            entries = [entry for entry, each in zip(entries, accepted, strict=True) if each.new]
        self._announce(entries, self._clock() - since)
        return self._receipts.issue(accepted)

    def _refused(self, failure: Failure) -> Failure:
        self._appended()
        return failure

    def _each_accepted(
        self, accepted: Sequence[Accepted | PubdError], entries: Sequence[Entry], since: float
    ) -> list[Receipt | PubdError]:
        taken = [each for each in accepted if not isinstance(each, PubdError)]
        if len(taken) == len(entries):
            return [*self._accepted(taken, entries, since)]
        stored = [entry for entry, each in zip(entries, accepted, strict=True) if not isinstance(each, PubdError)]
        receipts = iter(self._accepted(taken, stored, since))
        return [each if isinstance(each, PubdError) else next(receipts) for each in accepted]

    def _none_accepted(self, failure: Failure, entries: Sequence[Entry]) -> list[Receipt | PubdError]:
        self._appended()
        failure.trap(PubdError)
        assert isinstance(failure.value, PubdError)
        return [failure.value] * len(entries)

    def _appended(self) -> None:
        self.under_way -= 1
        self._append_singles()
        self._on_appended()


def _answer(receipts: Sequence[Receipt | PubdError], answers: Sequence[Deferred[Receipt]]) -> None:
    for receipt, answer in zip(receipts, answers, strict=True):
        if isinstance(receipt, PubdError):
            answer.errback(receipt)
        else:
            answer.callback(receipt)


def _fail(failure: Failure, answers: Sequence[Deferred[Receipt]]) -> None:
    """What is no error of pubd's own is for the submitters all the same: nobody else waits for it."""
    for answer in answers:
        answer.errback(failure)


def _in_their_places(
    receipts: Sequence[Receipt | PubdError], answers: Sequence[PubdError | None]
) -> list[Receipt | PubdError]:
    """``answers`` with the receipts where there is none yet."""
    following = iter(receipts)
    return [next(following) if answer is None else answer for answer in answers]
