"""Decisions over HTTP: one message or many at once, each id answered for in order, and who it was in the record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail

from pubd.access import Access
from pubd.errors import SpoolError
from pubd.intake.http.listing import MOST
from pubd.spool.memory import MemorySpool
from tests.rig import Rig
from tests.strictness import Logged
from tests.web import GOOD, Bench, Got, answers, get, post, reading

#: Is known when it is confirmed, too.
KEYED = GOOD.replace(b"{", b'{"idempotency_key":"once",')
NOWHERE = GOOD.replace(b'"k"', b'"nowhere"')


@pytest.fixture
def bench() -> Bench:
    return Bench()


def one(bench: Bench, request: bytes) -> Got:
    (got,), _ = bench.ask(request)
    return got


def many(bench: Bench, verb: str, **asked: Any) -> Got:
    return one(bench, post(json.dumps(asked).encode(), path=f"/messages/{verb}"))


def submitted(bench: Bench, body: bytes = NOWHERE) -> str:
    id: str = one(bench, post(body)).json["id"]
    bench.rig.network.flush()
    return id


def state(bench: Bench, id: str) -> str:
    found: str = one(bench, get(f"/messages/{id}")).json["state"]
    return found


def test_retry_many(bench: Bench) -> None:
    parked = [submitted(bench) for _ in range(3)]
    confirmed, unknown = submitted(bench, KEYED), "no such id"
    got = many(bench, "retry", ids=[*parked, confirmed, unknown, parked[0]])
    assert got.status == 200
    *done, settled, missing = got.json
    assert done == [{"id": id, "state": "ready"} for id in parked], "once each"
    assert settled["error"]["type"] == "wrong-state"
    assert (missing["error"]["type"], missing["error"]["id"]) == ("not-found", unknown)
    before = len(bench.rig.broker.published)
    bench.rig.network.flush()
    assert len(bench.rig.broker.published) == before + 3


def test_what_is_ready_stays_so(bench: Bench) -> None:
    id = submitted(bench, GOOD.replace(b'"x"', b'"missing"'))
    assert many(bench, "retry", ids=[id]).json == [{"id": id, "state": "ready"}]


def test_discard_many(bench: Bench) -> None:
    parked, confirmed = submitted(bench), submitted(bench, KEYED)
    got = many(bench, "discard", ids=[parked, confirmed, "?"], reason="not wanted")
    done, settled, missing = got.json
    assert done == {"id": parked, "state": "discarded"}
    assert settled["error"]["type"] == "wrong-state"
    assert missing["error"]["type"] == "not-found"
    record = one(bench, get(f"/messages/{parked}")).json
    assert (record["state"], record["reason"]["text"]) == ("discarded", "not wanted")
    # Again: it is as it was asked for.
    assert many(bench, "discard", ids=[parked]).json == [done]


def test_who_decided_what_is_in_the_log(bench: Bench, logged: Logged) -> None:
    parked = [submitted(bench) for _ in range(4)]
    many(bench, "retry", ids=[*parked, "unknown"])
    bench.rig.network.flush()
    many(bench, "discard", ids=[*parked[:2], "unknown"], reason="not\nwanted")
    many(bench, "discard", ids=["unknown"])
    one(bench, post(b"", path=f"/messages/{parked[2]}/retry", headers=""))
    bench.rig.network.flush()
    one(bench, get(f"/messages/{parked[2]}?reason=old", method="DELETE"))
    assert [text for text in logged.texts if text.startswith("local ")] == [
        "local retried 4 message(s)",
        "local discarded 2 message(s): 'not\\nwanted'",
        "local retried 1 message(s)",
        "local discarded 1 message(s): 'old'",
    ]


# Hold and release


def waiting(bench: Bench) -> str:
    """A message whose exchange is not there: ready, and not on its way."""
    return submitted(bench, GOOD.replace(b'"x"', b'"missing"'))


def decided(bench: Bench, id: str) -> list[tuple[str, str, str]]:
    return [(each["verb"], each["who"], each["text"]) for each in one(bench, get(f"/messages/{id}")).json["decisions"]]


def act(bench: Bench, id: str, verb: str, query: str = "") -> Got:
    return one(bench, post(b"", path=f"/messages/{id}/{verb}{query}", headers=""))


def test_one_message_is_held_and_released(bench: Bench) -> None:
    id = waiting(bench)
    got = act(bench, id, "hold", "?reason=wait")
    assert (got.status, got.json) == (200, {"id": id, "state": "parked"})
    record = one(bench, get(f"/messages/{id}")).json
    assert record["reason"] == {"cause": "held by an operator", "code": None, "text": "wait"}
    assert act(bench, id, "hold").json["state"] == "parked", "it was so already"
    assert act(bench, id, "retry").json["type"] == "wrong-state"
    assert act(bench, id, "release").json == {"id": id, "state": "ready"}
    assert act(bench, id, "release").json == {"id": id, "state": "ready"}
    assert decided(bench, id) == [("hold", "local", "wait"), ("release", "local", "")]


def test_what_cannot_be_held_or_released_says_why(bench: Bench) -> None:
    parked, confirmed = submitted(bench), submitted(bench, KEYED)
    for verb, id, says in (
        ("hold", parked, "waits for a person already"),
        ("release", parked, "nobody holds it: retry it"),
        ("hold", confirmed, "there is nothing to hold"),
        ("release", confirmed, "there is nothing to release"),
    ):
        got = act(bench, id, verb)
        assert (got.status, got.json["type"]) == (409, "wrong-state")
        assert says in got.json["detail"]
        assert says in many(bench, verb, ids=[id]).json[0]["error"]["detail"]
    assert act(bench, "unknown", "hold").status == 404
    assert decided(bench, parked) == []


def test_many_are_held_and_released(bench: Bench, logged: Logged) -> None:
    ids = [waiting(bench) for _ in range(3)]
    got = many(bench, "hold", ids=[*ids, "unknown"], reason="recount")
    assert got.json[:3] == [{"id": id, "state": "parked"} for id in ids]
    assert got.json[3]["error"]["type"] == "not-found"
    assert many(bench, "hold", ids=ids[:1]).json == [{"id": ids[0], "state": "parked"}]
    released = many(bench, "release", ids=ids)
    assert released.json == [{"id": id, "state": "ready"} for id in ids]
    assert [text for text in logged.texts if text.startswith("local ")] == [
        "local held 3 message(s): 'recount'",
        "local released 3 message(s)",
    ]
    many(bench, "hold", ids=ids)
    discarded = many(bench, "discard", ids=ids)
    assert [each["state"] for each in discarded.json] == ["discarded"] * 3
    assert [verb for verb, _, _ in decided(bench, ids[0])] == ["hold", "release", "hold", "discard"]


def test_what_is_released_with_a_delay_still_to_come_is_deferred(bench: Bench) -> None:
    id = submitted(bench, GOOD.replace(b"{", b'{"delay":"1h",'))
    assert many(bench, "hold", ids=[id]).json[0]["state"] == "parked"
    assert many(bench, "release", ids=[id]).json == [{"id": id, "state": "deferred"}]
    act(bench, id, "hold")
    assert act(bench, id, "release").json == {"id": id, "state": "deferred"}


def test_whoever_waits_for_a_message_that_is_held_is_told(bench: Bench) -> None:
    channel, wire = bench.connect()
    channel.dataReceived(post(GOOD.replace(b'"x"', b'"missing"'), path="/messages?wait=confirmed&timeout=5s"))
    bench.rig.network.flush()
    (held,) = one(bench, get("/messages")).json["messages"]
    act(bench, held["id"], "hold")
    (got,), _ = answers(wire.value())
    assert (got.status, got.json["type"], got.json["id"]) == (422, "parked", held["id"])
    assert "held by an operator" in got.json["detail"]


def test_a_retry_and_a_discard_are_in_the_record(bench: Bench) -> None:
    id = submitted(bench)
    act(bench, id, "retry")
    bench.rig.network.flush()
    one(bench, get(f"/messages/{id}?reason=old", method="DELETE"))
    assert decided(bench, id) == [("retry", "local", ""), ("discard", "local", "old")]


def test_without_a_reason_it_is_who(bench: Bench) -> None:
    parked = submitted(bench)
    many(bench, "discard", ids=[parked])
    assert one(bench, get(f"/messages/{parked}")).json["reason"]["text"] == "by local"


def test_what_is_on_its_way_is_not_discarded() -> None:
    rig = Rig().start()
    rig.broker.on_publish = lambda *_: True
    bench = Bench(rig=rig)
    id = submitted(bench, GOOD)
    (answer,) = many(bench, "discard", ids=[id]).json
    assert "on its way" in answer["error"]["detail"]
    assert state(bench, id) == "ready"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b"{}", "ids"),
        (b'{"ids": []}', "ids"),
        (b'{"ids": "a"}', "ids"),
        (b'{"ids": [1]}', "ids"),
        (json.dumps({"ids": ["a"] * (MOST + 1)}).encode(), "ids"),
        (b'{"ids": ["a"], "state": "parked"}', "state"),
        (b'{"ids": ["a"], "reason": 5}', "reason"),
        (json.dumps({"ids": ["a"], "reason": "x" * 1001}).encode(), "reason"),
    ],
)
def test_what_cannot_be_read_is_named(bench: Bench, body: bytes, field: str) -> None:
    parked = submitted(bench)
    got = one(bench, post(body, path="/messages/discard"))
    assert (got.status, got.json["type"], got.json["field"]) == (400, "malformed", field)
    assert state(bench, parked) == "parked"


def test_a_retry_has_no_reason(bench: Bench) -> None:
    assert many(bench, "retry", ids=["a"], reason="x").json["field"] == "reason"


class _Failing(MemorySpool):
    """Whose disk has gone."""

    def record(self, id: str) -> Deferred[Any]:
        del id
        return fail(SpoolError("disk I/O error"))


def test_a_spool_that_fails_is_told() -> None:
    bench = Bench(rig=Rig(spool=_Failing()).start())
    for verb in ("retry", "hold", "release", "discard"):
        got = many(bench, verb, ids=["a", "b"])
        assert (got.status, got.json["type"]) == (503, "spool-failed")


def test_they_are_for_operators() -> None:
    bench = Bench(access=Access(anonymous=reading()))
    for verb in ("retry", "hold", "release", "discard"):
        assert many(bench, verb, ids=["a"]).status == 403
        assert act(bench, "a", verb).status in (403, 404)


def test_properties_without_the_body(bench: Bench) -> None:
    id = submitted(bench)
    message = one(bench, get(f"/messages/{id}?properties=true")).json["message"]
    assert message["exchange"] == "x"
    assert message.get("body", "") == ""
    assert one(bench, get(f"/messages/{id}?body=true")).json["message"]["body"] == "hi"
    assert "message" not in one(bench, get(f"/messages/{id}")).json
    assert one(bench, get(f"/messages/{id}?properties=yes")).status == 400
