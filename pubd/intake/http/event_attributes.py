"""Attributes of CloudEvents 1.0: what the specification says of their names and values, checked. Pure.

Source: cloudevents/spec 1.0.2, "Context Attributes". Every error is an InvalidMessage whose field is the attribute.
"""

from __future__ import annotations

import calendar
import re
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from pubd.errors import InvalidMessage
from pubd.fields import DEFAULT_FRAME_MAX, MAX_SHORT_STRING
from pubd.intake.strict_json import kind

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Of the names of AMQP headers (AMQP binding, section 3.1.3.1).
PREFIX = "cloudEvents:"

#: An attribute's value as JSON has it; as HTTP headers all are strings.
Value: TypeAlias = "str | bool | int"

_NAME = re.compile(r"[a-z0-9]+")
_LONGEST_NAME = MAX_SHORT_STRING - len(PREFIX)
_REQUIRED = ("specversion", "id", "source", "type")
_TEXTS = frozenset((*_REQUIRED, "subject", "time", "dataschema", "datacontenttype"))
# Control characters, surrogates and what Unicode calls noncharacters.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


def check_name(name: str) -> None:
    """Whether an attribute may be called so."""
    if not _NAME.fullmatch(name) or name == "data":
        raise InvalidMessage(
            shown(name) or "attributes", "an attribute's name is lower-case letters and digits, and not 'data'"
        )
    if len(name) > _LONGEST_NAME:
        raise InvalidMessage(shown(name), f"an attribute's name has at most {_LONGEST_NAME} characters")


def check_attributes(attributes: Mapping[str, Value], where: str) -> None:
    """Whether all that is required is there, and everything of the right kind. ``where`` tells where to give ``{}``."""
    for name in _REQUIRED:
        if name not in attributes:
            raise InvalidMessage(name, f"is missing; every CloudEvent has one{where.format(name)}")
    for name, value in attributes.items():
        if isinstance(value, str):
            _check_text(name, value)
        elif name in _TEXTS:
            raise InvalidMessage(name, f"must be a string, not {kind(value)}")
        elif not -(2**31) <= value < 2**31:
            raise InvalidMessage(name, "is out of range; an integer is -2147483648 to 2147483647; use a string")
    if attributes["specversion"] != "1.0":
        raise InvalidMessage("specversion", "must be 1.0, the version that pubd knows")
    if not _URI_REFERENCE.fullmatch(str(attributes["source"])):
        raise InvalidMessage("source", "is not a URI-reference (RFC 3986); percent-encode what no URI may contain")
    if "dataschema" in attributes and not _URI.fullmatch(str(attributes["dataschema"])):
        raise InvalidMessage("dataschema", "is not a URI with a scheme (RFC 3986)")
    if "time" in attributes:
        epoch(str(attributes["time"]))
    if "datacontenttype" in attributes:
        check_media_type(str(attributes["datacontenttype"]))


def _check_text(name: str, value: str) -> None:
    if not value and name in _TEXTS:
        raise InvalidMessage(name, "is empty; give it a value" + ("" if name in _REQUIRED else " or leave it out"))
    if len(value) > DEFAULT_FRAME_MAX:
        raise InvalidMessage(name, f"is longer than one frame ({DEFAULT_FRAME_MAX} bytes); move it to the data")
    if value.isascii() and value.isprintable():
        return
    if found := _FORBIDDEN.search(value):
        raise InvalidMessage(name, f"has the character U+{ord(found[0]):04X}, which no attribute may have")


def shown(name: str) -> str:
    """``name`` as an error shows it."""
    return name if len(name) <= 40 else name[:40] + "..."


# URIs: RFC 3986, appendix A. Possessive, so that none of it looks back twice.

_UNRESERVED = r"A-Za-z0-9\-._~!$&'()*+,;="
_ESCAPE = "%[0-9A-Fa-f]{2}"
_CHARACTERS = rf"(?:[{_UNRESERVED}:@]++|{_ESCAPE})"
_COLONLESS = rf"(?:[{_UNRESERVED}@]++|{_ESCAPE})"
_AUTHORITY = (
    rf"(?:(?:[{_UNRESERVED}:]++|{_ESCAPE})*@)?"
    rf"(?:\[[{_UNRESERVED}:]++\]|(?:[{_UNRESERVED}]++|{_ESCAPE})*+)(?::[0-9]*+)?"
)
_SLASHED = rf"(?:/{_CHARACTERS}*+)*+"
_ROOTED = rf"//{_AUTHORITY}{_SLASHED}|/(?:{_CHARACTERS}++{_SLASHED})?"
_TAIL = rf"(?:\?(?:{_CHARACTERS}|[/?])*+)?(?:\#(?:{_CHARACTERS}|[/?])*+)?"
_SCHEME = r"[A-Za-z][A-Za-z0-9+\-.]*+:"
_ABSOLUTE = rf"{_SCHEME}(?:{_ROOTED}|{_CHARACTERS}++{_SLASHED}|)"
_RELATIVE = rf"(?:{_ROOTED}|{_COLONLESS}++{_SLASHED}|)"
_URI = re.compile(_ABSOLUTE + _TAIL)
_URI_REFERENCE = re.compile(f"(?:{_ABSOLUTE}|{_RELATIVE}){_TAIL}")


# Times: RFC 3339, section 5.6

_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def epoch(time: str) -> int | None:
    """Whole seconds since 1970, None for what was before: AMQP's timestamp knows neither fractions nor signs."""
    if (found := _TIME.fullmatch(time)) is None:
        raise InvalidMessage("time", "is not a time as RFC 3339 writes it, such as 2026-11-23T21:00:00Z")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    sign, hours, minutes = found.group(7), int(found.group(8) or 0), int(found.group(9) or 0)
    try:
        # 60 is a leap second, which datetime does not know.
        datetime(year, month, day, hour, minute, second - (second == 60))
    except ValueError:
        raise InvalidMessage("time", "is not in the calendar") from None
    if hours > 23 or minutes > 59:
        raise InvalidMessage("time", "has an offset that no time zone has")
    east = (hours * 60 + minutes) * 60 * (-1 if sign == "-" else 1)
    seconds = calendar.timegm((year, month, day, hour, minute, second)) - east
    return seconds if seconds >= 0 else None


# Media types: RFC 9110, section 8.3.1

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_MEDIA_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?:[ \t]*+;[ \t]*+(?:{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\]|\\.)*+"))?)*+')
_CHARSET = re.compile(r""";[ \t]*charset="?([^\s";]+)""", re.IGNORECASE)


def check_media_type(value: str) -> None:
    """Whether it is a media type with its parameters, and an AMQP content type has room for it."""
    if not (value.isascii() and len(value) <= MAX_SHORT_STRING and _MEDIA_TYPE.fullmatch(value)):
        raise InvalidMessage(
            "datacontenttype", f"is not a media type of at most {MAX_SHORT_STRING} characters, such as application/json"
        )


def media_of(content_type: str) -> str:
    """Type and subtype in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def charset_of(content_type: str) -> str | None:
    """The parameter ``charset`` in lower case."""
    found = _CHARSET.search(content_type)
    return found[1].lower() if found else None


def is_json(content_type: str) -> bool:
    """Whether it declares JSON, as the JSON format, section 3.1.1, says it."""
    subtype = media_of(content_type).partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")
