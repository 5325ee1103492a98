"""Reload: the configuration is read again while pubd runs, judged as a whole, and then applied, or not at all.

First everything that may fail: the file and all that it names is read and checked, what would take a restart is
refused, and each part gets ready (certificates are read, sockets opened). Only then all parts change, in one turn of
the reactor, which cannot fail. Who asks while a reload is under way is answered by one that begins after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from pubd.config import ConfigError
from pubd.config.changes import changes, refusals
from pubd.errors import InvalidOption, PublisherStopped, ReloadRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.config import Config
    from pubd.config.changes import Change
    from pubd.errors import PubdError
    from pubd.intake.prepared import Prepared

#: Seconds for which a reload waits until RabbitMQ has declared what is new.
DECLARING = 5.0


@attrs.frozen(kw_only=True)
class Reloaded:
    """What was changed, and suspicions about the new configuration."""

    changes: tuple[Change, ...]
    hints: tuple[str, ...] = ()


class Part(Protocol):
    """What takes its share of a new configuration."""

    def prepare(self, config: Config) -> Prepared:
        """Get ready for it; raises :class:`pubd.errors.InvalidOption`, and then nothing has changed."""


class Supervisor(Protocol):
    """Such as :class:`pubd.operate.systemd.Systemd`."""

    def reloading(self) -> None:
        """It has begun."""

    def reloaded(self) -> None:
        """It is over, whatever became of it."""


class Reload(Service):
    """``config`` is in use; ``load`` reads it again, and ``in_thread`` runs that where it may wait for a disk.

    ``where`` names the file.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        *,
        where: str,
        load: Callable[[], Config],
        parts: Sequence[Part],
        in_thread: Callable[[Callable[[], Config]], Deferred[Config]],
    ) -> None:
        self.config = config
        self._where = where
        self._load = load
        self._parts = parts
        self._in_thread = in_thread
        self.supervisors: list[Supervisor] = []
        """Who is told when a reload begins and ends."""
        self._begun: list[Deferred[None]] = []
        self._waiting: list[Deferred[Reloaded]] = []
        self._under_way = False

    def stopService(self) -> Deferred[None]:
        """Change nothing more; who waits for a reload is told."""
        super().stopService()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(_stopping())
        return succeed(None)

    def reload(self) -> Deferred[Reloaded]:
        """Fires when the configuration as it is now is in use.

        Errback: :class:`ReloadRefused`, or :class:`pubd.errors.PublisherStopped`; then the one before is in use.
        """
        if not self.running:
            return fail(_stopping())
        answer: Deferred[Reloaded] = Deferred()
        self._waiting.append(answer)
        if not self._under_way:
            self._under_way = True
            Deferred.fromCoroutine(self._run()).addErrback(
                lambda failure: self.log.failure("reloading failed; please report this", failure)
            )
        return answer

    def wait_for(self, begun: Deferred[None]) -> None:
        """For a part that is being changed: the reload is over when this has fired, too; it never fails."""
        self._begun.append(begun)

    async def _run(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                answer = await self._answer()
                for each in waiting:
                    if isinstance(answer, Reloaded):
                        each.callback(answer)
                    else:
                        each.errback(answer)
        finally:
            self._under_way = False

    async def _answer(self) -> Reloaded | PubdError:
        for supervisor in self.supervisors:
            supervisor.reloading()
        try:
            return await self._once()
        except ReloadRefused as refused:
            for problem in refused.problems:
                self.log.error("{problem}", problem=problem)
            self.log.error(
                "reload refused: {count} problem{s} in {where}; nothing was changed",
                count=len(refused.problems),
                s="s" if len(refused.problems) != 1 else "",
                where=self._where,
            )
            return refused
        except PublisherStopped as stopped:
            return stopped
        except Exception as mistake:
            self.log.failure("reloading {where} failed; please report this", where=self._where)
            return ReloadRefused([f"{self._where}: pubd made a mistake ({type(mistake).__name__}), see its log"])
        finally:
            for supervisor in self.supervisors:
                supervisor.reloaded()

    async def _once(self) -> Reloaded:
        self.log.info("reloading {where}", where=self._where)
        try:
            config = await self._in_thread(self._load)
        except ConfigError as error:
            raise ReloadRefused([str(problem) for problem in error.problems]) from None
        if not self.running:
            raise _stopping()
        found = changes(self.config, config)
        if refused := refusals(found, self._where):
            raise ReloadRefused([str(problem) for problem in refused])
        self._apply(self._prepare(config), config, found)
        while self._begun:
            await self._begun.pop()
        return Reloaded(changes=found, hints=tuple(map(str, config.hints)))

    def _prepare(self, config: Config) -> list[Prepared]:
        """All parts, or none of them; every problem that they have."""
        prepared: list[Prepared] = []
        problems: list[str] = []
        for part in self._parts:
            try:
                prepared.append(part.prepare(config))
            except InvalidOption as error:
                problems.append(f"{self._where}: {error}")
        if problems:
            for each in prepared:
                each.drop()
            raise ReloadRefused(problems)
        return prepared

    def _apply(self, prepared: Sequence[Prepared], config: Config, found: Sequence[Change]) -> None:
        for hint in config.hints:
            self.log.warn("{hint}", hint=str(hint))
        for change in found:
            self.log.info("{change}", change=str(change))
        for each in prepared:
            try:
                each.apply()
            except Exception:
                # The others are to go on together, in the new configuration.
                self.log.failure("a part of the new configuration could not be applied; please report this")
        self.config = config
        count = f"{len(found)} changes" if len(found) != 1 else "1 change"
        self.log.info(
            "reloaded {where}: {what}",
            where=self._where,
            what=count if found else "nothing has changed; certificates were read again",
        )


def _stopping() -> PublisherStopped:
    return PublisherStopped("pubd is stopping; its configuration is not read again")


def in_time(clock: Any, declared: Deferred[None], seconds: float = DECLARING) -> Deferred[None]:
    """Fires when ``declared`` does, or after so many seconds: RabbitMQ may take its time, or be gone."""
    answer: Deferred[None] = Deferred()
    call = clock.callLater(seconds, answer.callback, None)

    def over(_: object) -> None:
        if call.active():
            call.cancel()
            answer.callback(None)

    declared.addBoth(over)
    return answer
