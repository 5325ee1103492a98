"""Access: who somebody is, by what they show.

What goes before what is the intake's: a token that is shown decides, and a wrong one is nobody, whatever else holds.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, TypeVar

from pubd.access.principal import LOCAL, Principal
from pubd.access.tokens import digest_in, digest_of
from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_Key = TypeVar("_Key")
# No token is longer; what is gets no hash made of it.
_LONGEST_TOKEN = 256


class Access:
    """All principals. ``anonymous`` is who comes over loopback or a unix socket and shows nothing; None: refuse them.

    Raises :class:`pubd.errors.InvalidOption` where two principals have a name, a token, a user or a certificate in
    common: nobody is two.
    """

    def __init__(self, principals: Iterable[Principal] = (), *, anonymous: Principal | None = LOCAL) -> None:
        self.reconfigure(principals, anonymous=anonymous)

    def reconfigure(self, principals: Iterable[Principal], *, anonymous: Principal | None) -> None:
        """Know these, and nobody else, from now on; raises as construction does, and then nothing changes."""
        principals = tuple(principals)
        digests = tuple((digest_in(token), each) for each in principals for token in each.tokens)
        _unique("name", ((each.name, each) for each in principals))
        _unique("token", digests)
        users = _unique("user", ((uid, each) for each in principals for uid in each.users))
        certificates = _unique(
            "certificate", ((_folded(name), each) for each in principals for name in each.certificates)
        )
        self.principals, self.anonymous = principals, anonymous
        self._digests, self._users, self._certificates = digests, users, certificates
        self._groups = tuple((frozenset(each.groups), each) for each in principals if each.groups)

    def by_token(self, token: str) -> Principal | None:
        """Whose token this is. Takes the same time whatever matches: all hashes are compared, to their ends."""
        return self.by_digest(digest_of(token)) if len(token) <= _LONGEST_TOKEN else None

    def by_digest(self, shown: bytes) -> Principal | None:
        """The same by the hash of it."""
        found = None
        for digest, principal in self._digests:
            if compare_digest(digest, shown):
                found = principal
        return found

    def by_peer(self, uid: int, gid: int, groups: Collection[int] = ()) -> Principal | None:
        """Whose process this is: its user's; else, of the first principal with its group or one of ``groups``."""
        by_user = self._users.get(uid)
        if by_user is not None:
            return by_user
        of_peer = {gid, *groups}
        return next((principal for gids, principal in self._groups if gids & of_peer), None)

    def by_certificate(self, names: Collection[str]) -> Principal | None:
        """Whose certificate has these names; the case of ASCII letters does not count, wildcards are none.

        A certificate with names of several principals is nobody's.
        """
        found = {id(each): each for name in names if (each := self._certificates.get(_folded(name))) is not None}
        return next(iter(found.values())) if len(found) == 1 else None


def _folded(name: str) -> str:
    """With ASCII letters in lower case: others of a certificate are compared as they are."""
    return name.lower() if name.isascii() else name


def _unique(what: str, pairs: Iterable[tuple[_Key, Principal]]) -> Mapping[_Key, Principal]:
    found: dict[_Key, Principal] = {}
    for key, principal in pairs:
        former = found.setdefault(key, principal)
        if former is not principal:
            raise InvalidOption(f"principals {former.name!r} and {principal.name!r} have one {what} in common")
    return found
