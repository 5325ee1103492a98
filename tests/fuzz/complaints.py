"""What pubd writes into its log as a mistake of its own is one, whatever it answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.fuzz.engine import Found


@contextmanager
def no_complaints(raw: bytes) -> Iterator[None]:
    """Raises Found if an exception is logged within the block; ``raw`` is the input."""
    heard: list[str] = []

    @implementer(ILogObserver)
    def listen(event: LogEvent) -> None:
        if "log_failure" in event:
            heard.append(f"{formatEvent(event)}: {event['log_failure'].getTraceback()}")

    globalLogPublisher.addObserver(listen)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(listen)
    if heard:
        raise Found(heard[0], raw)
