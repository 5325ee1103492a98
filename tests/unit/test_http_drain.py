"""/drain: nothing is accepted any more, what is there is published, and pubd ends if that was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from pubd.errors import PublisherDraining
from pubd.intake.http.drain import LOOK, Drain
from tests.operating import Shown
from tests.rig import Rig
from tests.web import JSON, Bench, Got, answers, get, post


class Drained:
    """A bench with /drain, and how often pubd was told to end."""

    def __init__(self) -> None:
        self.rig = Rig().start()
        self.ended = 0
        self.bench = Bench(rig=self.rig, routes=lambda _: self._routes())

    def _routes(self) -> Any:
        return Drain(self.rig.publisher, clock=self.rig.network, stop=self._stop).routes()

    def _stop(self) -> None:
        self.ended += 1

    def ask(self, request: bytes) -> Got:
        channel, wire = self.bench.connect()
        channel.dataReceived(request)
        (got,), _ = answers(wire.value())
        return got

    def drain(self, body: bytes = b"{}") -> Got:
        return self.ask(post(body, path="/drain", headers=JSON))

    def accept(self) -> Got:
        return self.ask(get("/drain", method="DELETE"))


@pytest.fixture
def drained() -> Drained:
    return Drained()


def test_nothing_is_accepted_until_it_is_over(drained: Drained) -> None:
    assert drained.drain().json["draining"] is True
    refused = drained.ask(post())
    assert (refused.status, refused.json["type"]) == (503, "draining")
    assert refused.headers["retry-after"] == "5"
    assert isinstance(drained.rig.submit("m").refused, PublisherDraining)
    assert drained.accept().json["draining"] is False
    assert drained.ask(post()).status == 202


def test_what_is_there_is_published_and_counted_down(drained: Drained) -> None:
    drained.rig.peer.hold()
    drained.rig.send("a", "b")
    drained.rig.submit("c", delay=60.0)
    drained.rig.send("d", key="nowhere")
    found = drained.drain().json
    assert (found["left"], found["in_flight"], found["deferred"]) == (4, 3, 1)
    drained.rig.peer.release()
    drained.rig.network.flush()
    found = drained.ask(get("/drain")).json
    assert (found["left"], found["deferred"], found["parked"]) == (1, 1, 1)
    assert drained.drain(b'{"deferred":false}').json["left"] == 0
    drained.rig.network.advance(61)
    assert drained.drain().json["left"] == 0
    assert all(sent.confirmed for sent in drained.rig.sent[:3])


def test_it_ends_when_nothing_is_left_if_that_was_asked_for(drained: Drained) -> None:
    drained.rig.peer.hold()
    drained.rig.send("a")
    assert drained.drain(b'{"stop":true}').json["stop"] is True
    drained.drain(b'{"stop":true}')
    drained.rig.network.advance(10 * LOOK)
    assert drained.ended == 0
    drained.rig.peer.release()
    drained.rig.network.advance(10 * LOOK)
    assert drained.ended == 1
    drained.rig.stop()


@pytest.mark.parametrize("how", ["accept", "drain"])
def test_the_end_can_be_called_off(drained: Drained, how: str) -> None:
    drained.rig.peer.hold()
    drained.rig.send("a")
    drained.drain(b'{"stop":true}')
    assert getattr(drained, how)().json["stop"] is False
    drained.rig.peer.release()
    drained.rig.network.advance(10 * LOOK)
    assert drained.ended == 0
    drained.rig.stop()


@pytest.mark.parametrize("body", [b"[]", b'{"stop":1}', b'{"deferred":null}', b'{"end":true}', b"nonsense"])
def test_what_is_not_understood_drains_nothing(drained: Drained, body: bytes) -> None:
    assert drained.drain(body).status in (400, 422)
    assert drained.ask(get("/drain")).json["draining"] is False


def test_an_empty_body_is_no_wish(drained: Drained) -> None:
    assert drained.drain(b"").json == drained.ask(get("/drain")).json


def test_load_balancers_are_told() -> None:
    shown = Shown(Rig().start()).start()
    shown.rig.publisher.drain()
    assert shown.reasons("/readyz") == ["draining"]
    assert shown.ask("/publishz").status == 200, "it publishes"
    shown.rig.publisher.accept()
    assert shown.ask("/readyz").status == 200
    shown.stop()
    shown.rig.stop()


def test_the_next_start_accepts() -> None:
    rig = Rig().start()
    rig.publisher.drain()
    rig.stop()
    rig.start()
    assert rig.publisher.draining is False
    rig.stop()
