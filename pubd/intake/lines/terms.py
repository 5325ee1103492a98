"""What all connections of the lines intake have in common, and the phases that each goes through."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from pubd.access import Access, Refusals
    from pubd.intake.door import Door
    from pubd.intake.options import LinesOptions

#: Seconds until somebody has to have said who they are.
AUTHENTICATION = 10.0
#: Seconds until somebody who is nobody is told so: guessing is to be slow.
DENIAL = 1.0
#: Bytes that may come before it is known from whom.
UNKNOWN_LINE = 4096
#: Seconds for a line of more than :data:`pubd.intake.lines.inlet.FREE` bytes, from there until it is handed in: it
#: takes the room of others.
LONG_LINE = 60.0
#: Seconds after the end of a connection in which the client may read its last answers.
LINGER = 5.0
#: The same after it has ended its side: then it only reads.
FAREWELL = 60.0
#: Seconds for which settlements are still waited for when pubd stops.
LAST_WAIT = 1.0


class Phase(enum.Enum):
    """Of a connection; in this order."""

    OPEN = 1
    ENDING = 2
    """Nothing more is read; what was handed in is answered."""
    CLOSING = 3
    """All has been said."""
    CLOSED = 4


@attrs.frozen(kw_only=True)
class Terms:
    """What all connections have in common."""

    reactor: Any
    options: LinesOptions
    door: Door
    access: Access
    refusals: Refusals
