"""Finding: pages of messages, put together from as many bounded steps of the spool as there is time for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pubd.spool.base import Counted, Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.spool.base import Query, Record, Spool

#: Seconds that a page of a list may take.
FIND = 0.02
#: Seconds that a search may take: long enough for a million messages on an idle machine.
SEARCH = 1.0


class Finding:
    """``clock`` gives seconds. What is found is told by :class:`pubd.Publisher`, which has the same methods."""

    def __init__(self, *, spool: Spool, clock: Callable[[], float]) -> None:
        self._spool = spool
        self._clock = clock

    async def find(self, query: Query) -> Page:
        """Goes on where the spool stopped looking, until a page is full or it has taken long enough."""
        until = self._clock() + FIND
        found: list[Record] = []
        while True:
            page = await self._spool.find(attrs.evolve(query, limit=query.limit - len(found)))
            found += page.records
            if page.next is None or len(found) >= query.limit or self._clock() >= until:
                return Page(tuple(found), page.next)
            query = attrs.evolve(query, after=page.next)

    async def count(self, query: Query) -> Counted:
        """Counts as much as there is time for."""
        until = self._clock() + FIND
        count = 0
        while True:
            counted = await self._spool.count(query)
            count += counted.count
            if counted.next is None or self._clock() >= until:
                return Counted(count, counted.next)
            query = attrs.evolve(query, after=counted.next)

    async def search(self, message_id: str, before: str | None, limit: int) -> Page:
        """Looks back from ``before``, until there is a page or it has taken long enough."""
        until = self._clock() + SEARCH
        found: list[Record] = []
        while True:
            page = await self._spool.search(message_id, before)
            found += page.records
            if len(found) > limit:
                return Page(tuple(found[:limit]), found[limit - 1].id)
            if page.next is None or self._clock() >= until:
                return Page(tuple(found), page.next)
            before = page.next
