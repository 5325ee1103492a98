"""Request: what an action is given."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from pubd.intake.http.answer import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pubd.access import Principal

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Request:
    """One request: its head first, then, once an action is to answer it, ``principal``, ``parts`` and ``body``.

    ``method`` is in upper case as it came, ``path`` and ``query`` still percent-encoded. ``headers`` has lower-case
    names; the values of one name are joined by ``, ``. ``who`` is the principal's name, with the user of the process at
    the other end where that is what it is known by. ``parts`` are the decoded values of the route's placeholders.
    ``media_type`` is that of the body in lower case, without parameters, ``""`` if none is given. ``body`` is whole,
    with its Content-Encoding undone where the action asks for that.
    """

    # There is one for each message that comes alone.
    __slots__ = ("body", "headers", "media_type", "method", "parts", "path", "principal", "query", "version", "who")

    principal: Principal

    def __init__(self, method: str, path: str, query: str, headers: Mapping[str, str], version: bytes) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.version = version
        self.parts: tuple[str, ...] = ()
        self.who = ""
        self.body: bytes = b""
        self.media_type = headers.get("content-type", "").partition(";")[0].strip().lower()

    def arguments(self, known: Collection[str] | None = None) -> dict[str, str]:
        """The decoded query. Refuses (400) what is given twice, cannot be decoded, or, with ``known``, is not in it.

        A name in ``known`` that ends in ``*`` stands for all names with that beginning.
        """
        found: dict[str, str] = {}
        if not self.query:
            return found
        for pair in self.query.split("&"):
            if not pair:
                continue
            name, _, value = pair.replace("+", " ").partition("=")
            name = percent_decoded(name, "query")
            if name in found:
                raise Refusal("malformed", "is given twice; give it once", field=name)
            if known is not None and not _is_known(name, known):
                raise Refusal(
                    "malformed", f"is not known here; the query takes: {', '.join(sorted(known))}", field=name
                )
            found[name] = percent_decoded(value, name)
        return found

    @property
    def charset(self) -> str | None:
        """The charset that Content-Type names, in lower case."""
        for parameter in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = parameter.strip().partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip('"').lower()
        return None


def percent_decoded(text: str, field: str) -> str:
    """``text`` with its escapes undone, as UTF-8. Refuses (400) broken escapes and bytes that are no UTF-8."""
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise Refusal("malformed", "has a % that two hexadecimal digits do not follow; write % as %25", field=field)
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("malformed", "is not UTF-8 when its % escapes are undone", field=field) from None


def _is_known(name: str, known: Collection[str]) -> bool:
    return name in known or any(each.endswith("*") and name.startswith(each[:-1]) for each in known)


def idempotency_key(request: Request) -> str | None:
    """The header Idempotency-Key, bare or, as its draft has it, in quotes. Refuses (400) an empty one."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not key or not key.isascii() or not key.isprintable():
        raise Refusal("malformed", "must be printable ASCII, and not empty", field="idempotency-key")
    return key
