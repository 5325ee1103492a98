"""LogOptions: the [log] table."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


class Format(enum.Enum):
    """How a line of the log looks."""

    AUTO = "auto"
    """For people on a terminal, fields for the journal, JSON elsewhere."""
    TEXT = "text"
    JSON = "json"


class Level(enum.Enum):
    """From what on something is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    CRITICAL = "critical"


@attrs.frozen(kw_only=True)
class LogOptions:
    """``levels`` are those of namespaces, and of everything below them; ``level`` is for all others."""

    format: Format = Format.AUTO
    level: Level = Level.INFO
    levels: Mapping[str, Level] = attrs.field(factory=dict)
