"""GET /tail: what becomes of messages while it happens, and that nobody who reads it can hold anything up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pubd.intake.http.tail import ALIVE, EVERY, PATIENCE, READERS, ROOM, Tail
from pubd.policy import Policy
from tests.rig import Rig
from tests.web import Bench, Wire, get


class Watched:
    """A bench whose publisher is watched through GET /tail."""

    def __init__(self, **policy: Any) -> None:
        self.rig = Rig(policy=Policy(**policy) if policy else None).start()
        self.tails: list[Tail] = []
        self.bench = Bench(rig=self.rig, routes=self._routes)

    def _routes(self, _: object) -> Any:
        # The bench's clock is made before its routes are asked for, but is not known yet.
        self.tail = Tail(observers=self.rig.publisher.observers, clock=self.rig.network, wall=self.rig.network.seconds)
        return self.tail.routes()

    def open(self, query: str = "", **more: Any) -> tuple[Any, Wire]:
        channel, wire = self.bench.connect()
        channel.dataReceived(get("/tail" + query, **more))
        return channel, wire

    @property
    def watched(self) -> int:
        return len(self.rig.publisher.observers._all)

    def flow(self, seconds: float = EVERY) -> None:
        self.rig.network.flush()
        self.rig.network.advance(seconds)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def events(wire: Wire) -> list[dict[str, Any]]:
    """Those in the chunks so far."""
    body = wire.value().partition(b"\r\n\r\n")[2]
    lines = [line for line in body.split(b"\n") if line.startswith(b"{")]
    return [json.loads(line) for line in lines]


def names(wire: Wire) -> list[str]:
    return [event["event"] for event in events(wire)]


def ended(wire: Wire) -> bool:
    return wire.value().endswith(b"0\r\n\r\n")


def test_what_is_confirmed_is_told_with_its_place_and_the_time_it_took(watched: Watched) -> None:
    _, wire = watched.open()
    (sent,) = watched.rig.send("m-1")
    watched.flow()
    assert names(wire) == ["watching", "confirmed"]
    event = events(wire)[1]
    assert sent.receipt is not None
    assert (event["id"], event["message_id"], event["state"]) == (sent.receipt.id, "m-1", "confirmed")
    assert (event["exchange"], event["routing_key"], event["reason"]) == ("x", "k", None)
    assert event["seconds"] >= 0
    assert b"Content-Type: application/x-ndjson" in wire.value()


def test_a_returned_message_is_told_with_what_it_became_and_why(watched: Watched) -> None:
    _, wire = watched.open()
    watched.rig.send("m-1", key="nowhere")
    watched.flow()
    (event,) = events(wire)[1:]
    assert (event["event"], event["state"], event["reason"]["code"]) == ("returned", "parked", 312)


def test_what_is_lost_is_ready_again(watched: Watched) -> None:
    _, wire = watched.open("?outcome=lost")
    watched.rig.peer.hold()
    watched.rig.send("m-1")
    watched.rig.peer.close_channel(watched.rig.channel(), 320, "CONNECTION_FORCED")
    watched.flow(1)
    found = [event for event in events(wire) if event["event"] == "lost"]
    assert [(event["message_id"], event["state"]) for event in found] == [("m-1", "ready")]


def test_accepted_is_told_to_who_asks_for_it(watched: Watched) -> None:
    _, wire = watched.open("?outcome=accepted")
    watched.rig.submit("m-1")
    watched.rig.submit("m-2", delay=5.0)
    watched.flow()
    assert [(event["event"], event["state"]) for event in events(wire)[1:]] == [
        ("accepted", "ready"),
        ("accepted", "deferred"),
    ]


def test_exchange_and_outcome_choose(watched: Watched) -> None:
    _, y = watched.open("?exchange=y")
    _, parked = watched.open("?outcome=parked,nacked")
    watched.rig.send("m-1")
    watched.rig.send("m-2", exchange="y")
    watched.rig.send("m-3", key="nowhere")
    watched.flow()
    assert [event.get("message_id") for event in events(y)] == [None, "m-2"]
    assert [event.get("message_id") for event in events(parked)] == [None, "m-3"]


@pytest.mark.parametrize("query", ["?outcome=gone", "?outcome=", "?for=soon", "?limit=1", "?exchange=a&exchange=b"])
def test_a_wrong_query_is_refused_and_nobody_watches(watched: Watched, query: str) -> None:
    before = watched.watched
    _, wire = watched.open(query)
    assert wire.value().startswith(b"HTTP/1.1 400 ")
    assert watched.watched == before


def test_it_says_now_and_then_that_there_was_nothing(watched: Watched) -> None:
    _, wire = watched.open()
    watched.flow(ALIVE)
    watched.flow(ALIVE)
    assert names(wire) == ["watching", "alive", "alive"]


def test_it_ends_when_its_time_is_over(watched: Watched) -> None:
    before = watched.watched
    channel, wire = watched.open("?for=1s")
    watched.rig.send("m-1")
    watched.flow(1)
    assert names(wire) == ["watching", "confirmed"]
    assert ended(wire)
    assert watched.watched == before
    wire.clear()
    channel.dataReceived(get("/livez"))
    assert wire.value().startswith(b"HTTP/1.1 200 "), "the connection is kept"


def test_more_than_anybody_can_see_is_counted(watched: Watched) -> None:
    _, wire = watched.open()
    watched.rig.send(*(f"m-{n}" for n in range(3 * ROOM)))
    watched.flow()
    told = [event for event in events(wire) if event["event"] == "confirmed"]
    skipped = sum(event["count"] for event in events(wire) if event["event"] == "skipped")
    assert len(told) + skipped == 3 * ROOM
    assert skipped


def test_who_does_not_read_is_told_how_much_was_skipped_and_keeps_nothing_in_memory(watched: Watched) -> None:
    channel, wire = watched.open()
    channel.pauseProducing()
    before = wire.value()
    for _ in range(3):
        watched.rig.send(*(f"m-{n}" for n in range(ROOM)))
        watched.flow(1)
    assert wire.value() == before, "nothing is piled up for who does not read"
    assert len(watched.rig.sent) == 3 * ROOM
    assert all(sent.confirmed for sent in watched.rig.sent), "and nobody waited for it"
    channel.resumeProducing()
    watched.flow()
    told = [event["event"] for event in events(wire)]
    assert told.count("confirmed") == ROOM
    assert [event["count"] for event in events(wire) if event["event"] == "skipped"] == [2 * ROOM]


def test_who_never_reads_again_is_cut_off(watched: Watched) -> None:
    before = watched.watched
    channel, wire = watched.open()
    channel.pauseProducing()
    watched.bench.advance(PATIENCE - 1)
    assert not wire.aborted
    watched.bench.advance(2)
    assert wire.aborted
    channel.connectionLost(None)
    assert watched.watched == before


def test_who_has_gone_leaves_nothing(watched: Watched) -> None:
    before, timers = watched.watched, len(watched.rig.network.getDelayedCalls())
    channel, _ = watched.open("?for=10s")
    watched.rig.submit("m-1")
    channel.connectionLost(None)
    assert watched.watched == before
    watched.flow(0)
    assert len(watched.rig.network.getDelayedCalls()) <= timers


def test_head_watches_nothing(watched: Watched) -> None:
    before = watched.watched
    _, wire = watched.open(method="HEAD")
    assert wire.value().startswith(b"HTTP/1.1 200 ")
    assert watched.watched == before


def test_there_are_only_so_many_readers(watched: Watched) -> None:
    channels = [watched.open()[0] for _ in range(READERS)]
    _, wire = watched.open()
    assert wire.value().startswith(b"HTTP/1.1 503 ")
    channels[0].connectionLost(None)
    _, wire = watched.open()
    assert wire.value().startswith(b"HTTP/1.1 200 ")


def test_pubd_stops_and_says_so(watched: Watched) -> None:
    channel, wire = watched.open()
    watched.bench.intake.startService()
    watched.rig.send("m-1")
    stopped = watched.bench.intake.stopService()
    assert names(wire) == ["watching", "confirmed", "stopping"]
    assert ended(wire)
    channel.connectionLost(None)
    assert stopped.called


def test_an_old_client_reads_to_the_end_of_the_connection(watched: Watched) -> None:
    channel, wire = watched.bench.connect()
    channel.dataReceived(b"GET /tail?for=1s HTTP/1.0\r\n\r\n")
    watched.flow(1)
    assert names(wire) == ["watching"]
    assert wire.over


def test_it_ends_with_a_client_that_has_ended_its_side(watched: Watched) -> None:
    channel, wire = watched.open()
    assert watched.watched
    channel.readConnectionLost()
    assert wire.disconnecting
    channel.connectionLost(None)
    assert not watched.watched
