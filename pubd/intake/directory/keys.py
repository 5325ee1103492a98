"""The keys by which the spool recognises a file that it accepted before, when pubd was killed before removing it.

A key is made of the directory's id, the file's inode, the time of its last change of status, its name and its content.
An inode is used again for another file soon, and ``cp -p`` or ``touch`` give it the same times as before; but nobody
can set the time of the last change of status (ctime), and a rename into ``new/`` sets it anew. So two files with the
same content are two messages, and one file is one message.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pubd.intake.directory.found import Identity

_SIZE = 16
PREFIX = "directory:"


def file_key(directory: str, name: str, identity: Identity) -> bytes:
    """What tells this file from every other one that was ever in the directory."""
    digest = blake2b(digest_size=_SIZE, person=b"pubd file")
    for part in (directory.encode(), os.fsencode(name), struct.pack(">QQ", identity.ino, identity.ctime)):
        digest.update(struct.pack(">Q", len(part)))
        digest.update(part)
    return digest.digest()


def message_key(file: bytes, content: bytes, line: int = 0) -> bytes:
    """That of one message in the file ``file`` (a :func:`file_key`); lines count from 1, 0 is the file as a whole."""
    return blake2b(struct.pack(">Q", line) + content, digest_size=_SIZE, key=file).digest()


def idempotency_key(key: bytes) -> str:
    """As the spool is given it."""
    return PREFIX + key.hex()


def message_id(key: bytes) -> str:
    """A UUID (version 8, RFC 9562) of the key: whatever is submitted twice all the same can be told by consumers."""
    number = int.from_bytes(key, "big") & ~(0xF << 76) | (8 << 76)
    text = f"{number & ~(0b11 << 62) | (0b10 << 62):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
