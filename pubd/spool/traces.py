"""What lies beside a spool's file that is not there: signs that messages were in one, and a WAL that still has some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pubd.errors import SpoolError

if TYPE_CHECKING:
    from pathlib import Path

#: Files that pubd makes beside a spool and that may outlast it.
_BESIDE = (".schedules", ".ballast", ".lock")


def wal_of(path: Path) -> Path:
    """Where the database ``path`` has its WAL."""
    return path.with_name(f"{path.name}-wal")


def is_orphan(path: Path) -> bool:
    """Whether the WAL of ``path`` is there with something in it, and the database is not."""
    return not _size(path) and _size(wal_of(path)) > 0


def check(path: Path) -> None:
    """Raise SpoolError if opening ``path`` would make a new database and destroy the WAL of the one that was there."""
    if not is_orphan(path):
        return
    what = "is empty" if path.exists() else "is not there"
    wal = wal_of(path)
    raise SpoolError(
        f"{path} {what}, but {wal} is, with {_size(wal):,} bytes in which accepted messages may be; nothing was "
        "changed: put the very file that was there back beside it (no backup: the two would not fit). If it is lost, "
        f"move {wal.name} away to start with a backup or with a new spool"
    )


def earlier(path: Path) -> Path | None:
    """A file that says that there was a spool ``path`` before, if there is one."""
    return next((found for end in _BESIDE if (found := path.with_name(f"{path.name}{end}")).exists()), None)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
