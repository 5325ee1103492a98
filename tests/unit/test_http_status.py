"""GET /status: everything in it is as /openapi.json says, whatever state pubd is in; and nothing secret is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS31Validator
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed

from pubd.access import LOCAL
from pubd.amqp.broker import Target
from pubd.amqp.topology import Exchange, Topology
from pubd.amqp.url import BrokerUrl
from pubd.config import SpoolConfig
from pubd.errors import SpoolError
from pubd.findings import findings
from pubd.grouping import groups
from pubd.intake.http.openapi_schemas import SCHEMAS
from pubd.intake.http.request import Request
from pubd.intake.http.status import Look, SpoolFacts, Status, WayIn, address_text, status_routes
from pubd.intake.http.waits import Waits
from pubd.operating import Operating
from pubd.options import Options
from pubd.spool.base import Limits
from pubd.spool.groups import Parked
from pubd.spool.memory import MemorySpool
from tests.network import MemoryNetwork
from tests.peer import Broker
from tests.rig import Rig


def status_of(rig: Rig, path: Path | None = None) -> Status:
    facts = SpoolFacts(path=path, limits=Limits(max_bytes=1000, max_rows=5), retain=60.0)
    spool = SpoolConfig(url="memory:", path=path, limits=facts.limits)
    operating = Operating(clock=rig.network, publisher=rig.publisher, spool=spool, intakes=(), wall=rig.network.seconds)
    return Status(
        publisher=rig.publisher,
        spool=lambda: facts,
        ways=lambda: [WayIn(name="http", listens=["unix:/s"], connections=2), WayIn(name="schedule")],
        look=operating.look,
        clock=rig.network,
        wall=rig.network.seconds,
    )


def asked(status: Status, rig: Rig | None = None, seconds: float = 0.0) -> Any:
    request = Request("GET", "/status", "", {}, b"HTTP/1.1")
    request.principal = LOCAL
    answers: list[Any] = []
    Deferred.fromCoroutine(status.get(request)).addCallback(answers.append)
    if rig is not None and seconds:
        assert answers == []
        rig.network.advance(seconds)
    (answer,) = answers
    assert answer.status == 200
    found = json.loads(answer.body)
    OAS31Validator({**SCHEMAS["Status"], "components": {"schemas": SCHEMAS}}).validate(found)
    return found


def test_a_pubd_that_is_well() -> None:
    broker = Broker(exchanges={"x": {"k"}}, users={"me": "s3cret"})
    rig = Rig(MemoryNetwork(broker), url="amqp://me:s3cret@localhost/%2F").start()
    status = status_of(rig)
    rig.send("a", "b")
    rig.network.advance(5.0)
    found = asked(status)
    assert found["accepting"]
    assert (found["troubles"], found["refusal"], found["oldest"]) == ([], None, None)
    assert found["pid"] == os.getpid()
    assert found["uptime"] == 5.0
    assert found["link"]["state"] == "ready"
    assert "s3cret" not in json.dumps(found)
    assert (found["books"]["accepted"], found["books"]["confirmed"], found["books"]["difference"]) == (2, 2, 0)
    assert found["deliveries"]["acked"] == 2
    assert found["lanes"] == [
        {"exchange": "x", "state": "open", "reason": None, "in_flight": 0, "bytes": 0, "suspects": 0, "paused": False}
    ]
    assert found["spool"] == {
        **{"path": None, "answers": True, "max_bytes": 1000, "max_messages": 5, "min_free": None},
        **{"free": None, "retain": 60.0},
    }
    assert found["intakes"] == [
        {"name": "http", "listens": ["unix:/s"], "connections": 2},
        {"name": "schedule", "listens": [], "connections": None},
    ]
    rig.stop()


def test_an_exchange_that_is_refused_is_told_with_rabbitmqs_words() -> None:
    rig = Rig(drain_timeout=0.0).start()
    rig.send("a", exchange="missing")
    rig.network.advance(0.1)
    found = asked(status_of(rig))
    (trouble,) = found["troubles"]
    assert (trouble["type"], trouble["exchange"]) == ("exchange-refused", "missing")
    (lane,) = found["lanes"]
    assert (lane["state"], lane["reason"]["code"]) == ("refused", 404)
    assert found["oldest"] is not None
    rig.stop()


def test_what_is_parked_is_told_by_exchange_and_reason() -> None:
    rig = Rig(drain_timeout=0.0).start()
    status = status_of(rig)
    assert asked(status)["parked"] == {"groups": [], "others": 0, "seen": 0}
    rig.send("a", "b", key="nobody")
    rig.network.advance(0.1)
    parked = asked(status)["parked"]
    (group,) = parked["groups"]
    assert (parked["others"], parked["seen"], group["count"]) == (0, 2, 2)
    assert (group["exchange"], group["reason"]) == ("x", {"cause": "returned", "code": 312, "text": "NO_ROUTE"})
    assert group["oldest"] <= asked(status)["time"]
    (told,) = groups(asked(status))
    assert (told["reason"], told["held"], told["id"]) == ("returned: 312 NO_ROUTE", False, group["id"])
    rig.stop()


def test_a_declaration_that_is_refused() -> None:
    rig = Rig(topology=Topology(exchanges=(Exchange(name="no", passive=True),)), drain_timeout=0.0).start()
    found = asked(status_of(rig))
    (refused,) = found["refused"]
    assert "no" in refused["declaration"]
    assert refused["reason"]["code"] == 404
    assert "declaration-refused" in [trouble["type"] for trouble in found["troubles"]]
    rig.stop()


def test_a_broker_that_is_away_and_a_publisher_that_stops() -> None:
    rig = Rig(drain_timeout=0.0)
    status = status_of(rig)
    found = asked(status)
    assert not found["accepting"]
    assert "not started" in found["refusal"]
    rig.start()
    rig.peer.drop()
    rig.network.advance(0.1)
    found = asked(status)
    assert found["link"]["state"] != "ready"
    assert found["accepting"]
    assert [trouble["type"].partition("-")[0] for trouble in found["troubles"]] == ["link"]
    rig.stop()
    assert not asked(status)["accepting"]


def test_a_move_to_a_broker_that_refuses_us() -> None:
    broker = Broker(exchanges={"x": {"k"}}, users={"me": "s3cret"})
    rig = Rig(MemoryNetwork(broker), url="amqp://me:s3cret@localhost/%2F").start()
    status = status_of(rig)
    assert asked(status)["moving"] is None
    wrong = BrokerUrl.parse("amqp://me:wr0ng@localhost/%2F")
    rig.publisher.reconfigure(Options(), target=Target(urls=(wrong,), connection_name="pubd"))
    rig.network.advance(5)
    found = asked(status)
    assert found["link"]["state"] == "ready"
    assert (found["moving"]["url"], found["moving"]["reason"]["code"]) == ("amqp://me:***@localhost:5672/%2F", 403)
    assert [trouble["type"] for trouble in found["troubles"]] == ["moving"]
    (finding,) = findings(found)
    assert finding.bad
    assert "publishing still goes over the former connection" in finding.text
    assert "403 ACCESS_REFUSED" in finding.text
    assert "'pubd reload'" in finding.advice
    assert "wr0ng" not in json.dumps(found)
    rig.stop()


class _Hung(MemorySpool):
    """A spool whose thread says nothing any more, or that it cannot."""

    broken = False

    def oldest(self) -> Deferred[float | None]:
        return self._nothing()

    def parked(self, limit: int, most: int) -> Deferred[Parked]:  # noqa: ARG002  # nothing is looked at
        return self._nothing()

    def _nothing(self) -> Deferred[Any]:
        found: Deferred[Any] = Deferred(lambda _: None)
        if self.broken:
            found.errback(SpoolError("disk I/O error"))
        return found


def test_a_spool_that_does_not_answer_is_told_in_time() -> None:
    spool = _Hung()
    rig = Rig(spool=spool).start()
    rig.send("a", key="nobody")
    status = status_of(rig)
    found = asked(status, rig, seconds=2.0)
    assert (found["accepting"], found["spool"]["answers"]) == (False, False)
    assert found["troubles"][0]["type"] == "spool-failed"
    assert (found["books"]["parked"], found["parked"]) == (1, None)
    assert groups(found) == []
    spool.broken = True
    found = asked(status)
    assert (found["spool"]["answers"], found["parked"]) == (False, None)
    rig.stop()


def test_the_disk_is_asked_for_what_is_free(tmp_path: Path) -> None:
    rig = Rig().start()
    found = asked(status_of(rig, tmp_path / "pubd.db"))["spool"]
    assert found["path"] == f"{tmp_path}/pubd.db"
    assert found["free"] > 0
    assert asked(status_of(rig, tmp_path / "gone" / "pubd.db"))["spool"]["free"] is None
    rig.stop()


def test_it_is_for_operators() -> None:
    rig = Rig()
    routes = status_routes(
        publisher=rig.publisher,
        spool=lambda: SpoolFacts(path=None, limits=Limits(), retain=1.0),
        ways=lambda: (),
        look=lambda: succeed(Look(answers=True)),
        clock=rig.network,
        wall=rig.network.seconds,
    )
    (route,) = routes(Waits(clock=rig.network, most=1.0))
    assert route.path == "/status"
    assert route.actions["GET"].operate


def test_addresses() -> None:
    assert address_text(IPv4Address("TCP", "127.0.0.1", 80)) == "tcp:127.0.0.1:80"
    assert address_text(IPv6Address("TCP", "::1", 80)) == "tcp:[::1]:80"
    assert address_text(UNIXAddress(b"/run/s")) == "unix:/run/s"
