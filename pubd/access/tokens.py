"""Bearer tokens: how they are made, and the hashes by which they are known.

A token is 256 random bits, so that nobody guesses it from its hash: what salts and slow hashes (scrypt, argon2) are
for, passwords that people choose, does not occur. One SHA-256 is enough, and costs a request a microsecond.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import TYPE_CHECKING

from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

#: What every token begins with, so that a person, or a scanner for leaked secrets, knows one on sight.
PREFIX = "pubd_"
_RANDOM = 32
_ALGORITHM = "sha256:"
_HASH = re.compile(rf"{_ALGORITHM}[0-9a-f]{{64}}")


def new_token(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """``pubd_`` and 43 letters, digits, ``-`` and ``_``: ``random(32)`` in base64url without padding."""
    return PREFIX + base64.urlsafe_b64encode(random(_RANDOM)).decode().rstrip("=")


def hash_of(token: str) -> str:
    """``sha256:`` and 64 hexadecimal digits, of the token's UTF-8; what a configuration holds of it."""
    return _ALGORITHM + digest_of(token).hex()


def digest_of(token: str) -> bytes:
    """The 32 bytes of the hash. Any text has one, lone surrogates, too: what is shown by strangers is no error."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def digest_in(text: str) -> bytes:
    """The 32 bytes in a hash as it is written. Raises :class:`pubd.errors.InvalidOption`, which never shows it."""
    if text.startswith(PREFIX):
        raise InvalidOption(
            "is a token, and no longer secret; make a new one with `pubd token new NAME`, and write the hash it prints"
        )
    if not _HASH.fullmatch(text.lower()):
        raise InvalidOption(
            f"is no hash of a token; write {_ALGORITHM} and 64 hexadecimal digits, as `pubd token new NAME` prints it"
        )
    return bytes.fromhex(text.lower().removeprefix(_ALGORITHM))
