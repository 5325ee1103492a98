"""A thread of a real process that hangs, as on a disk that does not answer: stopped by ptrace alone, then let go."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_DETACH, _SEIZE, _INTERRUPT = 17, 0x4206, 0x4207
#: waitpid(2): also threads that are no children.
_WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def threads(pid: int) -> list[int]:
    """Of a process, the first one first: that is where Twisted's reactor runs."""
    return [pid, *(int(each.name) for each in Path(f"/proc/{pid}/task").iterdir() if each.name != str(pid))]


@contextlib.contextmanager
def hanging(*stopped: int) -> Iterator[None]:
    """These threads do nothing meanwhile; the others of their process go on. For processes that this one started."""
    held: list[int] = []
    try:
        for thread in stopped:
            _ptrace(_SEIZE, thread)
            held.append(thread)
            _ptrace(_INTERRUPT, thread)
            os.waitpid(thread, _WALL)
        yield
    finally:
        for thread in held:
            _ptrace(_DETACH, thread)


def _ptrace(request: int, thread: int) -> None:
    if _libc.ptrace(request, thread, None, None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"thread {thread}")
