"""BrokerUrl: where a broker is and how to talk to it, from one AMQP URI."""

from __future__ import annotations

import difflib
import enum
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import attrs

from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

_PORTS = {"amqp": 5672, "amqps": 5671}
_ESCAPE = "percent-encode @ : / ? # % in user name, password and vhost (%40 %3A %2F %3F %23 %25)"
_TLS_ONLY = ("cacertfile", "certfile", "keyfile", "verify", "server_name_indication")

#: pika knows no other frame sizes; 4096 is AMQP's own minimum.
FRAME_MIN, FRAME_MAX = 4096, 131072


class Authentication(enum.Enum):
    """How pubd proves who it is; the values are RabbitMQ's names for ``auth_mechanism``."""

    PLAIN = "plain"
    EXTERNAL = "external"


@attrs.frozen(kw_only=True, repr=False)
class BrokerUrl:
    """One broker. The query parameters are those of RabbitMQ's "URI Query Parameters".

    ``heartbeat`` is in seconds (0 turns it off, None leaves it to the broker); ``connection_timeout`` is in seconds
    here although RabbitMQ counts milliseconds in the URI. ``server_name`` is the name sent as SNI and expected in
    the broker's certificate; ``send_server_name`` is False for ``server_name_indication=disable``, which stops the
    sending only: the certificate is still checked against the host. Neither ``str`` nor ``repr`` show the password.
    """

    scheme: str
    host: str
    port: int
    vhost: str = "/"
    username: str = "guest"
    password: str = "guest"
    cacertfile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    server_name: str | None = None
    send_server_name: bool = True
    authentication: Authentication = Authentication.PLAIN
    heartbeat: int | None = None
    connection_timeout: float | None = None
    frame_max: int | None = None
    channel_max: int | None = None

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Read ``amqp[s]://[user[:password]@]host[:port][/vhost][?parameters]``.

        Raises :class:`pubd.errors.InvalidOption` naming the part that is wrong and the fix; no password is in it.
        """
        if any(character <= " " or character == "\x7f" for character in text):
            raise _wrong("whole", "it contains spaces or control characters", "percent-encode them (a space is %20)")
        if re.search(r"%(?![0-9A-Fa-f]{2})", text):
            raise _wrong("whole", "a % is not followed by two hexadecimal digits", "write % itself as %25")
        try:
            parts = urlsplit(text)
        except ValueError:
            # urlsplit's own words may have the password in them.
            raise _wrong("host", "it is not valid", f"write an IPv6 address as [::1], and {_ESCAPE}") from None
        if parts.scheme not in _PORTS:
            raise _wrong("scheme", "it must begin with amqp:// or amqps://", "amqps is AMQP over TLS")
        if "#" in text:
            raise _wrong("fragment", "there is no such part in an AMQP URI", _ESCAPE)
        if not text[len(parts.scheme) :].startswith("://") or not parts.hostname:
            raise _wrong("host", "it is missing", f"write {parts.scheme}://localhost")
        if parts.netloc.count("@") > 1:
            raise _wrong("host", "there is more than one @ before it", _ESCAPE)
        if "@" in parts.path + parts.query:
            # Most likely a / or ? stands in the password; what follows it must not be shown as a vhost or parameter.
            raise _wrong("whole", "an @ follows a / or a ?", _ESCAPE)
        query = _query(parts.query, parts.scheme)
        url = cls(
            scheme=parts.scheme,
            host=_host(parts.hostname),
            port=_port(lambda: parts.port, parts.scheme),
            vhost=_vhost(parts.path),
            username=_credential("user name", parts.username),
            password=_credential("password", parts.password),
            **query,
        )
        url._check_together()
        return url

    @property
    def tls(self) -> bool:
        """Whether the connection is made over TLS, or not at all."""
        return self.scheme == "amqps"

    @property
    def peer(self) -> str:
        """``host:port``, as in log lines."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{quote(self.username, safe='')}:***@{self.peer}/{quote(self.vhost, safe='')}"

    def __repr__(self) -> str:
        return f"<BrokerUrl {self}>"

    def _check_together(self) -> None:
        if (self.certfile is None) != (self.keyfile is None):
            missing, given = ("keyfile", "certfile") if self.keyfile is None else ("certfile", "keyfile")
            raise _wrong(missing, f"it is missing, but {given} is given", "a client certificate needs both")
        if self.authentication is Authentication.EXTERNAL and self.certfile is None:
            raise _wrong(
                "auth_mechanism",
                "external means: by client certificate",
                "use amqps:// with certfile and keyfile, or auth_mechanism=plain",
            )


