"""What a line asks for: a message, perhaps with a wish to wait for its settlement, or to say who one is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from pubd.errors import InvalidMessage
from pubd.intake.lines.reader import TOO_LONG
from pubd.intake.problem import Problem, problem
from pubd.intake.wire import decode_lines, decode_object, loads, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.message import Message

#: Seconds that ``"wait": "confirmed"`` waits where no ``timeout`` is given, and at most.
USUAL_WAIT, LONGEST_WAIT = 30.0, 3600.0


_KEYS = frozenset(("wait", "timeout", "op"))
_SPECIAL = re.compile(rb'"(?:wait|timeout|op)"')
_NO_OPERATION = (
    'is no key of a message; "auth" belongs into the first line of a connection, and who wants to know of the '
    'settlement writes "wait": "confirmed" into the message'
)


@attrs.frozen
class Batch:
    """Lines taken apart: a message or what is wrong with it for each; ``waits`` are seconds, by place of the line."""

    requests: list[Message | InvalidMessage | Problem]
    waits: dict[int, float]


def requests(lines: Sequence[bytes], *, max_line: int) -> Batch:
    """Take lines apart. Raises nothing for any bytes."""
    special = [place for place, line in enumerate(lines) if line == TOO_LONG or _SPECIAL.search(line)]
    if not special:
        return Batch(list(decode_lines(lines)), {})
    found: list[Any] = [None] * len(lines)
    waits: dict[int, float] = {}
    for place in special:
        found[place] = _special(lines[place], place, waits, max_line)
    plain = [place for place, request in enumerate(found) if request is None]
    for place, request in zip(plain, decode_lines([lines[place] for place in plain]), strict=True):
        found[place] = request
    return Batch(found, waits)


def token_of(line: bytes) -> str | None:
    """The token of ``{"op": "auth", "token": "..."}``; None for any other line."""
    if b'"op"' not in line:
        return None
    try:
        asked = loads(line)
    except InvalidMessage:
        return None
    if not isinstance(asked, dict) or asked.keys() != {"op", "token"} or asked["op"] != "auth":
        return None
    token = asked["token"]
    return token if isinstance(token, str) else None


def _special(line: bytes, place: int, waits: dict[int, float], max_line: int) -> Message | InvalidMessage | Problem:
    if line == TOO_LONG:
        return problem("too-large", f"the line is over the limit of {max_line} bytes (max_line); nothing was accepted")
    try:
        asked = loads(line)
        if not isinstance(asked, dict) or asked.keys().isdisjoint(_KEYS):
            # Not every line with such a word in it asks for something.
            return decode_lines([line])[0]
        if "op" in asked:
            raise InvalidMessage("op", _NO_OPERATION)
        wait = _wait(asked)
        message = decode_object(asked)
    except InvalidMessage as error:
        # Its frames would keep the line in memory.
        return error.with_traceback(None)
    if wait is not None:
        waits[place] = wait
    return message


def _wait(asked: dict[str, Any]) -> float | None:
    """Take ``wait`` and ``timeout`` off; seconds to wait for the settlement, or None."""
    how, timeout = asked.pop("wait", "stored"), asked.pop("timeout", None)
    if how == "stored":
        if timeout is not None:
            raise InvalidMessage("timeout", 'goes with "wait": "confirmed" only; add that, or remove it')
        return None
    if how != "confirmed":
        raise InvalidMessage("wait", 'must be "stored" or "confirmed"')
    if timeout is None:
        return USUAL_WAIT
    if (wanted := seconds(timeout, "timeout")) > LONGEST_WAIT:
        raise InvalidMessage("timeout", f"must be at most {LONGEST_WAIT:g} seconds; wait again by the idempotency_key")
    return wanted
