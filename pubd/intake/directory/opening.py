"""Opening what others put into a directory: never follow, never wait, believe only what the open file tells."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pubd.intake.directory.found import FileGone, FileLater, FileRefused, Identity
from pubd.intake.problem import problem

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds for which a second name is borne: maildir's own manner is to link into new/ and then to unlink from tmp/.
LINKING = 10.0

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def identity_of(status: os.stat_result) -> Identity:
    """The identity that ``status`` tells."""
    return Identity(ino=status.st_ino, ctime=status.st_ctime_ns)


def look(directory: int, name: str) -> os.stat_result:
    """The status of what is there, links not followed. Raises FileGone."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise FileGone(name) from None


@contextmanager
def opened(directory: int, name: str, *, now: float) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of the regular file ``name`` in ``directory``, and its status as of its opening.

    Raises FileRefused for everything that is not a regular file with this one name, FileLater where opening fails for
    a cause that may pass, FileGone; OSError where the process lacks descriptors or memory. ``now`` in epoch seconds.
    """
    # Looked at before: opening a device can do something.
    _check(look(directory, name), now)
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        raise FileGone(name) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise FileLater("it was replaced while it was opened") from None
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            # Not this file's fault, and the next one would fare no better.
            raise
        raise FileLater(f"it cannot be opened: {error.strerror}", alarming=True) from None
    try:
        status = os.fstat(descriptor)
        _check(status, now)
        yield descriptor, status
    except OSError as error:
        raise FileLater(f"it cannot be read: {error.strerror}", alarming=True) from None
    finally:
        os.close(descriptor)


def read(descriptor: int, status: os.stat_result) -> bytes:
    """All of a file that nobody writes to meanwhile. Raises FileLater if somebody does."""
    size = status.st_size
    raw = os.read(descriptor, size + 1)
    if 0 < len(raw) < size:
        # A single read gives at most 2 GiB, and some file systems give less than was asked.
        parts = [raw]
        while part := os.read(descriptor, size + 1 - sum(map(len, parts))):
            parts.append(part)
        raw = b"".join(parts)
    if len(raw) != size or changed(descriptor, status):
        raise FileLater("it is still being written; write to tmp/ and rename into new/ when it is complete")
    return raw


def changed(descriptor: int, status: os.stat_result) -> bool:
    """Whether somebody wrote to the file since ``status``."""
    now = os.fstat(descriptor)
    return now.st_size != status.st_size or now.st_mtime_ns != status.st_mtime_ns


def _check(status: os.stat_result, now: float) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "no regular file")
        raise FileRefused(problem("malformed", f"is {kind}; only regular files are submissions"))
    if status.st_nlink > 1:
        if now - status.st_ctime < LINKING:
            raise FileLater("it has a second name still")
        raise FileRefused(
            problem("not-allowed", f"has {status.st_nlink} names (hard links); copy it, so that it has one")
        )
