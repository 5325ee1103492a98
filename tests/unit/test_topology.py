"""Declarations: checked when made, declared at every connection, and what follows from a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from pubd.errors import InvalidMessage, InvalidOption
from pubd.outcome import Reason
from tests.network import MemoryNetwork
from tests.peer import Broker
from tests.rig import FIRST_LANE, Rig

TEXT = Topology(
    exchanges=[Exchange(name="x", type="topic"), Exchange(name="y")],
    queues=[Queue(name="text")],
    bindings=[Binding(exchange="x", queue="text", routing_key="k"), Binding(exchange="y", queue="text")],
)


class Closures:
    """BrokerEvents that writes down."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def channel_closed(self, reason: Reason) -> None:
        self.reasons.append(reason)


def rig(broker: Broker | None = None, topology: Topology = TEXT, **given: Any) -> Rig:
    return Rig(MemoryNetwork(broker or Broker()), topology=topology, **given)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (Exchange, {"name": ""}, "default exchange exists always"),
        (Exchange, {"name": "x" * 256}, "at most 255 bytes"),
        (Exchange, {"name": "é" * 128}, "at most 255 bytes"),
        (Exchange, {"name": "x", "type": "topci"}, "RabbitMQ knows direct, fanout, topic, headers"),
        (Exchange, {"name": "x", "type": "to pic"}, "type must be one of"),
        (Queue, {"name": ""}, "another at each connection"),
        (Queue, {"name": "q" * 256}, "at most 255 bytes"),
        (Binding, {"exchange": "", "queue": "q"}, "default exchange routes to every queue"),
        (Binding, {"exchange": "x"}, "give one of queue and destination_exchange"),
        (Binding, {"exchange": "x", "queue": "q", "destination_exchange": "y"}, "give one of"),
        (Binding, {"exchange": "x", "queue": "q", "routing_key": "k" * 256}, "at most 255 bytes"),
    ],
)
def test_a_wrong_declaration_is_refused_with_the_fix(kind: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        kind(**given)


def test_arguments_are_checked_and_frozen_as_headers_are() -> None:
    arguments = {"x-max-length": 10}
    queue = Queue(name="q", arguments=arguments)
    arguments["x-max-length"] = 11
    assert dict(queue.arguments) == {"x-max-length": 10}
    with pytest.raises(InvalidMessage):
        Queue(name="q", arguments={"x-max-length": object()})


def test_plugins_types_are_taken() -> None:
    assert str(Exchange(name="x", type="x-delayed-message")) == "exchange 'x' (x-delayed-message)"


def test_declarations_are_named_as_a_person_would() -> None:
    assert [str(one) for one in TEXT] == [
        "exchange 'x' (topic)",
        "exchange 'y' (direct)",
        "queue 'text'",
        "binding of exchange 'x' to queue 'text' with 'k'",
        "binding of exchange 'y' to queue 'text' with ''",
    ]
    assert str(Exchange(name="x", passive=True)) == "exchange 'x' (passive)"
    assert str(Queue(name="q", passive=True)) == "queue 'q' (passive)"
    assert str(Binding(exchange="x", destination_exchange="y")) == "binding of exchange 'x' to exchange 'y' with ''"


def test_what_depends_on_a_declaration_is_known() -> None:
    assert TEXT.dependants(TEXT.exchanges[0]) == {"x"}
    assert TEXT.dependants(TEXT.queues[0]) == {"x", "y"}
    assert TEXT.dependants(TEXT.bindings[1]) == {"y"}


def test_everything_is_declared_before_the_first_publish_and_again_at_every_connection() -> None:
    on = rig()
    on.start()
    (first,) = on.send("a")
    assert first.confirmed
    assert on.broker.exchanges["x"] == {"k"}
    on.broker.exchanges.clear()
    on.broker.queues.clear()
    on.peer.drop()
    on.network.advance(1)
    (second,) = on.send("b")
    assert second.confirmed
    assert on.peer.channels == [1, FIRST_LANE]
    on.stop()


def test_a_mismatch_names_declaration_and_both_values_and_holds_only_its_dependants() -> None:
    closures = Closures()
    on = rig(Broker(exchanges={"x": set()}, types={"x": "fanout"}), events=closures).start()
    held = on.submit("a")
    (flows,) = on.send("y1", exchange="y", key="")
    on.network.flush()
    assert flows.confirmed
    (refused,) = on.publisher.status().refused
    assert refused.declaration == TEXT.exchanges[0]
    assert "received 'topic' but current is 'fanout'" in str(refused)
    lane = on.lane("x")
    assert lane.state is LaneState.REFUSED
    assert lane.reason == refused.reason
    assert [reason.code for reason in closures.reasons] == [406]
    assert on.arrived("x") == []
    on.broker.types["x"] = "topic"
    on.network.advance(3)
    assert held.confirmed
    assert on.publisher.status().refused == ()
    assert on.lane("x").reason is None
    on.stop()


def test_a_missing_queue_holds_what_is_bound_to_it() -> None:
    topology = Topology(
        exchanges=TEXT.exchanges, queues=[Queue(name="text", passive=True)], bindings=[TEXT.bindings[0]]
    )
    on = rig(topology=topology).start()
    held = on.submit("a")
    on.network.advance(1)
    refused = on.publisher.status().refused
    assert [one.reason.code for one in refused] == [404, 404]
    assert held.answer is None
    on.broker.queues.add("text")
    on.network.advance(10)
    assert held.confirmed
    on.stop()


@pytest.mark.parametrize("step", ["Channel.Open", "Exchange.Declare", "Queue.Declare", "Queue.Bind"])
@pytest.mark.parametrize("graceful", [True, False])
def test_a_connection_lost_while_declaring_is_declared_on_again(step: str, graceful: bool) -> None:
    on = rig()

    def ignore(peer: Any) -> None:
        # The control channel of the link is opened first.
        peer.ignore.add(step)

    if step == "Channel.Open":
        on.broker.ignore.add("Confirm.Select")
        on.start()
        ignore(on.peer)
        on.broker.ignore.clear()
        on.peer.select_ok(1)
    else:
        on.broker.on_connect = ignore
        on.start()
        on.broker.on_connect = None
    sent = on.submit("a")
    on.network.advance(5)
    assert sent.answer is None
    if graceful:
        on.peer.close_connection(320, "CONNECTION_FORCED - closed by a test")
    else:
        on.peer.drop(abort=True)
    on.network.advance(2)
    assert sent.confirmed
    on.stop()


def test_a_refusal_is_not_retried_on_a_connection_that_is_gone() -> None:
    on = rig(Broker(exchanges={"x": set()}, types={"x": "fanout"})).start()
    on.submit("a")
    first = on.peer
    first.half_open()
    first.close_connection(320, "CONNECTION_FORCED - closed by a test")
    on.network.advance(0.9)
    on.broker.types["x"] = "topic"
    on.network.advance(5)
    assert on.sent[0].confirmed
    first.resume()
    on.stop()


def test_without_a_channel_to_spare_declaring_waits() -> None:
    on = rig(Broker(exchanges={"x": set()}, types={"x": "fanout"}, channel_max=2), idle_timeout=3.0).start()
    (flows,) = on.send("y1", exchange="y", key="")
    on.network.advance(1)
    held = on.submit("a")
    on.broker.types["x"] = "topic"
    on.network.advance(20)
    assert flows.confirmed
    assert held.confirmed
    on.stop()


def test_stopping_while_a_refused_declaration_waits_leaves_nothing() -> None:
    on = rig(Broker(exchanges={"x": set()}, types={"x": "fanout"})).start()
    on.submit("a")
    on.stop()
    assert type(on.sent[0].answer).__name__ == "PublisherStopped"


def test_what_is_ours_and_was_deleted_is_declared_again_before_anything_is_published_there() -> None:
    on = rig()
    on.start()
    on.send("before", exchange="x")
    for name in ("x", "y"):
        del on.broker.exchanges[name]
    on.broker.queues.clear()
    on.peer.close_channel(on.channel("x"), 404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    on.network.flush()
    (after,) = on.send("after", exchange="x")
    assert not after.confirmed
    on.network.advance(3)
    assert on.broker.exchanges["x"] == {"k"}
    assert after.confirmed
    assert on.publisher.account().returned == 0
    assert not on.publisher.status().refused
    on.stop()


def test_what_was_only_checked_and_was_deleted_is_left_to_who_made_it() -> None:
    on = rig(Broker(exchanges={"x": {"k"}}), Topology(exchanges=[Exchange(name="x", passive=True)]))
    on.start()
    on.send("before", exchange="x")
    del on.broker.exchanges["x"]
    on.peer.close_channel(on.channel("x"), 404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    on.network.advance(5)
    assert "x" not in on.broker.exchanges
    # Nothing waits for it.
    assert on.publisher.status().lanes == ()
    on.stop()
