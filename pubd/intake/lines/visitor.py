"""Visitor: who is at the other end of a connection, as that becomes known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.access.tokens import digest_of
from pubd.errors import NotAuthenticated
from pubd.intake.lines.answers import authenticated
from pubd.intake.lines.request import token_of
from pubd.intake.peer import peer_of, principal_of_peer

if TYPE_CHECKING:
    from pubd.access import Access, Principal


class Visitor:
    """The first line may be a token, which decides; without one the connection itself has to tell."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._digest: bytes | None = None
        """Of the token that was shown."""
        self.principal: Principal | None = None
        self.known = False
        """Whether the first line has told who it is, or the connection itself."""

    def look(self, transport: Any) -> bool:
        """Whether the connection tells who it is; over TLS once data has come."""
        self.principal = principal_of_peer(peer_of(transport), self._access)
        return self.principal is not None

    def look_again(self, transport: Any) -> bool:
        """Who is who has changed: whether it is somebody still, if it ever was."""
        former = self.principal
        if self._digest is not None:
            self.principal = self._access.by_digest(self._digest)
        elif former is not None:
            self.look(transport)
        return former is None or self.principal is not None

    def introduce(self, line: bytes, transport: Any) -> str | None:
        """By the first line: the answer to it if it was a token, None if it is to be handed in.

        Raises NotAuthenticated, which says why for the log.
        """
        token = token_of(line)
        if token is not None:
            self.principal = self._access.by_token(token)
            if self.principal is None:
                raise NotAuthenticated("an unknown token")
            self._digest = digest_of(token)
            self.known = True
            return authenticated(self.principal.name)
        if self.principal is None and not self.look(transport):
            raise NotAuthenticated("no token")
        self.known = True
        return None
