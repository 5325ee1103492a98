"""Field values of AMQP 0-9-1: checked, made immutable, and measured as they will be on the wire.

What pika 1.4 cannot encode is refused with InvalidMessage, naming the field and the fix; never with the value itself
where that could be a secret.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, TypeAlias, TypeGuard

from pubd.errors import InvalidMessage

#: A header's value. Arrays are kept as tuples, tables as read-only mappings, moments in UTC and whole seconds.
#: RabbitMQ 3.10 closes the connection (541) when a Decimal at the top of the headers reaches a stream queue; whether it
#: does depends on the bindings, so that it cannot be refused here.
FieldValue: TypeAlias = (
    "str | bytes | bool | int | Decimal | datetime | Mapping[str, FieldValue] | Sequence[FieldValue] | None"
)

MAX_SHORT_STRING = 255
#: RabbitMQ's default frame_max in bytes.
DEFAULT_FRAME_MAX = 131072
#: How deep tables and arrays may be nested in ``headers``.
MAX_DEPTH = 32


def is_plain(value: object) -> TypeGuard[str]:
    """True for nearly all valid short strings, at little cost; False decides nothing."""
    return type(value) is str and value.isascii() and len(value) <= MAX_SHORT_STRING


def short_string(value: object, field: str) -> str:
    """``value`` as an AMQP short string (a plain str), or InvalidMessage."""
    text = _encodable(value, field)
    size = len(text.encode())
    if size > MAX_SHORT_STRING:
        raise InvalidMessage(field, f"is {size} bytes long in UTF-8; shorten it to {MAX_SHORT_STRING} or fewer")
    return text


def kind(value: object) -> str:
    """How an error names what it was given."""
    return type(value).__name__


def _encodable(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(field, f"must be a str, not {kind(value)}")
    text = str.__str__(value)  # a subclass could change what encode() means
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(
            field, f"has a lone surrogate at index {error.start}, which UTF-8 cannot carry; remove it"
        ) from None
    return text


def exact_int(value: object, field: str) -> int:
    """``value`` as a plain int; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidMessage(field, f"must be an int, not {kind(value)}")
    return int.__int__(value)  # of a subclass, such as an IntEnum, only the number is kept


def bounded(value: object, field: str, least: int, most: int) -> int:
    """``value`` as a plain int within both bounds."""
    number = exact_int(value, field)
    if not least <= number <= most:
        raise InvalidMessage(field, f"is out of range; it must be {least} to {most}")
    return number


def moment(value: datetime, field: str) -> int:
    """Whole seconds from 1970 to an aware datetime; microseconds are cut off, AMQP has none."""
    try:
        seconds = None if value.utcoffset() is None else calendar.timegm(value.utctimetuple())
    except Exception as error:
        problem = "is outside the years 1970 to 9999" if isinstance(error, OverflowError) else "has a failing timezone"
        raise InvalidMessage(field, f"{problem}; convert it with astimezone(datetime.UTC)") from error
    if seconds is None:
        raise InvalidMessage(field, "is a naive datetime; give it a timezone, such as tzinfo=datetime.UTC")
    if seconds < 0:
        raise InvalidMessage(field, "is before 1970, which AMQP cannot express; give a later moment")
    return seconds


def copied(value: object, field: str) -> bytes:
    """The octets of a bytes-like object as plain bytes."""
    if not isinstance(value, bytes | bytearray | memoryview):
        fix = "; encode it: text.encode()" if isinstance(value, str) else ""
        raise InvalidMessage(field, f"must be bytes, not {kind(value)}{fix}")
    try:
        return memoryview(value).tobytes()
    except ValueError:
        raise InvalidMessage(field, "is a released memoryview; copy the bytes before releasing it") from None


def scaled(value: Decimal) -> tuple[int, int] | None:
    """A decimal as (mantissa, decimals), value = mantissa * 10**-decimals, in lowest terms; None if AMQP has none.

    Computed from the digits, because arithmetic would depend on the application's decimal context.
    """
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return None
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return 0, 0
    significant = text.rstrip("0")
    exponent += len(text) - len(significant)
    if len(significant) + max(exponent, 0) > 10 or exponent < -255:
        return None
    mantissa = int(significant) * 10 ** max(exponent, 0) * (-1 if sign else 1)
    return (mantissa, max(-exponent, 0)) if -(2**31) <= mantissa < 2**31 else None


_Frozen: TypeAlias = tuple[Any, int]


