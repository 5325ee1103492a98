"""Stopping waits for what may still come, and for nothing else."""

from __future__ import annotations

import pytest

from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.options import Options
from tests.network import MemoryNetwork
from tests.peer import Broker
from tests.rig import Rig
from tests.slow_spool import SlowSpool


def stops(rig: Rig, within: float) -> None:
    """It has stopped within so many seconds of its own time, and leaves nothing."""
    stopped = rig.publisher.stopService()
    rig.network.advance(within)
    assert stopped.called
    assert [str(call) for call in rig.network.getDelayedCalls()] == []


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(Broker(exchanges={"x": {"k"}, "y": {"k"}}))


def test_a_login_that_is_refused_is_not_waited_for(network: MemoryNetwork) -> None:
    rig = Rig(network, url="amqp://guest:wrong@localhost/%2F", drain_timeout=3600.0).start()
    network.advance(5)
    rig.submit("1")
    network.flush()
    assert rig.publisher.status().link is LinkState.REFUSED
    stops(rig, 0.5)


def test_an_exchange_that_is_refused_is_not_waited_for(network: MemoryNetwork) -> None:
    rig = Rig(network, drain_timeout=3600.0).start()
    rig.send("1", exchange="absent")
    assert rig.lane("absent").state is LaneState.REFUSED
    stops(rig, 0.5)


def test_but_what_is_for_others_is(network: MemoryNetwork) -> None:
    rig = Rig(network, drain_timeout=3600.0).start()
    rig.send("1", exchange="absent")
    rig.peer.hold()
    (sent,) = rig.send("2")
    stopped = rig.publisher.stopService()
    network.advance(20)
    assert not stopped.called
    rig.peer.release()
    network.advance(1)
    assert stopped.called
    assert sent.confirmed


def test_what_becomes_hopeless_meanwhile_is_given_up(network: MemoryNetwork) -> None:
    rig = Rig(network, drain_timeout=3600.0).start()
    rig.peer.hold()
    rig.send("1")
    stopped = rig.publisher.stopService()
    network.advance(1)
    assert not stopped.called
    network.broker.users.clear()
    rig.peer.drop()
    network.advance(30)
    assert stopped.called
    assert [str(call) for call in network.getDelayedCalls()] == []


def test_messages_in_memory_wait_for_a_broker_that_is_away(network: MemoryNetwork) -> None:
    rig = Rig(network, drain_timeout=60.0).start()
    network.refuse_next(4)
    rig.peer.drop()
    network.flush()
    sent = rig.submit("1")
    stopped = rig.publisher.stopService()
    network.advance(1)
    assert not stopped.called
    network.advance(20)
    assert stopped.called
    assert sent.confirmed


def test_those_on_a_disk_do_not(network: MemoryNetwork) -> None:
    rig = Rig(network, spool=SlowSpool(network, durable=True), drain_timeout=3600.0).start()
    network.refuse_next(1000)
    rig.peer.drop()
    network.flush()
    rig.submit("1")
    network.flush()
    stops(rig, 0.5)


def test_a_broker_that_blocks_is_given_a_second(network: MemoryNetwork) -> None:
    rig = Rig(network, spool=SlowSpool(network, durable=True), drain_timeout=3600.0).start()
    rig.peer.hold()
    rig.send("1")
    rig.peer.block("low on memory")
    network.flush()
    assert rig.publisher.account().pending == 1
    # And two for a close that is not answered either.
    stops(rig, 3.5)
    assert rig.publisher.account().books.held == 1


def test_a_delay_is_waited_for_as_far_as_there_is_time(network: MemoryNetwork) -> None:
    rig = Rig(network, drain_timeout=10.0).start()
    soon = rig.submit("1", delay=5.0)
    network.flush()
    stopped = rig.publisher.stopService()
    network.advance(6)
    assert stopped.called
    assert soon.confirmed
    rig = Rig(network, drain_timeout=10.0).start()
    rig.submit("2", delay=3600.0)
    network.flush()
    stops(rig, 0.5)


def test_a_pause_is_not_waited_for(network: MemoryNetwork) -> None:
    rig = Rig(network, drain_timeout=3600.0).start()
    rig.publisher.pause("x", "by a test")
    rig.send("1")
    assert not rig.sent[0].confirmed
    stops(rig, 0.5)


def test_no_time_is_no_time(network: MemoryNetwork) -> None:
    rig = Rig(network, drain_timeout=60.0).start()
    rig.peer.hold()
    rig.send("1")
    rig.publisher.reconfigure(Options(drain_timeout=0.0))
    stops(rig, 2.5)
