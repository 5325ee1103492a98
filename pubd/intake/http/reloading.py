"""``POST /reload``: read pubd.toml again; for principals that may operate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from pubd.intake.http.answer import json_answer
from pubd.intake.http.route import Action, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pubd.intake.http.answer import Answer
    from pubd.intake.http.request import Request


class Change(Protocol):
    """Such as :class:`pubd.config.changes.Change`: what stands in no log is not in it either."""

    @property
    def table(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def old(self) -> str | None: ...

    @property
    def new(self) -> str | None: ...


class Reloaded(Protocol):
    """Such as :class:`pubd.reload.Reloaded`."""

    @property
    def changes(self) -> Sequence[Change]: ...

    @property
    def hints(self) -> Sequence[str]: ...


def reload_routes(reload: Callable[[], Awaitable[Reloaded]]) -> Iterable[Route]:
    """``reload`` fails with :class:`pubd.errors.ReloadRefused` where the new configuration cannot be used."""
    log = Logger(namespace=__name__)

    async def act(request: Request) -> Answer:
        """The object Reloaded of /openapi.json."""
        request.arguments(())
        log.info("{principal} asks for a reload", principal=request.principal.name)
        done = await reload()
        changes = [
            {"table": change.table, "key": change.key or None, "old": change.old, "new": change.new}
            for change in done.changes
        ]
        return json_answer({"state": "reloaded", "changes": changes, "hints": list(done.hints)})

    return (Route(path="/reload", actions={"POST": Action(act=act, operate=True)}),)
