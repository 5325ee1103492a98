"""An .ndjson file, read by batches of lines whatever its size; and how far it has come, which outlives a kill."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs

from pubd.errors import InvalidMessage
from pubd.intake.directory.contents import stamped
from pubd.intake.directory.found import FileGone, FileHeld, FileLater, FileRefused, Identity
from pubd.intake.directory.keys import file_key, message_key
from pubd.intake.directory.opening import changed, identity_of, opened
from pubd.intake.directory.reading import BYTES, FILES, QUIET
from pubd.intake.problem import Problem, problem, problem_of
from pubd.intake.wire import decode_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import BinaryIO

    from pubd.access import Principal
    from pubd.intake.directory.owners import Owners
    from pubd.intake.directory.rooms import Rooms
    from pubd.message import Message

#: Problems of one file that are listed with their lines; more are counted.
LISTED = 1000
PLACE = "place."
_PIECE = 1024 * 1024
_NOTHING = blake2b(b"", digest_size=16).hexdigest()


@attrs.frozen(kw_only=True)
class Place:
    """How far an .ndjson has been dealt with: ``offset`` in bytes, ``line`` lines. ``key`` is its file key, in hex.

    The key stays while the file grows under its writer's hands, so that its lines keep theirs.
    """

    name: str
    identity: Identity
    key: str
    offset: int = 0
    line: int = 0
    tail: str = _NOTHING
    """Digest of what comes before ``offset``, to know the file by after it has grown."""
    accepted: int = 0
    refused: int = 0
    problems: tuple[tuple[int, Problem], ...] = ()

    def dumps(self) -> str:
        """For ``.pubd/``."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Place | None:
        """What :meth:`dumps` gave; None for anything else."""
        try:
            given = json.loads(text)
            given["identity"] = Identity(**given["identity"])
            given["problems"] = tuple((line, Problem(**one)) for line, one in given["problems"])
            return cls(**given)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


@attrs.frozen(kw_only=True)
class Line:
    """One line with something in it: a message or a problem. ``end`` is the offset of the next line."""

    number: int
    end: int
    message: Message | None = None
    problem: Problem | None = None
    own_key: bool = False


@attrs.frozen(kw_only=True)
class Chunk:
    """Lines from ``place`` on; ``offset`` and ``line`` are where they end, ``last`` where the file does."""

    place: Place
    principal: Principal
    uid: int
    lines: tuple[Line, ...]
    offset: int
    line: int
    last: bool

    def beyond(self, settled: tuple[tuple[Line, Problem | None], ...], *, whole: bool) -> Place:
        """The place after these lines, each with the problem it met; ``whole``: they are all of the chunk."""
        found = [(line.number, one) for line, one in settled if one is not None]
        place = self.place
        room = max(0, LISTED - len(place.problems))
        end = (self.offset, self.line) if whole else (place.offset, place.line)
        if settled and not whole:
            end = settled[-1][0].end, settled[-1][0].number
        return attrs.evolve(
            place,
            offset=end[0],
            line=end[1],
            accepted=place.accepted + len(settled) - len(found),
            refused=place.refused + len(found),
            problems=(*place.problems, *found[:room]),
        )


def place_note(name: str) -> str:
    """The name in ``.pubd/`` of the place of ``name``."""
    return PLACE + blake2b(name.encode(errors="surrogateescape"), digest_size=16).hexdigest()


