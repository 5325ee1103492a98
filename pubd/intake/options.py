"""What each intake can be told. Sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MEBI = 1024 * 1024


@attrs.frozen(kw_only=True)
class HttpOptions:
    """``listen`` are endpoint strings; ``max_body`` is that of a request, after decompression.

    ``header_timeout`` and ``body_timeout`` cut slow clients: the first is for the whole head of a request, the second
    for each pause in a body. ``max_wait`` bounds ``?wait=confirmed``.
    """

    listen: tuple[str, ...]
    max_body: int = 16 * MEBI
    max_connections: int = 1000
    max_unanswered: int = 64 * MEBI
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 60.0
    max_wait: float = 60.0


@attrs.frozen(kw_only=True)
class LinesOptions:
    """``max_unanswered_lines`` is for each connection, ``max_unanswered`` (bytes) for all of them together.

    A connection that is silent for ``idle_timeout`` is closed; None: never.
    """

    listen: tuple[str, ...]
    max_line: int = 16 * MEBI
    max_connections: int = 1000
    max_unanswered: int = 64 * MEBI
    max_unanswered_lines: int = 1000
    idle_timeout: float | None = None


@attrs.frozen(kw_only=True)
class DirectoryOptions:
    """``path`` has ``tmp/``, ``new/`` and ``rejected/``. A raw file without a ``.meta.json`` goes to ``exchange``.

    ``exchange`` None: then such a file is rejected. ``properties`` are those of raw files, as in a message's JSON.
    ``principal`` is the name of the one whose grants all files have; None: the file's owner counts.
    """

    path: Path
    exchange: str | None = None
    routing_key: str = ""
    properties: Mapping[str, Any] = attrs.field(factory=dict)
    max_file: int = 16 * MEBI
    max_unanswered: int = 64 * MEBI
    rescan: float = 5.0
    principal: str | None = None