def _wrong(part: str, problem: str, fix: str) -> InvalidOption:
    return InvalidOption(f"broker URL: {part}: {problem}; {fix}")


def _decode(part: str, text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _wrong(part, "it is not UTF-8 once percent-decoded", "percent-encode its UTF-8 bytes") from None
    if "\0" in decoded:
        raise _wrong(part, "it contains a NUL (%00)", "remove it")
    return decoded


def _host(text: str) -> str:
    host = _decode("host", text)
    if not re.fullmatch(r"[\w.:%-]+", host):
        raise _wrong("host", "it is neither a name nor an address", _ESCAPE)
    return host


def _port(read: Callable[[], int | None], scheme: str) -> int:
    try:
        port = read()
    except ValueError:
        port = 0
    if port is None:
        return _PORTS[scheme]
    if port == 0:
        # What stands there may be half a password with a slash in it: it is not repeated.
        raise _wrong("port", "it is not a number from 1 to 65535", _ESCAPE)
    return port


def _vhost(path: str) -> str:
    if path in ("", "/"):
        return "/"
    if "/" in path[1:]:
        raise _wrong("vhost", "it contains a /", "write a / inside the vhost's name as %2F")
    vhost = _decode("vhost", path[1:])
    if len(vhost.encode()) > 255:
        raise _wrong("vhost", "it is longer than 255 bytes", "AMQP has no longer names")
    return vhost


def _credential(part: str, text: str | None) -> str:
    return "guest" if text is None else _decode(part, text)


def _integer(name: str, text: str, low: int, high: int, unit: str = "") -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise _wrong(name, f"{text!r} is not a whole number{unit} from {low} to {high}", "write digits only")
    return int(text)


def _choice(name: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        near = difflib.get_close_matches(text, choices, 1)
        hint = f"did you mean {near[0]}?" if near else f"use {' or '.join(choices)}"
        raise _wrong(name, f"{text!r} is not known", hint)
    return text


def _path(name: str, text: str) -> str:
    if not text:
        raise _wrong(name, "it is empty", "give the path of a PEM file or leave the parameter out")
    return text


def _server_name(text: str) -> dict[str, object]:
    if text == "disable":
        return {"send_server_name": False}
    if not re.fullmatch(r"[\w.-]+", text):
        raise _wrong("server_name_indication", f"{text!r} is not a host name", 'give a host name or "disable"')
    return {"server_name": text}


_PARAMETERS: dict[str, Callable[[str], dict[str, object]]] = {
    "cacertfile": lambda text: {"cacertfile": _path("cacertfile", text)},
    "certfile": lambda text: {"certfile": _path("certfile", text)},
    "keyfile": lambda text: {"keyfile": _path("keyfile", text)},
    "verify": lambda text: {"verify": _choice("verify", text, ("verify_peer", "verify_none")) == "verify_peer"},
    "server_name_indication": _server_name,
    "auth_mechanism": lambda text: {
        "authentication": Authentication(_choice("auth_mechanism", text.lower(), ("plain", "external")))
    },
    "heartbeat": lambda text: {"heartbeat": _integer("heartbeat", text, 0, 65535, " of seconds")},
    "connection_timeout": lambda text: {
        "connection_timeout": _integer("connection_timeout", text, 1, 3_600_000, " of milliseconds") / 1000
    },
    "frame_max": lambda text: {"frame_max": _integer("frame_max", text, FRAME_MIN, FRAME_MAX, " of bytes")},
    "channel_max": lambda text: {"channel_max": _integer("channel_max", text, 2, 65535)},
}


def _query(text: str, scheme: str) -> dict[str, Any]:
    """The fields of BrokerUrl that the query gives."""
    seen: set[str] = set()
    fields: dict[str, Any] = {}
    for pair in filter(None, text.split("&")):
        raw_name, equals, raw_value = pair.partition("=")
        name, value = _decode("query", raw_name), _decode("query", raw_value)
        if name not in _PARAMETERS:
            # The name only: whatever follows may have been meant to be secret.
            near = difflib.get_close_matches(name, _PARAMETERS, 1)
            known = ", ".join(_PARAMETERS)
            raise _wrong("query", f"unknown parameter {name!r}", f"did you mean {near[0]}?" if near else f"use {known}")
        if name in seen:
            raise _wrong(name, "it is given twice", "give it once")
        if not equals:
            raise _wrong(name, "it has no value", f"write {name}=...")
        if name in _TLS_ONLY and scheme != "amqps":
            raise _wrong(name, "it is about TLS, but amqp:// is plaintext", "write amqps://, or leave it out")
        seen.add(name)
        fields |= _PARAMETERS[name](value)
    return fields
