"""The table [tracing]."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from pubd.config.key import Key, Table
from pubd.config.kinds import NAME, Kind, duration
from pubd.config.problems import Unfit, kind_of, shown

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

#: Why a change of any key takes one.
_RESTART = "spans are set up when it starts"


def _endpoint(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit(f'must be text such as "http://localhost:4318/v1/traces", not {kind_of(value)}')
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not value.isascii() or not value.isprintable():
        raise Unfit('is no http(s) URL; write one such as "http://localhost:4318/v1/traces"')
    if parts.username is not None or parts.password is not None:
        raise Unfit("has a user or password in it; give a header Authorization in headers_file instead")
    if parts.path in ("", "/"):
        raise Unfit(f'has no path; collectors take traces at "{value.rstrip("/")}/v1/traces"')
    return value


def _ratio(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Unfit(f"must be a number from 0 to 1, such as 0.01 for one in a hundred, not {shown(value)}")
    return float(value)


def _ratio_of_text(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _headers(value: object) -> dict[str, str]:
    """Values are secrets: no sentence shows one."""
    if not isinstance(value, dict):
        raise Unfit(f'must be a table such as {{ Authorization = "Bearer ..." }}, not {kind_of(value)}')
    for name, text in value.items():
        if not _TOKEN.fullmatch(name):
            raise Unfit(f"{shown(name)} is no name of an HTTP header")
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise Unfit("must be text of printable ASCII characters", f".{name}")
    return dict(value)


def _lines(text: str) -> object:
    """As a file has it, and HTTP: ``Authorization: Bearer ...``, one a line."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        if line.strip():
            name, colon, value = line.partition(":")
            if not colon:
                raise Unfit("has a line without a colon; write NAME: VALUE, one a line")
            found[name.strip()] = value.strip()
    return found


TRACING = Table(
    name="tracing",
    why="Spans for OpenTelemetry (docs: Tracing); takes the extra pubd[otel].",
    keys=(
        Key(
            restart=_RESTART,
            name="endpoint",
            kind=Kind("URL", _endpoint),
            absent="nothing is traced",
            why="Where a collector takes OTLP over HTTP.",
            example='endpoint = "http://localhost:4318/v1/traces"',
        ),
        Key(
            restart=_RESTART,
            name="ratio",
            kind=Kind("number", _ratio, _ratio_of_text),
            default=0.01,
            why="Of the messages that come without a trace, this share begins one. A trace that comes with a message, "
            "or with the request that hands it in, says itself whether it is recorded.",
            example="ratio = 0.001",
        ),
        Key(
            restart=_RESTART,
            name="service_name",
            kind=NAME,
            default="pubd",
            why="What pubd is called in traces (service.name).",
            example='service_name = "pubd-shop"',
        ),
        Key(
            restart=_RESTART,
            name="headers",
            kind=Kind("table of HTTP headers", _headers, _lines),
            default={},
            secret=True,
            why="What the collector wants to see, such as credentials. In a file: NAME: VALUE, one a line.",
            example='headers = { Authorization = "Bearer abc" }',
        ),
        Key(
            restart=_RESTART,
            name="timeout",
            kind=duration(0.1, 600.0),
            default="10s",
            why="What has not got to the collector by then is dropped.",
            example='timeout = "3s"',
        ),
    ),
)
