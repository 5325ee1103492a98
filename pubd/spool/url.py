"""Spool URLs: ``memory:``, ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pubd.errors import InvalidOption
from pubd.spool.memory import MemorySpool
from pubd.spool.sqlite import SqliteSpool

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.errors import SpoolError
    from pubd.spool.base import Limits, Spool

_KNOWN = "memory:, sqlite:///spool.db (relative to the working directory) and sqlite:////var/lib/pubd/spool.db"


def check_spool_url(url: str) -> str:
    """The path in ``url``, empty for ``memory:``. Raises InvalidOption."""
    if url == "memory:":
        return ""
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise InvalidOption(f"spool {url!r}: there are {_KNOWN}")
    if parts.netloc or parts.query or parts.fragment or len(parts.path) < 2 or parts.path[0] != "/":
        raise InvalidOption(f"spool {url!r}: a path follows three slashes: {_KNOWN}")
    return unquote(parts.path[1:])


def spool_from_url(
    url: str,
    *,
    reactor: Any,
    limits: Limits | None = None,
    wall: Callable[[], float] = time.time,
    failed: Callable[[SpoolError], None] = lambda _: None,
) -> Spool:
    """The store that ``url`` names, not opened yet; see :class:`pubd.spool.sqlite.SqliteSpool`."""
    path = check_spool_url(url)
    if not path:
        return MemorySpool(limits=limits, wall=wall)
    return SqliteSpool(path, reactor=reactor, limits=limits, wall=wall, failed=failed)
