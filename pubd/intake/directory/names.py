"""What the name of a file says. Pure; names are as Python gives them, with surrogates for what is not UTF-8."""

from __future__ import annotations

import enum
import os
from hashlib import blake2b

META = ".meta.json"
#: Longest name of a submission in bytes: a file system takes 255, and pubd adds to names (``.meta.json``, ``.reason``).
MAX_NAME = 200


class Kind(enum.Enum):
    """What a file in ``new/`` is taken for, by its name alone."""

    JSON = "one message"
    NDJSON = "a message a line"
    RAW = "a body"
    META = "route and properties of the file beside it"
    HIDDEN = "not a submission"
    """It begins with a dot, as the unfinished files of rsync, NFS and editors do: it is left where it is."""


def kind_of(name: str) -> Kind:
    """The kind of ``name``; endings count in lower case only."""
    if name.startswith("."):
        return Kind.HIDDEN
    if name.endswith(META):
        return Kind.META
    if name.endswith(".json"):
        return Kind.JSON
    return Kind.NDJSON if name.endswith(".ndjson") else Kind.RAW


def oddity(name: str) -> str | None:
    """What is wrong with ``name``, None where nothing is."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8; rename the file"
    if len(raw) > (MAX_NAME + len(META) if name.endswith(META) else MAX_NAME):
        return f"the name is {len(raw)} bytes long, over the limit of {MAX_NAME}; shorten it"
    if not name.isprintable():
        return (
            "the name has a control character, a line break or another character that cannot be seen; rename the file"
        )
    return None


def printable(name: str) -> str:
    """``name`` for logs and reasons: one line, ASCII where it is odd."""
    return name if oddity(name) is None else ascii(name)[1:-1]


def rejected_name(name: str, copy: int = 0) -> str:
    """The name in ``rejected/``: its own, or one made of its digest if that is odd; ``copy`` tells equals apart."""
    if oddity(name) is not None:
        name = f"odd-name-{blake2b(os.fsencode(name), digest_size=8).hexdigest()}"
    return f"{name}.{copy}" if copy else name
