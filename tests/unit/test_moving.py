"""A running publisher that is told of other brokers, other declarations, other limits: nothing is lost or doubled."""

from __future__ import annotations

from typing import Any

import pytest

from pubd.amqp.broker import Target
from pubd.amqp.lane import LaneOptions
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from pubd.amqp.url import BrokerUrl
from pubd.options import Options
from pubd.policy import OnReturn, Policy
from pubd.publisher import connection_name
from pubd.spool.base import Limits
from tests.network import MemoryNetwork
from tests.peer import Broker, Peer
from tests.rig import FIRST_LANE, Rig
from tests.strictness import Logged

OLD = "amqp://guest:guest@localhost/%2F"
NEW = "amqp://shop:s3cret@localhost/%2F"


@pytest.fixture
def rig() -> Rig:
    broker = Broker(
        exchanges={"x": {"k"}, "y": {"k"}}, types={"x": "direct"}, users={"guest": "guest", "shop": "s3cret"}
    )
    return Rig(MemoryNetwork(broker)).start()


def go(rig: Rig, *urls: str, topology: Topology | None = None, **options: Any) -> list[None]:
    """Reconfigure; what is returned has one element once that is done."""
    target = Target(
        urls=tuple(map(BrokerUrl.parse, urls or [OLD])),
        connection_name=connection_name("pubd"),
        topology=topology or Topology(),
    )
    done: list[None] = []
    given: dict[str, Any] = {"policy": Policy(max_attempts=3), "lanes": LaneOptions(), **options}
    rig.publisher.reconfigure(Options(**given), target=target).addCallback(done.append)
    return done


def users(rig: Rig) -> list[str]:
    """Of the connections that are open."""
    return [peer.user for peer in rig.network.factory.peers if not peer.transport.disconnected]


def held(rig: Rig) -> Peer:
    """The broker answers nothing from now on."""
    peer = rig.peer
    peer.hold()
    return peer


def test_publishing_moves_to_the_new_connection_once_all_is_answered(rig: Rig) -> None:
    old = held(rig)
    before = rig.send("1", "2", "3")
    go(rig, NEW)
    rig.network.advance(1)
    during = rig.send("4", "5")
    # It stands, and waits.
    assert users(rig) == ["guest", "shop"]
    move = rig.publisher.status().move
    assert move is not None
    assert move.reason is None
    assert rig.arrived(peer=old) == ["1", "2", "3"]
    old.release()
    rig.network.advance(1)
    assert users(rig) == ["shop"]
    assert all(sent.confirmed for sent in (*before, *during))
    # Each once, in order.
    assert rig.arrived() == ["1", "2", "3", "4", "5"]
    (after,) = rig.send("6")
    assert after.confirmed
    assert rig.publisher.account().lost == 0
    rig.stop()


def test_with_a_wrong_password_it_goes_on_as_before_until_that_is_right(rig: Rig, logged: Logged) -> None:
    rig.send("1")
    go(rig, "amqp://shop:wrong@localhost/%2F")
    rig.network.advance(60)
    assert users(rig) == ["guest"]
    assert rig.send("2")[0].confirmed
    assert any("ACCESS_REFUSED" in text for text in logged.texts)
    move = rig.publisher.status().move
    assert move is not None
    assert move.url == "amqp://shop:***@localhost:5672/%2F"
    assert move.reason is not None
    assert move.reason.code == 403
    assert "wrong@" not in str(logged.texts)
    go(rig, NEW)
    rig.network.advance(1)
    assert users(rig) == ["shop"]
    assert rig.publisher.status().move is None
    assert rig.send("3")[0].confirmed
    rig.stop()
    assert rig.arrived() == ["1", "2", "3"]


def test_back_to_the_old_ones_before_it_has_moved(rig: Rig) -> None:
    old = held(rig)
    sent = rig.send("1")
    go(rig, NEW)
    rig.network.advance(1)
    go(rig, OLD)
    rig.network.advance(1)
    assert users(rig) == ["guest"]
    old.release()
    sent += rig.send("2")
    assert all(each.confirmed for each in sent)
    assert rig.arrived(peer=old) == ["1", "2"]
    rig.stop()


