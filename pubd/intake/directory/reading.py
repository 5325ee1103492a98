"""Reading submissions from ``new/``, many in one go. For a thread: it waits for the disk, never for anything else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pubd.errors import InvalidMessage
from pubd.intake.directory.contents import beside, configured, stamped
from pubd.intake.directory.found import (
    Batch,
    File,
    FileGone,
    FileHeld,
    FileLater,
    FileRefused,
    Identity,
    Postponed,
    Refused,
    Taken,
)
from pubd.intake.directory.keys import file_key, message_key
from pubd.intake.directory.names import META, Kind, kind_of, oddity
from pubd.intake.directory.opening import identity_of, look, opened, read
from pubd.intake.problem import Problem, problem, problem_of
from pubd.intake.wire import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pubd.intake.directory.contents import Template
    from pubd.intake.directory.owners import Owners
    from pubd.intake.directory.rooms import Rooms
    from pubd.intake.options import DirectoryOptions
    from pubd.message import Message

#: Files in one batch, and bytes of them unless one alone has more.
FILES, BYTES = 500, 4 * 1024 * 1024
#: Largest .meta.json in bytes: headers fit into one frame of 128 KiB, and JSON writes them longer.
MAX_META = 1024 * 1024
#: Seconds that a .meta.json waits for its file, and a file without a route for its .meta.json.
ORPHAN, ROUTE = 3600.0, 60.0
#: Seconds since the last write after which what looks cut off is taken to be complete.
QUIET = 2.0


class Reading:
    """Reads files as ``options`` say. ``wall`` gives epoch seconds. Raises InvalidMessage for configured properties."""

    def __init__(self, *, options: DirectoryOptions, owners: Owners, wall: Callable[[], float]) -> None:
        self._options = options
        self._owners = owners
        self._wall = wall
        self._configured = configured(options)
        self.max_file = min(options.max_file, options.max_unanswered)

    def batch(self, rooms: Rooms, names: Sequence[str], start: int, held: Collection[int]) -> Batch:
        """The next of ``names`` from ``start`` on; those about to be submitted are noted as doubtful.

        It ends before an .ndjson, which is read by itself, and names it.
        """
        taken: list[Taken] = []
        refused: list[Refused] = []
        postponed: list[Postponed] = []
        size, index, stream = 0, start, None
        now = self._wall()
        while index < len(names) and index - start < FILES and size < BYTES:
            name = names[index]
            seen: Identity | None = None
            try:
                kind = kind_of(name)
                if kind is Kind.HIDDEN:
                    raise FileGone(name)
                status = look(rooms.new, name)
                seen = identity_of(status)
                if status.st_uid in held:
                    raise FileHeld(name)
                if (odd := oddity(name)) is not None:
                    raise FileRefused(problem("malformed", odd))
                if kind is Kind.NDJSON:
                    stream = name
                    index += 1
                    break
                if kind is Kind.META:
                    self._orphan(rooms, name, now)
                else:
                    one = self._one(rooms, name, kind, now, BYTES - size if taken else self.max_file)
                    if one is None:
                        break
                    size += len(one.message.body)
                    taken.append(one)
            except (FileGone, FileHeld):
                pass
            except FileLater as later:
                postponed.append(Postponed(name=name, why=str(later), alarming=later.alarming))
            except FileRefused as error:
                refused.append(Refused(name=name, identity=seen, problems=((None, error.problem),)))
            except InvalidMessage as error:
                refused.append(Refused(name=name, identity=seen, problems=((None, problem_of(error)),)))
            index += 1
        doubtful = [one.file.name for one in taken]
        if doubtful or stream is not None:
            rooms.doubt(doubtful or [stream or ""])
        return Batch(taken=tuple(taken), refused=tuple(refused), postponed=tuple(postponed), next=index, stream=stream)

    def _one(self, rooms: Rooms, name: str, kind: Kind, now: float, room: int) -> Taken | None:
        """The message of one file; None where it is larger than what there is room for beside others."""
        with opened(rooms.new, name, now=now) as (descriptor, status):
            if status.st_size > self.max_file:
                raise FileRefused(too_large(status.st_size, self.max_file))
            if status.st_size > room:
                return None
            principal = self._owners.principal(status, rooms.status)
            raw = read(descriptor, status)
        identity, meta = identity_of(status), None
        key = message_key(file_key(rooms.id, name, identity), raw)
        if kind is Kind.JSON:
            message, own_key = stamped(_decoded(raw, self.max_file, now - status.st_mtime), key)
        else:
            template, meta = self._template(rooms, name, status, now)
            message, own_key = template.fill(raw, key)
        return Taken(
            file=File(name=name, identity=identity, meta=meta),
            message=message,
            principal=principal,
            uid=status.st_uid,
            own_key=own_key,
        )

    def _template(self, rooms: Rooms, name: str, file: os.stat_result, now: float) -> tuple[Template, Identity | None]:
        beside_it = name + META
        try:
            with opened(rooms.new, beside_it, now=now) as (descriptor, status):
                if status.st_uid != file.st_uid:
                    raise FileRefused(
                        problem("not-allowed", f"its {META} belongs to uid {status.st_uid}, the file to {file.st_uid}")
                    )
                if status.st_size > MAX_META:
                    raise FileRefused(too_large(status.st_size, MAX_META))
                raw = read(descriptor, status)
        except FileGone:
            if self._configured.routed:
                return self._configured, None
            if now - file.st_ctime < ROUTE:
                raise FileLater(f"it has no route: {beside_it} is awaited, and no exchange is configured") from None
            raise FileRefused(
                problem(
                    "invalid-message",
                    f"no {META} came for it within {ROUTE:.0f} s, and the directory has no exchange configured",
                    field="exchange",
                )
            ) from None
        except FileRefused as error:
            raise FileRefused(problem(error.problem.type, f"its {META}: {error.problem.detail}")) from None
        try:
            return beside(raw, self._options), identity_of(status)
        except InvalidMessage as error:
            found = problem_of(error)
            raise FileRefused(problem(found.type, f"its {META}: {found.detail}", field=found.field)) from None

    def _orphan(self, rooms: Rooms, name: str, now: float) -> None:
        """A .meta.json stays until its file is dealt with; for ever is too long."""
        status = look(rooms.new, name)
        try:
            look(rooms.new, name.removesuffix(META))
        except FileGone:
            if now - status.st_ctime > ORPHAN:
                raise FileRefused(
                    problem(
                        "malformed",
                        f"no {name.removesuffix(META)} came within {ORPHAN / 3600:.0f} h, or it came before this "
                        f"file did; put the {META} there first",
                    )
                ) from None


def too_large(size: int, limit: int) -> Problem:
    """The file is over the limit."""
    return problem("too-large", f"is {size} bytes, over the limit of {limit} (max_file)")


def _decoded(raw: bytes, max_body: int, age: float) -> Message:
    try:
        return decode(raw, max_body=max_body)
    except InvalidMessage as error:
        if not error.field and 0 <= age < QUIET:
            raise FileLater("it is no JSON yet; write to tmp/ and rename into new/ when it is complete") from None
        raise
