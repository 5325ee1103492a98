"""A file of this host that is whole before it has its name, and never takes the place of a spool."""

from __future__ import annotations

import contextlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pubd.cli.failure import USAGE, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

_SQLITE = b"SQLite format 3\0"
#: What lies beside a spool, and belongs to it.
_BESIDE = ("-wal", "-shm", "-journal", ".ballast", ".lock", ".schedules")


@contextmanager
def unnamed(directory: Path, name: str) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file of that directory, readable by nobody else, and gone afterwards if it is still there.

    Raises OSError.
    """
    fd, made = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=directory)
    path = Path(made)
    try:
        with os.fdopen(fd, "wb") as file:
            yield path, file
    finally:
        for left in (path, path.with_name(f"{path.name}.lock")):
            with contextlib.suppress(OSError):
                left.unlink()


def sync(file: IO[bytes]) -> None:
    """All that was written is on the disk. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def check_free(file: Path, *, force: bool) -> None:
    """Raise Failure if there is something of that name: a directory, or with no ``force`` a file."""
    if file.is_dir():
        raise Failure(f"{file} is a directory; name a file in it", USAGE)
    if not force and os.path.lexists(file):
        raise Failure(f"{file} is there already; name another file, or say --force", USAGE)


def check_no_spool(file: Path, spool: Path | None = None) -> None:
    """Raise Failure if the file is that spool or any other, or one that belongs to a spool. Raises OSError."""
    for suffix in ("", *_BESIDE):
        whole = file.with_name(file.name.removesuffix(suffix)) if file.name != suffix else file
        if not file.name.endswith(suffix) or not whole.exists():
            continue
        if (spool is not None and spool.exists() and whole.samefile(spool)) or _is_sqlite(whole):
            what = "is a spool" if whole == file else f"belongs to the spool {whole}"
            raise Failure(f"{file} {what}, or another database, which would be lost; name another file", USAGE)


def check_unused(file: Path) -> None:
    """Raise Failure if a pubd has that file as its spool, or ended without closing it."""
    for suffix in ("-wal", ".ballast"):
        if file.with_name(file.name + suffix).exists():
            raise Failure(f"{file} is the spool of a pubd, and would be lost; name another file", USAGE)


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def place(made: Path, file: Path, *, force: bool) -> None:
    """Give what is written and synced its name, for good. Raises Failure if another came to be meanwhile, OSError."""
    if force:
        os.replace(made, file)
    else:
        try:
            os.link(made, file)
        except FileExistsError:
            raise Failure(f"{file} came to be meanwhile; name another file, or say --force") from None
    fd = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
