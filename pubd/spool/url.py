"""Spool URLs: ``memory:``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pubd.errors import InvalidOption
from pubd.spool.memory import DEFAULT_MAX_BYTES, MemorySpool

if TYPE_CHECKING:
    from pubd.spool.base import Spool


def spool_from_url(url: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Spool:
    """The store that ``url`` names, not opened yet."""
    if url == "memory:":
        return MemorySpool(max_bytes=max_bytes)
    raise InvalidOption(f"spool {url!r}: this version knows only memory:")
