"""What was found in ``new/``: values that go from the thread that reads to the reactor, and back to be tidied up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pubd.errors import PubdError

if TYPE_CHECKING:
    from pubd.access import Principal
    from pubd.intake.problem import Problem
    from pubd.message import Message


class FileRefused(PubdError):
    """The file is no submission; ``problem`` says why. It goes to ``rejected/``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class FileLater(PubdError):
    """The file cannot be taken now: it is looked at again. ``alarming`` where somebody should know."""

    def __init__(self, why: str, *, alarming: bool = False) -> None:
        super().__init__(why)
        self.alarming = alarming


class FileGone(PubdError):
    """Somebody removed or renamed it meanwhile."""


class FileHeld(PubdError):
    """Its owner's quota is used up: it is passed over for now."""


@attrs.frozen(kw_only=True)
class Identity:
    """A file, whatever its name becomes: inode and time of its last change of status (ns), which nobody can set."""

    ino: int
    ctime: int


@attrs.frozen(kw_only=True)
class File:
    """A file that was looked at, its ``meta`` with it where there was one."""

    name: str
    identity: Identity
    meta: Identity | None = None


@attrs.frozen(kw_only=True)
class Taken:
    """A submission, read. ``own_key``: its idempotency key is the file's, not the application's."""

    file: File
    message: Message
    principal: Principal
    uid: int
    own_key: bool


@attrs.frozen(kw_only=True)
class Refused:
    """It goes to ``rejected/``; several ``problems`` where it had several messages, each with its line then."""

    name: str
    problems: tuple[tuple[int | None, Problem], ...]
    identity: Identity | None = None
    """None: whatever is there under this name."""
    more: int = 0
    """Lines with problems that are not listed."""
    accepted: int = 0
    """Lines that were accepted, and stay so."""


@attrs.frozen(kw_only=True)
class Postponed:
    """It is looked at again later."""

    name: str
    why: str
    alarming: bool = False


@attrs.frozen(kw_only=True)
class Batch:
    """What was read in one go. ``next`` is where to go on in the names; ``stream`` an .ndjson before that."""

    taken: tuple[Taken, ...] = ()
    refused: tuple[Refused, ...] = ()
    postponed: tuple[Postponed, ...] = ()
    next: int
    stream: str | None = None
