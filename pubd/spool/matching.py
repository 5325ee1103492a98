"""Whether a message is one of those that a query asks for, beyond what an index leads to. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from pubd.outcome import Cause, State
from pubd.policy import topic_matches

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.spool.base import Query

_HELD = Cause.HELD.value
#: From here on a pattern may stand for something else than itself; # may be no word at all, not even a dot.
_WILD = re.compile(r"(?:^|\.)[*#](?=\.|$)")


class Matching:
    """``routes`` says whether a routing key fits, None: any does; ``prefix`` is how all that fit begin. ``code`` is the
    reason as a reply code, if it may be one.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        self._reason = query.reason.lower() if query.reason is not None else None
        self.code = int(query.reason) if query.reason and _is_number(query.reason) else None
        self.routes: Callable[[str], bool] | None = None
        self.prefix = ""
        if query.routing_key is not None and query.routing_key != "#":
            pattern = query.routing_key
            # Messages have few routes, and a pattern costs more than everything else here.
            self.routes = lru_cache(maxsize=4096)(lambda key: topic_matches(pattern, key))
            self.prefix = _WILD.split(pattern, maxsplit=1)[0]

    @property
    def is_impossible(self) -> bool:
        """No message is in the state for this reason: only what waits for something, or was dropped, has one."""
        if self._query.state not in (State.READY, State.CONFIRMED):
            return False
        return self._query.reason is not None or self._query.held is True

    def reason_fits(self, cause: str | None, code: int | None, text: str | None) -> bool:
        """``reason`` is a reply code, or a part of the cause or of the text, in whichever case."""
        query = self._query
        if query.held is not None and query.held is not (cause == _HELD):
            return False
        if self._reason is None:
            return True
        if cause is None:
            return False
        if self.code is not None and code == self.code:
            return True
        return self._reason in cause.lower() or self._reason in (text or "").lower()

    def message_fits(self, routing_key: str, ordering_key: str | None, accepted_at: float) -> bool:
        """``accepted_before`` is exclusive, ``accepted_after`` inclusive."""
        query = self._query
        if query.accepted_before is not None and accepted_at >= query.accepted_before:
            return False
        if query.accepted_after is not None and accepted_at < query.accepted_after:
            return False
        if query.ordering_key is not None and ordering_key != query.ordering_key:
            return False
        return self.routes is None or self.routes(routing_key)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