def frozen_headers(headers: object) -> _Frozen:
    """A read-only copy of the headers and their size on the wire in bytes."""
    if not isinstance(headers, Mapping):
        raise InvalidMessage("headers", f"must be a mapping of names to values, not {kind(headers)}")
    frozen, size = _frozen_table(headers, "headers", 0)
    for name in ("CC", "BCC"):
        if name in frozen:
            # rabbit_basic:header_routes refuses anything but an array and ignores whatever is not a string in it.
            if type(frozen[name]) is not tuple:
                raise InvalidMessage(f"headers[{name!r}]", "must be a list of routing keys")
            for index, key in enumerate(frozen[name]):
                short_string(key, f"headers[{name!r}][{index}]")
    return frozen, size


def _frozen_table(table: Mapping[Any, Any], path: str, depth: int) -> _Frozen:
    frozen: dict[str, Any] = {}
    size = 4
    for key, value in _read(dict, table, path).items():
        name = key if is_plain(key) else _header_name(key, path)
        frozen[name], taken = _frozen_value(value, path, name, depth)
        size += 1 + (len(name) if name.isascii() else len(name.encode())) + taken
        _check_size(size, path)
    return MappingProxyType(frozen), size


def _frozen_array(array: Sequence[Any], path: str, depth: int) -> _Frozen:
    frozen: list[Any] = []
    size = 4
    for index, value in enumerate(_read(tuple, array, path)):
        item, taken = _frozen_value(value, path, index, depth)
        frozen.append(item)
        size += taken
        _check_size(size, path)
    return tuple(frozen), size


def _frozen_value(value: Any, path: str, key: str | int, depth: int) -> _Frozen:
    """The frozen value with its size on the wire, type octet included."""
    if type(value) is str and value.isascii():
        return value, 5 + len(value)
    if type(value) is int and -(2**31) <= value < 2**31:
        return value, 5
    if value is None:
        return None, 1
    if isinstance(value, bool):
        return value, 2
    if isinstance(value, Mapping | list | tuple):
        return _frozen_nested(value, at(path, key), depth + 1)
    return _frozen_scalar(value, at(path, key))


def _frozen_scalar(value: Any, field: str) -> _Frozen:
    if isinstance(value, str):
        text = _encodable(value, field)
        return text, 5 + len(text.encode())
    if isinstance(value, int):
        number = bounded(value, field, -(2**63), 2**63 - 1)
        return number, 5 if -(2**31) <= number < 2**31 else 9
    if isinstance(value, bytes | bytearray | memoryview):
        octets = copied(value, field)
        return octets, 5 + len(octets)
    if isinstance(value, Decimal):
        if scaled(value) is None:
            raise InvalidMessage(
                field, "does not fit AMQP's decimal (32-bit integer, 255 decimals); round it or use str"
            )
        return Decimal(value), 6
    if isinstance(value, datetime):
        return datetime.fromtimestamp(moment(value, field), UTC), 9
    if isinstance(value, float):
        raise InvalidMessage(field, "is a float, which pika cannot encode; use Decimal or str")
    raise InvalidMessage(field, f"is of type {kind(value)}, which AMQP does not have; convert it")


def _frozen_nested(value: Any, path: str, depth: int) -> _Frozen:
    if depth > MAX_DEPTH:
        raise InvalidMessage("headers", f"are nested deeper than {MAX_DEPTH} tables and arrays; flatten them")
    freeze = _frozen_table if isinstance(value, Mapping) else _frozen_array
    frozen, size = freeze(value, path, depth)
    return frozen, 1 + size


def _read(copy: Callable[[Any], Any], container: object, path: str) -> Any:
    """A plain copy of a container, which may be of the application's own making and fail."""
    try:
        return copy(container)
    except Exception as error:
        raise InvalidMessage(path, f"cannot be read ({kind(error)}); give a plain dict or list") from error


def _header_name(key: object, path: str) -> str:
    try:
        return short_string(key, path)
    except InvalidMessage as error:
        shown = f"{str.__str__(key)[:20]!r} " if isinstance(key, str) else ""
        raise InvalidMessage(path, f"a name in it {shown}{error.problem}") from None


def _check_size(size: int, path: str) -> None:
    # Stops the walk before a structure that refers to itself many times over is unfolded.
    if size > DEFAULT_FRAME_MAX:
        raise InvalidMessage(path, f"is larger than one frame ({DEFAULT_FRAME_MAX} bytes); move data to the body")


def at(path: str, key: str | int) -> str:
    """How errors name a place within ``path``; long keys are cut."""
    if isinstance(key, str) and len(key) > 40:
        key = key[:40] + "..."
    return f"{path}[{key!r}]"
