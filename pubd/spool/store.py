"""The SQLite spool's parts on one database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pubd.spool.claims import Claims
from pubd.spool.database import Database
from pubd.spool.decisions import Decisions
from pubd.spool.exports import Exports
from pubd.spool.listing import Listing
from pubd.spool.operations import Operations
from pubd.spool.settlements import Settlements
from pubd.spool.submissions import Submissions

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

    from pubd.spool.base import Limits
    from pubd.spool.ids import Ids


class Store:
    """Belongs to the spool's thread."""

    def __init__(
        self, connection: apsw.Connection, ids: Ids, limits: Callable[[], Limits], free: Callable[[], int]
    ) -> None:
        self.base = Database(connection, ids)
        self.submissions = Submissions(self.base, limits, free)
        self.claims = Claims(self.base)
        self.settlements = Settlements(self.base)
        self.operations = Operations(self.base)
        self.decisions = Decisions(self.base)
        self.listing = Listing(self.base, self.decisions)
        self.exports = Exports(self.base)
