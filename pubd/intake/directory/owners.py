"""Whose file it is, and whether they may submit."""

from __future__ import annotations

import os
import pwd
import stat
from typing import TYPE_CHECKING, Protocol

from pubd.intake.directory.found import FileRefused
from pubd.intake.problem import problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from pubd.access import Principal

ROOT = 0


class ByPeer(Protocol):
    """What is needed of :class:`pubd.access.Access`."""

    def by_peer(self, uid: int, gid: int, groups: Collection[int] = ()) -> Principal | None:
        """The principal with this uid, or one of these gids; None: nobody known."""


class Owners:
    """Who a file's owner is to pubd, remembered for one look at the directory.

    The owner's uid and groups are shown to ``access``, as those of a peer on a unix socket are. Whom it does not know
    is ``fallback`` (None: nobody), if they could have put the file there: otherwise somebody else did, and what it
    holds is not theirs to publish. Not for the reactor's thread: the system's user database may be far away.
    """

    def __init__(self, *, access: ByPeer | None, fallback: Principal | None) -> None:
        self._access = access
        self._fallback = fallback
        self._groups: dict[int, tuple[int, frozenset[int]]] = {}
        self._peers: dict[int, Principal | None] = {}

    def forget(self) -> None:
        """Ask again: users come and go."""
        self._groups.clear()
        self._peers.clear()

    def principal(self, file: os.stat_result, room: os.stat_result) -> Principal:
        """Who submits ``file`` in the directory ``room``. Raises FileRefused."""
        known = self._known(file.st_uid)
        if known is not None:
            return known
        if self._fallback is None:
            raise FileRefused(
                problem(
                    "not-allowed", f"belongs to uid {file.st_uid}; no [[principal]] names that uid, or a group of it"
                )
            )
        if not self._admitted(file, room):
            raise FileRefused(
                problem(
                    "not-allowed",
                    f"belongs to uid {file.st_uid}, who may not write to this directory: somebody else put it there; "
                    "copy it instead of moving it, or add its owner to the directory's group",
                )
            )
        return self._fallback

    def _known(self, uid: int) -> Principal | None:
        if self._access is None:
            return None
        if uid not in self._peers:
            gid, groups = self._groups_of(uid)
            self._peers[uid] = self._access.by_peer(uid, gid, groups)
        return self._peers[uid]

    def _admitted(self, file: os.stat_result, room: os.stat_result) -> bool:
        if file.st_uid in (ROOT, os.geteuid(), room.st_uid) or room.st_mode & stat.S_IWOTH:
            return True
        if not room.st_mode & stat.S_IWGRP:
            return False
        # Only a member of the group can make or give a file to it, or whoever may write where it is inherited.
        return file.st_gid == room.st_gid or room.st_gid in self._groups_of(file.st_uid)[1]

    def _groups_of(self, uid: int) -> tuple[int, frozenset[int]]:
        """Primary and all groups; (-1, none) for a uid without a name: a file's own gid proves nothing of its owner."""
        if uid not in self._groups:
            try:
                user = pwd.getpwuid(uid)
                self._groups[uid] = user.pw_gid, frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
            except (KeyError, OSError):
                self._groups[uid] = -1, frozenset()
        return self._groups[uid]
