"""LinesIntake: listens, and ends its connections when it stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from pubd.access import Refusals
from pubd.errors import InvalidOption
from pubd.intake.lines.connection import LinesConnection
from pubd.intake.lines.terms import Terms
from pubd.intake.listen import NOT_HERE, Capped, Listeners
from pubd.intake.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress

    from pubd.access import Access
    from pubd.intake.door import Door
    from pubd.intake.options import LinesOptions


class LinesIntake(Service):
    """Takes messages over the endpoints of ``options``. ``reactor`` gives time and sockets.

    Construction raises :class:`pubd.errors.InvalidOption` for endpoints that cannot be used; ``failed`` is called when
    one cannot be opened at the start.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        options: LinesOptions,
        door: Door,
        access: Access,
        authenticated: bool | None = None,
        refusals: Refusals | None = None,
        failed: Callable[[InvalidOption], None] = lambda _: None,
    ) -> None:
        if options.max_unanswered < 2 * options.max_line:
            # Connections that each hold a part of a line would wait for each other.
            raise InvalidOption(
                f"two lines of max_line ({options.max_line} bytes) have to fit into max_unanswered: "
                f"raise max_unanswered to {2 * options.max_line} bytes at least, or lower max_line"
            )
        self._door = door
        self._factory = LinesFactory(
            Terms(
                reactor=reactor,
                options=options,
                door=door,
                access=access,
                refusals=refusals or Refusals(clock=reactor),
            )
        )
        self._capped = Capped(self._factory, options.max_connections, clock=reactor, name="max_connections of [lines]")
        self._listeners = Listeners(
            reactor=reactor,
            listen=options.listen,
            factory=self._capped,
            # Who comes from elsewhere is never anonymous.
            authenticated=bool(access.principals) if authenticated is None else authenticated,
            failed=failed,
            end=lambda connection: connection.stop(NOT_HERE),
        )

    @property
    def addresses(self) -> list[IAddress]:
        """What is listened on now, in the order of the options."""
        return self._listeners.addresses

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._capped.open

    @property
    def refused_connections(self) -> int:
        """How many were closed, since the start, because too many were open."""
        return self._capped.refused

    def prepare(self, options: LinesOptions, *, authenticated: bool) -> Prepared:
        """Get ready to go on with other options; see :meth:`pubd.intake.listen.Listeners.prepare`."""
        relisten = self._listeners.prepare(options.listen, authenticated=authenticated)

        def apply() -> None:
            self._door.reconfigure(options.max_unanswered)
            self._capped.limit = options.max_connections
            self._factory.reconfigure(options)
            relisten.apply()

        return Prepared(apply=apply, drop=relisten.drop)

    def privilegedStartService(self) -> None:
        """Open what takes privileges."""
        super().privilegedStartService()
        self._listeners.privilegedStartService()

    def startService(self) -> None:
        """Open the rest."""
        super().startService()
        self._listeners.startService()

    def stopService(self) -> Deferred[None]:
        """Accept nothing more, answer what was accepted, and close; fires within about ten seconds."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        closing = self._listeners.stopService()
        await self._factory.close()
        await closing


class LinesFactory(Factory):
    """Makes the connections, and knows those that are open."""

    noisy = False

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._open: set[LinesConnection] = set()
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> LinesConnection:
        """One connection."""
        del addr
        return LinesConnection(self._terms, self._open.add, self._gone)

    def reconfigure(self, options: LinesOptions) -> None:
        """Other options, and perhaps others who are known, for connections that are open, too."""
        self._terms = attrs.evolve(self._terms, options=options)
        for connection in list(self._open):
            connection.reconfigure(self._terms)

    async def close(self) -> None:
        """End all of them; waits until the last one is gone."""
        for connection in list(self._open):
            connection.stop()
        if self._open:
            self._closed = Deferred()
            await self._closed

    def _gone(self, connection: LinesConnection) -> None:
        self._open.discard(connection)
        if not self._open and self._closed is not None:
            closed, self._closed = self._closed, None
            closed.callback(None)