class Streaming:
    """Reads .ndjson files. A line longer than ``max_line`` bytes is refused without being held in memory."""

    def __init__(self, *, max_line: int, owners: Owners, wall: Callable[[], float]) -> None:
        self._max_line = max_line
        self._owners = owners
        self._wall = wall

    def chunk(
        self, rooms: Rooms, name: str, place: Place | None, held: Collection[int], steps: Mapping[int, int]
    ) -> Chunk:
        """The next lines of ``name`` after ``place``; after what is noted of it where None is given.

        ``steps``: how many lines at most of an owner, by uid, where that is less than usual.

        Raises what :func:`~pubd.intake.directory.opening.opened` does.
        """
        now = self._wall()
        with opened(rooms.new, name, now=now) as (descriptor, status):
            if status.st_uid in held:
                raise FileHeld(name)
            principal = self._owners.principal(status, rooms.status)
            place = self._place(rooms, name, descriptor, status, place)
            with open(descriptor, "rb", buffering=_PIECE, closefd=False) as file:
                file.seek(place.offset)
                raws, ends, long = self._read(file, place, steps.get(status.st_uid, FILES))
                offset, line = file.tell(), (ends[-1][0] if ends else place.line)
                last = offset >= status.st_size
                if last and 0 <= now - status.st_mtime < QUIET and raws and not _ended(descriptor, offset):
                    raise FileLater("its last line has no end yet")
            if changed(descriptor, status):
                raise FileLater("it is still being written; write to tmp/ and rename into new/ when it is complete")
        lines = self._decoded(raws, ends, long, bytes.fromhex(place.key))
        return Chunk(
            place=place, principal=principal, uid=status.st_uid, lines=lines, offset=offset, line=line, last=last
        )

    def keep(self, rooms: Rooms, place: Place) -> Place:
        """Note the place, so that it outlives a kill; the place with what the file is known by when it has grown."""
        try:
            with opened(rooms.new, place.name, now=self._wall()) as (descriptor, status):
                if status.st_ino == place.identity.ino:
                    place = attrs.evolve(place, tail=_tail(descriptor, place.offset))
        except (FileGone, FileLater, FileRefused):
            # The next chunk tells.
            pass
        # On a full disk lines must be taken all the same; after a kill they are told by their keys.
        with suppress(OSError):
            rooms.note(place_note(place.name), place.dumps())
        return place

    def _grown(self, place: Place, descriptor: int, status: os.stat_result) -> bool:
        if place.identity.ino != status.st_ino or place.offset > status.st_size:
            return False
        return _tail(descriptor, place.offset) == place.tail

    def _place(self, rooms: Rooms, name: str, descriptor: int, status: os.stat_result, place: Place | None) -> Place:
        identity = identity_of(status)
        if place is not None and (place.identity == identity or self._grown(place, descriptor, status)):
            return attrs.evolve(place, identity=identity)
        noted = Place.loads(rooms.noted(place_note(name)) or "")
        if noted is not None and noted.name == name and noted.identity == identity:
            return noted
        return Place(name=name, identity=identity, key=file_key(rooms.id, name, identity).hex())

    def _read(self, file: BinaryIO, place: Place, count: int) -> tuple[list[bytes], list[tuple[int, int]], set[int]]:
        """Lines, number and end of each, and which of them (by number) are too long and stand there empty."""
        raws: list[bytes] = []
        ends: list[tuple[int, int]] = []
        long: set[int] = set()
        number, size, offset = place.line, 0, place.offset
        while len(raws) < count and size < BYTES:
            raw = file.readline(self._max_line + 1)
            if not raw:
                break
            number += 1
            offset += len(raw)
            size += len(raw)
            if len(raw) > self._max_line and not raw.endswith(b"\n"):
                long.add(number)
                offset += _skip(file)
                raw = b""
            raws.append(raw)
            ends.append((number, offset))
        return raws, ends, long

    def _decoded(self, raws: list[bytes], ends: list[tuple[int, int]], long: set[int], key: bytes) -> tuple[Line, ...]:
        given = [
            (raw.strip(), number, end)
            for raw, (number, end) in zip(raws, ends, strict=True)
            if number in long or not raw.isspace()
        ]
        lines: list[Line] = []
        decoded = iter(decode_lines([raw for raw, number, _ in given if number not in long]))
        for raw, number, end in given:
            if number in long:
                why = problem("too-large", f"the line is longer than {self._max_line} bytes (max_file)")
                lines.append(Line(number=number, end=end, problem=why))
                continue
            one = next(decoded)
            if isinstance(one, InvalidMessage):
                lines.append(Line(number=number, end=end, problem=problem_of(one)))
                continue
            message, own_key = stamped(one, message_key(key, raw, number))
            lines.append(Line(number=number, end=end, message=message, own_key=own_key))
        return tuple(lines)


def _skip(file: BinaryIO) -> int:
    """Read to the end of the line, piece by piece; how much that was."""
    skipped = 0
    while piece := file.readline(_PIECE):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _tail(descriptor: int, offset: int) -> str:
    start = max(0, offset - 4096)
    return blake2b(os.pread(descriptor, offset - start, start), digest_size=16).hexdigest()


def _ended(descriptor: int, offset: int) -> bool:
    return os.pread(descriptor, 1, offset - 1) == b"\n"
