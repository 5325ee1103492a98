"""``/drain``: take nothing more, publish what is there, and then, if asked for, end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from pubd.intake.http.answer import Refusal, json_answer
from pubd.intake.http.decisions import JSON_MEDIA
from pubd.intake.http.route import Action, Route
from pubd.intake.wire import loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall

    from pubd.account import Account
    from pubd.intake.http.answer import Answer
    from pubd.intake.http.request import Request

#: Seconds between looks whether nothing is left.
LOOK = 0.2


class Drained(Protocol):
    """What is needed of :class:`pubd.Publisher`."""

    draining: bool

    def drain(self) -> None:
        """Accept nothing more."""

    def accept(self) -> None:
        """Accept again."""

    def account(self) -> Account:
        """The books."""

    @property
    def submissions_under_way(self) -> int:
        """Batches that were handed in before, and are not committed yet."""


class Drain:
    """The requests. ``stop`` ends pubd. Nothing of it is remembered over a restart: pubd accepts then."""

    log = Logger()

    def __init__(self, drained: Drained, *, clock: Any, stop: Callable[[], None]) -> None:
        self._drained = drained
        self._clock = clock
        self._stop = stop
        self._deferred = True
        """Whether what is deferred is waited for."""
        self._looking: IDelayedCall | None = None
        """pubd is to end."""

    def routes(self) -> Iterable[Route]:
        """What the HTTP intake is given."""
        return (
            Route(
                path="/drain",
                actions={
                    "GET": Action(act=self.get, operate=True),
                    "POST": Action(act=self.post, media=(JSON_MEDIA,), operate=True),
                    "DELETE": Action(act=self.delete, operate=True),
                },
            ),
        )

    def get(self, request: Request) -> Answer:
        """How far it is."""
        request.arguments(())
        return json_answer(self._object())

    def post(self, request: Request) -> Answer:
        """``{"stop": false, "deferred": true}``: accept nothing more; ``stop``: end once nothing is left."""
        request.arguments(())
        asked = loads(request.body) if request.body else {}
        stop, deferred = _flags(asked)
        if not self._drained.draining:
            self.log.info(
                "{principal} drains pubd: nothing is accepted any more{then}",
                principal=request.principal.name,
                then=", and it ends when nothing is left" if stop else "",
            )
        self._deferred = deferred
        self._drained.drain()
        if stop and self._looking is None:
            self._looking = self._clock.callLater(LOOK, self._look)
        elif not stop:
            self._look_no_more()
        return json_answer(self._object())

    def delete(self, request: Request) -> Answer:
        """Accept again."""
        request.arguments(())
        self._look_no_more()
        if self._drained.draining:
            self.log.info("{principal} has pubd accept again", principal=request.principal.name)
            self._drained.accept()
        return json_answer(self._object())

    def _object(self) -> dict[str, Any]:
        books = self._drained.account().books
        return {
            "draining": self._drained.draining,
            "stop": self._looking is not None,
            "left": self._left(),
            "ready": books.ready,
            "in_flight": books.in_flight,
            "deferred": books.deferred,
            "parked": books.parked,
        }

    def _left(self) -> int:
        """Messages, and batches that are just being stored."""
        books = self._drained.account().books
        waiting = books.ready + books.in_flight + (books.deferred if self._deferred else 0)
        return waiting + self._drained.submissions_under_way

    def _look(self) -> None:
        self._looking = self._clock.callLater(LOOK, self._look)
        if not self._left():
            self.log.info("nothing is left to publish; ending")
            self._look_no_more()
            self._stop()

    def _look_no_more(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None and looking.active():
            looking.cancel()


def _flags(asked: Any) -> tuple[bool, bool]:
    if not isinstance(asked, dict):
        raise Refusal("malformed", 'must be a JSON object such as {"stop": true}', field="body")
    for name, value in asked.items():
        if name not in ("stop", "deferred"):
            raise Refusal("malformed", "is not known here; the object takes stop and deferred", field=str(name))
        if not isinstance(value, bool):
            raise Refusal("malformed", "must be true or false", field=str(name))
    return asked.get("stop", False), asked.get("deferred", True)
