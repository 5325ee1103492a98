"""Health: able to accept and able to publish are two things, each with its reasons and since when."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pubd.amqp.topology import Exchange, Queue, Topology
from pubd.errors import PubdError
from pubd.message import Message
from pubd.operate.health import CALM, PATIENCE
from pubd.operating import MOST
from pubd.spool import faults
from pubd.spool.base import Limits
from pubd.spool.memory import MemorySpool
from tests.network import MemoryNetwork
from tests.operating import ROOT, Shown
from tests.peer import Broker
from tests.rig import Rig
from tests.slow_spool import SlowSpool
from tests.strictness import Logged


@pytest.fixture
def shown() -> Iterator[Shown]:
    shown = Shown(Rig()).start()
    yield shown
    shown.stop()
    shown.rig.stop()


def since(shown: Shown, path: str) -> float:
    """Seconds between the beginning of the first trouble and now."""
    moment = datetime.fromisoformat(shown.json(path)["reasons"][0]["since"]).timestamp()
    return shown.rig.network.seconds() - moment


# Livez


def test_livez_is_the_process_and_nothing_else(shown: Shown) -> None:
    assert (shown.ask("/livez").status, shown.json("/livez")) == (200, {"status": "ok"})


# Readyz: can accept


def test_ready_is_that_messages_are_accepted(shown: Shown) -> None:
    assert shown.reasons("/readyz") == ["stopping"]
    shown.rig.start()
    assert (shown.ask("/readyz").status, shown.json("/readyz")) == (200, {"status": "ok", "reasons": []})
    shown.rig.publisher.stopService()
    assert shown.reasons("/readyz") == ["stopping"]


def test_without_rabbitmq_it_is_ready_and_cannot_publish(shown: Shown) -> None:
    shown.rig.network.down = True
    shown.rig.start()
    shown.rig.network.advance(10)
    assert shown.ask("/readyz").status == 200
    assert shown.ask("/publishz").status == 503


def test_while_the_spool_is_opened_it_is_not_ready() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    spool = SlowSpool(network, opening=5.0)
    rig = Rig(network, spool=spool)
    shown = Shown(rig)
    rig.publisher.startService()
    assert shown.reasons("/readyz", seconds=0.1) == ["starting"]
    network.advance(6)
    assert shown.ask("/readyz", seconds=0.1).status == 200
    rig.stop()


@pytest.mark.parametrize(("limits", "named"), [({"max_rows": 2}, "max_rows"), ({"max_bytes": 600}, "max_bytes")])
def test_a_full_spool_is_not_ready_and_names_the_limit(limits: dict[str, int], named: str) -> None:
    rig = Rig()
    rig.network.down = True
    shown = Shown(rig, limits=Limits(**limits))
    rig.start()
    rig.send("a", "b")
    answer = shown.ask("/readyz")
    assert answer.status == 503
    assert (b"Retry-After", b"5") in answer.headers
    (reason,) = shown.json("/readyz")["reasons"]
    assert reason["type"] == "spool-full"
    assert f"({named})" in reason["detail"]
    rig.stop()


@pytest.mark.parametrize(
    ("refusal", "type"),
    [(faults.full(Path("/d/spool.db")), "spool-full"), (faults.nameless(Path("/d/s"), Path("/d/s")), "spool-failed")],
)
def test_what_the_store_itself_refuses_is_not_ready(refusal: PubdError, type: str, logged: Logged) -> None:
    spool = MemorySpool()
    rig = Rig(spool=spool).start()
    # Without any limit of pubd's own: a quota, or min_free = 0.
    shown = Shown(rig, limits=Limits(min_free=0)).start()
    spool.refusal = refusal
    rig.network.advance(100)
    (reason,) = shown.json("/readyz")["reasons"]
    assert (reason["type"], reason["detail"]) == (type, str(refusal))
    assert 99 <= since(shown, "/readyz") <= 100
    assert shown.values()("pubd_can_accept") == 0
    # A submission is tried all the same: a small one may find room.
    assert rig.send("1")[0].confirmed
    spool.refusal = None
    rig.network.advance(CALM + 1)
    assert shown.ask("/readyz").status == 200
    said = [text for text in logged.texts if "submissions are" in text]
    if type == "spool-full":
        assert said == [
            f"submissions are refused: {refusal}",
            "submissions are accepted again; the spool was full for 100 s",
        ]
    shown.stop()
    rig.stop()


def test_a_full_disk_is_not_ready(tmp_path: Path) -> None:
    rig = Rig().start()
    shown = Shown(rig, path=tmp_path / "spool.db", limits=Limits(min_free=1 << 60))
    assert shown.reasons("/readyz") == ["spool-full"]
    gone = Shown(rig, path=tmp_path / "gone" / "spool.db", limits=Limits(min_free=1))
    assert gone.reasons("/readyz") == ["spool-failed"]
    rig.stop()


def test_a_spool_that_does_not_answer_is_not_ready() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    spool = SlowSpool(network)
    rig = Rig(network, spool=spool)
    shown = Shown(rig)
    rig.start()
    shown.start()
    spool.claiming = 3600.0
    shown.ask("/readyz", seconds=PATIENCE)
    # Somebody asks again after a while: it is the same trouble.
    network.advance(30)
    (reason,) = shown.json("/readyz", seconds=PATIENCE)["reasons"]
    assert reason["type"] == "spool-failed"
    assert "did not answer within 2 s" in reason["detail"]
    assert 29 <= network.seconds() - datetime.fromisoformat(reason["since"]).timestamp() <= 33
    spool.claiming = 0.0
    assert shown.ask("/readyz", seconds=0.1).status == 200
    network.advance(3600)
    shown.stop()
    rig.stop()


def test_a_full_spool_is_logged_once_and_so_is_its_end(logged: Logged) -> None:
    rig = Rig()
    rig.network.down = True
    shown = Shown(rig, limits=Limits(max_rows=1)).start()
    rig.start()
    rig.send("a")
    rig.network.advance(5)

    def lines() -> list[str]:
        return [text for text in logged.texts if text.startswith("submissions are")]

    assert len(lines()) == 1
    assert lines()[0].startswith("submissions are refused: the spool is full (max_rows)")
    rig.network.down = False
    # Full now and then is one trouble.
    for _ in range(20):
        rig.network.advance(5)
        rig.peer.hold()
        rig.send("b")
        rig.network.advance(2)
        rig.peer.release()
    assert len(lines()) == 1
    rig.network.advance(CALM + 5)
    assert len(lines()) == 2
    assert lines()[1].startswith("submissions are accepted again; the spool was full for ")
    shown.stop()
    rig.stop()


# Publishz: can publish


def test_it_can_publish_when_the_link_is_ready(shown: Shown) -> None:
    shown.rig.start()
    assert (shown.ask("/publishz").status, shown.json("/publishz")) == (200, {"status": "ok", "reasons": []})


def test_an_outage_has_one_beginning_whatever_is_tried_in_it(shown: Shown) -> None:
    shown.rig.network.down = True
    shown.rig.start()
    shown.rig.network.advance(60)
    (reason,) = shown.json("/publishz")["reasons"]
    assert reason["type"].startswith("link-")
    assert "amqp://guest:***@localhost" in reason["detail"]
    assert "refused" in reason["detail"]
    assert 59 <= since(shown, "/publishz") <= 61
    shown.rig.network.down = False
    shown.rig.network.advance(60)
    assert shown.ask("/publishz").status == 200
    shown.rig.network.down = True
    shown.rig.peer.drop()
    shown.rig.network.advance(10)
    assert since(shown, "/publishz") <= 11


def test_a_blocked_connection_is_told_in_the_words_of_rabbitmq(shown: Shown) -> None:
    shown.rig.start()
    shown.rig.peer.block("low on memory")
    shown.rig.network.advance(20)
    (reason,) = shown.json("/publishz")["reasons"]
    assert reason["type"] == "blocked"
    assert reason["detail"].endswith("low on memory")
    assert 19 <= since(shown, "/publishz") <= 21
    assert shown.values()("pubd_link_blocked") == 1
    assert shown.ask("/readyz").status == 200
    shown.rig.peer.unblock()
    shown.rig.network.flush()
    assert shown.ask("/publishz").status == 200


def test_a_refused_exchange_is_named_and_its_trouble_lasts_over_the_retries(shown: Shown) -> None:
    shown.rig.start()
    shown.rig.submit("a", exchange="missing")
    shown.rig.network.flush()
    for _ in range(60):
        shown.rig.network.advance(1)
    (reason,) = shown.json("/publishz")["reasons"]
    assert (reason["type"], reason["exchange"]) == ("exchange-refused", "missing")
    assert "NOT_FOUND - no exchange 'missing'" in reason["detail"]
    assert 58 <= since(shown, "/publishz") <= 62
    assert shown.values()("pubd_lanes", state="refused") == 1
    assert shown.values()("pubd_can_publish") == 0
    shown.rig.broker.exchanges["missing"] = {"k"}
    shown.rig.network.advance(400)
    assert shown.ask("/publishz").status == 200


def test_a_refused_declaration_is_a_reason() -> None:
    topology = Topology(exchanges=(Exchange(name="absent", passive=True),), queues=(Queue(name="q"),))
    shown = Shown(Rig(topology=topology))
    shown.rig.start()
    assert "declaration-refused" in shown.reasons("/publishz")
    assert shown.values()("pubd_refused_declarations") == 1
    shown.rig.stop()


def test_a_clock_that_was_set_back_gives_no_moment_to_come(shown: Shown) -> None:
    shown.rig.network.down = True
    shown.rig.start()
    shown.rig.network.advance(5)
    now = shown.rig.network.seconds()
    shown.operating.health._wall = lambda: now - 3600
    reason = shown.operating.health.publishing()[0]
    assert reason.since == now - 3600


def test_no_reason_repeats_a_payload_or_a_password(shown: Shown) -> None:
    shown.rig.network.down = True
    shown.rig.start()
    shown.rig.publisher.submit(Message(exchange="x", routing_key="k", body=b"s3cret-body"))
    shown.rig.network.advance(5)
    for path in ("/readyz", "/publishz", "/metrics"):
        body = shown.ask(path).body
        assert b"s3cret" not in body
        assert b"guest:guest" not in body


def test_hundreds_of_refused_exchanges_cost_little_and_fill_no_answer(shown: Shown) -> None:
    shown.rig.start()
    for number in range(300):
        shown.rig.submit(f"m{number}", exchange=f"missing-{number}")
    shown.rig.network.advance(5)
    reasons = shown.json("/publishz")["reasons"]
    assert len(reasons) == MOST + 1
    assert (reasons[-1]["type"], reasons[-1]["detail"]) == ("more", "200 further reasons are left out")


def test_the_documentation_has_every_reason() -> None:
    page = (ROOT / "docs/metrics.rst").read_text()
    described = set(re.findall(r"^   \* - ``([a-z-]+)``", page, re.MULTILINE))
    source = (ROOT / "pubd/operate/health.py").read_text()
    assert described == {each.split("{")[0] for each in re.findall(r'type=f?"([^"]*)"', source)}
