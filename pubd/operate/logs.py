"""Logs: where they go and how they look, as the [log] table and the surroundings have it.

A terminal gets lines for people, systemd's journal gets events with their fields, everything else gets JSON, one
object a line.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)
from zope.interface import implementer

from pubd.operate.journal import Journal, is_journal
from pubd.operate.log_event import parts
from pubd.operate.log_options import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pubd.operate.log_options import Level, LogOptions

_OURS = ("time", "level", "namespace", "message", "traceback")


def observer(options: LogOptions, stream: Any, environ: Mapping[str, str]) -> ILogObserver:
    """Writes to ``stream``, a text file, or to the journal where that is what the stream leads to."""
    if options.format is Format.AUTO and is_journal(stream, environ):
        chosen: ILogObserver = Journal(stream)
    elif options.format is Format.TEXT or (options.format is Format.AUTO and _is_terminal(stream)):
        chosen = textFileLogObserver(stream)
    else:
        chosen = JsonLines(stream)
    return filtered(chosen, options)


@implementer(ILogObserver)
class Log:
    """The log of the process: :func:`observer`, with other options whenever that is wanted.

    ``reopen`` opens the file again that it goes to, where somebody has moved it away.
    """

    def __init__(
        self,
        options: LogOptions,
        stream: Any,
        environ: Mapping[str, str],
        reopen: Callable[[], object] = lambda: None,
    ) -> None:
        self.reopen = reopen
        self._options = options
        self._make = lambda options: observer(options, stream, environ)
        self._observer = self._make(options)

    def __call__(self, event: LogEvent) -> None:
        """As ILogObserver says."""
        self._observer(event)

    def reconfigure(self, options: LogOptions) -> None:
        """Write what, and as, ``options`` say from the next event on."""
        if options != self._options:
            self._options, self._observer = options, self._make(options)


def _is_terminal(stream: Any) -> bool:
    """Twisted's log files, which rotate, have no such method."""
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and bool(isatty())


def filtered(observer: ILogObserver, options: LogOptions) -> ILogObserver:
    """``observer`` for what is as important as ``options`` ask."""
    predicate = LogLevelFilterPredicate(defaultLogLevel=_level(options.level))
    for namespace, level in options.levels.items():
        predicate.setLogLevelForNamespace(namespace, _level(level))
    return FilteringLogObserver(observer, [predicate])


def _level(level: Level) -> LogLevel:
    return LogLevel.levelWithName(level.value)  # type: ignore[no-any-return]  # constantly has no types


@implementer(ILogObserver)
class JsonLines:
    """One object a line: time (RFC 3339, UTC), level, namespace, message, and the fields of the event."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __call__(self, event: LogEvent) -> None:
        """As ILogObserver says."""
        self._stream.write(as_json(event) + "\n")
        self._stream.flush()


def as_json(event: LogEvent) -> str:
    """The event in one line, all ASCII. A field whose name is taken gets a ``_`` behind it."""
    found = parts(event)
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(found.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": found.level.name,
        "namespace": found.namespace,
        "message": found.message,
    }
    for name, value in found.fields.items():
        line[f"{name}_" if name in _OURS else name] = value
    if found.traceback is not None:
        line["traceback"] = found.traceback
    try:
        return json.dumps(line, allow_nan=False)
    except ValueError:
        # Infinity and the like: as words.
        return json.dumps({name: str(value) for name, value in line.items()})
