"""Journal: log events for systemd's journal in its native protocol, each with its fields.

``journalctl -u pubd -p warning`` selects by level and ``journalctl PUBD_EXCHANGE=orders`` by field, while the line that
is shown is the sentence alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from logging_journald import JournaldTransport
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from pubd.operate.log_event import parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pubd.operate.log_event import Parts

#: syslog(3).
_PRIORITIES = {
    LogLevel.critical: 2,
    LogLevel.error: 3,
    LogLevel.warn: 4,
    LogLevel.info: 6,
    LogLevel.debug: 7,
}
#: Names of the journal's fields have at most 64 characters.
_LONGEST_NAME = 64 - len("PUBD_")


def is_journal(stream: Any, environ: Mapping[str, str]) -> bool:
    """Whether what is written to ``stream`` goes to the journal: then systemd says so in JOURNAL_STREAM.

    See systemd.exec(5). The variable is inherited, so it counts only where device and inode are the stream's.
    """
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        there = os.fstat(stream.fileno())
        return (int(device), int(inode)) == (there.st_dev, there.st_ino)
    except (AttributeError, OSError, ValueError):
        # No such variable, or a stream that is no file of the kernel's.
        return False


@implementer(ILogObserver)
class Journal:
    """``stream`` leads to the journal, too: what its socket does not take goes there, as lines with their priority."""

    def __init__(self, stream: Any, socket_path: str | Path | None = None) -> None:
        self._stream = stream
        # Not connected: the path is looked up each time, as the journal may be restarted.
        self._transport = JournaldTransport(socket_path, connected=False)
        # A journal that hangs is not to stop publishing.
        self._transport.socket.setblocking(False)

    def __call__(self, event: LogEvent) -> None:
        """As ILogObserver says."""
        found = parts(event)
        try:
            self._transport.send(_fields(found))
        except OSError:
            self._stream.write("".join(_prefixed(found)))
            self._stream.flush()

    def close(self) -> None:
        """Let go of the socket."""
        self._transport.socket.close()


def _fields(found: Parts) -> Iterator[tuple[str, object]]:
    yield "MESSAGE", found.message
    yield "PRIORITY", _PRIORITIES[found.level]
    yield "SYSLOG_IDENTIFIER", "pubd"
    yield "PUBD_NAMESPACE", found.namespace
    for name, value in found.fields.items():
        if name != "namespace" and value is not None and name.isascii():
            # As text: the journal knows nothing else.
            yield f"PUBD_{name.upper()[:_LONGEST_NAME]}", str(value)
    if found.traceback is not None:
        yield "PUBD_TRACEBACK", found.traceback


def _prefixed(found: Parts) -> Iterator[str]:
    """Lines as sd-daemon(3) has them."""
    text = found.message if found.traceback is None else f"{found.message}\n{found.traceback}"
    for line in text.splitlines() or [""]:
        yield f"<{_PRIORITIES[found.level]}>{line}\n"
