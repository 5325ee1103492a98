"""The tables about access: who may hand in what."""

from __future__ import annotations

import grp
import pwd
import re
from typing import TYPE_CHECKING, Any

from pubd.access import Grant
from pubd.access.principal import NAME, NAME_RULE
from pubd.access.tokens import digest_in
from pubd.config.key import Key, Table
from pubd.config.kinds import BOOLEAN, STRING, TEXT, Kind, or_unlimited, size
from pubd.config.problems import Unfit, hint, kind_of, shown
from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

#: The last uid or gid of Linux; the one after it stands for "none".
_LAST_ID = 2**32 - 2
_MOST_RATE = 1e9
_GRANT_EXAMPLE = '{ exchange = "orders*", routing_key = "order.#" }'


def _principal_name(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit(f"must be text in double quotes, not {shown(value)}")
    if not NAME.fullmatch(value):
        raise Unfit(f"{shown(value)} {NAME_RULE}")
    return value


PRINCIPAL_NAME = Kind("name of 1 to 64 letters, digits and . _ @ -", _principal_name)


def _anonymous(value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() in ("true", "false"):
        quoted = " without quotes" if isinstance(value, str) else ""
        raise Unfit(f"must be true or false{quoted}, or the name of a principal, not {shown(value)}")
    return _principal_name(value)


ANONYMOUS = Kind("true, false or the name of a principal", _anonymous, BOOLEAN.from_text)


def _array(example: str, read: Callable[[Any], Any]) -> Callable[[object], tuple[Any, ...]]:
    """Each element by ``read``; an element given twice counts once."""

    def read_all(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            fix = ", even for one; write [ ] around it" if isinstance(value, str | int | dict) else ""
            raise Unfit(f"must be an array such as [{example}]{fix}, not {kind_of(value)}")
        found = []
        for index, each in enumerate(value):
            try:
                found.append(read(each))
            except Unfit as unfit:
                raise Unfit(unfit.sentence, f"[{index}]{unfit.within}") from None
        return tuple(dict.fromkeys(found))

    return read_all


def _grant(value: object) -> Grant:
    if not isinstance(value, dict):
        raise Unfit(f"must be a table such as {_GRANT_EXAMPLE}, not {kind_of(value)}")
    if not value:
        raise Unfit('is empty; write { exchange = "*" } for leave to publish everywhere')
    known = ("exchange", "routing_key")
    for name, pattern in value.items():
        if name not in known:
            raise Unfit(f"is not known here; {hint(name, known)}", f".{name[:40]}")
        try:
            TEXT.read(pattern)
        except Unfit as unfit:
            raise Unfit(unfit.sentence, f".{name}") from None
    return Grant(**value)


def _hash(value: object) -> str:
    # What stands here may be a token, or part of one: it is never shown.
    if not isinstance(value, str):
        raise Unfit(f"must be text in double quotes, not {kind_of(value)}")
    try:
        digest_in(value)
    except InvalidOption as error:
        raise Unfit(str(error)) from None
    return value.lower()


def _id(what: str, lookup: Callable[[str], int]) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Unfit(f"must be the name or number of a {what}, not {shown(value)}")
        if isinstance(value, int):
            if not 0 <= value <= _LAST_ID:
                raise Unfit(f"is no number of a {what}; they are 0 to {_LAST_ID}")
            return value
        try:
            return lookup(value)
        except (KeyError, ValueError):  # also what no name can have in it: NUL, lone surrogates
            fix = "; write numbers without quotes" if re.fullmatch("[0-9]+", value) else "; name one that there is"
            raise Unfit(f"there is no {what} {shown(value)} on this host{fix}, or its number") from None
        except OSError as error:
            raise Unfit(f"{what} {shown(value)} cannot be looked up: {error.strerror}; write its number") from None

    return read


def _certificate(value: object) -> str:
    text = TEXT.read(value)
    assert isinstance(text, str)
    if not text.strip() or "*" in text:
        raise Unfit(f"{shown(text)} is no name of a certificate; write a whole one, without wildcards")
    return text


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"must be a number of messages a second, such as 100 or 0.5, not {shown(value)}")
    if not 0 < value <= _MOST_RATE:
        raise Unfit(f"must be more than 0 and at most {_MOST_RATE:.0f} messages a second, not {shown(value)}")
    return float(value)


ACCESS = Table(
    name="access",
    why="Who may hand in messages, beside what each [[principal]] says of itself.",
    keys=(
        Key(
            name="tokens_file",
            kind=STRING,
            why="A file with lines NAME:HASH, more tokens for the principals of these names; relative to this file. "
            "Nobody else should be able to read or change it (mode 0600).",
            example='tokens_file = "/etc/pubd/tokens"',
        ),
        Key(
            name="anonymous",
            kind=ANONYMOUS,
            absent="true without any [[principal]], else false",
            why="Who comes over loopback or a unix socket and shows nothing: true may do everything, false nothing, "
            "a name is that principal.",
            example='anonymous = "scripts"',
        ),
    ),
)

PRINCIPAL = Table(
    name="principal",
    many=True,
    why="Somebody who may hand in messages, or look after them; known by a token, as a user of this host, or by a "
    "certificate.",
    keys=(
        Key(
            name="name",
            kind=PRINCIPAL_NAME,
            required=True,
            why="For logs; each message keeps the name of who handed it in.",
            example='name = "shop"',
        ),
        Key(
            name="grants",
            kind=Kind("array of tables", _array(_GRANT_EXAMPLE, _grant)),
            default=[],
            why="Where it may publish: one of them must cover exchange and routing key, and each key in the headers CC "
            'and BCC. Patterns are as in [[policy]]; exchange "" is the default one, whose routing keys are '
            'queues. What a grant does not say is "*" and "#".',
            example=f"grants = [{_GRANT_EXAMPLE}]",
        ),
        Key(
            name="operate",
            kind=BOOLEAN,
            default=False,
            why="May look at, retry and discard messages, those of others, too.",
            example="operate = true",
        ),
        Key(
            name="rate",
            kind=or_unlimited(Kind("number", _rate)),
            default="unlimited",
            why="Messages a second, over all its connections; one second's worth may come at once.",
            example="rate = 100",
        ),
        Key(
            name="byte_rate",
            kind=or_unlimited(size(1)),
            default="unlimited",
            why="Bytes of bodies a second, likewise.",
            example='byte_rate = "1MiB"',
        ),
        Key(
            name="tokens",
            kind=Kind("array of hashes", _array('"sha256:..."', _hash)),
            default=[],
            shown=False,
            why="Hashes of its tokens, as pubd token new prints them; two of them while one is replaced.",
            example='tokens = ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]',
        ),
        Key(
            name="users",
            kind=Kind(
                "array of names or numbers", _array('"www-data"', _id("user", lambda name: pwd.getpwnam(name)[2]))
            ),
            default=[],
            why="Users of this host, at the other end of a unix socket.",
            example='users = ["root", 1000]',
        ),
        Key(
            name="groups",
            kind=Kind("array of names or numbers", _array('"adm"', _id("group", lambda name: grp.getgrnam(name)[2]))),
            default=[],
            why="Groups of this host, likewise; who is known by the user is not asked for groups.",
            example="groups = [1000]",
        ),
        Key(
            name="certificates",
            kind=Kind("array of names", _array('"shop.example"', _certificate)),
            default=[],
            why="Names in client certificates (common name, DNS or URI), over TLS that asks for them.",
            example='certificates = ["shop.example"]',
        ),
    ),
)
