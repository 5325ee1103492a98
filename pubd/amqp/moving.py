"""Moving publishing to another connection while it goes on: other brokers, another user, another password.

The new connection is made first, with everything declared at it; until then nothing changes, so that a password that
is wrong costs a log line and no message. Then the lanes rest: nothing more is written, what is in flight is answered.
With the last answer the new connection takes over, and nothing was published twice. Only where answers do not come
within the confirm timeout is the old connection left all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pubd.amqp import topology
from pubd.errors import LinkLost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.amqp.link import Link, LinkEvents
    from pubd.amqp.protocol import LinkProtocol
    from pubd.outcome import Reason


class Mover(Protocol):
    """Who publishes, on the old connection as yet."""

    @property
    def in_flight(self) -> int:
        """Deliveries that have no answer."""

    def rest(self) -> None:
        """Write nothing more; take answers."""

    def go_on(self) -> None:
        """Publish on the old connection again."""

    def adopt(self, link: Link, connection: LinkProtocol, refused: Sequence[topology.Refused]) -> None:
        """Leave the old link, and publish on ``connection``, where everything but ``refused`` has been declared."""


class Move:
    """One move; ``make`` builds the new link, which tells this until it is adopted. ``patience`` in seconds."""

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        mover: Mover,
        make: Callable[[LinkEvents], Link],
        declare: topology.Topology,
        patience: float,
    ) -> None:
        self.link = make(self)
        self._clock = clock
        self._mover = mover
        self._topology = declare
        self._patience = patience
        self._ready: tuple[LinkProtocol, Sequence[topology.Refused]] | None = None
        self._until = 0.0
        self._over = False

    @property
    def reason(self) -> Reason | None:
        """Why the new connection does not stand: it failed, and is tried again."""
        return self.link.reason if self.link.connection is None else None

    def start(self) -> None:
        """Begin to connect."""
        self.log.info("connecting to {peer}; publishing moves there once that stands", peer=self.link.url.peer)
        self.link.start()

    def redeclare(self, declare: topology.Topology) -> None:
        """Something else is to be declared, also where that was done already."""
        self._topology = declare
        connection = self.link.connection
        if connection is not None:
            self._not_yet()
            self.link_ready(connection)

    def end(self) -> None:
        """It is adopted, or not wanted any more."""
        self._over = True
        self._ready = None

    def look(self) -> None:
        """Something was answered, or time has passed: take over if nothing is in flight any more."""
        if self._over or self._ready is None:
            return
        if self._mover.in_flight and self._clock.seconds() < self._until:
            return
        connection, refused = self._ready
        self.end()
        self.log.info("publishing moves to {peer}", peer=connection.url.peer)
        self._mover.adopt(self.link, connection, refused)

    # The new link

    def link_ready(self, connection: LinkProtocol) -> None:
        """Connected: declare there, while the old connection publishes."""
        if not self._over:
            Deferred.fromCoroutine(self._declare(connection)).addErrback(
                lambda failure: self.log.failure("declaring at the new connection failed", failure)
            )

    def link_lost(self, reason: Reason) -> None:  # noqa: ARG002 (the link has logged it and keeps it)
        """Gone before it took over; the link tries again."""
        self._not_yet()

    def link_blocked(self, text: str) -> None:
        """Whoever adopts the link asks it."""

    def link_unblocked(self) -> None:
        """As for link_blocked."""

    def link_resumed(self) -> None:
        """Nothing is written yet."""

    def link_flush(self) -> None:
        """Nothing is answered yet."""

    def _not_yet(self) -> None:
        if self._ready is not None:
            self._ready = None
            self._mover.go_on()

    async def _declare(self, connection: LinkProtocol) -> None:
        declared = self._topology
        try:
            refused = await topology.declare(connection, declared)
        except LinkLost as lost:
            if connection is self.link.connection:
                # No channel to spare, which a new connection has.
                self.link.abort(str(lost))
            return
        if self._over or connection is not self.link.connection or declared != self._topology:
            return
        self._ready, self._until = (connection, refused), self._clock.seconds() + self._patience
        self._mover.rest()
        self.look()
