"""A spool whose answers come later, as those of a disk do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from pubd.spool.memory import MemorySpool

T = TypeVar("T")


class AtOnce:
    """A clock on which nothing takes time, for the contract suite."""

    def callLater(self, seconds: float, call: Callable[..., object], *given: object) -> None:
        del seconds
        call(*given)


class SlowSpool(MemorySpool):
    """What it is asked is done at once; the answers fire after ``opening``, ``commit`` or ``claiming`` seconds."""

    durable: bool

    def __init__(
        self,
        clock: Any,
        *,
        opening: float = 0.0,
        commit: float = 0.0,
        claiming: float = 0.0,
        durable: bool = False,
        max_bytes: int = 1 << 30,
    ) -> None:
        super().__init__(max_bytes=max_bytes)
        self.durable = durable
        self.opening = opening
        self.commit = commit
        self.claiming = claiming
        self.is_open = False
        self._clock = clock

    def _later(self, seconds: float, answer: Deferred[T]) -> Deferred[T]:
        later: Deferred[T] = Deferred()
        self._clock.callLater(seconds, answer.chainDeferred, later)
        return later

    def open(self) -> Any:
        self.is_open = True
        return self._later(self.opening, super().open())

    def close(self) -> Any:
        self.is_open = False
        return self._later(self.commit, super().close())

    # Whatever a spool's methods take: this one only makes them wait.

    def backlog(self, *given: Any, **named: Any) -> Any:
        return self._later(self.claiming, super().backlog(*given, **named))

    def due(self, *given: Any, **named: Any) -> Any:
        return self._later(self.claiming, super().due(*given, **named))

    def record(self, *given: Any, **named: Any) -> Any:
        return self._later(self.claiming, super().record(*given, **named))

    def oldest(self, *given: Any, **named: Any) -> Any:
        return self._later(self.claiming, super().oldest(*given, **named))

    def parked(self, *given: Any, **named: Any) -> Any:
        return self._later(self.claiming, super().parked(*given, **named))

    def append(self, *given: Any, **named: Any) -> Any:
        return self._later(self.commit, super().append(*given, **named))

    def append_each(self, *given: Any, **named: Any) -> Any:
        return self._later(self.commit, super().append_each(*given, **named))

    def claim(self, *given: Any, **named: Any) -> Any:
        return self._later(self.claiming, super().claim(*given, **named))

    def settle(self, *given: Any, **named: Any) -> Any:
        return self._later(self.commit, super().settle(*given, **named))
