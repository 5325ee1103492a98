"""Who sends a request, and whether a web page made somebody's browser send it."""

from __future__ import annotations

import binascii
import ipaddress
from typing import TYPE_CHECKING

from pubd.errors import NotAuthenticated
from pubd.intake.http.answer import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pubd.access import Access, Principal

_READING = ("GET", "HEAD")
# What rabbitmqadmin sends where nobody told it anything: no claim to be somebody.
_RABBITMQS_DEFAULT = ("guest", "guest")
_NOTHING_SHOWN = ""


def principal(
    headers: Mapping[str, str], access: Access, of_connection: Callable[[], Principal | None]
) -> tuple[Principal, bool]:
    """Who it is, and whether a token says so. Raises NotAuthenticated.

    Who shows a token that is not known is nobody, whatever else the connection tells.
    """
    shown = headers.get("authorization")
    if shown is not None and (token := _token_in(shown)) != _NOTHING_SHOWN:
        found = access.by_token(token) if token is not None else None
        if found is None:
            raise NotAuthenticated("the token is not known")
        return found, True
    found = of_connection()
    if found is None:
        raise NotAuthenticated("no token, and nothing else that pubd knows")
    return found, False


def _token_in(authorization: str) -> str | None:
    """The token of ``Bearer TOKEN``, or of ``Basic``, whose password it is, whatever the name: RFC 7617."""
    scheme, _, shown = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return shown.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = binascii.a2b_base64(shown.strip(), strict_mode=True).decode("utf-8").partition(":")
    except ValueError:
        return None
    if (name, password) == _RABBITMQS_DEFAULT:
        return _NOTHING_SHOWN
    return password or None


def check_not_a_web_page(
    method: str, headers: Mapping[str, str], *, over_ip: bool, names: Collection[str], own_page: bool = False
) -> None:
    """Refuse (403) what a browser sends on behalf of a web page; for requests without a token.

    A page of any site can make a browser on this host POST to a loopback address, and then it sends Origin. By DNS
    rebinding it can even read, and then Host has the name of the attacker's site: ``names``, addresses and localhost
    are what it may be. ``own_page``: pubd's own page may send it.
    """
    origin = headers.get("origin")
    host = headers.get("host", "")
    if origin is not None and not ((own_page or method in _READING) and _is_own(origin, host)):
        raise Refusal("not-allowed", "web pages need a token", field="origin")
    if over_ip and host and not _is_ours(host, names):
        raise Refusal(
            "not-allowed", "without a token the host must be an address, localhost or this host's name", field="host"
        )


def check_not_another_page(headers: Mapping[str, str]) -> None:
    """Refuse (403) what a page of another site makes a browser send with the password that it keeps for this one.

    A browser shows Basic credentials by itself, whoever wants it to; those of Bearer only a program that has them.
    """
    origin = headers.get("origin")
    is_basic = headers.get("authorization", "").partition(" ")[0].lower() == "basic"
    if is_basic and origin is not None and not _is_own(origin, headers.get("host", "")):
        raise Refusal("not-allowed", "pages of other sites may not do that; programs show Bearer", field="origin")


def _is_own(origin: str, host: str) -> bool:
    return origin.partition("://")[2].lower() == host.lower()


def _is_ours(host: str, names: Collection[str]) -> bool:
    if host.startswith("["):
        # It has the form of an address, or the head would have been refused.
        return True
    name = host.partition(":")[0].lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
