"""Values of headers as JSON: what AMQP has and JSON lacks is an object with one key that begins with ``$``.

``{"$binary": BASE64}``, ``{"$timestamp": SECONDS}``, ``{"$decimal": "1.50"}``. A table that has such keys itself is
wrapped: ``{"$table": {...}}``.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pubd.errors import InvalidMessage
from pubd.fields import MAX_DEPTH, at, scaled
from pubd.intake.strict_json import MAX_LEVELS, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Seconds since 1970 of the first moment that no datetime has.
_END = 253_402_300_800
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})")
_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,9})?")
_MOST_DIGITS = 4096
_WRITTEN_OUT = frozenset((str, int, bool, type(None)))


def headers(value: object) -> dict[str, Any]:
    """The headers that are meant by the JSON value; raises InvalidMessage with ``headers['a']['b'][0]`` as field."""
    if type(value) is not dict:
        refuse("headers", "an object", value)
    for name, item in value.items():
        if type(item) not in _WRITTEN_OUT or name[:1] == "$":
            break
    else:
        return value
    read = _object(value, "headers", MAX_LEVELS)
    if not isinstance(read, dict):
        raise InvalidMessage("headers", "must be an object with the headers in it, not one value")
    return read


def seconds_of(value: object, field: str) -> float:
    """Seconds since 1970, of a number or of an RFC 3339 text with its offset. Raises InvalidMessage."""
    if isinstance(value, str):
        return _moment(value, field)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        refuse(field, f"a number of seconds since 1970 or text such as {_SHOWN}", value)
    if not 0 <= value < 2**64:
        raise InvalidMessage(field, "is out of range; it must be seconds since 1970, not negative and below 2**64")
    return value if isinstance(value, int) else float(value)


def base64_of(value: object, field: str) -> bytes:
    """The bytes of a base64 text (RFC 4648, 4), padded and without line breaks. Raises InvalidMessage."""
    if not isinstance(value, str):
        refuse(field, "a string of base64", value)
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise InvalidMessage(
            field, "is no base64 (RFC 4648, 4: A-Z a-z 0-9 + /, padded with =, no line breaks); encode it anew"
        ) from None


def json_of(value: Any) -> Any:
    """The JSON value for a header, or for all headers: what :func:`headers` is the inverse of."""
    if isinstance(value, bytes):
        return {"$binary": base64.b64encode(value).decode("ascii")}
    if isinstance(value, datetime):
        return {"$timestamp": int(value.timestamp())}
    if isinstance(value, Decimal):
        return {"$decimal": _digits(value)}
    if isinstance(value, Mapping):
        table = {_text(name): json_of(item) for name, item in value.items()}
        return {"$table": table} if any(name.startswith("$") for name in table) else table
    if isinstance(value, list | tuple):
        return [json_of(item) for item in value]
    return value


def _digits(value: Decimal) -> str:
    """As it is, or in lowest terms where zeros make it longer than anybody reads it."""
    text = str(value)
    if len(text) <= _MOST_DIGITS and _DECIMAL.fullmatch(text):
        return text
    mantissa, decimals = scaled(value) or (0, 0)
    return f"{mantissa}E-{decimals}"


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _value(value: Any, path: str, key: str | int, levels: int) -> Any:
    of = type(value)
    if of in _WRITTEN_OUT:
        return value
    field = at(path, key)
    if not levels:
        raise InvalidMessage("headers", f"are nested deeper than {MAX_DEPTH} tables and arrays; flatten them")
    if of is dict:
        return _object(value, field, levels)
    if of is list:
        return [_value(item, field, index, levels - 1) for index, item in enumerate(value)]
    if isinstance(value, Decimal | float):
        raise InvalidMessage(
            field, 'is a number with a fraction or an exponent; write it as a string, or as {"$decimal": "1.5"}'
        )
    raise InvalidMessage(field, f"is of type {of.__name__}, which JSON does not have; convert it")


def _object(value: dict[str, Any], field: str, levels: int) -> Any:
    """A table, or what it stands for."""
    for name in value:
        if name[:1] == "$":
            return _marked(value, field, levels)
    return _table(value, field, levels)


def _table(value: dict[str, Any], field: str, levels: int) -> dict[str, Any]:
    return {name: _value(item, field, name, levels - 1) for name, item in value.items()}


def _marked(value: dict[str, Any], field: str, levels: int) -> Any:
    if len(value) > 1:
        raise InvalidMessage(field, 'has a name that begins with $ beside others; wrap such a table: {"$table": {...}}')
    ((name, item),) = value.items()
    if name == "$table":
        if not isinstance(item, dict):
            refuse(at(field, name), "an object", item)
        return _table(item, field, levels)
    read = _KINDS.get(name)
    if read is None:
        known = ", ".join((*_KINDS, "$table"))
        raise InvalidMessage(
            at(field, name), f'is not known; known are {known}. A table with this name is {{"$table": {{...}}}}'
        )
    return read(item, at(field, name))


def _datetime(value: object, field: str) -> datetime:
    if isinstance(value, Decimal | float):
        raise InvalidMessage(field, "must be whole seconds since 1970; AMQP has no fractions of them")
    seconds = math.floor(seconds_of(value, field))
    if seconds >= _END:
        raise InvalidMessage(field, "is after the year 9999; give seconds, not milliseconds, since 1970")
    return _EPOCH + timedelta(seconds=seconds)


def _decimal(value: object, field: str) -> Decimal:
    if not isinstance(value, str):
        refuse(field, 'a string such as "1.50"', value)
    if len(value) > _MOST_DIGITS or not _DECIMAL.fullmatch(value):
        raise InvalidMessage(field, 'is no decimal number; write it as "1.50"')
    number = Decimal(value)
    if scaled(number) is None:
        raise InvalidMessage(
            field, "does not fit AMQP's decimal (a 32-bit integer with up to 255 decimals); round it or use a string"
        )
    return number


_SHOWN = '"2026-11-23T12:00:00Z"'


def _moment(text: str, field: str) -> float:
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidMessage(field, f"is no moment with its offset from UTC (RFC 3339), such as {_SHOWN}") from None
    seconds = (moment - _EPOCH).total_seconds()
    if seconds < 0:
        raise InvalidMessage(field, "is before 1970, which AMQP cannot express; give a later moment")
    return seconds


_KINDS: Mapping[str, Callable[[object, str], Any]] = {
    "$binary": base64_of,
    "$timestamp": _datetime,
    "$decimal": _decimal,
}
