"""What becomes of a file once its submission is answered: removed, or moved to ``rejected/`` with the reason."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pubd.intake.directory.found import FileGone
from pubd.intake.directory.names import META, printable, rejected_name
from pubd.intake.directory.opening import identity_of, look
from pubd.intake.directory.streaming import PLACE, Place, place_note

if TYPE_CHECKING:
    from pubd.intake.directory.found import File, Identity, Refused
    from pubd.intake.directory.rooms import Rooms

REASON = ".reason"
_DONE = "done."
#: Names tried in rejected/ for files of the same name.
_COPIES = 10_000


def remove(rooms: Rooms, file: File) -> None:
    """Remove a file that was accepted, unless another one has its name now. Raises OSError.

    A ``.meta.json`` goes with it, and never the one of the next file of the same name: the file is set aside first,
    under a name that says which .meta.json was its own, so that a kill between the two leaves no doubt.
    """
    if not _is(rooms.new, file.name, file.identity):
        return
    if file.meta is None:
        with suppress(FileNotFoundError):
            os.unlink(file.name, dir_fd=rooms.new)
        return
    done = f"{_DONE}{file.meta.ino:x}.{file.meta.ctime:x}.{file.name}"
    with suppress(FileNotFoundError):
        os.rename(file.name, done, src_dir_fd=rooms.new, dst_dir_fd=rooms.private)
        _finish(rooms, done)


def recover(rooms: Rooms) -> None:
    """Finish what a kill left half done in ``.pubd/``. Raises OSError."""
    for name in rooms.private_names():
        if name.startswith(_DONE):
            _finish(rooms, name)
        elif name.startswith(PLACE):
            place = Place.loads(rooms.noted(name) or "")
            if place is None or not _is(rooms.new, place.name, place.identity):
                rooms.forget(name)


def reject(rooms: Rooms, refused: Refused) -> str | None:
    """Move a file to ``rejected/`` and say why beside it; its name there, or None if it was gone. Raises OSError.

    The reason is there before the file is. Nothing in ``rejected/`` is overwritten.
    """
    name = refused.name
    if refused.identity is not None and not _is(rooms.new, name, refused.identity):
        return None
    for copy in range(_COPIES):
        there = rejected_name(name, copy)
        if _is(rooms.rejected, there, None):
            continue
        if not _write_reason(rooms, there + REASON, refused):
            continue
        try:
            os.rename(name, there, src_dir_fd=rooms.new, dst_dir_fd=rooms.rejected)
        except OSError as error:
            with suppress(OSError):
                os.unlink(there + REASON, dir_fd=rooms.rejected)
            if error.errno == errno.ENOENT:
                return None
            raise
        with suppress(OSError):
            # Not worth a failure: it would be rejected by itself, later.
            os.rename(name + META, there + META, src_dir_fd=rooms.new, dst_dir_fd=rooms.rejected)
        rooms.forget(place_note(name))
        return there
    raise OSError(errno.EEXIST, f"there are {_COPIES} of that name in rejected/ already")


def reason_lines(refused: Refused) -> str:
    """The problems as JSON, one a line; ``line`` is that of the file, and the last line counts what is not listed."""
    found: list[dict[str, Any]] = []
    for line, one in refused.problems:
        told = {"file": printable(refused.name), **one.as_json()}
        found.append(told if line is None else {"line": line, **told})
    if refused.more or refused.accepted or len(refused.problems) > 1:
        found.append(
            {
                "file": printable(refused.name),
                "accepted": refused.accepted,
                "rejected": len(refused.problems) + refused.more,
                "not_listed": refused.more,
            }
        )
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)


def _write_reason(rooms: Rooms, name: str, refused: Refused) -> bool:
    """False if the name cannot be had."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o640, dir_fd=rooms.rejected)
    except FileExistsError:
        # Its file was taken away, or pubd was killed before it moved it: nothing lost with it.
        try:
            os.unlink(name, dir_fd=rooms.rejected)
            descriptor = os.open(name, flags, 0o640, dir_fd=rooms.rejected)
        except (FileExistsError, IsADirectoryError, PermissionError):
            return False
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            # twistd's umask leaves nobody else anything; the group is that of the directory, its writers' own.
            os.fchmod(descriptor, 0o640)
            file.write(reason_lines(refused))
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=rooms.rejected)
        raise
    return True


def _finish(rooms: Rooms, done: str) -> None:
    _, ino, ctime, name = done.split(".", 3)
    with suppress(FileGone, FileNotFoundError):
        found = identity_of(look(rooms.new, name + META))
        if (f"{found.ino:x}", f"{found.ctime:x}") == (ino, ctime):
            os.unlink(name + META, dir_fd=rooms.new)
    with suppress(FileNotFoundError):
        os.unlink(done, dir_fd=rooms.private)


def _is(room: int, name: str, identity: Identity | None) -> bool:
    """Whether this file, or with None any, is there under this name."""
    try:
        found = identity_of(look(room, name))
    except FileGone:
        return False
    return identity is None or found == identity
