"""Somebody sets the clock, or the machine slept: seen by comparing the time of day with a clock that only goes on."""

from __future__ import annotations

import attrs

#: Seconds that are a step. What a time service corrects bit by bit is far below that between two looks.
STEP = 5.0


@attrs.frozen(kw_only=True)
class Step:
    """``seconds`` forward, or back where negative; seen ``at`` (epoch seconds, by the new time)."""

    seconds: float
    at: float

    def __str__(self) -> str:
        direction = "forward" if self.seconds > 0 else "back"
        return f"the clock of this host was set {direction} by {abs(self.seconds):,.0f} s"


class StepWatch:
    """Asked often, with both clocks in seconds."""

    def __init__(self) -> None:
        self._ahead: float | None = None
        """How far the time of day is ahead of the other clock."""
        self.last: Step | None = None
        self.count = 0

    def look(self, *, clock: float, wall: float) -> Step | None:
        """The step since the last look, if there was one."""
        ahead, before = wall - clock, self._ahead
        self._ahead = ahead
        if before is None or abs(ahead - before) < STEP:
            return None
        self.count += 1
        self.last = Step(seconds=ahead - before, at=wall)
        return self.last
