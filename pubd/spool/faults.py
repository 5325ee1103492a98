"""SQLite's errors as pubd's: what can be waited out, and what means that the storage is not to be trusted."""

from __future__ import annotations

from errno import EDQUOT
from typing import TYPE_CHECKING

import apsw

from pubd.errors import SpoolError, SpoolFailed, SpoolFull

if TYPE_CHECKING:
    from pathlib import Path

#: Extended codes with which a full disk shows elsewhere than in SQLITE_FULL.
_FULL = frozenset({apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMMAP})


def translated(error: Exception, path: Path, system: int = 0) -> SpoolError:
    """What happened, with what to do about it. A SpoolFailed ends the spool. ``system``: errno of an I/O error."""
    if isinstance(error, SpoolError):
        return error
    text = f"{type(error).__name__}: {error}"
    code = getattr(error, "extendedresult", 0)
    # A quota that is used up is a full disk, though SQLite does not call it so.
    if isinstance(error, apsw.FullError) or code in _FULL or (code == apsw.SQLITE_IOERR_WRITE and system == EDQUOT):
        return full(path)
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return SpoolError(
            f"another process holds a lock on {path}; end it (fuser {path} names it), pubd goes on by itself"
        )
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | UnicodeDecodeError):
        return SpoolFailed(
            f"the spool {path} is damaged ({text}): stop pubd, copy the file, see what is left with "
            f"'pubd verify {path}' and save it with 'pubd export {path}'"
        )
    if isinstance(error, apsw.CantOpenError | apsw.PermissionsError | apsw.ReadOnlyError | OSError):
        return SpoolFailed(
            f"the spool {path} cannot be used ({text}): check that it and its directory are pubd's to write"
        )
    if isinstance(error, apsw.IOError):
        # After a failed fsync the kernel may have dropped the dirty pages and report success the next time, so only
        # reading the file anew tells what is in it (https://www.usenix.org/conference/atc20/presentation/rebello).
        return SpoolFailed(f"the disk of the spool {path} failed ({text}): check it; start pubd again once it is well")
    return SpoolFailed(f"the spool {path} failed ({text}): please report this; start pubd again to go on")


def nameless(path: Path, lost: Path) -> SpoolError:
    """The file ``lost`` of the spool ``path`` was removed while it is in use."""
    return SpoolError(
        f"{lost} was removed or replaced while pubd writes to it, so what the spool holds ends with this process, and "
        f"nothing more is accepted: save it now with 'pubd backup FILE' (or 'pubd export -o FILE'), stop pubd, put "
        f"FILE in the place of {path} without an old {path.name}-wal beside it, and start pubd again"
    )


def full(path: Path) -> SpoolFull:
    """The disk is."""
    return SpoolFull("disk", f"no room is left on the disk of {path}; make room, pubd goes on by itself")
