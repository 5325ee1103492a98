"""Pause, resume and flush: what is published meanwhile, what is seen of it, and what it is answered over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail

from pubd.access import Access
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.errors import SpoolError
from pubd.intake.http import pausing
from pubd.operate.sentence import sentence
from pubd.policy import OnReturn, Policy
from pubd.retry import Backoff
from pubd.spool.memory import MemorySpool
from tests.network import MemoryNetwork
from tests.operating import Shown
from tests.peer import Broker
from tests.rig import Rig
from tests.strictness import Logged
from tests.web import Bench, Got, get, post, reading

BACKS_OFF = Policy(max_attempts=100, on_return=OnReturn.RETRY, backoff=Backoff(first=1000.0, max=1000.0, jitter=0.0))


@pytest.fixture
def rig() -> Rig:
    return Rig(MemoryNetwork(Broker(exchanges={"x": {"k"}, "y": {"k"}}))).start()


def test_nothing_is_published_to_what_is_paused_and_everything_is_accepted(rig: Rig) -> None:
    rig.send("before")
    rig.publisher.pause("x", "upgrade", who="alice")
    rig.send("a", "b")
    rig.send("other", exchange="y")
    assert rig.arrived() == ["before", "other"]
    assert (rig.lane("x").paused, rig.lane("y").paused) == (True, False)
    assert rig.publisher.account().books.ready == 2
    rig.publisher.resume("x")
    rig.network.flush()
    assert rig.arrived() == ["before", "other", "a", "b"]
    assert not rig.lane("x").paused
    rig.stop()


def test_the_pause_of_all_and_those_of_single_exchanges_end_by_themselves(rig: Rig) -> None:
    rig.publisher.pause("x")
    rig.publisher.pause()
    rig.send("a")
    rig.send("b", exchange="y")
    assert rig.arrived() == []
    rig.publisher.resume()
    rig.network.flush()
    assert rig.arrived() == ["b"]
    assert [pause.exchange for pause in rig.publisher.pauses] == ["x"]
    rig.publisher.resume("x")
    rig.network.flush()
    assert rig.arrived() == ["b", "a"]
    rig.stop()


def test_what_is_in_flight_is_answered_and_what_was_claimed_goes_back_in_order() -> None:
    rig = Rig(window=2).start()
    rig.peer.hold()
    rig.send("a", "b", "c", "d")
    assert rig.arrived() == ["a", "b"]
    rig.publisher.pause()
    rig.peer.release()
    rig.network.flush()
    books = rig.publisher.account().books
    assert (books.confirmed, books.ready, books.in_flight) == (2, 2, 0)
    # A channel that is not needed is closed, and a lane that waits for the operator is kept.
    rig.network.advance(200.0)
    assert rig.lane().state is LaneState.IDLE
    rig.publisher.resume()
    rig.network.advance(1.0)
    assert rig.arrived() == ["a", "b", "c", "d"]
    rig.stop()


def test_a_paused_lane_is_paused_through_a_lost_connection(rig: Rig) -> None:
    rig.publisher.pause("x")
    rig.send("a")
    rig.peer.drop()
    rig.network.advance(60.0)
    assert rig.publisher.status().link is LinkState.READY
    assert rig.arrived() == []
    rig.publisher.resume("x")
    rig.network.flush()
    assert rig.arrived() == ["a"]
    rig.stop()


def test_a_stop_does_not_wait_for_what_is_paused(rig: Rig) -> None:
    rig.publisher.pause()
    rig.send("a")
    stopped = rig.publisher.stopService()
    rig.network.advance(1.0)
    assert stopped.called


def test_a_pause_is_known_after_the_next_start(rig: Rig, logged: Logged) -> None:
    rig.publisher.pause("x", "upgrade", who="alice")
    rig.stop()
    rig.start()
    rig.send("a")
    assert rig.arrived() == []
    assert "publishing to 'x' is paused by alice: upgrade; 'pubd resume' ends that" in logged.texts
    rig.publisher.resume("x")
    rig.network.flush()
    assert rig.arrived() == ["a"]
    rig.stop()


def test_it_shows_as_what_it_is(rig: Rig) -> None:
    shown = Shown(rig)
    since = rig.network.seconds()
    rig.publisher.pause("y", who="bob")
    rig.network.advance(100.0)
    rig.publisher.pause(None, "upgrade", who="alice")
    answer = shown.ask("/publishz")
    assert answer.status == 503
    first, second = json.loads(answer.body)["reasons"]
    assert (first["type"], first["exchange"], first["detail"]) == ("paused", "y", "publishing to it is paused by bob")
    assert first["since"] == f"1970-01-01T00:00:{since:06.3f}Z"
    assert (second["type"], second["detail"]) == ("paused", "publishing is paused by alice: upgrade")
    assert "exchange" not in second
    values = shown.values()
    assert (values("pubd_paused"), values("pubd_paused_exchanges"), values("pubd_can_publish")) == (1, 1, 0)
    now = rig.network.seconds() + 180
    text = sentence(rig.publisher.status(), rig.publisher.account(), pauses=rig.publisher.pauses, now=now)
    assert text.endswith("; publishing PAUSED by alice 3 min ago: upgrade; nothing waits")
    rig.publisher.resume()
    rig.publisher.pause("x")
    text = sentence(rig.publisher.status(), rig.publisher.account(), pauses=rig.publisher.pauses, now=now)
    assert "exchange 'y' and 1 more PAUSED by bob 4 min ago; " in text
    for exchange in "xy":
        rig.publisher.resume(exchange)
    assert shown.ask("/publishz").status == 200
    assert shown.values()("pubd_can_publish") == 1
    rig.stop()


# Flush


def test_a_flush_tries_what_backs_off_at_once() -> None:
    rig = Rig(policy=BACKS_OFF).start()
    rig.send("a", "b", key="nowhere")
    rig.send("later", delay=3600.0)
    assert rig.arrived() == ["a", "b"]
    assert rig.publisher.account().books.deferred == 3
    rig.broker.exchanges["x"].add("nowhere")
    counts: list[int] = []
    rig.publisher.flush(who="alice").addCallback(counts.append)
    rig.network.flush()
    assert counts == [2]
    assert rig.arrived() == ["a", "b", "a", "b"]
    assert (rig.publisher.account().books.confirmed, rig.publisher.account().books.deferred) == (2, 1)
    rig.publisher.flush().addCallback(counts.append)
    assert counts == [2, 0]
    rig.stop()


def test_what_fails_again_at_once_is_not_flushed_for_ever() -> None:
    rig = Rig(policy=BACKS_OFF).start()
    rig.send("a", key="nowhere")
    counts: list[int] = []
    rig.publisher.flush().addCallback(counts.append)
    rig.network.flush()
    assert counts == [1]
    assert rig.publisher.account().books.deferred == 1
    rig.stop()


def test_a_flush_tries_a_refused_exchange_at_once() -> None:
    rig = Rig().start()
    rig.send("a", exchange="missing", key="k")
    rig.network.advance(100.0)
    assert rig.lane("missing").state is LaneState.REFUSED
    rig.broker.exchanges["missing"] = {"k"}
    rig.publisher.flush()
    rig.network.flush()
    assert rig.arrived("missing") == ["a"]
    rig.stop()


def test_a_flush_connects_at_once() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    rig = Rig(network).start()
    rig.peer.drop()
    rig.network.advance(0.01)
    assert rig.publisher.status().link is LinkState.WAITING
    rig.publisher.flush()
    rig.network.flush()
    assert rig.publisher.status().link is LinkState.READY
    # Where nothing is waited for it changes nothing.
    rig.publisher.flush()
    rig.network.flush()
    assert rig.publisher.status().link is LinkState.READY
    rig.stop()


def test_a_flush_probes_what_may_heal() -> None:
    rig = Rig(policy=Policy(heal=True, heal_interval=1000.0)).start()
    rig.send("a", "b", key="nowhere")
    assert rig.publisher.account().books.parked == 2
    rig.broker.exchanges["x"].add("nowhere")
    rig.publisher.flush()
    rig.network.flush()
    assert rig.publisher.account().books.confirmed == 2
    rig.stop()


# HTTP


def asked(bench: Bench, path: str) -> Got:
    (got,), _ = bench.ask(post(b"", path=path, headers=""))
    return got


def test_pause_and_resume_over_http(logged: Logged) -> None:
    bench = Bench()
    got = asked(bench, "/pause?exchange=x&reason=upgrade")
    assert (got.status, got.json["changed"]) == (200, True)
    (pause,) = got.json["pauses"]
    assert (pause["exchange"], pause["who"], pause["text"]) == ("x", "local", "upgrade")
    again = asked(bench, "/pause?exchange=x")
    assert (again.json["changed"], again.json["pauses"]) == (False, [pause])
    assert [each["exchange"] for each in asked(bench, "/pause").json["pauses"]] == ["x", None]
    assert [each["exchange"] for each in asked(bench, "/pause?exchange=").json["pauses"]] == ["x", None, ""]
    assert asked(bench, "/resume?exchange=other").json["changed"] is False
    for query in ("", "?exchange=", "?exchange=x"):
        assert asked(bench, f"/resume{query}").json["changed"] is True
    assert bench.rig.publisher.pauses == ()
    assert [text for text in logged.texts if text.startswith("local ")] == [
        "local paused publishing to exchange 'x': 'upgrade'",
        "local paused publishing to all exchanges",
        "local paused publishing to exchange ''",
        "local resumed publishing to all exchanges",
        "local resumed publishing to exchange ''",
        "local resumed publishing to exchange 'x'",
    ]


def test_flush_over_http(logged: Logged) -> None:
    bench = Bench(rig=Rig(policy=BACKS_OFF).start())
    bench.rig.send("a", key="nowhere")
    got = asked(bench, "/flush")
    assert (got.status, got.json) == (200, {"messages": 1})
    assert "local flushed: everything is tried now, 1 message(s) among it" in logged.texts


def test_what_is_asked_wrongly_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    assert asked(bench, f"/pause?exchange={'x' * 256}").json["field"] == "exchange"
    assert asked(bench, "/flush?exchange=x").json["field"] == "exchange"
    assert asked(bench, "/resume?reason=x").json["field"] == "reason"
    (got,), _ = bench.ask(get("/pause"))
    assert got.status == 405
    monkeypatch.setattr(pausing, "MOST_PAUSES", 1)
    asked(bench, "/pause?exchange=a")
    assert (asked(bench, "/pause?exchange=b").status, asked(bench, "/resume?exchange=a").status) == (409, 200)


def test_they_are_for_operators() -> None:
    bench = Bench(access=Access(anonymous=reading()))
    for path in ("/flush", "/pause", "/resume"):
        assert asked(bench, path).status == 403


class _Failing(MemorySpool):
    """Whose disk is full."""

    def pause(self, *_: Any) -> Deferred[bool]:
        return fail(SpoolError("the disk is full"))


def test_a_pause_that_cannot_be_stored_is_told_and_not_in_force() -> None:
    bench = Bench(rig=Rig(spool=_Failing()).start())
    assert asked(bench, "/pause").status == 503
    bench.rig.send("a")
    assert bench.rig.arrived() == ["a"]
