"""What is done with the files of one look: read, submit, and tidy up, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from pubd.errors import Busy, PubdError, PublisherDraining, PublisherStopped, QuotaExceeded, SpoolError
from pubd.intake.directory import tidying
from pubd.intake.directory.answers import Verdict, verdict_of
from pubd.intake.directory.found import File, FileGone, FileHeld, FileLater, FileRefused, Postponed, Refused
from pubd.intake.directory.names import Kind, kind_of, printable
from pubd.intake.directory.patience import Patience
from pubd.intake.directory.reading import BYTES, FILES
from pubd.intake.directory.streaming import Chunk, Line, Place, place_note
from pubd.intake.problem import Problem, problem, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from pubd.access import Principal
    from pubd.intake.directory.found import Batch, Taken
    from pubd.intake.directory.reading import Reading
    from pubd.intake.directory.rooms import Rooms
    from pubd.intake.directory.streaming import Streaming
    from pubd.message import Message
    from pubd.receipt import Receipt

#: Seconds between two looks at least, so that what comes at once is taken at once.
LINGER = 0.01
#: Accepted files that cannot be removed, after which no more are taken.
MAX_KEPT = 1000
#: Places in .ndjson files that are remembered besides their notes.
MAX_PLACES = 1000


class AnyDoor(Protocol):
    """What is needed of :class:`pubd.intake.door.Door`."""

    def submit(self, principal: Principal, messages: Sequence[Message]) -> Deferred[list[Receipt | PubdError]]:
        """One answer each, in order; never fails."""

    def take(self, size: int) -> bool:
        """Count bytes as read; False: not now."""

    def give(self, size: int) -> None:
        """They were answered."""

    def when_room(self) -> Deferred[None]:
        """Fires when it is worth while to take again."""


@attrs.define
class Counts:
    """Since the start. ``rejected`` are files, ``messages`` what was accepted, lines of .ndjson included."""

    messages: int = 0
    files: int = 0
    rejected: int = 0
    postponed: int = 0
    errors: int = 0


class Waiting(Exception):
    """Nothing can be submitted for now."""

    def __init__(self, why: str) -> None:
        super().__init__(why)


class Work:
    """Deals with names, in order. ``in_thread`` runs a call where it may wait for the disk, ``running`` says whether to
    go on, ``share`` is how many bytes are asked of the door for one batch.

    Raises :class:`Waiting` when nothing can be submitted for now, and OSError.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        door: AnyDoor,
        reading: Reading,
        streaming: Streaming,
        in_thread: Callable[..., Deferred[Any]],
        running: Callable[[], bool],
        max_unanswered: int,
        path: str,
    ) -> None:
        self.counts = Counts()
        self._clock = clock
        self._door = door
        self._reading = reading
        self._streaming = streaming
        self._in_thread = in_thread
        self._running = running
        self._share = min(max(BYTES, reading.max_file), max_unanswered)
        self._path = path
        self._door_opens: Deferred[None] | None = None
        self._patience = Patience()
        self._held: dict[int, float] = {}
        """Owners whose quota is used up, by uid, and until when (reactor seconds)."""
        self._steps: dict[int, int] = {}
        """How many messages of an owner go at a time, by uid, where their quota does not allow a whole batch."""
        self._kept: dict[str, File] = {}
        """Accepted, but not to be removed: never to be submitted again."""
        self._places: dict[str, Place] = {}

    async def begin(self, rooms: Rooms) -> None:
        """A new look begins."""
        now = self._clock.seconds()
        self._patience.forget(now)
        self._held = {uid: until for uid, until in self._held.items() if until > now}
        await self._remove_kept(rooms)

    def wait(self, most: float) -> float:
        """Seconds until something that waits is due, ``most`` at most."""
        now: float = self._clock.seconds()
        waits = [most, *(until - now for until in self._held.values())]
        if (soonest := self._patience.soonest(now)) is not None:
            waits.append(soonest)
        return max(LINGER, min(waits))

    def stop(self) -> None:
        """Wait for the door no more."""
        if self._door_opens is not None:
            self._door_opens.cancel()

    async def names(self, rooms: Rooms, names: list[str]) -> None:
        """Deal with these files, as far as they are there and do not have to wait."""
        now = self._clock.seconds()
        names = [
            name
            for name in names
            if kind_of(name) is not Kind.HIDDEN and name not in self._kept and not self._patience.waits(name, now)
        ]
        start = 0
        while self._running() and start < len(names):
            await self._room()
            try:
                batch = await self._in_thread(self._reading.batch, rooms, names, start, tuple(self._held))
                start = batch.next
                await self._settle(rooms, batch)
                if batch.stream is not None and self._running():
                    await self._stream(rooms, batch.stream)
            finally:
                self._door.give(self._share)

    async def _room(self) -> None:
        while not self._door.take(self._share):
            self._door_opens = self._door.when_room()
            try:
                await self._door_opens
            except CancelledError:
                raise Waiting("pubd is stopping") from None
            finally:
                self._door_opens = None

    # One batch of files

    async def _settle(self, rooms: Rooms, batch: Batch) -> None:
        refused, postponed = list(batch.refused), list(batch.postponed)
        accepted: list[File] = []
        why = None
        for taken, answers in await self._submitted(batch.taken):
            for one, answer in zip(taken, answers, strict=True):
                verdict = verdict_of(answer, own_key=one.own_key)
                if verdict is Verdict.ACCEPTED:
                    accepted.append(one.file)
                elif verdict is Verdict.REFUSED:
                    refused.append(_refused(one, answer))
                elif self._strange(answer):
                    postponed.append(Postponed(name=one.file.name, why=str(answer), alarming=True))
                else:
                    why = self._later(answer, one.uid, len(taken)) or why
            if not any(isinstance(answer, QuotaExceeded) for answer in answers):
                self._stride(taken[0].uid)
        self.counts.messages += len(accepted)
        await self._remove(rooms, accepted)
        await self._reject(rooms, refused)
        self._postpone(postponed)
        if why is not None:
            raise Waiting(why)

    async def _submitted(self, taken: Sequence[Taken]) -> list[tuple[list[Taken], list[Receipt | PubdError]]]:
        """By owner, all of them together; without those that their quota does not allow now."""
        groups: dict[int, list[Taken]] = {}
        for one in taken:
            groups.setdefault(one.uid, []).append(one)
        under_way = []
        for uid, group in groups.items():
            step = self._steps.get(uid, FILES)
            if len(group) > step:
                # None of those that come after them either, or they would overtake the rest.
                self._held[uid] = self._clock.seconds()
                group = group[:step]
            under_way.append((group, self._door.submit(group[0].principal, [one.message for one in group])))
        return [(group, await answers) for group, answers in under_way]

    def _strange(self, answer: object) -> bool:
        """Whether it is about this one message, for all that is known: then it must not hold up the others."""
        return not isinstance(answer, QuotaExceeded | PublisherDraining | PublisherStopped | SpoolError | Busy)

    def _later(self, answer: Any, uid: int, count: int) -> str | None:
        """Whom to leave alone, as ``count`` messages were not taken; why everybody, if so."""
        if isinstance(answer, QuotaExceeded):
            # A quota may be less than a batch: how long to wait is only known of one.
            self._steps[uid] = max(1, count // 2)
            self._held[uid] = self._clock.seconds() + (max(answer.retry_after, LINGER) if count == 1 else 0.0)
            return None
        return "pubd is stopping" if isinstance(answer, PublisherStopped) else str(answer)

    def _stride(self, uid: int) -> None:
        """What was submitted of this owner was within their quota: try more the next time."""
        step = self._steps.pop(uid, None)
        if step is not None and 2 * step < FILES:
            self._steps[uid] = 2 * step

    # One file of many lines

    async def _stream(self, rooms: Rooms, name: str) -> None:
        place = self._places.pop(name, None)
        while self._running():
            try:
                chunk = await self._in_thread(
                    self._streaming.chunk, rooms, name, place, tuple(self._held), dict(self._steps)
                )
            except FileGone:
                return
            except FileHeld:
                self._remember(place)
                return
            except FileLater as later:
                self._remember(place)
                self._postpone([Postponed(name=name, why=str(later), alarming=later.alarming)])
                return
            except FileRefused as refused:
                accepted = place.accepted if place is not None else 0
                await self._reject(rooms, [Refused(name=name, problems=((None, refused.problem),), accepted=accepted)])
                return
            place, whole, why = await self._lines(chunk)
            if whole and chunk.last:
                await self._end(rooms, place)
                return
            if place.offset > chunk.place.offset:
                place = await self._in_thread(self._streaming.keep, rooms, place)
            self._remember(place)
            if why is not None:
                raise Waiting(why)
            if not whole:
                return

    async def _lines(self, chunk: Chunk) -> tuple[Place, bool, str | None]:
        """The place after what was dealt with, whether that is all of the chunk, and why everybody has to wait."""
        messages = [line.message for line in chunk.lines if line.message is not None]
        answers = iter(await self._door.submit(chunk.principal, messages) if messages else [])
        settled: list[tuple[Line, Problem | None]] = []
        for line in chunk.lines:
            if line.message is None:
                settled.append((line, line.problem))
                continue
            answer = next(answers)
            verdict = verdict_of(answer, own_key=line.own_key)
            if verdict is Verdict.LATER:
                # Of the lines after it some may have been accepted: their keys tell, the next time.
                why = None
                if self._strange(answer):
                    self._postpone([Postponed(name=chunk.place.name, why=str(answer), alarming=True)])
                else:
                    why = self._later(answer, chunk.uid, len(messages))
                return self._counted(chunk.beyond(tuple(settled), whole=False), chunk), False, why
            settled.append((line, _problem(verdict, answer)))
        self._stride(chunk.uid)
        return self._counted(chunk.beyond(tuple(settled), whole=True), chunk), True, None

    def _counted(self, place: Place, chunk: Chunk) -> Place:
        self.counts.messages += place.accepted - chunk.place.accepted
        return place

    async def _end(self, rooms: Rooms, place: Place) -> None:
        if place.refused or not place.accepted:
            await self._reject(rooms, [_refused_lines(place)])
        else:
            await self._remove(rooms, [File(name=place.name, identity=place.identity)])
            await self._in_thread(rooms.forget, place_note(place.name))

    def _remember(self, place: Place | None) -> None:
        if place is None:
            return
        if len(self._places) >= MAX_PLACES:
            del self._places[next(iter(self._places))]
        self._places[place.name] = place

    # Afterwards

    async def _remove(self, rooms: Rooms, files: list[File]) -> None:
        if not files:
            return
        left = await self._in_thread(_remove_all, rooms, files)
        for file in files:
            self._patience.over(file.name)
        self.counts.files += len(files)
        self._kept.update((file.name, file) for file, _ in left)
        self._said_of([(file.name, why) for file, why in left], "was accepted, but cannot be removed")

    async def _remove_kept(self, rooms: Rooms) -> None:
        if not self._kept:
            return
        left = await self._in_thread(_remove_all, rooms, list(self._kept.values()))
        self._kept = {file.name: file for file, _ in left}
        if len(left) >= MAX_KEPT:
            raise Waiting(f"{len(left)} files that were accepted cannot be removed: {left[0][1]}")

    async def _reject(self, rooms: Rooms, refused: list[Refused]) -> None:
        if not refused:
            return
        moved, left = await self._in_thread(_reject_all, rooms, refused)
        for one in moved:
            self._patience.over(one.name)
        self.counts.rejected += len(moved)
        if moved:
            self.log.warn(
                "{path}: {count} files were rejected, see rejected/*.reason; the first is {name}: {why}",
                path=self._path,
                count=len(moved),
                name=printable(moved[0].name),
                why=moved[0].problems[0][1].detail,
            )
        now = self._clock.seconds()
        new = [(one.name, why) for one, why in left if self._patience.postpone(one.name, now)]
        self._said_of(new, "is refused, but cannot be moved to rejected/, and is left alone")

    def _postpone(self, postponed: Sequence[Postponed]) -> None:
        now = self._clock.seconds()
        self.counts.postponed += len(postponed)
        # Alarming ones are told when they come, and then no more.
        new = [one for one in postponed if self._patience.postpone(one.name, now)]
        self._said_of([(one.name, one.why) for one in new if one.alarming], "stays in new/")

    def _said_of(self, files: Sequence[tuple[str, str]], what: str) -> None:
        if not files:
            return
        self.counts.errors += len(files)
        self.log.error(
            "{path}: {name} {what}: {why} ({count} files are like this)",
            path=self._path,
            name=printable(files[0][0]),
            what=what,
            why=files[0][1],
            count=len(files),
        )


def _problem(verdict: Verdict, answer: Receipt | PubdError) -> Problem | None:
    return problem_of(answer) if verdict is Verdict.REFUSED and isinstance(answer, PubdError) else None


def _refused(one: Taken, answer: Receipt | PubdError) -> Refused:
    assert isinstance(answer, PubdError)
    return Refused(name=one.file.name, identity=one.file.identity, problems=((None, problem_of(answer)),))


def _refused_lines(place: Place) -> Refused:
    nothing: tuple[tuple[int | None, Problem], ...] = ((None, problem("malformed", "holds no message")),)
    return Refused(
        name=place.name,
        identity=place.identity,
        problems=place.problems or nothing,
        more=place.refused - len(place.problems),
        accepted=place.accepted,
    )


def _remove_all(rooms: Rooms, files: Sequence[File]) -> list[tuple[File, str]]:
    """In the thread. Those that could not be removed, and why."""
    left: list[tuple[File, str]] = []
    for file in files:
        try:
            tidying.remove(rooms, file)
        except OSError as error:
            left.append((file, str(error.strerror)))
    return left


def _reject_all(rooms: Rooms, refused: Sequence[Refused]) -> tuple[list[Refused], list[tuple[Refused, str]]]:
    """In the thread. Those that were moved, and those that could not be, and why."""
    moved: list[Refused] = []
    left: list[tuple[Refused, str]] = []
    for one in refused:
        try:
            if tidying.reject(rooms, one) is not None:
                moved.append(one)
        except OSError as error:
            left.append((one, str(error.strerror)))
    return moved, left