def test_when_the_old_connection_is_lost_meanwhile_only_the_new_one_counts(rig: Rig) -> None:
    old = held(rig)
    sent = rig.send("1")
    go(rig, "amqp://shop:wrong@localhost/%2F")
    rig.network.advance(1)
    old.drop()
    rig.network.advance(30)
    # To the old broker it never goes back.
    assert users(rig) == []
    assert rig.publisher.status().link is LinkState.REFUSED
    go(rig, NEW)
    rig.network.advance(1)
    assert users(rig) == ["shop"]
    assert sent[0].confirmed
    # The one in flight when it was lost, and no other.
    assert rig.arrived() == ["1", "1"]
    rig.stop()


def test_when_the_new_connection_is_lost_before_it_took_over_the_old_one_goes_on(rig: Rig) -> None:
    old = held(rig)
    sent = rig.send("1")
    go(rig, NEW)
    rig.network.advance(1)
    rig.network.refuse_next(100)
    rig.peer.drop()
    rig.network.advance(0.1)
    old.release()
    rig.network.advance(1)
    sent += rig.send("2")
    assert users(rig) == ["guest"]
    assert all(each.confirmed for each in sent)
    assert rig.arrived(peer=old) == ["1", "2"]
    rig.stop()


def test_a_broker_that_does_not_answer_is_left_after_the_confirm_timeout(rig: Rig) -> None:
    held(rig)
    sent = rig.send("1")
    go(rig, NEW, lanes=LaneOptions(confirm_timeout=5.0))
    rig.network.advance(4)
    assert users(rig) == ["guest", "shop"]
    rig.network.advance(5)
    assert users(rig) == ["shop"]
    assert sent[0].confirmed
    rig.stop()


def test_a_link_that_is_down_is_replaced_at_once() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}, users={"shop": "s3cret"}))
    rig = Rig(network).start()
    network.advance(20)
    assert rig.publisher.status().link is LinkState.REFUSED
    (sent,) = rig.send("1")
    go(rig, NEW)
    network.advance(0.1)
    assert users(rig) == ["shop"]
    assert sent.confirmed
    rig.stop()


def test_a_stop_in_the_middle_of_a_move_leaves_nothing(rig: Rig) -> None:
    old = held(rig)
    sent = rig.send("1")
    go(rig, NEW)
    rig.network.advance(1)
    old.release()
    rig.stop()
    assert sent[0].confirmed
    assert users(rig) == []


def test_a_stop_while_the_new_broker_does_not_answer_leaves_nothing(rig: Rig) -> None:
    rig.network.swallow_next()
    go(rig, NEW)
    rig.network.advance(1)
    rig.stop()


def test_many_moves_in_a_row_under_load(rig: Rig) -> None:
    sent = []
    for number in range(50):
        go(rig, NEW if number % 2 == 0 else OLD)
        sent += [rig.submit(f"{number}-{each}", exchange="xy"[each % 2]) for each in range(10)]
        rig.network.advance(0.01 * (number % 5))
    rig.network.advance(5)
    assert all(each.confirmed for each in sent)
    assert sorted(rig.arrived()) == sorted(f"{number}-{each}" for number in range(50) for each in range(10))
    assert rig.arrived("x") == [f"{number}-{each}" for number in range(50) for each in (0, 2, 4, 6, 8)]
    rig.stop()


def test_what_is_new_is_declared_at_once_and_nothing_is_published_to_it_before(rig: Rig) -> None:
    (waits,) = rig.send("1", exchange="new")
    assert rig.lane("new").state is LaneState.REFUSED
    rig.network.broker.queues.add("q")
    declared = go(
        rig,
        topology=Topology(
            exchanges=[Exchange(name="new")],
            queues=[Queue(name="q")],
            bindings=[Binding(exchange="new", queue="q", routing_key="k")],
        ),
    )
    rig.network.flush()
    assert declared == [None]
    # Not after the backoff of the lane, and not returned for want of the binding.
    assert waits.confirmed
    assert len(rig.network.factory.peers) == 1
    rig.stop()


def test_what_is_not_declared_any_more_is_said_and_left_to_rabbitmq(rig: Rig, logged: Logged) -> None:
    topology = Topology(exchanges=[Exchange(name="x", type="direct")])
    go(rig, topology=topology)
    rig.network.flush()
    go(rig)
    rig.network.flush()
    assert "exchange 'x' (direct) is not declared any more; RabbitMQ keeps it" in logged.texts
    assert rig.send("1")[0].confirmed
    rig.stop()


