"""What can be read at any moment, for metrics and whoever else shows it: of an intake, and of tracing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class SpanReading(Protocol):
    """Spans since the start: ``made``, of which these were ``exported`` and these ``failed`` to be."""

    exported: int
    failed: int

    @property
    def made(self) -> int:
        """More than the other two: some are under way, and when too many are, some are dropped."""


@attrs.frozen(kw_only=True)
class IntakeReading:
    """``name`` is that of its table in the configuration. Sizes in bytes; None where it has no such thing."""

    name: str
    unanswered: Callable[[], int]
    """Bytes that were read and are not answered yet."""
    max_unanswered: int
    connections: Callable[[], int] | None = None
    max_connections: int | None = None
    refused: Callable[[], int] | None = None
    """Connections closed because there were too many."""
    answers: Callable[[], Mapping[int, int]] | None = None
    """HTTP answers by status."""
