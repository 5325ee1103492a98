"""The directory itself: ``tmp/``, ``new/``, ``rejected/`` and pubd's own ``.pubd/``, by descriptors."""

from __future__ import annotations

import heapq
import json
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from pubd.errors import PubdError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TMP, NEW, REJECTED, PRIVATE = "tmp", "new", "rejected", ".pubd"
#: Of what pubd makes. The group's sticks to what is made in it; an administrator chooses the group, once.
ROOT_MODE, ROOM_MODE, PRIVATE_MODE = 0o2750, 0o2770, 0o700
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ID, _DOUBT = "id", "doubt"


class DirectoryUnusable(PubdError):
    """The directory of the intake cannot be used as it is; the sentence names the part and the fix."""


class Rooms:
    """Descriptors of the rooms of ``path``; missing ones are made, existing ones are left as they are.

    ``id`` is the directory's own, made once: together with inodes it tells files apart, and unlike a device number it
    stays the same over reboots. Raises :class:`DirectoryUnusable`.
    """

    def __init__(self, path: Path, make_id: Callable[[], str]) -> None:
        self.path = path
        self._open: list[int] = []
        try:
            _make(path, ROOT_MODE, None)
            self.root = self._keep(os.open(path, _DIRECTORY))
            for name in (TMP, NEW, REJECTED, PRIVATE):
                _make(name, PRIVATE_MODE if name == PRIVATE else ROOM_MODE, self.root)
            self.new = self._room(NEW)
            self.rejected = self._room(REJECTED)
            self.private = self._room(PRIVATE)
            self._check()
            self.id = self._identity(make_id)
        except OSError as error:
            self.close()
            where = error.filename if error.filename is not None else path
            raise DirectoryUnusable(f"{path}: {where}: {error.strerror}") from None
        except DirectoryUnusable:
            self.close()
            raise
        self.status = os.fstat(self.new)

    def close(self) -> None:
        """Let go of the descriptors."""
        while self._open:
            os.close(self._open.pop())

    def current(self) -> bool:
        """Whether the path still leads here; refreshes ``status``, that of ``new/``."""
        try:
            there = os.stat(self.path / NEW, follow_symlinks=False)
        except OSError:
            return False
        self.status = os.fstat(self.new)
        return (there.st_dev, there.st_ino) == (self.status.st_dev, self.status.st_ino) and self.status.st_nlink > 0

    def scan(self, after: str, limit: int) -> list[str]:
        """The ``limit`` first names in ``new/`` that come after ``after``, in order; memory for that many only."""
        descriptor = os.open(".", _DIRECTORY, dir_fd=self.new)
        try:
            with os.scandir(descriptor) as entries:
                return heapq.nsmallest(limit, (entry.name for entry in entries if entry.name > after))
        finally:
            os.close(descriptor)

    def private_names(self) -> list[str]:
        """What is in ``.pubd/``."""
        return self._names(self.private)

    def _names(self, room: int) -> list[str]:
        descriptor = os.open(".", _DIRECTORY, dir_fd=room)
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def note(self, name: str, text: str) -> None:
        """Write a small file of pubd's own, as a whole. Not synced: it is for processes that are killed."""
        descriptor = os.open(
            f"{name}.new",
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=self.private,
        )
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.rename(f"{name}.new", name, src_dir_fd=self.private, dst_dir_fd=self.private)

    def noted(self, name: str) -> str | None:
        """What was noted under ``name``, None if nothing."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.private)
        except FileNotFoundError:
            return None
        with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def forget(self, name: str) -> None:
        """Remove a note."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.private)

    def doubt(self, names: list[str]) -> None:
        """Note what is about to be submitted: after a kill these come first, while the spool surely knows them.

        Without the note they come in their turn; on a full disk files must be taken all the same, to make room on it.
        """
        with suppress(OSError):
            self.note(_DOUBT, json.dumps(names))

    def doubted(self) -> list[str]:
        """What was about to be submitted when pubd ended last."""
        try:
            names = json.loads(self.noted(_DOUBT) or "[]")
        except ValueError:
            return []
        return sorted(name for name in names if isinstance(name, str) and "/" not in name)

    def _room(self, name: str) -> int:
        return self._keep(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.root))

    def _keep(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def _check(self) -> None:
        new, rejected, private = os.fstat(self.new), os.fstat(self.rejected), os.fstat(self.private)
        uid = os.geteuid()
        if private.st_uid != uid or private.st_mode & 0o077:
            raise DirectoryUnusable(
                f"{self.path / PRIVATE}: belongs to pubd alone (mode 700), but others have access; remove it"
            )
        if not new.st_dev == rejected.st_dev == private.st_dev:
            raise DirectoryUnusable(f"{self.path}: its directories are on several file systems; they must be on one")
        for name, room in ((NEW, self.new), (REJECTED, self.rejected)):
            if not os.access(".", os.R_OK | os.W_OK | os.X_OK, dir_fd=room, effective_ids=True):
                raise DirectoryUnusable(f"{self.path / name}: pubd (uid {uid}) cannot read and write it; grant that")
        if new.st_mode & stat.S_ISVTX and uid not in (0, new.st_uid):
            raise DirectoryUnusable(
                f"{self.path / NEW}: has the sticky bit and belongs to uid {new.st_uid}, so pubd (uid {uid}) could "
                "never remove a file; take the bit off, or give the directory to pubd"
            )

    def _identity(self, make_id: Callable[[], str]) -> str:
        text = self.noted(_ID)
        if not text:
            text = make_id()
            self.note(_ID, text)
        return text


def _make(path: Path | str, mode: int, directory: int | None) -> None:
    try:
        os.mkdir(path, 0o700, dir_fd=directory)
    except FileExistsError:
        return
    # The umask is for files of users, not for a directory that is there to be written to. chmod of what was just made.
    descriptor = os.open(path, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        try:
            os.fchmod(descriptor, mode)
        except PermissionError:
            # RestrictSUIDSGID= of a systemd unit forbids the bit by which files get the directory's group.
            os.fchmod(descriptor, mode & 0o777)
    finally:
        os.close(descriptor)
