"""Whose turn it is among the brokers, and when. Pure: the time is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.amqp.url import BrokerUrl
    from pubd.retry import Backoff


@attrs.define
class _Place:
    url: BrokerUrl
    refusals: int = 0
    due: float = 0.0
    refused: bool = False


class Rota:
    """Brokers are tried one after the other without a pause; only after a whole round there is one.

    A broker that refused sits out until its own, slower backoff has passed, so that it hinders no other. All times
    are seconds of one clock.
    """

    def __init__(
        self, urls: Sequence[BrokerUrl], *, backoff: Backoff, refusal_backoff: Backoff, random: Callable[[], float]
    ) -> None:
        if not urls:
            raise ValueError("a rota needs at least one broker")
        self._places = [_Place(url) for url in urls]
        self._backoff = backoff
        self._refusal_backoff = refusal_backoff
        self._random = random
        self._turn = 0
        self._tried = {0}
        self._rounds = 0
        self._not_before = 0.0

    @property
    def url(self) -> BrokerUrl:
        """The broker whose turn it is."""
        return self._places[self._turn].url

    @property
    def all_refused(self) -> bool:
        """Whether every broker's last answer was a refusal."""
        return all(place.refused for place in self._places)

    def succeeded(self, now: float) -> None:
        """The broker whose turn it is took the link in: every count begins anew."""
        place = self._places[self._turn]
        place.refusals, place.due, place.refused = 0, 0.0, False
        self._rounds = 0
        self._tried = {self._turn}
        # Two brokers that take the link in and drop it at once must not be a loop without a pause.
        self._not_before = now + self._backoff.delay(0, self._random)

    def failed(self, now: float, *, slow: bool, lasting: bool) -> float:
        """The broker whose turn it was failed; moves on, and returns the seconds until the next attempt.

        ``slow`` lets this broker sit out, ``lasting`` says that it refused for good.
        """
        place = self._places[self._turn]
        place.refused = lasting
        if slow:
            place.due = now + self._refusal_backoff.delay(place.refusals, self._random)
            place.refusals += 1
        return self._next(now)

    def _next(self, now: float) -> float:
        following = [(self._turn + step) % len(self._places) for step in range(1, len(self._places) + 1)]
        for turn in following:
            if turn not in self._tried and self._places[turn].due <= now:
                self._turn = turn
                self._tried.add(turn)
                return max(0.0, self._not_before - now)
        delay = self._backoff.delay(self._rounds, self._random)
        ready = [turn for turn in following if self._places[turn].due <= now + delay]
        if ready:
            self._turn = ready[0]
            self._rounds += 1
        else:
            self._turn = min(following, key=lambda turn: self._places[turn].due)
            delay = self._places[self._turn].due - now
        self._tried = {self._turn}
        return delay
