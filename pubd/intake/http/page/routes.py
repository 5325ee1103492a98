"""The routes of the page."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pubd.intake.http.page.assets import NAMES, asset
from pubd.intake.http.page.deciding import Deciding
from pubd.intake.http.page.forms import MEDIA, Tokens
from pubd.intake.http.page.looking import Looking
from pubd.intake.http.page.render import shown
from pubd.intake.http.route import Action, Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.intake.http.page.deciding import Verdicts
    from pubd.intake.http.page.looking import Held
    from pubd.intake.http.route import Act
    from pubd.intake.http.status import Status


def page_routes(
    *,
    status: Status,
    held: Held,
    verdicts: Verdicts,
    history: Callable[[float], dict[str, Any]],
    clock: Any,
    wall: Callable[[], float],
    secret: bytes | None = None,
) -> list[Route]:
    """For principals that may operate; the files are for everybody. See :class:`Looking` and :class:`Tokens`."""
    tokens = Tokens(secret=secret or os.urandom(32), clock=clock)
    looking = Looking(status=status, held=held, history=history, tokens=tokens, wall=wall)
    deciding = Deciding(held=held, verdicts=verdicts, tokens=tokens, clock=clock, wall=wall)

    def look(path: str, act: Act) -> Route:
        return Route(path=path, actions={"GET": Action(act=act, operate=True, shown=shown)}, api=False)

    decide = Action(act=deciding.decide, media=(MEDIA,), operate=True, shown=shown)
    file = Action(act=asset, everybody=True)
    return [
        look("/", looking.page),
        look("/page/search", looking.search),
        look("/page/messages/{id}", looking.message),
        Route(path="/page/decide", actions={"POST": decide}, api=False),
        *(Route(path=f"/page/{name}", actions={"GET": file}, api=False) for name in NAMES),
    ]
