"""HTML out of templates. Whatever is put in is escaped, and has no character that is not seen."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pubd import wording
from pubd._version import __version__
from pubd.intake.http.answer import Answer, Refusal
from pubd.intake.http.page.forms import group_key
from pubd.intake.problem import problem_of
from pubd.wording import age, octets, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2 import Environment

    from pubd.errors import PubdError

HTML = b"text/html; charset=utf-8"
#: Nothing but pubd's own files, no script or style in the page itself, in no frame; forms go to pubd only.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"Content-Security-Policy", POLICY),
    (b"X-Frame-Options", b"DENY"),
    # Not "no-referrer": with that a browser hides the Origin of our own forms, too.
    (b"Referrer-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)
#: What makes a browser ask for a password.
CHALLENGE = (b"WWW-Authenticate", b'Basic realm="pubd", charset="UTF-8"')
_HELP = {
    "not-authenticated": "Give any name, and as password a token of a principal with operate = true in pubd.toml; "
    "'pubd token new' makes one.",
    "not-allowed": "The page is for principals with operate = true in pubd.toml, and for its own forms; see the "
    "chapter on access in pubd's manual.",
}


def html(template: str, status: int = 200, **values: Any) -> Answer:
    """The answer that ``template`` makes of ``values``."""
    text = _environment().get_template(template).render(values)
    return Answer(status, text.encode("utf-8", "backslashreplace"), HTML, HEADERS)


def see_other(location: str) -> Answer:
    """Go there: what was asked for by a form is done, and is not to be done again by loading anew."""
    return Answer(303, content_type=None, headers=((b"Location", location.encode("ascii")), *HEADERS))


def shown(error: PubdError) -> Answer:
    """An error as a page."""
    found = error.problem if isinstance(error, Refusal) else problem_of(error)
    page = html(
        "problem.html",
        found.status,
        title=found.title,
        detail=found.detail,
        field=found.field,
        what=_HELP.get(found.type, ""),
        icon="unhealthy",
    )
    more = [CHALLENGE] if found.status == 401 else [*error.headers] if isinstance(error, Refusal) else []
    if found.retry_after is not None:
        more.append((b"Retry-After", b"%d" % found.retry_after))
    close = isinstance(error, Refusal) and error.close
    return Answer(page.status, page.body, HTML, (*HEADERS, *more), close)


@cache
def _environment() -> Environment:
    """Loaded by the first one who looks: most daemons are looked at by programs only."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def finalize(value: Any) -> Any:
        return plain(value) if type(value) is str else value

    environment = Environment(
        loader=PackageLoader("pubd.intake.http.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    # For text whose lines were made plain one by one: escaped as all else, with its line breaks.
    environment.filters["lines"] = lambda text: Markup(escape(text))
    environment.filters |= {
        "number": "{:,}".format,
        "short": _short,
        "rate": _rate,
        "latency": _latency,
        "octets": octets,
        "group_key": group_key,
        "utc": partial(_utc, form="%Y-%m-%d %H:%M:%S UTC"),
        "clock": partial(_utc, form="%H:%M:%S"),
    }
    environment.globals |= {
        "hostname": socket.gethostname(),
        "version": __version__,
        "commands": _commands,
        **{name: getattr(wording, name) for name in ("exchange", "reason", "short_reason", "since", "state", "why")},
        "age": age,
    }
    return environment


def _commands(text: str) -> Iterator[tuple[str, bool]]:
    """The text in parts, and whether each is a command to type."""
    at = 0
    for found in wording.COMMAND.finditer(text):
        yield text[at : found.start()], False
        yield found[0][1:-1], True
        at = found.end()
    yield text[at:], False


def _short(count: int) -> str:
    """``99,999``, ``123k``, ``41.0M``: as much as there is room for in large letters. Not more than there are."""
    if count < 100_000:
        return f"{count:,}"
    return f"{count // 1000:,}k" if count < 1_000_000 else f"{count // 100_000 / 10:,.1f}M"


def _rate(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or not value else f"{value:.1f}" if value >= 0.05 else "<0.1"


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else _small(seconds)


def _small(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _utc(moment: str, form: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).strftime(form)
