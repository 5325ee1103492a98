"""What ``listen`` says: a Twisted endpoint string, read and judged before anything is opened."""

from __future__ import annotations

import enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, NoReturn

import attrs

from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Connections that wait to be accepted; the kernel lowers it to net.core.somaxconn.
BACKLOG = 512
#: Bytes of a unix socket's path: sun_path is 108, with a NUL at its end (unix(7)).
MAX_PATH = 107
#: The most a unix socket may be given: reading and writing, for anybody.
_WIDEST = 0o777

_OPTIONS = {
    "tcp": ("interface", "backlog"),
    "tcp6": ("interface", "backlog"),
    "tls": ("interface", "backlog", "certificate", "key", "client_ca"),
    "ssl": ("interface", "backlog", "privateKey", "certKey", "extraCertChain"),
    "unix": ("mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name", "certificate", "key", "client_ca"),
}
"""The options of each kind; tcp, tcp6, ssl, unix and systemd are written as Twisted has them."""


class Kind(enum.Enum):
    """Where a listening socket comes from."""

    TCP = "tcp"
    UNIX = "unix"
    SYSTEMD = "systemd"


@attrs.frozen(kw_only=True)
class TlsFiles:
    """Paths of PEM files. With ``client_ca`` a client has to show a certificate that one of these signed."""

    certificate: str
    key: str
    client_ca: str | None = None
    chain: str | None = None
    """More certificates for the way up to the root; they may stand in ``certificate``, too."""


@attrs.frozen(kw_only=True)
class Endpoint:
    """One string of ``listen``, taken apart. ``interface`` is an IP address; none is every IPv4 interface."""

    text: str
    kind: Kind
    port: int = 0
    interface: str = ""
    path: str = ""
    mode: int = 0o600
    lockfile: bool = True
    backlog: int = BACKLOG
    index: int | None = None
    name: str | None = None
    tls: TlsFiles | None = None

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read ``tcp:PORT:interface=IP``, ``tls:PORT:...:certificate=PATH:key=PATH[:client_ca=PATH]``,
        ``unix:PATH:mode=660``, ``systemd:domain=UNIX:index=0`` and the like; ``\\:`` is a colon in a value.

        Raises :class:`pubd.errors.InvalidOption`, a sentence that names the string, the mistake and the fix.
        """
        positional, options = _split(text)
        kind = positional.pop(0)
        if kind not in _OPTIONS:
            _refuse(text, f"begins with no kind that pubd listens on; write one of {', '.join(_OPTIONS)}")
        for option in options:
            if option not in _OPTIONS[kind]:
                _refuse(text, f"has an option {option!r}; {kind} takes {', '.join(_OPTIONS[kind])}")
        if kind == "systemd":
            return _systemd(text, positional, options)
        if len(positional) != 1:
            what = "a path" if kind == "unix" else "a port"
            _refuse(text, f"needs {what} after {kind}:, and nothing more but options written as name=value")
        if kind == "unix":
            return _unix(text, positional[0], options)
        return cls(
            text=text,
            kind=Kind.TCP,
            port=_number(text, "the port", positional[0], 65535),
            interface=_interface(text, options.get("interface", "::" if kind == "tcp6" else "")),
            backlog=_backlog(text, options),
            tls=_tls(text, kind, options),
        )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; not known, and False, for what systemd passes."""
        return self.kind is Kind.UNIX or is_loopback(self.interface)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is an IP address of the machine itself: 127.0.0.0/8, ::1, and these mapped into IPv6."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def refusal(listen: str, *, authenticated: bool) -> str | None:
    """Why pubd does not listen there: a sentence with the string and the fix, or None where it may.

    Beyond loopback and unix sockets it takes TLS and authentication: ``authenticated`` says that there are principals
    and that from elsewhere nobody else is let in. What systemd passes is judged when it is known, by :func:`exposed`.
    """
    try:
        endpoint = Endpoint.parse(listen)
    except InvalidOption as error:
        return str(error)
    if endpoint.is_loopback or endpoint.kind is Kind.SYSTEMD:
        return None
    return exposed(endpoint, endpoint.interface, authenticated=authenticated)


def exposed(endpoint: Endpoint, host: str, *, authenticated: bool) -> str | None:
    """Why a socket that is bound to ``host``, an IP address beyond loopback, must not be listened on, or None."""
    if is_loopback(host):
        return None
    where = "on every interface" if host in ("", "0.0.0.0", "::") else f"on {host}, beyond this machine,"
    if endpoint.tls is None:
        fix = "add interface=127.0.0.1"
        instead = f"tls:{endpoint.port}:interface={_quoted(host) or '0.0.0.0'}:certificate=PATH:key=PATH"
        if endpoint.kind is Kind.SYSTEMD:
            fix = "set ListenStream=127.0.0.1:PORT in the socket unit"
            instead = f"{endpoint.text}:certificate=PATH:key=PATH"
        return (
            f"{endpoint.text!r} listens {where} without TLS: {fix}, or write {instead} "
            "and give each client a [[principal]]"
        )
    if not authenticated:
        return (
            f"{endpoint.text!r} listens {where} and takes messages from anybody: add a [[principal]] with tokens or "
            "certificates, so that only these are let in, or listen on 127.0.0.1"
        )
    return None


