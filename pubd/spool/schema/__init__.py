"""The schema of the SQLite spool: numbered, forward-only SQL files, applied in order in one transaction each."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

from pubd import failpoints
from pubd.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

_NAME = re.compile(r"(\d{4})_\w+\.sql")


def steps() -> list[tuple[int, str]]:
    """(number, SQL) of every step, in order."""
    found = [(match, each) for each in files(__package__).iterdir() if (match := _NAME.fullmatch(each.name))]
    return sorted((int(match[1]), each.read_text("utf-8")) for match, each in found)


def migrate(connection: apsw.Connection, back_up: Callable[[int], None]) -> None:
    """Bring the database to the newest step; ``back_up(version)`` is called before an upgrade of one that has data.

    Raises SpoolError if the database is of a newer pubd.
    """
    version = connection.pragma("user_version")
    newest = steps()[-1][0]
    if version > newest:
        raise SpoolError(
            f"the spool's schema is {version}, of a newer pubd; this one knows {newest}: install the newer pubd again"
        )
    todo = [(number, sql) for number, sql in steps() if number > version]
    if todo and version:
        back_up(version)
        failpoints.reach("during-migration")
    for number, sql in todo:
        with connection:
            connection.execute(sql)
            failpoints.reach("during-migration")
            connection.execute(f"PRAGMA user_version = {number}")
