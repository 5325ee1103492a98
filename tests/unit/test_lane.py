"""Lanes against a scripted peer: what a real broker does not do on command."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import fail
from twisted.logger import LogLevel

from pubd.amqp.encode import encode_properties
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.entry import OVERHEAD
from pubd.errors import MessageParked, SpoolError
from pubd.message import Message
from pubd.outcome import Cause
from pubd.retry import Backoff
from pubd.spool.memory import MemorySpool
from tests.network import MemoryNetwork
from tests.peer import Broker, Peer, Published
from tests.rig import FIRST_LANE, Rig
from tests.slow_spool import SlowSpool
from tests.strictness import Logged


@pytest.fixture
def rig() -> Rig:
    return Rig()


def errors(logged: Logged) -> list[str]:
    return [
        text for event, text in zip(logged.events, logged.texts, strict=True) if event["log_level"] is LogLevel.error
    ]


def killer(*message_ids: str, code: int = 541) -> object:
    """A broker that breaks down over these messages."""

    def on_publish(peer: Peer, published: Published) -> bool:
        if published.properties.message_id not in message_ids:
            return False
        peer.close_connection(code, "INTERNAL_ERROR")
        return True

    return on_publish


# Answers


def test_acks_in_any_order_confirm_each_its_own(rig: Rig) -> None:
    rig.start().peer.hold()
    a, b, c = rig.send("a", "b", "c")
    channel = rig.channel()
    rig.peer.ack(channel, 2)
    rig.network.flush()
    assert (a.confirmed, b.confirmed, c.confirmed) == (False, True, False)
    rig.peer.ack(channel, 3)
    rig.peer.ack(channel, 1)
    rig.network.flush()
    assert a.confirmed
    assert c.confirmed
    rig.stop()


def test_a_multiple_ack_confirms_everything_up_to_its_tag(rig: Rig) -> None:
    rig.start().peer.hold()
    sent = rig.send("a", "b", "c", "d")
    rig.peer.ack(rig.channel(), 3, multiple=True)
    rig.network.flush()
    assert [one.confirmed for one in sent] == [True, True, True, False]
    assert rig.lane().in_flight == 1
    rig.peer.ack(rig.channel(), 4)
    rig.stop()


def test_a_multiple_ack_of_tag_0_confirms_everything(rig: Rig) -> None:
    rig.start().peer.hold()
    sent = rig.send("a", "b", "c")
    rig.peer.ack(rig.channel(), 0, multiple=True)
    rig.network.flush()
    assert all(one.confirmed for one in sent)
    rig.stop()


def test_an_ack_of_an_unknown_tag_is_logged_and_changes_nothing(rig: Rig, logged: Logged) -> None:
    rig.start().peer.hold()
    (sent,) = rig.send("a")
    rig.peer.ack(rig.channel(), 7)
    rig.peer.nack(rig.channel(), 8)
    rig.network.flush()
    assert not sent.confirmed
    assert [text for text in errors(logged) if "delivery tag 7" in text]
    rig.peer.ack(rig.channel(), 1)
    rig.network.flush()
    assert sent.confirmed
    rig.stop()


def test_a_return_after_its_ack_is_logged_and_the_message_stays_confirmed(rig: Rig, logged: Logged) -> None:
    rig.start()
    (sent,) = rig.send("a")
    rig.peer.return_(rig.channel(), rig.broker.published[0])
    rig.network.flush()
    assert sent.confirmed
    assert [text for text in errors(logged) if "returned message a, which is not in flight" in text]
    (after,) = rig.send("b")
    assert after.confirmed
    rig.stop()


def test_returned_messages_are_parked_and_routed_ones_confirmed(rig: Rig) -> None:
    rig.start()
    sent = [rig.submit(str(n), key="nowhere" if n % 3 == 0 else "k") for n in range(30)]
    rig.network.flush()
    for n, one in enumerate(sent):
        assert one.confirmed is (n % 3 != 0)
        if n % 3 == 0:
            assert one.parked is not None
            assert (one.parked.cause, one.parked.code, one.parked.text) == (Cause.RETURNED, 312, "NO_ROUTE")
    rig.stop()


def test_a_nacked_message_is_tried_again_when_it_is_due(rig: Rig) -> None:
    rig.start().peer.hold()
    a, b = rig.send("a", "b")
    rig.peer.nack(rig.channel(), 1)
    rig.peer.ack(rig.channel(), 2)
    rig.network.flush()
    assert b.confirmed
    assert rig.publisher.account().books.deferred == 1
    rig.network.advance(0.9)
    assert rig.arrived() == ["a", "b"]
    rig.peer.release()
    rig.network.advance(0.2)
    assert rig.arrived() == ["a", "b", "a"]
    assert a.confirmed
    assert a.answer.attempts == 1  # type: ignore[union-attr]  # confirmed says that it is a Confirmed
    rig.stop()


def test_nacked_until_its_attempts_are_used_up_a_message_is_parked(rig: Rig) -> None:
    rig.start().peer.hold()
    (sent,) = rig.send("a")
    for tag in (1, 2, 3):
        rig.network.advance(10)
        rig.peer.nack(rig.channel(), tag)
    rig.network.advance(100)
    assert isinstance(sent.answer, MessageParked)
    assert sent.answer.reason.cause is Cause.ATTEMPTS
    assert "3 of 3" in sent.answer.reason.text
    assert rig.arrived() == ["a", "a", "a"]
    rig.stop()


# Windows


def test_never_more_than_the_window_is_in_flight() -> None:
    rig = Rig(window=3).start()
    rig.peer.hold()
    sent = [rig.submit(str(n)) for n in range(10)]
    rig.network.flush()
    for confirmed in range(10):
        assert len(rig.broker.published) == min(confirmed + 3, 10)
        assert rig.lane().in_flight <= 3
        rig.peer.ack(rig.channel(), confirmed + 1)
        rig.network.flush()
    assert rig.arrived() == [str(n) for n in range(10)]
    assert all(one.confirmed for one in sent)
    rig.stop()


def test_never_more_than_the_window_in_bytes_is_in_flight_but_a_large_one_goes_alone() -> None:
    rig = Rig(window_bytes=10_000).start()
    rig.peer.hold()
    for n in range(20):
        rig.submit(str(n), body=b"x" * (30_000 if n == 7 else 2_000))
    rig.network.flush()
    seen = 0
    while rig.publisher.account().books.confirmed < 20:
        lane = rig.lane()
        assert lane.in_flight_bytes <= 10_000 or lane.in_flight == 1
        assert lane.in_flight > 0
        seen += 1
        assert seen < 50
        rig.peer.ack(rig.channel(), rig.peer.unacked(rig.channel())[0].tag)
        rig.network.flush()
    assert rig.arrived() == [str(n) for n in range(20)]
    rig.stop()


def test_two_messages_with_one_id_are_never_in_flight_together(rig: Rig) -> None:
    rig.start().peer.hold()
    first, second, third = rig.send("same", "same", "other")
    assert rig.arrived() == ["same"]
    rig.peer.ack(rig.channel(), 1)
    rig.network.flush()
    assert first.confirmed
    assert not second.confirmed
    assert rig.arrived() == ["same", "same", "other"]
    rig.peer.release()
    rig.network.flush()
    assert second.confirmed
    assert third.confirmed
    rig.stop()


def test_a_paused_transport_gets_no_more_and_is_used_again_when_it_has_room() -> None:
    rig = Rig(window=1000, window_bytes=100 << 20).start()
    rig.send("first")
    rig.peer.half_open()
    sent = [rig.submit(str(n), body=b"x" * 10_000) for n in range(500)]
    rig.network.advance(1)
    (client, _) = rig.network.connections[-1]
    assert 65536 < len(client.unsent) < 65536 * 4
    assert rig.lane().in_flight < 50
    rig.peer.resume()
    rig.network.advance(1)
    assert all(one.confirmed for one in sent)
    assert rig.arrived() == ["first", *map(str, range(500))]
    rig.stop()


# Deadlines


def test_a_silent_broker_is_left_after_the_confirm_timeout_and_everything_is_replayed() -> None:
    rig = Rig(confirm_timeout=5.0).start()
    rig.peer.hold()
    sent = rig.send("a", "b", "c")
    rig.network.advance(4.9)
    assert len(rig.network.factory.peers) == 1
    rig.network.advance(2)
    status = rig.publisher.status()
    assert status.reason is not None
    assert "has not answered on exchange 'x'" in status.reason.text
    assert "3 deliveries in flight" in status.reason.text
    assert len(rig.network.factory.peers) == 2
    assert rig.arrived(peer=rig.peer) == ["a", "b", "c"]
    assert all(one.confirmed for one in sent)
    account = rig.publisher.account()
    assert (account.lost, account.acked) == (3, 3)
    rig.stop()


def test_a_broker_that_answers_others_for_ever_must_answer_each_within_ten_timeouts() -> None:
    rig = Rig(confirm_timeout=2.0).start()
    rig.peer.hold()
    rig.send("forgotten")
    for n in range(25):
        rig.send(str(n))
        rig.peer.ack(rig.channel(), rig.peer.unacked(rig.channel())[-1].tag)
        rig.network.advance(1)
        if len(rig.network.factory.peers) > 1:
            break
    assert 18 <= n <= 22
    rig.network.advance(5)
    assert rig.sent[0].confirmed
    rig.stop()


@pytest.mark.parametrize("stuck", ["Channel.Open", "Exchange.Declare", "Confirm.Select", "Channel.Close"])
def test_a_channel_that_is_neither_opened_nor_closed_in_time_ends_the_connection(stuck: str) -> None:
    rig = Rig(confirm_timeout=5.0, idle_timeout=10.0).start()
    if stuck == "Channel.Close":
        rig.send("first")
    rig.peer.ignore.add(stuck)
    if stuck == "Channel.Close":
        rig.network.advance(11)
    (sent,) = rig.send("a")
    rig.network.advance(4)
    assert not sent.confirmed
    rig.network.advance(4)
    assert sent.confirmed
    assert len(rig.network.factory.peers) == 2
    rig.stop()


def test_a_blocked_connection_is_not_written_to_and_has_no_deadline() -> None:
    rig = Rig(confirm_timeout=5.0).start()
    rig.peer.hold()
    rig.send("a")
    rig.peer.block("low on memory")
    rig.network.flush()
    assert rig.publisher.status().blocked == "low on memory"
    rig.submit("b")
    rig.submit("y1", exchange="y")
    rig.network.advance(100)
    assert rig.publisher.status().link is LinkState.BLOCKED
    assert rig.arrived() == ["a"]
    rig.peer.unblock()
    rig.network.advance(4)
    assert len(rig.network.factory.peers) == 1
    assert rig.arrived("x") == ["a", "b"]
    assert rig.arrived("y") == ["y1"]
    rig.peer.release()
    rig.network.flush()
    assert all(one.confirmed for one in rig.sent)
    rig.stop()


# Opening and closing


def test_an_idle_lane_closes_its_channel_is_forgotten_and_comes_again_with_work() -> None:
    rig = Rig(idle_timeout=10.0).start()
    rig.send("a")
    assert rig.peer.channels == [1, FIRST_LANE]
    rig.network.advance(9)
    assert rig.lanes == ["x"]
    rig.network.advance(3)
    assert (rig.lanes, rig.peer.channels) == ([], [1])
    rig.network.advance(100)
    assert rig.peer.channels == [1]
    (again,) = rig.send("b")
    assert again.confirmed
    assert rig.publisher.account().published == 2
    rig.stop()


def test_work_that_comes_while_the_channel_closes_opens_it_again() -> None:
    rig = Rig(idle_timeout=10.0).start()
    rig.send("a")
    rig.peer.half_open()
    rig.network.advance(11)
    assert rig.lane().state is LaneState.CLOSING
    sent = rig.submit("b")
    rig.network.advance(1)
    rig.peer.resume()
    rig.network.advance(1)
    assert sent.confirmed
    assert rig.lane().state is LaneState.OPEN
    rig.stop()


@pytest.mark.parametrize("code", [404, 406])
def test_a_channel_that_rabbitmq_closes_for_being_idle_ends_idle(rig: Rig, code: int) -> None:
    rig.start()
    rig.send("a")
    rig.peer.close_channel(rig.channel(), code, "NOT_FOUND - no exchange 'x' in vhost '/'")
    rig.network.advance(5)
    rig.broker.exchanges["x"] = {"k"}
    (after,) = rig.send("b")
    rig.network.advance(5)
    assert after.confirmed
    rig.stop()


def test_close_and_close_cross_on_the_wire() -> None:
    rig = Rig(idle_timeout=10.0).start()
    rig.send("a")
    rig.peer.half_open()
    rig.network.advance(11)
    assert rig.lane().state is LaneState.CLOSING
    rig.peer.close_channel(rig.channel(), 406, "PRECONDITION_FAILED - by chance")
    rig.peer.resume()
    rig.network.advance(1)
    (after,) = rig.send("b")
    assert after.confirmed
    rig.stop()


def test_a_missing_exchange_is_found_before_anything_is_published(rig: Rig) -> None:
    rig.start()
    gone, here = rig.submit("g", exchange="gone"), rig.submit("h")
    rig.network.flush()
    assert here.confirmed
    lane = rig.lane("gone")
    assert lane.state is LaneState.REFUSED
    assert lane.reason is not None
    assert (lane.reason.code, lane.reason.text) == (404, "NOT_FOUND - no exchange 'gone' in vhost '/'")
    assert rig.arrived() == ["h"]
    rig.network.advance(20)
    rig.broker.exchanges["gone"] = {"k"}
    rig.network.advance(31)
    assert gone.confirmed
    assert rig.lane("gone").reason is None
    assert rig.arrived("gone") == ["g"]
    rig.stop()


def test_a_refused_lane_for_which_nothing_waits_any_more_rests(rig: Rig, logged: Logged) -> None:
    rig.start()
    gone = rig.submit("g", exchange="gone")
    rig.network.flush()
    assert rig.lane("gone").state is LaneState.REFUSED
    rig.network.advance(10)
    assert rig.lane("gone").state is LaneState.REFUSED
    assert gone.receipt is not None
    rig.publisher.discard([gone.receipt.id], "a typo")
    rig.network.advance(60)
    assert [lane.exchange for lane in rig.publisher.status().lanes] == []
    said = len(logged.texts)
    rig.network.advance(600)
    assert not any("'gone'" in text for text in logged.texts[said:])
    # What comes later is tried at once.
    rig.broker.exchanges["gone"] = {"k"}
    (later,) = rig.send("h", exchange="gone")
    assert later.confirmed
    rig.stop()


def test_what_comes_while_a_refused_lane_looks_whether_anything_waits_is_not_forgotten() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    spool = SlowSpool(network)
    rig = Rig(network, spool=spool).start()
    gone = rig.submit("g", exchange="gone")
    network.advance(0.1)
    assert gone.receipt is not None
    rig.publisher.discard([gone.receipt.id], "a typo")
    network.broker.exchanges["gone"] = {"k"}
    spool.claiming = 5.0
    network.advance(2)
    assert rig.lane("gone").state is LaneState.REFUSED
    later = rig.submit("h", exchange="gone")
    network.advance(30)
    assert later.confirmed
    rig.stop()


def test_a_link_that_is_lost_while_a_refused_lane_looks_is_no_loss() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    spool = SlowSpool(network)
    rig = Rig(network, spool=spool).start()
    gone = rig.submit("g", exchange="gone")
    network.advance(0.1)
    spool.claiming = 5.0
    network.advance(2)
    network.broker.exchanges["gone"] = {"k"}
    rig.peer.drop()
    network.advance(30)
    assert gone.confirmed
    rig.stop()


def test_a_spool_that_cannot_be_asked_is_a_sentence_and_no_traceback(logged: Logged) -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    spool = _Failing()
    rig = Rig(network, spool=spool).start()
    gone = rig.submit("g", exchange="gone")
    network.advance(0.1)
    spool.failing = True
    network.advance(5)
    rig.submit("a")
    network.flush()
    said = [text for text in logged.texts if "could not claim" in text]
    assert said
    assert {text.partition(" could")[2] for text in said} == {" not claim from the spool: the disk is away"}
    assert {text.partition(" could")[0] for text in said} == {"lane 'gone'", "lane 'x'"}
    spool.failing = False
    network.broker.exchanges["gone"] = {"k"}
    network.advance(60)
    assert gone.confirmed
    rig.submit("b")
    rig.stop()


class _Failing(MemorySpool):
    """Whose claims fail."""

    failing = False

    def claim(self, exchange: str, limit: int, max_bytes: int, now: float) -> Any:
        if self.failing:
            return fail(SpoolError("the disk is away"))
        return super().claim(exchange, limit, max_bytes, now)


def test_an_exchange_deleted_under_load_stops_its_lane_only_and_order_is_kept(rig: Rig) -> None:
    rig.start().peer.hold()
    before = rig.send("a", "b")
    del rig.broker.exchanges["x"]
    after = rig.send("c", "d")
    assert rig.lane().state is LaneState.REFUSED
    rig.peer.release()
    (other,) = rig.send("y1", exchange="y")
    assert other.confirmed
    rig.broker.exchanges["x"] = {"k"}
    rig.network.advance(2)
    assert all(one.confirmed for one in [*before, *after])
    assert rig.arrived("x") == ["a", "b", "c", "a", "b", "c", "d"]
    assert rig.publisher.account().poison == 0
    rig.stop()


def test_after_a_refusal_one_message_tries_the_way_before_the_window_opens(rig: Rig) -> None:
    del rig.broker.exchanges["x"]
    rig.start().peer.hold()
    rig.send("a", "b", "c")
    rig.broker.exchanges["x"] = {"k"}
    rig.network.advance(1)
    assert rig.arrived() == ["a"]
    rig.peer.ack(rig.channel(), 1)
    rig.network.flush()
    assert rig.arrived() == ["a", "b", "c"]
    rig.peer.release()
    rig.stop()


def test_an_exchange_declared_anew_without_bindings_does_not_slow_its_lane(rig: Rig) -> None:
    del rig.broker.exchanges["x"]
    rig.start()
    rig.send("a", "b", "c")
    rig.peer.hold()
    rig.broker.exchanges["x"] = set()
    rig.network.advance(1)
    rig.peer.return_(FIRST_LANE, rig.broker.published[-1])
    rig.peer.ack(FIRST_LANE, 1)
    rig.network.flush()
    assert rig.sent[0].parked is not None
    assert rig.lane().reason is None
    assert rig.arrived() == ["a", "b", "c"]
    rig.peer.release()
    rig.stop()


def test_a_lane_without_a_free_channel_waits_until_another_is_idle(rig: Rig) -> None:
    rig = Rig(idle_timeout=5.0)
    rig.broker.channel_max = 2
    rig.start()
    (first,) = rig.send("a")
    (second,) = rig.send("y1", exchange="y")
    assert first.confirmed
    assert rig.lane("y").state is LaneState.REFUSED
    assert "channel_max of 2" in str(rig.lane("y").reason)
    rig.network.advance(30)
    assert second.confirmed
    rig.stop()


@pytest.mark.parametrize("code", [403, 406, 504])
def test_a_channel_closed_while_it_opens_is_tried_again_later_with_its_reason_shown(rig: Rig, code: int) -> None:
    rig.start().peer.ignore.add("Confirm.Select")
    (sent,) = rig.send("a")
    rig.peer.close_channel(FIRST_LANE, code, "BECAUSE - I can")
    rig.network.flush()
    lane = rig.lane()
    assert lane.state is LaneState.REFUSED
    assert lane.reason is not None
    assert (lane.reason.code, lane.reason.text) == (code, "BECAUSE - I can")
    rig.peer.ignore.clear()
    rig.network.advance(1)
    assert sent.confirmed
    assert rig.lane().reason is None
    rig.stop()


@pytest.mark.parametrize("step", ["Channel.Open", "Exchange.Declare", "Confirm.Select"])
@pytest.mark.parametrize("graceful", [True, False])
def test_a_link_lost_while_a_lane_opens_is_no_refusal(rig: Rig, step: str, graceful: bool) -> None:
    rig.start().peer.ignore.add(step)
    sent = rig.send("a", "b")
    if graceful:
        rig.peer.close_connection(320, "CONNECTION_FORCED - closed by a test")
    else:
        rig.peer.drop(abort=True)
    rig.network.flush()
    assert (rig.lane().state, rig.lane().reason) == (LaneState.IDLE, None)
    rig.broker.acks = rig.broker.acks.HELD
    rig.network.advance(1)
    assert rig.arrived() == ["a", "b"]
    rig.peer.release()
    rig.network.flush()
    assert all(one.confirmed for one in sent)
    rig.stop()


def test_work_that_comes_while_the_connection_is_closing_waits_for_the_next(rig: Rig) -> None:
    rig.start()
    rig.peer.close_connection(320, "CONNECTION_FORCED - closed by a test")
    sent = rig.submit("a")
    rig.network.advance(2)
    assert sent.confirmed
    assert len(rig.network.factory.peers) == 2
    rig.stop()


@pytest.mark.parametrize("channel", [True, False], ids=["channel lost", "link lost"])
def test_what_was_being_claimed_when_it_was_lost_keeps_its_place(channel: bool) -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    rig = Rig(network, spool=SlowSpool(network, claiming=0.2)).start()
    rig.network.advance(1)
    rig.submit("a")
    rig.network.advance(0.1)
    rig.submit("b")
    if channel:
        rig.peer.close_channel(FIRST_LANE, 404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    else:
        rig.peer.drop()
    rig.network.advance(5)
    assert all(one.confirmed for one in rig.sent)
    assert rig.arrived() == ["a", "b"]
    rig.stop()


def test_a_wake_during_an_empty_claim_is_not_forgotten() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    rig = Rig(network, spool=SlowSpool(network, claiming=1.0)).start()
    rig.network.advance(3)
    rig.submit("a")
    rig.network.advance(1.5)
    # "a" is there and the next, empty claim under way.
    assert rig.sent[0].confirmed
    sent = rig.submit("b")
    rig.network.advance(5)
    assert sent.confirmed
    rig.stop()


# Poison


def test_exactly_the_poison_message_is_parked_and_the_order_of_the_others_kept(rig: Rig) -> None:
    rig.start().peer.hold()
    sent = [rig.submit(str(n), poison=n in (5, 6)) for n in range(12)]
    rig.network.flush()
    rig.peer.release()
    rig.network.advance(2)
    for n, one in enumerate(sent):
        assert one.confirmed is (n not in (5, 6))
    assert sent[5].parked is not None
    assert (sent[5].parked.cause, sent[5].parked.code) == (Cause.POISON, 406)
    assert "invalid expiration 'soon'" in sent[5].parked.text
    first = [one for n, one in enumerate(rig.arrived()) if one not in rig.arrived()[:n]]
    assert first == [str(n) for n in range(12)]
    assert rig.lane().state is LaneState.OPEN
    assert rig.lane().suspects == 0
    rig.stop()


def test_what_was_answered_in_the_same_read_as_the_close_stays_answered(rig: Rig) -> None:
    rig.start().peer.hold()
    a, b, c = rig.send("a", "b", "c")
    rig.peer.ack(rig.channel(), 1)
    rig.peer.return_(rig.channel(), rig.broker.published[1])
    rig.peer.close_channel(rig.channel(), 406, "PRECONDITION_FAILED - over one of them")
    rig.peer.release()
    rig.network.advance(1)
    assert a.confirmed
    assert b.parked is not None
    assert b.parked.code == 312
    assert c.confirmed or c.parked is not None
    assert rig.arrived().count("a") == 1
    rig.stop()


def test_a_header_larger_than_a_frame_parks_its_message_and_no_other(rig: Rig) -> None:
    rig = Rig()
    rig.broker.frame_max = 4096
    rig.start()
    large = {"headers": {"h": "x" * 5000}}
    a, b, c = (
        rig.submit("a"),
        rig.submit_message(Message(exchange="x", routing_key="k", message_id="b", **large)),  # type: ignore[arg-type]
        rig.submit("c", body=b"x" * 20_000),
    )
    rig.network.flush()
    assert a.confirmed
    assert c.confirmed
    assert b.parked is not None
    assert b.parked.cause is Cause.POISON
    assert "frame_max 4096" in b.parked.text
    assert rig.arrived() == ["a", "c"]
    assert len(rig.network.factory.peers) == 1
    rig.stop()


def test_a_suspect_that_cannot_be_sent_any_more_ends_the_probation(rig: Rig) -> None:
    rig.start().peer.hold()
    large = Message(exchange="x", routing_key="k", message_id="b", headers={"h": "x" * 5000})
    rig.submit_message(large)
    rig.submit("c")
    rig.network.flush()
    rig.broker.frame_max = 4096
    rig.peer.close_connection(541, "INTERNAL_ERROR")
    rig.network.advance(2)
    assert rig.sent[0].parked is not None
    assert rig.sent[1].confirmed
    assert (rig.lane().state, rig.lane().suspects) == (LaneState.OPEN, 0)
    rig.stop()


@pytest.mark.parametrize("newer", [True, False])
def test_a_suspect_that_was_discarded_ends_the_probation(rig: Rig, newer: bool) -> None:
    rig.start().peer.hold()
    sent = [rig.submit(str(n)) for n in range(3)]
    rig.network.flush()
    rig.peer.close_connection(541, "INTERNAL_ERROR")
    rig.network.flush()
    assert rig.lane().suspects == 3
    discarded: list[str] = []
    rig.publisher.discard([each.receipt.id for each in sent if each.receipt], "not wanted").addCallback(
        discarded.extend
    )
    assert len(discarded) == 3
    newest = rig.submit("newest") if newer else None
    rig.network.advance(20)
    assert newest is None or newest.confirmed
    assert rig.lane().suspects == 0
    rig.stop()


def test_a_publisher_may_be_stopped_by_whoever_hears_of_an_unsendable_message(rig: Rig) -> None:
    rig = Rig()
    rig.broker.frame_max = 4096
    rig.start()
    large = Message(exchange="x", routing_key="k", message_id="b", headers={"h": "x" * 5000})
    stopped = []

    def stop(_: object) -> None:
        stopped.append(rig.publisher.stopService())

    receipt = rig.submit_message(large).receipt
    assert receipt is not None
    receipt.settled().addErrback(stop)
    others = [rig.submit(str(n)) for n in range(5)]
    rig.network.advance(15)
    assert stopped[0].called
    assert all(one.answer is not None for one in others)
    assert rig.publisher.account().books.difference == 0


def test_a_message_that_breaks_the_connection_again_and_again_is_found_while_others_flow(rig: Rig) -> None:
    rig.broker.on_publish = killer("bad")  # type: ignore[assignment]  # a function is an object
    rig.start().peer.hold()
    sent = [rig.submit(f"x{n}") for n in range(3)]
    bad = rig.submit("bad")
    sent += [rig.submit(f"x{n}") for n in range(3, 6)]
    sent += [rig.submit(f"y{n}", exchange="y") for n in range(3)]
    rig.network.advance(10)
    assert bad.parked is not None
    assert (bad.parked.cause, bad.parked.code, bad.parked.text) == (Cause.POISON, 541, "INTERNAL_ERROR")
    assert all(one.confirmed for one in sent)
    assert len(rig.network.factory.peers) <= 4
    (after,) = rig.send("after")
    assert after.confirmed
    rig.stop()


def test_the_innocent_of_another_lane_is_not_convicted_along_with_the_culprit(rig: Rig) -> None:
    rig.broker.on_publish = killer("bad")  # type: ignore[assignment]  # a function is an object
    # A broker that confirms late: what is in flight on another lane goes down with the culprit, each time.
    rig.broker.acks = rig.broker.acks.HELD
    rig.start()
    innocent = rig.submit("innocent", exchange="y")
    bad = rig.submit("bad")
    for _ in range(40):
        rig.network.advance(0.5)
        if rig.peer.phase.value == "any":
            for channel in rig.peer.channels:
                for one in rig.peer.unacked(channel):
                    rig.peer.ack(channel, one.tag)
            rig.network.flush()
    assert bad.parked is not None
    assert innocent.confirmed
    rig.stop()


def test_a_forced_close_makes_nobody_suspect(rig: Rig) -> None:
    rig.start()
    for _ in range(5):
        rig.peer.hold()
        rig.send("a")
        rig.peer.close_connection(320, "CONNECTION_FORCED - closed by a test")
        rig.network.advance(1)
        assert rig.lane().suspects == 0
    assert all(one.confirmed for one in rig.sent)
    assert rig.publisher.account().poison == 0
    rig.stop()


# Several at once


def test_lost_deliveries_are_replayed_in_order_before_newer_ones(rig: Rig) -> None:
    rig.start().peer.hold()
    rig.send("a", "b", "c")
    rig.peer.ack(rig.channel(), 2)
    rig.network.flush()
    rig.peer.drop()
    rig.network.flush()
    rig.send("d", "e")
    rig.network.advance(1)
    assert rig.arrived(peer=rig.peer) == ["a", "c", "d", "e"]
    assert all(one.confirmed for one in rig.sent)
    rig.stop()


def test_lanes_take_turns_when_the_transport_has_room_again() -> None:
    rig = Rig(window_bytes=200_000).start()
    rig.send("x0")
    rig.send("y0", exchange="y")
    rig.peer.half_open()
    for n in range(100):
        rig.submit(f"x{n}", body=b"x" * 20_000)
        rig.submit(f"y{n}", exchange="y", body=b"x" * 20_000)
    rig.network.advance(1)
    rig.peer.resume()
    rig.network.advance(5)
    assert all(one.confirmed for one in rig.sent)
    half = rig.arrived()[:100]
    assert 20 < sum(one.startswith("x") for one in half) < 80
    rig.stop()


def test_the_size_of_an_entry_counts_its_properties() -> None:
    message = Message(exchange="x", routing_key="k", message_id="m", body=b"12345")
    properties = encode_properties(message, message_id="m", delivery_mode=2)
    rig = Rig().start()
    rig.peer.hold()
    rig.submit_message(message)
    rig.network.flush()
    assert rig.lane().in_flight_bytes == OVERHEAD + 2 + len(properties) + 5
    rig.peer.release()
    rig.stop()


def test_the_backoff_of_a_refused_lane_grows_and_is_bounded(logged: Logged) -> None:
    rig = Rig(backoff=Backoff(first=1.0, max=4.0, jitter=0.0))
    del rig.broker.exchanges["x"]
    rig.start()
    rig.submit("a")
    rig.network.advance(14.5)
    assert [event["delay"] for event in logged.events if "delay" in event] == [1, 2, 4, 4, 4]
    rig.broker.exchanges["x"] = {"k"}
    rig.network.advance(5)
    assert rig.sent[0].confirmed
    rig.stop()
