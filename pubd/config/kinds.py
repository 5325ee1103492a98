"""Kinds of values: what a key takes, how it is read from TOML and from an environment variable."""

from __future__ import annotations

import enum
import pathlib
import re
from typing import TYPE_CHECKING, Any

import attrs

from pubd.amqp.topology import EXCHANGE_TYPES
from pubd.amqp.url import BrokerUrl
from pubd.config import units
from pubd.config.problems import Unfit, hint, kind_of, shown
from pubd.errors import InvalidMessage, InvalidOption
from pubd.fields import frozen_headers, short_string
from pubd.intake.endpoint import Endpoint
from pubd.schedule import Template

if TYPE_CHECKING:
    from collections.abc import Callable

UNLIMITED = "unlimited"


def _same(text: str) -> object:
    return text


@attrs.frozen
class Kind:
    """``read`` turns a TOML value into what the configuration holds, or raises :class:`~pubd.config.problems.Unfit`.

    ``from_text`` turns the text of an environment variable into the TOML value that it stands for.
    """

    name: str
    read: Callable[[Any], Any]
    from_text: Callable[[str], object] = _same


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        quoted = " without quotes" if isinstance(value, str) and value.lower() in ("true", "false") else ""
        raise Unfit(f"must be true or false{quoted}, not {shown(value)}")
    return value


BOOLEAN = Kind(
    "true or false", _boolean, lambda text: {"true": True, "false": False}.get(text.strip().lower(), text.strip())
)


def _number(text: str) -> object:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text.strip()) else text


