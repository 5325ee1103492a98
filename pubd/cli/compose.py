"""From options and lines to messages as JSON. Pure; the daemon is the one who judges them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

_KEY = b'"idempotency_key"'
#: What `pubd export` says of a message.
_HELD = ("ready", "deferred", "parked")


class InvalidHeader(ValueError):
    """A ``-H`` cannot be understood; the sentence says how it is written."""


def header(text: str) -> tuple[str, Any]:
    """``K=V`` or ``K: V`` (a string), or ``K:=JSON`` (any value that headers can have)."""
    found = [(text.find(mark), mark) for mark in (":=", "=", ": ") if mark in text]
    if not found or min(found)[0] == 0:
        raise InvalidHeader(f"{text!r} is no header: write NAME=TEXT, 'NAME: TEXT', or NAME:=JSON for another type")
    at, mark = min(found)
    name, value = text[:at], text[at + len(mark) :]
    if mark != ":=":
        return name, value.lstrip() if mark == ": " else value
    try:
        return name, json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidHeader(f"what follows {name}:= is no JSON: write {name}={value} for a text") from None


def headers(texts: Iterable[str]) -> dict[str, Any]:
    """All of them, each once."""
    table: dict[str, Any] = {}
    for text in texts:
        name, value = header(text)
        if name in table:
            raise InvalidHeader(f"{name} is given twice; for several values write {name}:='[...]'")
        table[name] = value
    return table


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def body(content: bytes) -> dict[str, str]:
    """The key of a message for these bytes: text where they are UTF-8."""
    try:
        return {"body": content.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(content).decode("ascii")}


def dumps(message: Mapping[str, Any]) -> bytes:
    """One line, without its end. In ASCII: what is no Unicode (of a command line) is the daemon's to refuse."""
    return json.dumps(message, separators=(",", ":")).encode("ascii")


def one_line(text: bytes) -> bytes:
    """A JSON object on one line: line breaks may stand between its tokens only."""
    return text.strip().replace(b"\r", b" ").replace(b"\n", b" ")


def completed(line: bytes, given: Mapping[str, Any], key: str) -> bytes:
    """The object in ``line`` with what it lacks of ``given``, and with ``key`` as its idempotency key if it has none.

    Added as text: what the daemon reads, and complains of, is what was written. What is no object stays as it is.
    A line of ``pubd export`` loses its state: all of it is submitted anew.
    """
    if not given and line[:2] == b'{"' and _KEY not in line and b"\\u" not in line:
        # Surely no idempotency key in it, and not empty: no need to read it.
        return b'{"idempotency_key":"%b",%b' % (key.encode(), line[1:])
    try:
        message = json.loads(line.decode())
    except (ValueError, RecursionError):
        return line
    if not isinstance(message, dict):
        return line
    exported = message.get("state") in _HELD and "damaged" not in message
    lacking = {name: value for name, value in given.items() if name not in message}
    if message.get("idempotency_key") is None:
        lacking["idempotency_key"] = key
    if exported or (lacking and "idempotency_key" in message and message["idempotency_key"] is None):
        return _rewritten(line, lacking, without=("state",) if exported else ())
    if not lacking:
        return line
    start = line.index(b"{") + 1
    return line[:start] + dumps(lacking)[1:-1] + (b"," if message else b"") + line[start:]


def _rewritten(line: bytes, more: Mapping[str, Any], *, without: Iterable[str]) -> bytes:
    """The object anew; one that is no good, as one with a key twice, is left to the daemon to refuse."""
    # Not for every command: it takes time to import.
    from pubd.errors import InvalidMessage
    from pubd.intake import strict_json

    try:
        message = strict_json.loads(line)
    except InvalidMessage:
        return line
    for name in without:
        del message[name]
    return strict_json.dumps({**message, **more})