def _refuse(text: str, problem: str) -> NoReturn:
    raise InvalidOption(f"{text!r} {problem}")


def _split(text: str) -> tuple[list[str], dict[str, str]]:
    """Positional arguments and options; as Twisted's endpoint strings, where a backslash takes the next as it is."""
    positional: list[str] = []
    options: dict[str, str] = {}
    for part, equals in _parts(text):
        if equals is None:
            positional.append(part)
            continue
        name, value = part[:equals], part[equals + 1 :]
        if name in options:
            _refuse(text, f"gives {name} twice; keep one of them")
        options[name] = value
    if not positional:
        _refuse(text, "names no kind of endpoint; begin with tcp:, tls:, unix: or systemd:")
    return positional, options


def _parts(text: str) -> Iterator[tuple[str, int | None]]:
    """What stands between colons, without the escapes, and where its first equals sign is."""
    part, equals = "", None
    characters = iter(text)
    for character in characters:
        if character == ":":
            yield part, equals
            part, equals = "", None
            continue
        if character == "\\":
            character = next(characters, "\\")
        elif character == "=" and equals is None:
            equals = len(part)
        part += character
    yield part, equals


def _number(text: str, what: str, value: str, most: int, least: int = 0) -> int:
    if not (value.isascii() and value.isdigit() and least <= int(value[:9]) <= most):
        _refuse(text, f"gives {what} as {value!r}; write a whole number from {least} to {most}")
    return int(value)


def _backlog(text: str, options: dict[str, str]) -> int:
    return _number(text, "backlog", options.get("backlog", str(BACKLOG)), 65535, 1)


def _interface(text: str, value: str) -> str:
    if value == "localhost":
        # RFC 6761: never anything else than loopback.
        return "127.0.0.1"
    if value:
        try:
            ip_address(value)
        except ValueError:
            _refuse(
                text,
                f"has {value!r} as interface, which is no IP address; write one, such as 127.0.0.1 or \\:\\:1 "
                "(a name may come to mean another machine's)",
            )
    return value


def _tls(text: str, kind: str, options: dict[str, str]) -> TlsFiles | None:
    if kind == "ssl":
        key = options.get("privateKey", "server.pem")
        return TlsFiles(certificate=options.get("certKey", key), key=key, chain=options.get("extraCertChain"))
    certificate = options.get("certificate")
    if certificate is None:
        if kind == "tls" or "key" in options or "client_ca" in options:
            _refuse(text, "names no certificate; add certificate=PATH (PEM) and key=PATH")
        return None
    return TlsFiles(certificate=certificate, key=options.get("key", certificate), client_ca=options.get("client_ca"))


def _unix(text: str, path: str, options: dict[str, str]) -> Endpoint:
    if not path or "\0" in path:
        _refuse(text, "needs the path of a file; sockets without one have no permissions")
    if len(path.encode("utf-8", "surrogateescape")) > MAX_PATH:
        _refuse(text, f"has a path longer than the {MAX_PATH} bytes that a unix socket may have; use a shorter one")
    mode = options.get("mode", "600")
    if not 3 <= len(mode) <= 4 or set(mode) - set("01234567") or int(mode, 8) > _WIDEST:
        _refuse(text, f"has {mode!r} as mode; write three octal digits, such as 660")
    return Endpoint(
        text=text,
        kind=Kind.UNIX,
        path=path,
        mode=int(mode, 8),
        lockfile=_number(text, "lockfile", options.get("lockfile", "1"), 1) == 1,
        backlog=_backlog(text, options),
    )


def _systemd(text: str, positional: list[str], options: dict[str, str]) -> Endpoint:
    index, name = options.get("index"), options.get("name")
    if positional or (index is None) == (name is None):
        _refuse(text, "has to say which socket: write systemd:domain=UNIX:index=0, or name=NAME instead of index")
    domain = options.get("domain")
    if domain is not None and domain not in ("UNIX", "INET", "INET6"):
        _refuse(text, f"has {domain!r} as domain; write UNIX, INET or INET6")
    return Endpoint(
        text=text,
        kind=Kind.SYSTEMD,
        index=None if index is None else _number(text, "index", index, 1023),
        name=name,
        tls=_tls(text, "systemd", options),
    )


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace(":", "\\:")
