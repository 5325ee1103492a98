"""The body of a message as text that is safe to look at, in a terminal and on a page."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from pubd.wording import octets, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of a body that are shown: more is for a file.
SHOWN = 64 * 1024


def body_of(message: dict[str, Any]) -> bytes:
    """The body's bytes, in whichever of its keys it stands."""
    if "body_base64" in message:
        return base64.b64decode(message["body_base64"], validate=True)
    if "body_json" in message:
        return json.dumps(message["body_json"], separators=(",", ":"), ensure_ascii=False).encode()
    return str(message.get("body", "")).encode("utf-8", "surrogatepass")


def body_lines(body: bytes | None, id: str) -> Iterator[str]:
    """A body to look at: text line by line, anything else in hexadecimal; control characters are escaped.

    ``id`` is the message's. None for ``body``: it is no more.
    """
    if body is None:
        yield "(the body is kept until a message is settled, and no longer)"
        return
    if not body:
        yield "(the body is empty)"
        return
    shown = body[:SHOWN]
    text = _text(shown, whole=len(shown) == len(body))
    if text is None:
        yield from _hexadecimal(shown)
    else:
        lines = text.split("\n")
        # A line break at the end is no further line.
        for line in lines[:-1] if not lines[-1] else lines:
            yield "\t".join(map(plain, line.split("\t")))
    if len(body) > SHOWN:
        yield f"(the first {octets(SHOWN)} of {octets(len(body))}; all of it: pubd show {id} --raw > FILE)"


def _text(body: bytes, *, whole: bool) -> str | None:
    """None for what is no text: no UTF-8, or with NULs in it."""
    if b"\0" in body:
        return None
    for cut in range(1 if whole else 4):
        try:
            # The last character may be cut off where the body is.
            return body[: len(body) - cut].decode()
        except UnicodeDecodeError:
            continue
    return None


def _hexadecimal(body: bytes) -> Iterator[str]:
    """As hexdump -C writes it."""
    for at in range(0, len(body), 16):
        row = body[at : at + 16]
        left, right = row[:8].hex(" "), row[8:].hex(" ")
        printable = "".join(chr(each) if 32 <= each < 127 else "." for each in row)
        yield f"{at:08x}  {left:<23}  {right:<23}  |{printable}|"
