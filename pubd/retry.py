"""Backoff: how long to wait before the next attempt. Pure: randomness is an argument, there is no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen(kw_only=True)
class Backoff:
    """Exponential backoff with jitter, all times in seconds.

    The wait before attempt ``n`` is ``min(first * factor**n, max)``, of which the share ``jitter`` is random:
    0 is none, 0.2 suits links (retries spread, but no stampede at once), 1 is full jitter, for nacked messages.
    """

    first: float = attrs.field(default=0.5)
    factor: float = attrs.field(default=2.0)
    max: float = attrs.field(default=30.0)
    jitter: float = attrs.field()

    @first.validator
    def _check_first(self, _: attrs.Attribute[Any], value: float) -> None:
        if not 0 < value < math.inf:
            raise ValueError(f"first must be a positive number of seconds, not {value!r}")

    @factor.validator
    def _check_factor(self, _: attrs.Attribute[Any], value: float) -> None:
        if not 1 <= value < math.inf:
            raise ValueError(f"factor must be at least 1, not {value!r}")

    @max.validator
    def _check_max(self, _: attrs.Attribute[Any], value: float) -> None:
        if not self.first <= value < math.inf:
            raise ValueError(f"max must be at least first ({self.first!r}), not {value!r}")

    @jitter.validator
    def _check_jitter(self, _: attrs.Attribute[Any], value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"jitter must be between 0 (none) and 1 (full), not {value!r}")

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait before retry number ``attempt`` (0 is the first), between 0 and ``max``.

        ``random`` returns a number in [0, 1), as :func:`random.random` does.
        """
        if attempt < 0:
            raise ValueError(f"attempt must not be negative, not {attempt!r}")
        return self._base(attempt) * (1 - self.jitter * random())

    def _base(self, attempt: int) -> float:
        # Compared as logarithms, because first * factor**attempt overflows long before attempts do.
        if self.factor > 1 and attempt * math.log(self.factor) >= math.log(self.max / self.first):
            return self.max
        return min(self.first * self.factor**attempt, self.max)
