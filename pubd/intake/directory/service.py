"""The service: look, read, submit, tidy up; again when something comes, and every ``rescan`` seconds."""

from __future__ import annotations

import time
import uuid
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from pubd.intake.directory import hints, tidying
from pubd.intake.directory.owners import Owners
from pubd.intake.directory.reading import Reading
from pubd.intake.directory.rooms import DirectoryUnusable, Rooms
from pubd.intake.directory.streaming import Streaming
from pubd.intake.directory.work import LINGER, Waiting, Work
from pubd.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.access import Principal
    from pubd.intake.directory.owners import ByPeer
    from pubd.intake.directory.work import AnyDoor, Counts
    from pubd.intake.options import DirectoryOptions

T = TypeVar("T")

#: Names taken from the directory in one look.
NAMES = 20_000
#: Seconds that stopping waits for the disk.
STOP = 10.0
_BACKOFF = Backoff(first=1.0, factor=2.0, max=30.0, jitter=0.2)


class _Thread(Thread):
    """A disk that never answers must not keep the process from ending."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named, daemon=True)


class _Pool(ThreadPool):
    threadFactory = _Thread


class DirectoryIntake(Service):
    """Submits what is renamed into ``new/`` of ``options.path``, and removes it once it is stored.

    ``access`` knows principals by their uids; files of others are ``principal``'s (None: refused). ``wall`` gives epoch
    seconds. ``in_thread`` runs a call where it may wait for the disk; a thread of its own if not given. Raises
    :class:`pubd.errors.InvalidMessage` if the configured properties are none. A directory that cannot be used is
    logged and tried again: it may be mounted later.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        door: AnyDoor,
        options: DirectoryOptions,
        principal: Principal | None,
        access: ByPeer | None = None,
        wall: Callable[[], float] = time.time,
        make_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        watch: Callable[[Any, Any, Callable[[], None]], Callable[[], None]] = hints.watch,
        in_thread: Callable[..., Deferred[Any]] | None = None,
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._make_id = make_id
        self._watch = watch
        self._pool: ThreadPool | None = None
        self._given_thread = in_thread
        self._owners = Owners(access=access, fallback=principal)
        reading = Reading(options=options, owners=self._owners, wall=wall)
        self._work = Work(
            clock=reactor,
            door=door,
            reading=reading,
            streaming=Streaming(max_line=reading.max_file, owners=self._owners, wall=wall),
            in_thread=self._in_thread,
            running=lambda: bool(self.running),
            max_unanswered=options.max_unanswered,
            path=self.path,
        )
        self._rooms: Rooms | None = None
        self._unwatch: Callable[[], None] = lambda: None
        self._recovered = False
        self._hinted = False
        self._waiting: Deferred[None] | None = None
        self._wakes_for_hint = False
        self._failures = 0
        self._said = ""
        self._ended: Deferred[None] | None = None

    @property
    def counts(self) -> Counts:
        """What became of files and messages since this was made."""
        return self._work.counts

    # The service

    def startService(self) -> None:
        """Look at once."""
        super().startService()
        if self._given_thread is None:
            self._pool = _Pool(0, 1, name="directory")
            self._pool.start()
        self._recovered = False
        self._ended = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """Take no more; fires when what was submitted has been answered and removed, or the disk is given up."""
        super().stopService()
        if self._ended is None:
            return succeed(None)
        ended, self._ended = self._ended, None
        pool = self._pool
        stopped: Deferred[None] = Deferred()

        def over(_: object = None) -> None:
            if stopped.called:
                return
            if call.active():
                call.cancel()
                self._pool = None
                if pool is not None:
                    pool.stop()
            else:
                self.log.error(
                    "{path} does not answer; what was submitted from it is recognised at the next start",
                    path=self.path,
                )
            stopped.callback(None)

        call = self._reactor.callLater(STOP, over)
        self._fire()
        self._work.stop()
        ended.addBoth(over)
        return stopped

    def hint(self) -> None:
        """Something may have come."""
        self._hinted = True
        if self._wakes_for_hint:
            self._fire()

    @property
    def path(self) -> str:
        return str(self._options.path)

    # Waiting

    async def _run(self) -> None:
        while self.running:
            self._hinted = False
            try:
                wait = await self._pass()
            except Waiting as waiting:
                wait = self._back_off(str(waiting))
            except (DirectoryUnusable, OSError) as error:
                self.counts.errors += 1
                wait = self._back_off(str(error))
            except Exception:
                self.counts.errors += 1
                self.log.failure("looking at {path} failed; trying again", path=self.path)
                wait = self._options.rescan
            else:
                self._well()
            # Something that comes ends the wait, but a full spool is not asked again and again.
            await self._pause(LINGER if not self._failures else wait, hinted=False)
            if not self._failures:
                await self._pause(wait, hinted=True)
        await self._close()

    async def _close(self) -> None:
        self._unwatch()
        self._unwatch = lambda: None
        rooms, self._rooms = self._rooms, None
        if rooms is not None:
            await self._in_thread(rooms.close)

    async def _pause(self, seconds: float, *, hinted: bool) -> None:
        if not self.running or (hinted and self._hinted):
            return
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        self._wakes_for_hint = hinted
        call = self._reactor.callLater(seconds, self._fire)
        await waiting
        if call.active():
            call.cancel()

    def _fire(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def _back_off(self, why: str) -> float:
        """Logged once for a row of them."""
        if why != self._said and self.running:
            self.log.warn("{path}: files wait: {why}", path=self.path, why=why)
            self._said = why
        wait = _BACKOFF.delay(min(self._failures, 20), lambda: 0.0)
        self._failures += 1
        return wait

    def _well(self) -> None:
        if self._failures:
            self.log.info("{path}: files are taken again", path=self.path)
        self._failures, self._said = 0, ""

    def _in_thread(self, call: Callable[..., T], *given: Any) -> Deferred[T]:
        if self._given_thread is not None:
            return self._given_thread(call, *given)
        assert self._pool is not None
        return deferToThreadPool(self._reactor, self._pool, call, *given)

    # Looking

    async def _pass(self) -> float:
        """Deal with everything that is there now; seconds until the next look."""
        rooms, fresh = await self._in_thread(self._enter)
        if fresh:
            self._watch_again()
        self._owners.forget()
        await self._work.begin(rooms)
        if not self._recovered:
            await self._in_thread(tidying.recover, rooms)
            # Those first, whatever else waits: as long as pubd has just started, the spool still knows what they are.
            await self._work.names(rooms, await self._in_thread(rooms.doubted))
            self._recovered = True
        after = ""
        while self.running and (names := await self._in_thread(rooms.scan, after, NAMES)):
            after = names[-1]
            await self._work.names(rooms, names)
        return self._work.wait(self._options.rescan)

    def _enter(self) -> tuple[Rooms, bool]:
        """In the thread. The rooms, and whether they were opened anew, because the path leads elsewhere now."""
        rooms = self._rooms
        if rooms is not None and rooms.current():
            return rooms, False
        if rooms is not None:
            rooms.close()
            self._rooms = None
        self._rooms = rooms = Rooms(self._options.path, self._make_id)
        return rooms, True

    def _watch_again(self) -> None:
        self._unwatch()
        self._unwatch = lambda: None
        if self.running:
            # The coming look sees what came before.
            self._unwatch = self._watch(self._reactor, self._options.path / "new", self.hint)
