"""``/openapi.json``: made from the routes themselves, so that nothing can be in one and not in the other.

Paths, methods, who may, media types and whether there is a body are the routes'; words, parameters and schemas are
those of :mod:`pubd.intake.http.openapi_operations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd._version import __version__
from pubd.intake.http.answer import Answer, as_json
from pubd.intake.http.openapi_operations import operation
from pubd.intake.http.openapi_schemas import SCHEMAS, ref
from pubd.intake.http.route import Action, Route
from pubd.intake.problem import TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pubd.intake.http.openapi_operations import Operation
    from pubd.intake.http.request import Request

#: What any request may be answered with, one that somebody has to be known for, and one with a body.
_ANY, _KNOWN, _WITH_BODY = (400, 405, 408, 413, 417, 500, 503), (401, 403), (415,)
_PROBLEM = "application/problem+json"


class OpenApi:
    """Serves the document for ``routes``, which are asked for when it is wanted first."""

    def __init__(self, routes: Callable[[], Iterable[Route]]) -> None:
        self._routes = routes
        self._answer: Answer | None = None

    def get(self, request: Request) -> Answer:
        """The document."""
        request.arguments(())
        if self._answer is None:
            self._answer = Answer(200, as_json(document(self._routes())))
        return self._answer


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes. KeyError: one of them is not described, which is a mistake."""
    paths: dict[str, Any] = {}
    for route in routes:
        if not route.api:
            continue
        paths[route.path.replace("*}", "}")] = {
            method.lower(): _operation(action, operation(route.path, method))
            for method, action in sorted(route.actions.items())
        }
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "pubd",
            "version": __version__,
            "summary": "Publishes to RabbitMQ and answers for every message.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "responses": {f"Problem{status}": _problem(status) for status in _statuses()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "As pubd token new has made it."},
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The token as password, with any name: for clients that know nothing else.",
                },
            },
        },
    }


def _operation(action: Action, described: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": described.id, "summary": described.summary}
    if described.description:
        found["description"] = described.description
    # Without a token it is the connection that says who it is: loopback, a unix socket's peer, a certificate.
    found["security"] = [] if action.everybody else [{"token": []}, {"password": []}, {}]
    if described.parameters:
        found["parameters"] = list(described.parameters)
    if described.body is not None:
        found["requestBody"] = {
            "required": described.body_needed,
            "content": {media: {"schema": schema} for media, schema in described.body.items()},
        }
    found["responses"] = _responses(action, described)
    return found


def _responses(action: Action, described: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): {"description": sentence, "content": {described.media: {"schema": schema}}}
        for status, (sentence, schema) in described.answers.items()
    }
    if 202 in described.answers:
        responses["202"]["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
            for name in ("show", "discard", "retry", "hold", "release")
        }
    if described.body is not None and "application/x-ndjson" in described.body:
        lines = {"schema": {"type": "string", "description": "One Result in each line, in order."}}
        responses["200"]["content"]["application/x-ndjson"] = lines
    statuses = {*_ANY, *described.problems}
    if not action.everybody:
        statuses.update(_KNOWN)
    if action.media != ():
        statuses.update(_WITH_BODY)
    if described.error is not None:
        statuses.update((404, 504))
    for status in statuses:
        if status in described.answers:
            responses[str(status)]["content"][_PROBLEM] = {"schema": ref("Problem")}
        elif described.error is None:
            responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
        else:
            responses[str(status)] = _either(status, described.error)
    return dict(sorted(responses.items()))


def _statuses() -> list[int]:
    return sorted({status for status, _ in TYPES.values()})


def _problem(status: int) -> dict[str, Any]:
    titles = [f"{title} ({type_})." for type_, (of_type, title) in TYPES.items() if of_type == status]
    found: dict[str, Any] = {"description": " ".join(titles), "content": {_PROBLEM: {"schema": ref("Problem")}}}
    if status in (429, 503, 507):
        found["headers"] = {
            "Retry-After": {
                "description": "Seconds after which to come back.",
                "schema": {"type": "integer", "minimum": 0},
            }
        }
    if status == 401:
        found["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
    if status == 405:
        found["headers"] = {"Allow": {"required": True, "schema": {"type": "string"}}}
    return found


def _either(status: int, error: dict[str, Any]) -> dict[str, Any]:
    """As the plugin says it, or as a problem, where that is found before it is known what is asked for."""
    described = "RabbitMQ has not answered in time; pubd keeps the message." if status == 504 else None
    return {
        "description": described or _problem(status)["description"],
        "content": {"application/json": {"schema": error}, _PROBLEM: {"schema": ref("Problem")}},
    }
