"""What an answer to a submission means for its file. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from pubd.errors import IdempotencyConflict, InvalidMessage, NotAllowed, PubdError

if TYPE_CHECKING:
    from pubd.receipt import Receipt


class Verdict(enum.Enum):
    """What is to be done with the file."""

    ACCEPTED = "remove it"
    REFUSED = "move it to rejected/"
    LATER = "leave it, and try again"


def verdict_of(answer: Receipt | PubdError, *, own_key: bool) -> Verdict:
    """A conflict about a file's own key (``own_key``) is with itself: it was accepted before pubd was killed.

    Then something else changed since, the configured route or the .meta.json, and the first submission counts.
    """
    if not isinstance(answer, PubdError):
        return Verdict.ACCEPTED
    if isinstance(answer, IdempotencyConflict):
        return Verdict.ACCEPTED if own_key else Verdict.REFUSED
    return Verdict.REFUSED if isinstance(answer, InvalidMessage | NotAllowed) else Verdict.LATER
