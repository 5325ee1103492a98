"""Which action answers which request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from pubd.intake.http.answer import Answer, Refusal
from pubd.intake.http.request import percent_decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping

    from twisted.internet.defer import Deferred

    from pubd.errors import PubdError
    from pubd.intake.http.request import Request


class Act(Protocol):
    """Answers a request whose body has arrived. Raises, or fails with, any :class:`pubd.errors.PubdError`.

    It is never cancelled: when the client has gone, its answer is dropped. While pubd stops it is waited for.
    """

    def __call__(self, request: Request, /) -> Answer | Deferred[Answer] | Coroutine[Any, Any, Answer]:
        """The answer, now or later."""


class Stream(Protocol):
    """Takes a body while it arrives, and answers by the connection it was opened with.

    The bytes that it is given were taken from the door's budget, and are the stream's to give back.
    """

    def data(self, data: bytes, /) -> None:
        """Some more of the body, its Content-Encoding undone."""

    def end(self) -> None:
        """That was all of it."""

    def cut(self, error: PubdError, /) -> bool:
        """Nothing more is read because of ``error``: say so at the end of the answer, and finish.

        False if nothing was submitted yet: then ``error`` itself is the answer, which the connection sees to.
        """

    def lost(self) -> None:
        """Nobody is there to be answered any more, or somebody else has done it."""


class Connection(Protocol):
    """What a stream is given to answer with."""

    def start(self, status: int, content_type: bytes) -> None:
        """The head of an answer without known length."""

    def write(self, data: bytes) -> None:
        """Some of the answer's body."""

    @property
    def behind(self) -> bool:
        """Whether the client has so much of the answer to read that there should be no more of it for now."""

    def finish(self) -> None:
        """The answer is complete."""

    def fail(self) -> None:
        """A mistake of pubd's, which was logged: nothing that follows could be right."""

    def hold(self, holding: bool) -> None:
        """Give no more of the body for now, but for what was read already; or go on."""


class Open(Protocol):
    """Begins a stream, or gives None where the body is to be read whole."""

    def __call__(self, request: Request, connection: Connection, /) -> Stream | None:
        """Called when the head is complete and the client is known."""


@attrs.frozen(kw_only=True)
class Action:
    """How one method of a route is answered.

    ``media``: the types a body may have, None: any; empty: there is no body. ``decode``: undo its Content-Encoding.
    ``operate``: only for principals that may. ``everybody``: nobody needs to say who they are. ``shown``: it is a part
    of pubd's own page, whose errors are told in that form, and which may send its forms.
    """

    act: Act
    media: tuple[str, ...] | None = ()
    decode: bool = True
    operate: bool = False
    everybody: bool = False
    open: Open | None = None
    shown: Callable[[PubdError], Answer] | None = None


@attrs.frozen(kw_only=True)
class Route:
    """``path`` as ``/messages/{id}``: a placeholder stands for one segment, as ``{key*}`` at the end for any rest.

    HEAD comes with GET, and OPTIONS with everything. ``api``: it is for programs, and in /openapi.json.
    """

    path: str
    actions: Mapping[str, Action]
    api: bool = True

    @property
    def allow(self) -> str:
        """The methods, for the header Allow."""
        names = set(self.actions) | {"OPTIONS"} | ({"HEAD"} if "GET" in self.actions else set())
        return ", ".join(sorted(names))


@attrs.frozen
class _Template:
    """A path with placeholders."""

    segments: tuple[str | None, ...]
    """None for a placeholder."""
    names: tuple[str, ...]
    rest: bool
    """The last placeholder takes any rest, nothing included."""
    route: Route

    def match(self, segments: list[str]) -> tuple[str, ...] | None:
        """The decoded values of the placeholders."""
        wanted = len(self.segments)
        if self.rest:
            if len(segments) < wanted - 1:
                return None
            segments = [*segments[: wanted - 1], "/".join(segments[wanted - 1 :])]
        elif len(segments) != wanted:
            return None
        raw = []
        for mine, given in zip(self.segments, segments, strict=True):
            if mine is None:
                raw.append(given)
            elif mine != given:
                return None
        return tuple(map(percent_decoded, raw, self.names))


def _template(route: Route) -> _Template:
    segments: list[str | None] = []
    names: list[str] = []
    rest = False
    for segment in route.path.split("/")[1:]:
        if segment.startswith("{"):
            name = segment[1:-1]
            rest = name.endswith("*")
            names.append(name.rstrip("*"))
            segments.append(None)
        else:
            segments.append(segment)
    return _Template(tuple(segments), tuple(names), rest, route)


#: What OPTIONS * asks about.
_EVERYTHING = Route(path="*", actions={})


def _options(route: Route) -> Action:
    answer = Answer(204, content_type=None, headers=((b"Allow", route.allow.encode("ascii")),))
    return Action(act=lambda _: answer, everybody=True)


class Routes:
    """All routes of the intake; of two that match, the one given first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        first: dict[str, Route] = {}
        for route in routes:
            first.setdefault(route.path, route)
        self._all = tuple(first.values())
        self._plain: dict[str, Route] = {}
        self._templates: dict[str, list[_Template]] = {}
        for route in self._all:
            if "{" in route.path:
                self._templates.setdefault(route.path.split("/", 2)[1], []).append(_template(route))
            else:
                self._plain[route.path] = route

    def __iter__(self) -> Iterator[Route]:
        return iter(self._all)

    def route(self, path: str) -> tuple[Route, tuple[str, ...]] | None:
        """The route for a path that is still percent-encoded, and its placeholders' values, decoded."""
        route = self._plain.get(path)
        if route is not None:
            return route, ()
        segments = path.split("/")[1:]
        for template in self._templates.get(segments[0], ()) if segments else ():
            if (parts := template.match(segments)) is not None:
                return template.route, parts
        return None

    def action(self, request: Request) -> Action:
        """What answers ``request``, whose ``parts`` are set. Refuses with 404 or 405."""
        found = self.route(request.path)
        if found is None and request.path == "*":
            found = _EVERYTHING, ()
        if found is None:
            raise Refusal("not-found", "there is nothing at this path")
        route, request.parts = found
        if request.method == "OPTIONS":
            return _options(route)
        action = route.actions.get("GET" if request.method == "HEAD" else request.method)
        if action is None:
            raise Refusal(
                "method-not-allowed",
                f"this path takes {route.allow}",
                headers=((b"Allow", route.allow.encode()),),
            )
        return action
