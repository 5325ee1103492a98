"""IntakeReading: what can be read off an intake at any moment, for metrics and whoever else shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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