def whole(low: int, high: int) -> Kind:
    """A whole number within both bounds."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            fix = " without quotes" if isinstance(value, str) and isinstance(_number(value), int) else ""
            raise Unfit(f"must be a whole number{fix}, such as {max(low, 10)}, not {shown(value)}")
        if not low <= value <= high:
            raise Unfit(f"must be a whole number from {low} to {high}, not {shown(value)}")
        return value

    return Kind("whole number", read, _number)


def _factor(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"must be a number such as 2 or 1.5, not {shown(value)}")
    if not 1 <= value <= 1000:
        raise Unfit(f"must be a number from 1 to 1000, not {shown(value)}")
    return float(value)


def _float(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


FACTOR = Kind("number", _factor, _float)


def duration(low: float, high: float = units.LONGEST) -> Kind:
    """A duration of ``low`` to ``high`` seconds."""

    def read(value: object) -> float:
        number = units.seconds(value)
        if not low <= number <= high:
            upper = f" and at most {high:g} s" if high < units.LONGEST else ""
            raise Unfit(f'must be at least {low:g} s{upper}, such as "30s", not {shown(value)}')
        return number

    return Kind("duration", read)


def _heartbeat(value: object) -> int:
    number = units.seconds(value)
    if number > 65535 or not number.is_integer():
        raise Unfit(f'must be whole seconds from 0 (none) to 65535, such as 30 or "30s", not {shown(value)}')
    return int(number)


HEARTBEAT = Kind("duration", _heartbeat)


def size(low: int) -> Kind:
    """A size of at least ``low`` bytes."""

    def read(value: object) -> int:
        number = units.octets(value)
        if number < low:
            raise Unfit(f'must be at least {low} bytes, such as "64MiB", not {shown(value)}')
        return number

    return Kind("size", read)


def or_unlimited(kind: Kind) -> Kind:
    """``kind``, or the word "unlimited", which is None."""

    def read(value: object) -> Any:
        if isinstance(value, str) and value.strip().lower() == UNLIMITED:
            return None
        try:
            return kind.read(value)
        except Unfit as error:
            raise Unfit(f'{error.sentence}; "{UNLIMITED}" is allowed, too', error.within) from None

    return Kind(f'{kind.name} or "{UNLIMITED}"', read, kind.from_text)


def choice(choices: type[enum.Enum]) -> Kind:
    """One of the values of an enumeration."""
    values = [str(member.value) for member in choices]

    def read(value: object) -> enum.Enum:
        if isinstance(value, str) and value in values:
            return choices(value)
        raise Unfit(f"{shown(value)} is not known; {hint(value if isinstance(value, str) else '', values)}")

    return Kind("one of " + ", ".join(f'"{value}"' for value in values), read)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit(f"must be text in double quotes, not {shown(value)}")
    return value


def _short(value: object) -> str:
    try:
        return short_string(_string(value), "text")
    except InvalidMessage as error:
        raise Unfit(error.problem) from None


def _named(value: object) -> str:
    if not (text := _short(value)):
        raise Unfit("is empty; give a name")
    return text


def _exchange_or_none(value: object) -> str | None:
    return _short(value) or None


TEXT = Kind("text of at most 255 bytes", _short)
NAME = Kind("text of 1 to 255 bytes", _named)
EXCHANGE_OR_NONE = Kind("name of an exchange", _exchange_or_none)


def _exchange_type(value: object) -> str:
    text = _short(value)
    if text not in EXCHANGE_TYPES and not re.fullmatch(r"x-[A-Za-z0-9_.:-]+", text):
        raise Unfit(f"{shown(text)} is not known; {hint(text, [*EXCHANGE_TYPES, 'x-... of a plugin'])}")
    return text


EXCHANGE_TYPE = Kind("one of " + ", ".join(f'"{each}"' for each in (*EXCHANGE_TYPES, "x-...")), _exchange_type)


def _template(value: object) -> Template:
    try:
        template = Template.parse(_string(value))
        template.text.encode()
    except InvalidOption as error:
        raise Unfit(str(error)) from None
    except UnicodeEncodeError:
        raise Unfit("has a lone surrogate, which UTF-8 cannot carry; remove it") from None
    return template


TEMPLATE = Kind("text", _template)
STRING = Kind("text", _string)


def _arguments(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit(f'must be a table such as {{ x-queue-type = "quorum" }}, not {kind_of(value)}')
    try:
        frozen_headers(value)
    except InvalidMessage as error:
        # TOML has floats; what the advice for Python says does not help here.
        problem = "is a number with a fraction; write it as text" if "a float" in error.problem else error.problem
        raise Unfit(problem, error.field.removeprefix("headers")) from None
    return value


ARGUMENTS = Kind("table", _arguments)


def _urls(value: object) -> tuple[BrokerUrl, ...]:
    if isinstance(value, str):
        raise Unfit("must be an array, even for one broker; write [ ] around the text")
    if not isinstance(value, list):
        raise Unfit(f'must be an array such as ["amqp://localhost"], not {kind_of(value)}')
    if not value:
        raise Unfit('is empty; give at least one broker, such as ["amqp://localhost"]')
    return tuple(_url(each, f"[{index}]") for index, each in enumerate(value))


def _url(value: object, within: str) -> BrokerUrl:
    if not isinstance(value, str):
        raise Unfit(f'must be text such as "amqp://localhost", not {kind_of(value)}', within)
    try:
        return BrokerUrl.parse(value)
    except InvalidOption as error:
        raise Unfit(str(error), within) from None


URLS = Kind("array of AMQP URLs", _urls, str.split)


def _spool(value: object) -> str:
    text = _string(value)
    scheme, colon, rest = text.partition(":")
    if text == "memory:":
        return text
    if not colon or scheme not in ("sqlite", "memory"):
        named = scheme[:20] if colon and re.fullmatch(r"[a-z0-9+]+", scheme) else ""
        problem = f"this version has no spool {named}:" if named else "is no URL of a spool"
        raise Unfit(f'{problem}; write "sqlite:///PATH" (four slashes for an absolute path) or "memory:"')
    if scheme == "memory":
        raise Unfit('takes nothing after the colon; write "memory:"')
    if not rest.startswith("///"):
        raise Unfit('has too few slashes; write "sqlite:///pubd.db", or "sqlite:////var/lib/pubd/pubd.db"')
    path = rest[3:]
    if path == ":memory:":
        raise Unfit('write "memory:" for a spool in memory')
    if not path.isprintable() or not path.strip("/.") or path.endswith("/"):
        raise Unfit('names no file; write "sqlite:///pubd.db", or "sqlite:////var/lib/pubd/pubd.db"')
    if "?" in path or "#" in path:
        raise Unfit("takes no parameters after ? or #; limits are keys of [spool]")
    return text


SPOOL = Kind("URL", _spool)


def _listen(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        raise Unfit("must be an array, even for one endpoint; write [ ] around the text")
    if not isinstance(value, list):
        raise Unfit(f'must be an array such as ["unix:/run/pubd/http.sock"], not {kind_of(value)}')
    if not value:
        raise Unfit("is empty; name an endpoint, or leave the key out")
    for index, each in enumerate(value):
        if not isinstance(each, str):
            raise Unfit(f'must be text such as "tcp:8672:interface=127.0.0.1", not {kind_of(each)}', f"[{index}]")
        try:
            Endpoint.parse(each)
        except InvalidOption as error:
            raise Unfit(str(error).removeprefix("listen: "), f"[{index}]") from None
        if each in value[:index]:
            raise Unfit(f"{shown(each)} is there twice; remove one", f"[{index}]")
    return tuple(value)


LISTEN = Kind("array of endpoints", _listen, str.split)


def _path(value: object) -> pathlib.Path:
    text = _string(value)
    if not text.isprintable() or not text.strip():
        raise Unfit('is no path; write one such as "/var/spool/pubd"')
    return pathlib.Path(text)


PATH = Kind("path", _path)


def _properties(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit(f'must be a table such as {{ content_type = "text/plain" }}, not {kind_of(value)}')
    return value


PROPERTIES = Kind("table", _properties)
ANY_SECONDS = duration(0)
COUNT = whole(1, 2**53)
