"""JSON, strictly: what others might read in two ways is refused, and no input takes memory out of proportion."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from itertools import islice
from typing import Any, NoReturn

import msgspec

from pubd.errors import InvalidMessage
from pubd.fields import MAX_DEPTH, at

#: Levels of arrays and objects: a message with headers of MAX_DEPTH, each table of them wrapped in ``$table``, an array
#: of such messages, and an object around that.
MAX_LEVELS = 2 * MAX_DEPTH + 8
#: Numbers, strings, arrays, ... in one document. Each costs up to 100 bytes once it is read: thirty times of what it
#: takes as JSON.
MAX_VALUES = 1_000_000

# The shortest value has two bytes, a comma or bracket among them.
_SMALL = 2 * MAX_VALUES
# Numbers with a fraction as they were written: a float could not give them back.
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode
# From one comma or opening bracket to the next, over strings. Where a quote or another one is missing it goes to the
# end, or the rest would be searched again from each of its bytes.
_VALUE = re.compile(rb'(?:[^",\[{]|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))*+(?:[,\[{]|\Z)', re.DOTALL)
_ESCAPED_COLON = re.compile(rb"\\u003[aA]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BOM = b"\xef\xbb\xbf"


def loads(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8; numbers with a fraction or an exponent are Decimals.

    Raises InvalidMessage, and nothing else, with the field "" for what is no JSON, is nested deeper than
    :data:`MAX_LEVELS` or has more than :data:`MAX_VALUES` values; for a key that is given twice the field is that key,
    with the way to it.
    """
    if len(raw) > _SMALL and _values(raw) > MAX_VALUES:
        _check_values(raw)
    try:
        value = _decode(raw)
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, ArithmeticError) as error:
        raise InvalidMessage("", _unreadable(raw, error)) from None
    # Each member of an object has one colon outside of strings. As many colons as members at the top: there are no
    # others, in strings or further down, and no member took the place of another one.
    if type(value) is not dict or raw.count(b":") != len(value) or raw.count(b"[") >= MAX_LEVELS:
        _check(raw, value)
    return value


def dumps(value: Any) -> bytes:
    """What :func:`loads` gave as compact JSON, numbers as they were written."""
    return _encode(value)


def check_depth(value: Any, field: str, most: int) -> None:
    """Raise InvalidMessage if arrays and objects are nested deeper than ``most``, ``value`` itself counted."""
    if isinstance(value, dict | list):
        if not most:
            raise InvalidMessage(field, f"is nested deeper than {MAX_DEPTH} levels; flatten it")
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, dict | list):
                check_depth(item, field, most - 1)


def kind(value: object) -> str:
    """What JSON calls the type of ``value``."""
    kinds = {bool: "a boolean", str: "a string", dict: "an object", list: "an array", type(None): "null"}
    return kinds.get(type(value), "a number")


def _check(raw: bytes, value: Any) -> None:
    """Depth, and keys given twice: exact, at the cost of a walk."""
    colons = _colons(value, MAX_LEVELS)
    # An escaped colon in a string is counted there, but is none in ``raw``.
    if raw.count(b":") != colons or (b"\\u003" in raw and _ESCAPED_COLON.search(raw)):
        _refuse_doubled(json.loads(raw, object_pairs_hook=_members, parse_int=len, parse_float=len), "")


def _colons(value: Any, levels: int) -> int:
    """Members of objects, and colons in strings: without doubled keys, all colons of the text."""
    of = type(value)
    if of is str:
        count: int = value.count(":")
        return count
    if of is not dict and of is not list:
        return 0
    if not levels:
        raise _too_deep()
    count = 0
    if of is dict:
        count = len(value) + "".join(value).count(":")
        value = value.values()
    for item in value:
        of = type(item)
        if of is str:
            if ":" in item:
                count += item.count(":")
        elif of is dict or of is list:
            count += _colons(item, levels - 1)
    return count


class _Doubled(dict[str, Any]):
    """An object that has ``name`` more than once."""

    name = ""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    doubled, seen = _Doubled(pairs), set[str]()
    for name, _ in pairs:
        if name in seen:
            doubled.name = name
            break
        seen.add(name)
    return doubled


def _refuse_doubled(value: Any, path: str) -> None:
    if isinstance(value, _Doubled):
        name = value.name
        # As all fields are named: those of a message by their names, others within them.
        field = at(path, name) if path or not name.isidentifier() or len(name) > 40 else name
        raise InvalidMessage(field, "is given twice; which one was meant nobody can tell: remove one")
    if isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, dict | list):
                _refuse_doubled(item, at(path, name) if path or not name.isidentifier() else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                _refuse_doubled(item, at(path, index))


def _too_deep() -> InvalidMessage:
    return InvalidMessage("", f"is nested deeper than {MAX_DEPTH} levels; flatten it")


def _values(raw: bytes) -> int:
    """At least as many values as there are; those in strings are counted, too."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _check_values(raw: bytes) -> None:
    if next(islice(_VALUE.finditer(raw), MAX_VALUES + 1, None), None):
        raise InvalidMessage(
            "", f"has more than {MAX_VALUES:,} values; send such a body as text, or in smaller messages"
        )


def _unreadable(raw: bytes, error: Exception) -> str:
    """A sentence without anything of the text itself."""
    if not raw.strip():
        return "is empty; give one JSON object"
    if raw.startswith(_BOM):
        return "begins with a byte order mark, which JSON does not have; save it as UTF-8 without one"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8; encode it as UTF-8, and bytes that are no text as base64"
    if not isinstance(error, msgspec.DecodeError):
        return "has a number that is too large; write it as a string"
    if isinstance(error, msgspec.ValidationError):
        return "has an integer of more than 4300 digits; write it as a string"
    if "surrogate" in str(error) or ("truncated" in str(error) and _SURROGATE.search(raw, len(raw) - 12)):
        return "has half of a surrogate pair, which UTF-8 cannot carry; remove it"
    if "truncated" in str(error):
        return "is no JSON: it ends too early"
    return f"is no JSON: {str(error).removeprefix('JSON is malformed: ')}"


def refuse(field: str, expected: str, value: object) -> NoReturn:
    """Raise InvalidMessage for a value of the wrong type."""
    raise InvalidMessage(field, f"must be {expected}, not {kind(value)}")
