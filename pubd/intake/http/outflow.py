"""An answer that is made while it is taken: as fast as its client reads, and without end if need be."""

from __future__ import annotations

from typing import Protocol


class Outlet(Protocol):
    """Where an outflow goes."""

    @property
    def full(self) -> bool:
        """The client does not read: what is written now is kept in memory. ``resume`` follows once it has read."""

    def write(self, data: bytes) -> None:
        """Some of the answer's body."""

    def finish(self) -> None:
        """The answer is complete."""

    def fail(self) -> None:
        """It cannot be completed, which was logged: the client is to see that it is not whole."""


class Outflow(Protocol):
    """``patience``: seconds for which the client may take nothing of what was written, until it is cut off.

    ``endless``: it tells what happens from now on, and is of no use once its client has ended its side.
    """

    patience: float
    endless: bool

    def begin(self, outlet: Outlet) -> None:
        """The head is written; from now on until finish, fail or ``lost`` the outlet may be used."""

    def resume(self) -> None:
        """The client has read everything that was written."""

    def stop(self) -> None:
        """pubd stops: finish soon."""

    def lost(self) -> None:
        """Nobody is there any more; also instead of ``begin``."""