def test_a_declaration_that_is_refused_holds_its_exchange_until_it_is_taken_back(rig: Rig) -> None:
    assert rig.send("1")[0].confirmed
    declared = go(rig, topology=Topology(exchanges=[Exchange(name="x", type="fanout")]))
    rig.network.flush()
    assert declared == [None]
    (waits,) = rig.send("2")
    rig.network.advance(3)
    assert not waits.confirmed
    assert rig.lane().state is LaneState.REFUSED
    assert rig.send("3", exchange="y")[0].confirmed
    go(rig)
    rig.network.flush()
    assert waits.confirmed
    rig.stop()


def test_windows_and_policies_hold_from_then_on(rig: Rig) -> None:
    peer = held(rig)
    rig.send(*map(str, range(10)))
    assert len(rig.arrived(peer=peer)) == 10
    go(rig, lanes=LaneOptions(window=2))
    rig.send(*map(str, range(10, 20)))
    assert len(rig.arrived(peer=peer)) == 10
    peer.release()
    rig.network.flush()
    assert rig.arrived() == [str(number) for number in range(20)]
    assert all(each.confirmed for each in rig.sent)
    (parked,) = rig.send("unroutable", key="nobody")
    assert parked.parked is not None
    go(rig, policy=Policy(on_return=OnReturn.DROP))
    (dropped,) = rig.send("dropped", key="nobody")
    assert dropped.parked is None
    assert dropped.answer is not None
    rig.stop()


def test_limits_of_the_spool_and_the_way_to_stop(rig: Rig) -> None:
    held(rig)
    rig.send("1")
    rig.publisher.reconfigure(Options(drain_timeout=0.0), limits=Limits(max_rows=1))
    (refused,) = rig.send("2")
    assert "1 more" in str(refused.refused)
    rig.publisher.reconfigure(Options(drain_timeout=0.0), limits=Limits(max_rows=2))
    assert rig.send("3")[0].refused is None
    stopped = rig.publisher.stopService()
    rig.network.advance(3)
    assert stopped.called


def test_a_publisher_that_is_started_again_uses_what_it_was_told_last(rig: Rig) -> None:
    go(rig, NEW)
    rig.network.advance(1)
    rig.stop()
    rig.start()
    assert users(rig) == ["shop"]
    assert rig.send("1")[0].confirmed
    rig.stop()


def test_a_single_answer_of_many_does_not_move_it(rig: Rig) -> None:
    old = held(rig)
    rig.send("1", "2")
    go(rig, NEW)
    rig.network.advance(1)
    old.ack(FIRST_LANE, 1)
    rig.network.flush()
    assert users(rig) == ["guest", "shop"]
    old.release()
    rig.network.advance(1)
    assert users(rig) == ["shop"]
    rig.stop()


def test_what_is_to_be_declared_may_change_while_it_moves(rig: Rig) -> None:
    old = held(rig)
    rig.send("1")
    go(rig, NEW)
    rig.network.advance(1)
    go(rig, NEW, topology=Topology(exchanges=[Exchange(name="new")]))
    rig.network.advance(1)
    go(rig, NEW, topology=Topology(exchanges=[Exchange(name="newer")]))
    rig.network.advance(1)
    assert users(rig) == ["guest", "shop"]
    old.release()
    rig.network.advance(1)
    assert users(rig) == ["shop"]
    # One connection more, and no third one.
    assert len(rig.network.factory.peers) == 2
    assert "newer" in rig.network.broker.exchanges
    assert rig.sent[0].confirmed
    rig.stop()


@pytest.mark.parametrize("turns", range(1, 30))
def test_a_change_of_mind_in_the_middle_of_declaring(rig: Rig, turns: int) -> None:
    topology = Topology(exchanges=[Exchange(name=f"e{number}") for number in range(5)])
    go(rig, NEW, topology=topology)
    for _ in range(turns):
        rig.network._turn()
    go(rig, OLD, topology=topology)
    rig.network.advance(3)
    assert users(rig) == ["guest"]
    assert rig.send("1")[0].confirmed
    rig.stop()
