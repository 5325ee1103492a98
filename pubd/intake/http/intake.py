"""HttpIntake: the service that joins listeners, connections and actions."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pubd.access import Refusals
from pubd.intake.http.answer import Answer, Refusal, json_answer
from pubd.intake.http.decisions import Decisions
from pubd.intake.http.listing import Held, Messages
from pubd.intake.http.messages import MEDIA, Submit
from pubd.intake.http.openapi import OpenApi
from pubd.intake.http.pausing import Steered, Steering
from pubd.intake.http.publish import Publish
from pubd.intake.http.route import Action, Route, Routes
from pubd.intake.http.site import Site
from pubd.intake.http.waits import Waits
from pubd.intake.listen import NOT_HERE, Capped, Listeners
from pubd.intake.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from pubd.access import Access
    from pubd.errors import InvalidOption
    from pubd.intake.door import Door
    from pubd.intake.http.request import Request
    from pubd.intake.options import HttpOptions

#: Seconds between looks for connections that are too slow.
TICK = 1.0
#: Seconds that connections have at the stop to take their last answers.
GRACE = 5.0


class Operated(Held, Steered, Protocol):
    """What is needed of :class:`pubd.Publisher` for principals that may operate."""


class HttpIntake(Service):
    """``routes`` gives further routes, for which it is shown who waits (see :class:`Waits`).

    ``ready`` says whether pubd can take messages now. ``failed`` is called with what keeps it from listening.
    ``authenticated``: there are principals, and from elsewhere nobody else is let in.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        options: HttpOptions,
        door: Door,
        access: Access,
        held: Operated,
        refusals: Refusals | None = None,
        authenticated: bool = False,
        routes: Callable[[Waits], Iterable[Route]] = lambda _: (),
        ready: Callable[[], bool] = lambda: True,
        failed: Callable[[InvalidOption], None] = lambda _: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.waits = Waits(clock=reactor, most=options.max_wait)
        self._ready = ready
        self._reactor = reactor
        self._wall = wall
        self._door = door
        self._submit = Submit(door=door, waits=self.waits, clock=reactor, max_line=options.max_body)
        self.site = Site(
            options=options,
            routes=Routes((*routes(self.waits), *self._routes(door, held))),
            door=door,
            access=access,
            clock=reactor,
            wall=wall,
            names=_names(),
            refusals=refusals or Refusals(clock=reactor),
        )
        self._capped = Capped(self.site, options.max_connections, clock=reactor, name="http.max_connections")
        self._listeners = Listeners(
            reactor=reactor,
            listen=options.listen,
            factory=self._capped,
            authenticated=authenticated,
            failed=failed,
            end=lambda channel: channel.stop(NOT_HERE),
        )
        self._ticks = LoopingCall(self._tick)
        self._ticks.clock = reactor

    @property
    def addresses(self) -> list[IAddress]:
        """What is listened on now."""
        return self._listeners.addresses

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._capped.open

    @property
    def refused_connections(self) -> int:
        """How many were closed, since the start, because too many were open."""
        return self._capped.refused

    def prepare(self, options: HttpOptions, *, authenticated: bool) -> Prepared:
        """Get ready to go on with other options; see :meth:`pubd.intake.listen.Listeners.prepare`."""
        relisten = self._listeners.prepare(options.listen, authenticated=authenticated)

        def apply() -> None:
            self.site.reconfigure(options)
            self.waits.most = options.max_wait
            self._submit.max_line = options.max_body
            self._door.reconfigure(options.max_unanswered)
            self._capped.limit = options.max_connections
            relisten.apply()

        return Prepared(apply=apply, drop=relisten.drop)

    def privilegedStartService(self) -> None:
        """As IService says."""
        super().privilegedStartService()
        self._listeners.privilegedStartService()

    def startService(self) -> None:
        """Accept connections."""
        super().startService()
        self.site.stopping = False
        self._ticks.start(TICK, now=False).addErrback(self._no_ticks)
        self._listeners.startService()

    def stopService(self) -> Deferred[None]:
        """Accept nothing more, answer what has come, and close. Takes :data:`GRACE` seconds at most."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.site.stopping = True
        listening = self._listeners.stopService()
        for channel in list(self.site.channels):
            channel.stop()
        self.waits.stop()
        if self.site.channels:
            await self._emptied()
        await listening
        if self._ticks.running:
            self._ticks.stop()

    def _emptied(self) -> Deferred[None]:
        """Fires when no connection is left; whoever is there after GRACE is not asked any more."""
        empty: Deferred[None] = Deferred()
        grace = self._reactor.callLater(GRACE, self._abort)

        def emptied() -> None:
            self.site.emptied = lambda: None
            if grace.active():
                grace.cancel()
            empty.callback(None)

        self.site.emptied = emptied
        return empty

    def _abort(self) -> None:
        for channel in list(self.site.channels):
            channel.abort()

    def _tick(self) -> None:
        try:
            self.site.tick()
        except Exception:
            self.log.failure("slow connections were not looked for this time; going on")

    def _no_ticks(self, failure: Failure) -> None:
        self.log.failure("slow connections are not looked for any more", failure)

    def _routes(self, door: Door, held: Operated) -> Iterable[Route]:
        submit = self._submit
        publish, messages, decisions = Publish(door=door, waits=self.waits), Messages(held, self._wall), Decisions(held)
        return (
            Route(
                path="/messages",
                actions={
                    "POST": Action(act=submit.post, media=MEDIA, open=submit.open),
                    "GET": Action(act=messages.list, operate=True),
                },
            ),
            Route(
                path="/publish/{exchange}/{routing_key*}",
                actions={"POST": Action(act=publish.post, media=None, decode=False)},
            ),
            Route(
                path="/messages/{id}",
                actions={
                    "GET": Action(act=messages.one, operate=True),
                    "DELETE": Action(act=decisions.discard, operate=True),
                },
            ),
            Route(path="/messages/count", actions={"GET": Action(act=messages.count, operate=True)}),
            *decisions.routes(),
            *Steering(held).routes(),
            Route(
                path="/openapi.json",
                actions={"GET": Action(act=OpenApi(lambda: self.site.routes).get, everybody=True)},
            ),
            Route(path="/livez", actions={"GET": Action(act=_live, everybody=True)}),
            Route(path="/readyz", actions={"GET": Action(act=self._ready_or_not, everybody=True)}),
        )

    def _ready_or_not(self, _: Request) -> Answer:
        if not self._ready():
            raise Refusal("busy", "pubd takes no messages at the moment")
        return json_answer({"status": "ok"})


def _live(_: Request) -> Answer:
    return json_answer({"status": "ok"})


def _names() -> frozenset[str]:
    """What this host calls itself; a web page cannot bind its own name to that."""
    name = socket.gethostname().lower()
    return frozenset((name, name.partition(".")[0]))
