"""Forms of the page: each carries a token, without which nothing is decided, so that no other page can send one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pubd.intake.http.answer import Refusal

if TYPE_CHECKING:
    from pubd.intake.http.request import Request

MEDIA = "application/x-www-form-urlencoded"
#: Seconds for which a page may stand there before its buttons are pressed.
LIFETIME = 12 * 3600
#: Fields of a form: the ids of a page of messages, and a few more.
_MOST_FIELDS = 1100


class Tokens:
    """``secret`` is the process's own: after a restart pages have to be loaded anew. ``clock`` counts seconds."""

    def __init__(self, *, secret: bytes, clock: Any) -> None:
        self._secret = secret
        self._clock = clock

    def new(self, request: Request) -> str:
        """One for whoever sent this request, and nobody else."""
        return self._token(request, int(self._clock.seconds()) + LIFETIME)

    def check(self, request: Request, token: str) -> None:
        """Refuses (403) any other."""
        until, _, _ = token.partition(".")
        if not (until.isascii() and until.isdigit() and len(until) < 16):
            raise Refusal("not-allowed", "the form has no token of this pubd; load the page anew", field="token")
        if not hmac.compare_digest(self._token(request, int(until)).encode(), token.encode("utf-8", "replace")):
            detail = "the form is somebody else's, or older than pubd's start; load the page anew"
            raise Refusal("not-allowed", detail, field="token")
        if int(until) < self._clock.seconds():
            raise Refusal("not-allowed", "the form is too old; load the page anew", field="token")

    def _token(self, request: Request, until: int) -> str:
        text = f"{until}.{request.principal.name}"
        return f"{until}.{hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()}"


def group_key(group: dict[str, Any]) -> str:
    """Exchange and reason of a group as a field of a form, which a browser gives back as it is, whatever is in them."""
    return base64.urlsafe_b64encode(json.dumps([group["exchange"], group["reason"]]).encode()).decode("ascii")


def group_of(key: str) -> tuple[str, str]:
    """Exchange and reason. Refuses (400) what :func:`group_key` has not made."""
    try:
        exchange, reason = json.loads(base64.urlsafe_b64decode(key))
    except (ValueError, TypeError, RecursionError):
        exchange = reason = None
    if not isinstance(exchange, str) or not isinstance(reason, str):
        raise Refusal("malformed", "is not one of the page's groups", field="group")
    return exchange, reason


def fields_of(request: Request) -> list[tuple[str, str]]:
    """Names and values of a form, in order. Refuses (400) what is none."""
    try:
        return parse_qsl(
            request.body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise Refusal("malformed", "is not a form as browsers send it", field="body") from None


def check_same_site(request: Request) -> None:
    """Refuses (403) what a browser says another site made it send; Origin was looked at with the head."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refusal("not-allowed", "pages of other sites may not do that", field="sec-fetch-site")
