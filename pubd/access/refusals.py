"""Refusals: what the operator's log says of those who were refused, since they themselves are told nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import Logger

if TYPE_CHECKING:
    from pubd.access.principal import Principal
    from pubd.message import Message


@attrs.define
class _Told:
    at: dict[tuple[str, ...], float] = attrs.field(factory=dict)
    """When each line was told last; never more than MOST of them."""
    left_out: int = 0


class Refusals:
    """Logs each route of a principal at most once in ``INTERVAL``, and ``MOST`` lines about any one principal.

    So it does for all strangers together. What is left out is counted, and told with the next line about the same one.
    ``clock`` has ``seconds()``.
    """

    log = Logger()
    #: Seconds.
    INTERVAL = 1.0
    #: Lines in one interval: routing keys are the attacker's choice, and so the number of lines would be.
    MOST = 10

    def __init__(self, *, clock: Any) -> None:
        self._clock = clock
        # By the name of the principal, which is somebody configured; "" are all strangers.
        self._about: dict[str, _Told] = {}

    def not_allowed(self, principal: Principal, message: Message) -> None:
        """``principal`` has no grant for all of the message's route. Its body and headers are not logged."""
        more = self._tell(principal.name, message.exchange, message.routing_key)
        if more is not None:
            self.log.warn(
                "{principal} may not publish to exchange {exchange!r} with {keys}; a grant in [[principal]] allows it"
                "{more}",
                principal=principal.name,
                exchange=message.exchange,
                keys=", ".join(principal.uncovered(message)[:3]),
                more=more,
            )

    def not_operating(self, principal: Principal, what: str) -> None:
        """``principal`` wanted to ``what`` ("discard messages"), and is no operator."""
        more = self._tell(principal.name, what)
        if more is not None:
            self.log.warn(
                "{principal} may not {what}; operate = true in its [[principal]] allows it{more}",
                principal=principal.name,
                what=what,
                more=more,
            )

    def unknown(self, where: str, why: str) -> None:
        """Somebody at ``where`` is no principal: ``why`` is "an unknown token", never the token itself."""
        more = self._tell("", where, why)
        if more is not None:
            self.log.warn("refused {where}: {why}{more}", where=where, why=why, more=more)

    def _tell(self, who: str, *what: str) -> str | None:
        """What to add to the line; None for no line."""
        now = self._clock.seconds()
        about = self._about.setdefault(who, _Told())
        if len(about.at) >= self.MOST:
            about.at = {each: at for each, at in about.at.items() if 0 <= now - at < self.INTERVAL}
        at = about.at.get(what)
        if len(about.at) >= self.MOST or (at is not None and 0 <= now - at < self.INTERVAL):
            about.left_out += 1
            return None
        about.at[what] = now
        left_out, about.left_out = about.left_out, 0
        return f" (and {left_out} refusals before, not logged one by one)" if left_out else ""
