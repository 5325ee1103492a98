"""What is in the spool, while it is in use: ``GET /export``, every open message; ``POST /backup``, the file itself.

Both go in steps, and after each of them rest as long as it took: publishing has its turn.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from pubd.errors import PubdError, SpoolError, SpoolFull, SpoolWithoutFile
from pubd.intake import wire
from pubd.intake.exported import exported_object
from pubd.intake.http.answer import Answer, Refusal
from pubd.intake.http.listing import after_of
from pubd.intake.http.ndjson import NDJSON
from pubd.intake.http.route import Action, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from pubd.intake.http.outflow import Outlet
    from pubd.intake.http.request import Request
    from pubd.spool.base import Exported, Snapshot

#: Open messages, and their bytes, that are read in one step.
PAGE, PAGE_BYTES = 500, 1 << 20
#: Bytes of the file that are read in one step.
PIECE = 1 << 18
#: Bytes of a copy after which they are brought to the disk, or they would pile up in memory and stall the spool's own.
SYNC = 64 << 20
#: Bytes that a step of a copy makes.
STEP = 1 << 20
#: Seconds for which a client may take nothing.
PATIENCE = 60.0
SQLITE = b"application/vnd.sqlite3"


class Stored(Protocol):
    """What is needed of :class:`pubd.Publisher`."""

    def exported(self, after: str | None, limit: int, max_bytes: int) -> Deferred[Sequence[Exported]]:
        """The next open messages."""

    def snapshot(self) -> Deferred[Snapshot]:
        """Begin a copy of the file."""

    def last_id(self) -> str | None:
        """Of the message that was numbered last."""


class Contents:
    """The requests. ``reactor`` gives time and threads."""

    log = Logger()

    def __init__(self, stored: Stored, *, reactor: Any) -> None:
        self._stored = stored
        self._reactor = reactor
        self._copying = False

    def routes(self) -> Iterable[Route]:
        """What the HTTP intake is given."""
        return (
            Route(path="/export", actions={"GET": Action(act=self.export, operate=True)}),
            # Not GET: a page of any site can make a browser on this host send that.
            Route(path="/backup", actions={"POST": Action(act=self.backup, operate=True)}),
        )

    def export(self, request: Request) -> Answer:
        """Every message that is open now, a line each; ``after``: of those accepted after this one."""
        after = after_of(request.arguments(("after",)))
        self.log.info("{principal} exports what is open", principal=request.principal.name)
        flow = _Flow(self._reactor, lambda flow: self._export(flow, after))
        return Answer(200, content_type=NDJSON.encode("ascii"), outflow=flow)

    async def backup(self, request: Request) -> Answer:
        """The spool as it is at the end of copying it; the answer begins at once, its body when all is copied."""
        request.arguments(())
        if self._copying:
            raise Refusal("busy", "a copy is being made already; wait until it is done")
        self._copying = True
        try:
            snapshot = await self._stored.snapshot()
        except BaseException as error:
            self._copying = False
            raise self._refusal(error) from None
        self.log.info("{principal} takes a copy of the spool", principal=request.principal.name)

        def done() -> None:
            self._copying = False
            snapshot.close()

        return Answer(
            200,
            content_type=SQLITE,
            outflow=_Flow(self._reactor, lambda flow: self._backup(flow, snapshot), done),
        )

    def _refusal(self, error: BaseException) -> BaseException:
        """Why there is no copy. It has nothing to do with what is submitted."""
        if isinstance(error, SpoolWithoutFile):
            return Refusal("wrong-state", str(error))
        if isinstance(error, SpoolError) and not isinstance(error, SpoolFull):
            self.log.error("no copy of the spool was made: {error}", error=str(error))
            return Refusal("spool-failed", "the spool could not be copied; pubd's log says why")
        return error

    async def _export(self, flow: _Flow, after: str | None) -> None:
        # What is accepted while it runs is not run after.
        last = self._stored.last_id()
        while last is not None:
            began = self._reactor.seconds()
            page = await self._stored.exported(after, PAGE, PAGE_BYTES)
            known = [each for each in page if each.entry.id <= last]
            text = "".join([wire.dumps(exported_object(each)) + "\n" for each in known])
            # Not counting what the client takes: that is rest for everybody else.
            took = self._reactor.seconds() - began
            if text:
                await flow.write(text.encode())
            if len(known) < len(page) or not page:
                return
            after = page[-1].entry.id
            await flow.rest(took)

    async def _backup(self, flow: _Flow, snapshot: Snapshot) -> None:
        threads = self._reactor.getThreadPool()
        steps = 0
        while True:
            began = self._reactor.seconds()
            done = await snapshot.step()
            steps += 1
            if steps % (SYNC // STEP) == 0:
                await deferToThreadPool(self._reactor, threads, os.fdatasync, snapshot.fd)
            if done:
                break
            await flow.rest(self._reactor.seconds() - began)
        offset = 0
        while piece := await deferToThreadPool(self._reactor, threads, os.pread, snapshot.fd, PIECE, offset):
            await flow.write(piece)
            offset += len(piece)


class _Gone(Exception):
    """Nobody takes it any more."""


class _Flow:
    """Fulfils :class:`pubd.intake.http.outflow.Outflow` with a coroutine that writes; ``done`` is called at its end."""

    log = Logger()
    patience = PATIENCE
    endless = False

    def __init__(
        self,
        reactor: Any,
        run: Callable[[_Flow], Coroutine[Any, Any, None]],
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._run = run
        self._done = done
        self._outlet: Outlet | None = None
        self._begun = False
        self._room: Deferred[None] | None = None

    def begin(self, outlet: Outlet) -> None:
        """See :class:`pubd.intake.http.outflow.Outflow`."""
        self._outlet, self._begun = outlet, True
        Deferred.fromCoroutine(self._all()).addErrback(
            lambda failure: self.log.failure("an answer was not completed; please report this", failure)
        )

    def resume(self) -> None:
        """See :class:`pubd.intake.http.outflow.Outflow`."""
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stop(self) -> None:
        """What is not complete cannot be so soon."""
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            outlet.fail()
        self.resume()

    def lost(self) -> None:
        """See :class:`pubd.intake.http.outflow.Outflow`."""
        self._outlet = None
        if not self._begun:
            self._begun = True
            self._done()
        self.resume()

    # For the coroutine

    async def write(self, data: bytes) -> None:
        """Goes on when there is room for more. Raises _Gone."""
        self._check().write(data)
        while self._check().full:
            self._room = Deferred()
            await self._room

    async def rest(self, seconds: float) -> None:
        """Leave so much time to others. Raises _Gone."""
        await deferLater(self._reactor, seconds, lambda: None)
        self._check()

    def _check(self) -> Outlet:
        if self._outlet is None:
            raise _Gone
        return self._outlet

    async def _all(self) -> None:
        try:
            await self._run(self)
        except _Gone:
            return
        except (PubdError, OSError) as error:
            self.log.error("an answer was broken off: {error}", error=str(error))
            if self._outlet is not None:
                self._outlet.fail()
        except BaseException:
            if self._outlet is not None:
                self._outlet.fail()
            raise
        else:
            if self._outlet is not None:
                self._outlet.finish()
        finally:
            self._outlet = None
            self._done()
