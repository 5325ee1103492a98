"""The intake of schedules: each submits its message at its times, as the wall clock says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from pubd.errors import PubdError, PublisherDraining, PublisherStopped, SpoolFull
from pubd.intake.diary import MemoryDiary
from pubd.schedule import Missed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall

    from pubd.intake.diary import Diary
    from pubd.intake.timer import Submit
    from pubd.schedule import Schedule

#: The clock is looked at this often (seconds) at least, since nobody tells when it is set.
LOOK = 30.0
#: A run that is late by no more than this (seconds) is not missed.
GRACE = 60.0
#: Runs of one schedule that the spool has not answered; past them a run is dropped.
MAX_UNANSWERED = 100


class ScheduleIntake(Service):
    """Runs ``schedules``. ``clock`` counts time, ``wall`` tells the time of day in epoch seconds.

    A run is never repeated to catch up: after a stall or a step of the clock there is one run at most, then the next
    at its time. A clock set back is noticed within :data:`LOOK` seconds and at the next run; times that come again
    run again. With :attr:`pubd.schedule.Missed.ONCE` ``diary`` tells what was missed before the start.
    """

    def __init__(
        self,
        *,
        clock: Any,
        wall: Callable[[], float],
        submit: Submit,
        schedules: Iterable[Schedule],
        hostname: str,
        diary: Diary | None = None,
    ) -> None:
        kept = diary or MemoryDiary()

        def run(schedule: Schedule) -> _Run:
            return _Run(schedule, clock=clock, wall=wall, submit=submit, hostname=hostname, diary=kept)

        self._make = run
        self._runs = [run(schedule) for schedule in schedules]

    @property
    def names(self) -> list[str]:
        """Of the schedules, in their order."""
        return [run.schedule.name for run in self._runs]

    def reconfigure(self, schedules: Iterable[Schedule]) -> None:
        """Run these. One that has not changed keeps its next time and its count; of the others none has missed a run:
        pubd was there, and they were not."""
        former = {run.schedule.name: run for run in self._runs}
        self._runs = []
        for schedule in schedules:
            run = former.get(schedule.name)
            if run is not None and run.schedule == schedule:
                del former[schedule.name]
            else:
                run = self._make(schedule)
                if self.running:
                    run.start(anew=True)
            self._runs.append(run)
        for gone in former.values():
            gone.stop()

    def startService(self) -> None:
        """The first runs come at their times, made-up ones at once."""
        super().startService()
        for run in self._runs:
            run.start()

    def stopService(self) -> Deferred[None]:
        """No more runs; messages on their way are the publisher's."""
        super().stopService()
        for run in self._runs:
            run.stop()
        return succeed(None)


class _Run:
    """One schedule at work."""

    log = Logger(namespace="pubd.intake.schedule")

    def __init__(
        self,
        schedule: Schedule,
        *,
        clock: Any,
        wall: Callable[[], float],
        submit: Submit,
        hostname: str,
        diary: Diary,
    ) -> None:
        self.schedule = schedule
        self._clock = clock
        self._wall = wall
        self._submit = submit
        self._hostname = hostname
        self._diary = diary
        self._call: IDelayedCall | None = None
        self._seen = 0.0
        """The wall clock when it was looked at last."""
        self._done = 0.0
        """Times up to this one have been dealt with."""
        self._due = 0.0
        self._seq = 0
        self._unanswered = 0
        self._refused = 0
        """Runs in a row that were dropped."""

    def start(self, anew: bool = False) -> None:
        """``anew``: there were no times before this one."""
        now = self._seen = self._done = self._wall()
        if anew and self.schedule.missed is Missed.ONCE:
            self._diary.note(self.schedule.name, now)
        elif self.schedule.missed is Missed.ONCE:
            last = self._diary.last(self.schedule.name)
            if last is None:
                self._diary.note(self.schedule.name, now)
            else:
                self._done = min(last, now)
        self._due = self.schedule.when.next_after(self._done)
        self._look()

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        """Run if it is time, and look again later; always."""
        now = self._wall()
        try:
            if now < self._seen:
                self._set_back(now)
            if now >= self._due:
                self._decide(now)
        except Exception:
            self.log.failure("schedule {name!r} failed this time; going on", name=self.schedule.name)
            self._due = now + LOOK
        self._seen = now
        # Not all at once: a wall clock that runs ahead of the reactor's would spin here.
        self._call = self._clock.callLater(min(max(self._due - now, 0.001), LOOK), self._look)

    def _set_back(self, now: float) -> None:
        self._done = min(self._done, now)
        self._due = min(self._due, self.schedule.when.next_after(now))

    def _decide(self, now: float) -> None:
        when = self.schedule.when
        # One look backwards answers for any number of missed times.
        in_time = when.next_after(max(self._done, now - GRACE)) <= now
        if in_time or self.schedule.missed is Missed.ONCE:
            self._run(now)
        else:
            self.log.warn("schedule {name!r}: a run was missed and is dropped", name=self.schedule.name)
        self._done = now
        self._due = when.next_after(now)

    def _run(self, now: float) -> None:
        self._seq += 1
        if self._unanswered >= MAX_UNANSWERED:
            self._drop("the spool has not answered the runs before")
            return
        self._unanswered += 1
        Deferred.fromCoroutine(self._one(now, self._seq)).addErrback(
            lambda failure: self.log.failure("a run of schedule {name!r} failed", failure, name=self.schedule.name)
        )

    async def _one(self, now: float, seq: int) -> None:
        schedule = self.schedule
        try:
            await self._submit(schedule.message(now=now, seq=seq, hostname=self._hostname))
        except PublisherStopped:
            return
        except (SpoolFull, PublisherDraining) as full:
            self._drop(str(full))
            return
        except PubdError as error:
            self.log.error("schedule {name!r}: run {seq}: {error}", name=schedule.name, seq=seq, error=str(error))
            return
        finally:
            self._unanswered -= 1
        if self._refused:
            self.log.info(
                "schedule {name!r} goes on; {count} runs were dropped", name=schedule.name, count=self._refused
            )
            self._refused = 0
        if schedule.missed is Missed.ONCE:
            self._diary.note(schedule.name, now)

    def _drop(self, why: str) -> None:
        """Logged once for a row of them."""
        self._refused += 1
        if self._refused == 1:
            self.log.warn(
                "schedule {name!r}: runs are dropped until this is over: {why}", name=self.schedule.name, why=why
            )
