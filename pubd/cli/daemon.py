"""Asking the running daemon: JSON answers, and every way in which there is none as a Failure that says what to do."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import click

from pubd.cli.client import Answer, AnswerLost, Unreachable
from pubd.cli.connect import connect, server_options
from pubd.cli.durations import Duration
from pubd.cli.failure import CONFIGURATION, INTERRUPTED, REFUSED, TRY_LATER, UNREACHABLE, Failure
from pubd.wording import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pubd.cli.client import Client

_Command = TypeVar("_Command", bound="Callable[..., Any]")
_SERVER = ("server", "token", "token_file", "cacert", "cert", "key")


class Unknown(Failure):
    """pubd knows no such message."""


class Broken(Failure):
    """A stream that ended too early."""


class Misconfigured(Failure):
    """The new configuration cannot be used, for these ``problems``."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = problems
        count = len(problems)
        super().__init__(
            f"nothing was changed: {count} problem{'s' if count != 1 else ''} in the new configuration", CONFIGURATION
        )


class Daemon:
    """``timeout`` is how many seconds one answer may take."""

    def __init__(self, client: Client, *, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._timeout = timeout
        self._clock = clock

    @property
    def address(self) -> str:
        """Where it is."""
        return str(self._client.server)

    def get(self, path: str, **query: str | None) -> Any:
        """The JSON of an answer; what is None is left out of the query. Raises Failure."""
        return self._ask("GET", _with(path, query))

    def text(self, path: str) -> str:
        """The text of an answer that is no JSON. Raises Failure."""
        return self._answered("GET", path).body.decode("utf-8", "replace")

    def post(self, path: str, value: Any = None, **query: str | None) -> Any:
        """The same for a request with ``value`` as its body, if there is one."""
        return self._ask("POST", _with(path, query), json.dumps(value).encode() if value is not None else None)

    def stream(
        self, path: str, method: str = "GET", /, *, silence: float | None, **query: str | None
    ) -> Iterator[bytes]:
        """The body of an answer, piece by piece; ``silence`` as in :meth:`pubd.cli.client.Client.stream`.

        Raises Failure, :class:`Broken` where it ended before its time.
        """
        given = {name: value for name, value in query.items() if value is not None}
        asked = f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path
        try:
            found = self._client.stream(method, asked, deadline=self._clock() + self._timeout, silence=silence)
        except Unreachable as error:
            raise Failure(str(error), UNREACHABLE) from None
        except AnswerLost as error:
            raise Failure(f"{error}; look at pubd's log, and try again", UNREACHABLE) from None
        if isinstance(found, Answer):
            raise self._refused(found)
        return self._whole(found)

    def _whole(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from pieces
        except AnswerLost as error:
            raise Broken(f"{error}, before it was complete", UNREACHABLE) from None

    def lines(self, path: str, *, silence: float | None, **query: str | None) -> Iterator[Any]:
        """The JSON of each line of a stream."""
        rest = b""
        for piece in self.stream(path, silence=silence, **query):
            *lines, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, lines)

    def delete(self, path: str) -> Any:
        """The same as ``get`` for a request with the method DELETE."""
        return self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        answer = self._answered(method, path, body)
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            raise self.strange() from None

    def _answered(self, method: str, path: str, body: bytes | None = None) -> Answer:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        deadline = self._clock() + self._timeout
        try:
            answer = self._client.ask(method, path, deadline=deadline, body=body, headers=headers)
        except Unreachable as error:
            raise Failure(str(error), UNREACHABLE) from None
        except AnswerLost as error:
            raise Failure(f"{error}; look at pubd's log, and try again", UNREACHABLE) from None
        if answer.status != 200:
            raise self._refused(answer)
        return answer

    def strange(self) -> Failure:
        """For an answer that no pubd gives."""
        return Failure(f"{self.address} did not answer as pubd does; check the address: --server", UNREACHABLE)

    def _refused(self, answer: Answer) -> Failure:
        sentence, type = answer.sentence, answer.problem.get("type")
        if type == "invalid-configuration":
            return Misconfigured([plain(str(each)) for each in answer.problem.get("problems", ())])
        if answer.status == 401:
            return Failure(f"{sentence}: --token-file FILE, or PUBD_TOKEN; 'pubd token new NAME' makes one")
        if answer.status == 403:
            return Failure(
                f"{sentence}: it takes a [[principal]] with operate = true in pubd.toml, and its --token-file"
            )
        if answer.status == 404 and type == "not-found" and answer.problem.get("field") == "id":
            return Unknown(f"{sentence}; those it knows are listed by 'pubd list'")
        if answer.status == 404:
            return Failure(f"{self.address} has no such page ({sentence}); is that pubd, of this version? See --server")
        if answer.status in (429, 503, 507):
            later = f" in {answer.retry_after:.0f} s" if answer.retry_after else " later"
            return Failure(f"{sentence}; try again{later}, and see 'pubd status'", TRY_LATER)
        return Failure(f"{sentence} ({answer.problem['field']})" if "field" in answer.problem else sentence, REFUSED)


def _with(path: str, query: dict[str, str | None]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path


def daemon_options(command: _Command) -> _Command:
    """Adds the options of :func:`daemon`."""
    timeout = click.option(
        "--timeout", type=Duration(), default="30s", show_default=True, help="How long one answer may take."
    )
    return server_options(timeout(command))


@contextmanager
def daemon(options: dict[str, Any]) -> Iterator[Daemon]:
    """The daemon of these options, which are taken out of ``options``; strange answers are a Failure."""
    timeout = options.pop("timeout")
    with connect(**{name: options.pop(name) for name in _SERVER}) as client:
        try:
            yield Daemon(client, timeout=timeout)
        except KeyboardInterrupt:
            raise Failure("interrupted", INTERRUPTED) from None
        except (KeyError, TypeError, AttributeError, ValueError, IndexError):
            # Whatever it is that answers, it is not this version's pubd.
            raise Failure(
                f"{client.server} answers as no pubd of this version does; check --server, and 'pubd --version'",
                UNREACHABLE,
            ) from None


def path_of(id: str) -> str:
    """The path of a message."""
    return f"/messages/{quote(id, safe='', errors='surrogateescape')}"
