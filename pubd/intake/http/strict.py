"""What Twisted's HTTPChannel lets pass in the head of a request, and pubd refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.web.http import HTTPChannel

from pubd.intake.http.answer import Refusal
from pubd.intake.http.head import CONTROLS

if TYPE_CHECKING:
    from pubd.errors import PubdError


class StrictChannel(HTTPChannel):
    """Reads heads. Subclasses say whether anybody still wants to know, and what becomes of a head that is refused."""

    # The deadlines are the site's; a timer of Twisted's for each request would cost more than reading it.
    timeOut = None
    MAX_LENGTH = totalHeadersSize = 16384
    maxHeaders = 100

    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        """Nothing more is read."""
        self._lines = 0
        """Of the head that is being read."""

    def head_comes(self) -> None:
        """Called before the first line of a head."""
        raise NotImplementedError

    def refuse(self, error: PubdError) -> None:
        """Called with what is wrong: the last answer of this connection."""
        raise NotImplementedError

    def lineReceived(self, line: bytes) -> None:
        """Called by LineReceiver for each line of a head."""
        if self.closing:
            return
        if not self._lines:
            self.head_comes()
        if CONTROLS.search(line):
            self._malformed("a control character in the head")
        elif self._lines and line[:1] in (b" ", b"\t"):
            self._malformed("a header goes on in the next line (obs-fold); write it as one line")
        else:
            self._lines += bool(line)
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002
        """Called by LineReceiver."""
        self._malformed(f"a line of the head is over {self.MAX_LENGTH} bytes")

    def headerReceived(self, line: bytes) -> bool:
        """Called by HTTPChannel for each header."""
        if self.closing:
            return False
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # int() takes no number of thousands of digits.
            self._malformed("Content-Length is no number")
            return False

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._malformed("this breaks the rules of HTTP/1.1 (RFC 9112), or the head is too large")

    def _malformed(self, detail: str) -> None:
        self.refuse(Refusal("malformed", detail, close=True))
