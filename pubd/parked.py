"""The log of parked messages: the first one at once, then at most one line a second for each exchange and cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from twisted.logger import Logger

if TYPE_CHECKING:
    from typing import Any

    from twisted.internet.interfaces import IDelayedCall

    from pubd.outcome import Cause, Settlement

#: Seconds between two lines about the same exchange and cause.
INTERVAL = 1.0


@attrs.define
class _Silence:
    """What has been parked since the last line, and the end of the interval."""

    call: IDelayedCall
    more: int = 0
    last: Settlement | None = None


class ParkedLog:
    """One return may be news, 6,000 of them are one piece of news. ``clock`` is an IReactorTime."""

    log = Logger()

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._silences: dict[tuple[str, Cause, int | None], _Silence] = {}

    def note(self, settlement: Settlement) -> None:
        """This message is parked now."""
        reason = settlement.reason
        assert reason is not None
        key = (settlement.entry.exchange, reason.cause, reason.code)
        silence = self._silences.get(key)
        if silence is not None:
            silence.more += 1
            silence.last = settlement
            return
        self._silences[key] = _Silence(self._clock.callLater(INTERVAL, self._interval_over, key))
        self.log.warn(
            "message {message_id} for {exchange!r} is parked: {reason}",
            message_id=settlement.entry.message_id,
            exchange=settlement.entry.exchange,
            reason=reason,
        )

    def stop(self) -> None:
        """Say what has not been said, and forget timers."""
        silences, self._silences = self._silences, {}
        for silence in silences.values():
            silence.call.cancel()
            self._say(silence)

    def _interval_over(self, key: tuple[str, Cause, int | None]) -> None:
        silence = self._silences[key]
        if not silence.more:
            del self._silences[key]
            return
        self._silences[key] = _Silence(self._clock.callLater(INTERVAL, self._interval_over, key))
        self._say(silence)

    def _say(self, silence: _Silence) -> None:
        if silence.last is not None:
            self.log.warn(
                "{count} more messages for {exchange!r} are parked, the last of them {message_id}: {reason}",
                count=silence.more,
                exchange=silence.last.entry.exchange,
                message_id=silence.last.entry.message_id,
                reason=silence.last.reason,
            )
