"""Somebody sets the clock, by an hour: what is due, what expires, what is forgotten; and nothing is lost or stuck.

The reactor's time goes on as ever. Schedules have tests of this of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pubd.outcome import State
from pubd.policy import Policy
from pubd.retry import Backoff
from pubd.wakeups import LOOK
from tests.network import MemoryNetwork
from tests.peer import Broker
from tests.rig import Rig, Sent

HOUR = 3600.0
START = 1_700_000_000.0


@pytest.fixture
def rig() -> Iterator[Rig]:
    backoff = Backoff(first=600.0, max=600.0, jitter=0.0)
    rig = Rig(MemoryNetwork(Broker(exchanges={"x": {"k"}, "y": {"k"}})), policy=Policy(backoff=backoff))
    rig.ahead = START
    rig.start()
    yield rig
    assert rig.publisher.account().books.difference == 0
    rig.stop()


def wait(rig: Rig, seconds: float) -> None:
    """In steps, as time goes."""
    for _ in range(int(seconds // 10)):
        rig.network.advance(10)
    rig.network.advance(seconds % 10)


def state(rig: Rig, sent: Sent) -> Any:
    found: list[Any] = []
    assert sent.receipt is not None
    rig.publisher.record(sent.receipt.id).addCallback(found.append)
    return found[0].state if found[0] is not None else None


def test_set_forward_what_is_due_by_then_is_published_soon(rig: Rig) -> None:
    delayed, moment = rig.submit("a", delay=2 * HOUR), rig.submit("b", not_before=START + HOUR + 100)
    rig.ahead += HOUR
    wait(rig, 100 + LOOK)
    assert (delayed.confirmed, moment.confirmed) == (False, True)
    wait(rig, HOUR - 100)
    assert delayed.confirmed


def test_set_back_what_is_deferred_waits_for_its_time_of_day(rig: Rig) -> None:
    delayed, moment = rig.submit("a", delay=100), rig.submit("b", not_before=START + 200)
    rig.ahead -= HOUR
    wait(rig, HOUR)
    assert (delayed.confirmed, moment.confirmed) == (False, False)
    wait(rig, 100 + LOOK)
    assert (delayed.confirmed, moment.confirmed) == (True, False)
    wait(rig, 100)
    assert moment.confirmed


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_what_was_nacked_is_tried_again_at_the_time_of_day_that_was_said(rig: Rig, step: float) -> None:
    rig.peer.hold()
    (sent,) = rig.send("a")
    rig.peer.nack(rig.channel(), 1)
    rig.network.flush()
    rig.peer.release()
    assert state(rig, sent) is State.DEFERRED
    rig.ahead += step
    wait(rig, LOOK)
    assert sent.confirmed is (step > 0)
    wait(rig, max(0.0, -step) + 600)
    assert sent.confirmed


@pytest.mark.parametrize(("step", "after"), [(HOUR, 40.0), (-HOUR, 2 * HOUR + 40)])
def test_a_ttl_passes_when_its_time_of_day_comes(rig: Rig, step: float, after: float) -> None:
    mortal, lasting = (rig.submit(name, exchange="missing", ttl=ttl) for name, ttl in (("a", HOUR + 50), ("b", None)))
    rig.ahead += step
    wait(rig, after)
    assert state(rig, mortal) is State.READY
    wait(rig, 20)
    assert (state(rig, mortal), state(rig, lasting)) == (State.EXPIRED, State.READY)


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_ids_go_on_rising_and_messages_stay_in_order(rig: Rig, step: float) -> None:
    rig.peer.hold()
    before = rig.send("a", "b")
    rig.ahead += step
    after = rig.send("c", "d")
    ids = [sent.receipt.id for sent in (*before, *after) if sent.receipt is not None]
    assert ids == sorted(ids)
    rig.peer.drop()
    wait(rig, 60)
    assert [one.properties.message_id for one in rig.broker.published][-4:] == ["a", "b", "c", "d"]
    assert all(sent.confirmed for sent in rig.sent)
