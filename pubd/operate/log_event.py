"""What a log event is made of: its message, its fields, its traceback. For formats that keep these apart."""

from __future__ import annotations

import enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import LogLevel, formatEvent

from pubd.errors import PubdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.logger import LogEvent

#: Characters of one field: what is logged is short, a mistake somewhere may not be.
LONGEST = 4096
#: What Twisted adds to events for observers of its old logging.
_LEGACY = frozenset(("message", "time", "isError", "format", "system", "logLevel", "why", "failure", "printed"))

Field = str | int | float | bool | None


@attrs.frozen
class Parts:
    """``fields`` have the names under which they were logged; ``traceback`` is of a failure."""

    time: float
    level: LogLevel
    namespace: str
    message: str
    fields: Mapping[str, Field]
    traceback: str | None


def parts(event: LogEvent) -> Parts:
    """Never raises: a log line that cannot be made is no reason for anything else to fail."""
    failure = event.get("log_failure")
    level = event.get("log_level") or LogLevel.info
    return Parts(
        time=_time(event),
        level=level,
        namespace=_clean(event.get("log_namespace") or "-"),
        message=_clean(_message(event)),
        fields={
            name: _field(value)
            for name, value in event.items()
            if not name.startswith("log_") and name not in _LEGACY and name.isidentifier()
        },
        traceback=_clean(failure.getTraceback()) if failure is not None else None,
    )


def _time(event: LogEvent) -> float:
    time = event.get("log_time", 0.0)
    return float(time) if isinstance(time, int | float) else 0.0


def _message(event: LogEvent) -> str:
    message = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None and not message:
        return str(failure.getErrorMessage())
    return message


def _field(value: Any) -> Field:
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        # Whatever it is, it is not for a log.
        return f"<{len(value)} bytes>"
    # Values and errors of our own are sentences. An object of somebody else's may say more than it should.
    if isinstance(value, str | PurePath | PubdError) or type(value).__module__.startswith("pubd."):
        try:
            text = str(value)
        except Exception:
            return f"<{type(value).__name__}>"
        return _clean(text)
    return f"<{type(value).__name__}>"


def _clean(text: str) -> str:
    """Short, and such that UTF-8 can carry it."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "..."
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
