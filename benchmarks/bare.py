"""What pubd's HTTP is compared with: twisted.web with a resource that discards what it is sent, as a process.

``python -m benchmarks.bare SOCKET`` listens on that Unix socket until SIGTERM.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from pubd.service import COLLECT


class Discard(Resource):
    """Answers as pubd does to one message, whatever the body says."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        """Called by twisted.web with the whole body read."""
        request.setResponseCode(202)
        request.setHeader(b"content-type", b"application/json")
        return b'{"id":"00000000-0000-0000-0000-000000000000","state":"stored"}\n'

    def render_GET(self, request: Any) -> bytes:  # noqa: ARG002
        """Whether it is there."""
        return b""


class _Quiet(Site):
    """pubd writes no line for each request either."""

    def log(self, request: Any) -> None:
        """Called by twisted.web for each request."""


def main(path: str) -> None:
    """Serve until SIGTERM."""
    from twisted.internet import reactor

    gc.set_threshold(*COLLECT)
    listening: Any = reactor
    site = _Quiet(Discard())  # type: ignore[no-untyped-call]  # twisted.web has no types here
    listening.listenUNIX(path, site, backlog=1024)
    listening.run()


if __name__ == "__main__":
    main(sys.argv[1])
