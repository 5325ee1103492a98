"""Answer: what goes back to the client, and Refusal, which carries one out of any depth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from pubd.errors import PubdError
from pubd.intake.problem import problem, problem_of

if TYPE_CHECKING:
    from pubd.intake.http.outflow import Outflow
    from pubd.intake.problem import Problem

JSON = b"application/json"
PROBLEM = b"application/problem+json"

_Headers = tuple[tuple[bytes, bytes], ...]


@attrs.frozen
class Answer:
    """``headers`` are those beside Content-Type (None: there is none), Content-Length, Connection, Date and Server.

    ``close`` ends the connection. ``outflow`` gives a body of unknown length in place of ``body``; without ``headers``.
    """

    status: int
    body: bytes = b""
    content_type: bytes | None = JSON
    headers: _Headers = ()
    close: bool = False
    outflow: Outflow | None = None


class Refusal(PubdError):
    """The request is not what the API takes; ``headers`` go with the answer. ``close``: the rest is not to be read."""

    def __init__(
        self,
        type: str,
        detail: str,
        *,
        field: str | None = None,
        headers: _Headers = (),
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.problem = problem(type, detail, field=field)
        self.headers = headers
        self.close = close


class Shown(PubdError):
    """An error for which the answer is made already, in another form than that of the API."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("see the answer")
        self.answer = answer


def as_json(value: Any) -> bytes:
    """Compact JSON, all ASCII."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def json_answer(value: Any, status: int = 200, *, headers: _Headers = ()) -> Answer:
    """``value`` as application/json."""
    return Answer(status, as_json(value) + b"\n", JSON, headers)


def problem_answer(found: Problem, *, headers: _Headers = (), close: bool = False) -> Answer:
    """``found`` as application/problem+json, with Retry-After and WWW-Authenticate where they belong."""
    if found.retry_after is not None:
        headers = (*headers, (b"Retry-After", b"%d" % found.retry_after))
    if found.status == 401:
        headers = (*headers, (b"WWW-Authenticate", b'Bearer realm="pubd"'))
    return Answer(found.status, as_json(found.as_json()) + b"\n", PROBLEM, headers, close)


def error_answer(error: PubdError) -> Answer:
    """The answer to any error of pubd's."""
    if isinstance(error, Shown):
        return error.answer
    if isinstance(error, Refusal):
        return problem_answer(error.problem, headers=error.headers, close=error.close)
    return problem_answer(problem_of(error))


def result_of(error: PubdError) -> dict[str, Any]:
    """The error as one result of a batch."""
    return (error.problem if isinstance(error, Refusal) else problem_of(error)).as_line()
