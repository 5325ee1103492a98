"""Why messages are parked, told of many at once: what an operator decides about together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pubd.outcome import Reason


@attrs.frozen(kw_only=True)
class Group:
    """Parked messages that share exchange and reason; ``oldest`` (epoch seconds) and ``id`` are the first one's."""

    exchange: str
    reason: Reason | None
    count: int
    oldest: float
    id: str


@attrs.frozen(kw_only=True)
class Parked:
    """Of the ``seen`` parked messages that were accepted first: the largest ``groups``, and how many ``others``."""

    groups: tuple[Group, ...] = ()
    others: int = 0
    seen: int = 0
