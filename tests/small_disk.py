"""A disk of a few MiB that others fill and clear again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20


class NoDisk(Exception):
    """It cannot be had; the sentence says what to do."""


class SmallDisk:
    """A file system of a few MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stuffing = path / "somebody-elses"
        self.ballast = path / "spool.db.ballast"

    @property
    def free(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def stuff(self, leave: int = 0) -> None:
        """Somebody else writes to it, until ``leave`` bytes are free."""
        with self._stuffing.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, self.free - leave)

    def clear(self) -> None:
        """They remove it."""
        self._stuffing.unlink()


@contextmanager
def mounted(directory: Path, size: int) -> Iterator[Path]:
    """A tmpfs: ours where we are root, otherwise in a user namespace of a process that holds it."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "pubd-test", str(directory)]
    if os.geteuid() == 0:
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            raise NoDisk(f"this needs a small disk, but: {done.stderr.strip()}")
        try:
            yield directory
        finally:
            subprocess.run(["umount", str(directory)], check=True)
        return
    holder = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", '"$@" && echo ready && read _', "sh", *mount],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert holder.stdout is not None
    try:
        said = holder.stdout.readline().strip()
        if said != "ready":
            raise NoDisk(f"this needs a small disk: run it as root, or allow user namespaces ({said})")
        yield Path(f"/proc/{holder.pid}/root{directory}")
    finally:
        holder.communicate("", timeout=10)
