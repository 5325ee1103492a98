"""The page's own files: styles, its script, uPlot (which draws the charts), its icons. They tell nothing of anybody."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pubd.intake.http.answer import Answer
from pubd.intake.http.page.render import HEADERS

if TYPE_CHECKING:
    from pubd.intake.http.request import Request

_TYPES = {".css": b"text/css; charset=utf-8", ".js": b"text/javascript; charset=utf-8", ".svg": b"image/svg+xml"}
NAMES = ("style.css", "page.js", "uplot.css", "uplot.js", "healthy.svg", "unhealthy.svg")


def asset(request: Request) -> Answer:
    """``GET /page/NAME``, for the names in :data:`NAMES`."""
    name = request.path.rpartition("/")[2]
    small = "gzip" in request.headers.get("accept-encoding", "").lower()
    body = _bytes(name, small)
    more = ((b"Vary", b"Accept-Encoding"), *(((b"Content-Encoding", b"gzip"),) if small else ()))
    return Answer(200, body, _TYPES["." + name.rpartition(".")[2]], (*HEADERS, *more))


@cache
def _bytes(name: str, small: bool) -> bytes:
    found = (files(__package__) / "static" / name).read_bytes()
    return gzip.compress(found, mtime=0) if small else found
