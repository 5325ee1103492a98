"""/openapi.json: it is valid, and it describes what there is, no more and no less."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pubd.access import LOCAL
from pubd.config import Config, SpoolConfig
from pubd.intake.http.foreign import foreign_routes
from pubd.intake.http.openapi import OpenApi, document
from pubd.intake.http.openapi_operations import described, operation
from pubd.intake.http.reloading import reload_routes
from pubd.intake.http.request import Request
from pubd.intake.http.route import Action, Route, Routes
from pubd.intake.http.status import SpoolFacts, status_routes
from pubd.intake.http.waits import Waits
from pubd.intake.problem import TYPES, problem
from pubd.intake.wire import KEYS
from pubd.operating import Operating
from pubd.reload import Reload
from pubd.spool.base import Limits
from tests.web import Bench


def routes() -> list[Route]:
    """All that the intake has with everything that can be given to it."""
    bench, clock = Bench(), Clock()
    others = foreign_routes(door=bench.door, clock=clock, vhosts={"/"})
    operating = Operating(
        clock=clock, publisher=bench.rig.publisher, spool=SpoolConfig(url="memory:", path=None), intakes=()
    )
    waits = Waits(clock=clock, most=1.0)
    status = status_routes(
        publisher=bench.rig.publisher,
        spool=lambda: SpoolFacts(path=None, limits=Limits(), retain=1.0),
        ways=lambda: (),
        look=operating.look,
        clock=clock,
        wall=clock.seconds,
    )
    reload = Reload(Config.parse("", {}), where="", load=lambda: Config.parse("", {}), parts=(), in_thread=succeed_with)
    return list(
        Routes(
            (
                *reload_routes(reload.reload),
                *operating.routes(),
                *status(waits),
                *bench.site.routes,
                *others(waits),
            )
        )
    )


def succeed_with(read: Callable[[], Config]) -> Deferred[Config]:
    return succeed(read())


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(document(routes())))
    return found


def test_it_is_openapi(api: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(api).validate()
    assert api["openapi"] == "3.1.0"


def test_every_route_is_described_and_nothing_else() -> None:
    assert {(route.path, method) for route in routes() for method in route.actions} == described()


def test_a_route_that_is_not_described_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        document([Route(path="/new", actions={"GET": Action(act=lambda _: None)})])  # type: ignore[arg-type]  # never called


def test_media_types_and_bodies_are_those_of_the_routes() -> None:
    for route in routes():
        for method, action in route.actions.items():
            body = operation(route.path, method).body
            if action.media == ():
                assert body is None
            elif action.media is not None:
                assert tuple(body or ()) == action.media
            else:
                assert body


def test_who_may_is_that_of_the_routes(api: dict[str, Any]) -> None:
    for route in routes():
        for method, action in route.actions.items():
            told = api["paths"][route.path.replace("*}", "}")][method.lower()]
            assert bool(told["security"]) is not action.everybody
            assert ("401" in told["responses"]) is not action.everybody


def test_the_keys_of_a_message_are_those_of_the_codec(api: dict[str, Any]) -> None:
    assert set(api["components"]["schemas"]["Message"]["properties"]) == KEYS


def test_each_problem_is_as_described(api: dict[str, Any]) -> None:
    schema = api["components"]["schemas"]["Problem"]
    for type_, (status, _) in TYPES.items():
        found = problem(type_, "a sentence", field="f", id="i")
        OAS31Validator(schema).validate(found.as_json())
        assert f"Problem{status}" in api["components"]["responses"]


def test_all_schemas_are_schemas_and_their_examples_are_examples(api: dict[str, Any]) -> None:
    for schema in api["components"]["schemas"].values():
        OAS31Validator.check_schema(schema)
        for example in schema.get("examples", []):
            OAS31Validator({**schema, "components": api["components"]}).validate(example)


def test_it_is_made_once() -> None:
    asked: list[int] = []

    def given() -> list[Route]:
        asked.append(1)
        return routes()

    serving = OpenApi(given)
    request = Request("GET", "/openapi.json", "", {}, b"HTTP/1.1")
    request.principal = LOCAL
    assert serving.get(request) is serving.get(request)
    assert asked == [1]
