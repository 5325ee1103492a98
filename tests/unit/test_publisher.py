"""Publisher: submitting, settling, draining and stopping, on a broker in memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from pubd.amqp.lifecycle import LinkState
from pubd.errors import (
    InvalidMessage,
    InvalidOption,
    MessageDiscarded,
    MessageParked,
    PublisherStopped,
    SpoolFailed,
    SpoolFull,
)
from pubd.intake.timer import TimerIntake
from pubd.message import Message
from pubd.policy import OnReturn, Policy
from pubd.publisher import Publisher
from pubd.receipt import Confirmed
from pubd.spool.memory import MemorySpool
from tests.network import MemoryNetwork
from tests.peer import Broker
from tests.rig import Rig
from tests.slow_spool import SlowSpool
from tests.strictness import Logged
from tests.tampering import tamper


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(Broker(exchanges={"x": {"k"}, "y": {"k"}}))


@pytest.fixture
def rig(network: MemoryNetwork) -> Rig:
    return Rig(network)


def message(message_id: str | None = None, **given: Any) -> Message:
    return Message(exchange="x", routing_key="k", message_id=message_id, **given)


def answer(deferred: Deferred[Any]) -> Any:
    """What it fired with; "waiting" if it did not."""
    seen: list[Any] = []
    deferred.addBoth(seen.append)
    return "waiting" if not seen else seen[0].value if isinstance(seen[0], Failure) else seen[0]


def said(logged: Logged, level: LogLevel) -> list[str]:
    return [text for event, text in zip(logged.events, logged.texts, strict=True) if event["log_level"] is level]


# Submitting


def test_before_the_start_nothing_is_accepted(rig: Rig) -> None:
    sent = rig.submit("a")
    assert isinstance(sent.refused, PublisherStopped)
    assert "startService()" in str(sent.refused)
    assert rig.publisher.account().books.accepted == 0


def test_after_the_stop_and_while_stopping_nothing_is_accepted(rig: Rig) -> None:
    rig.start().peer.hold()
    rig.send("a")
    stopped = rig.publisher.stopService()
    while_stopping = rig.submit("b")
    assert isinstance(while_stopping.refused, PublisherStopped)
    assert "is stopping" in str(while_stopping.refused)
    rig.peer.release()
    rig.network.advance(1)
    assert stopped.called
    assert isinstance(rig.submit("c").refused, PublisherStopped)
    assert rig.sent[0].confirmed
    assert rig.publisher.account().books.accepted == 1


def test_a_message_without_an_id_gets_one_and_keeps_it_over_every_delivery(rig: Rig) -> None:
    rig.start().peer.hold()
    (sent,) = rig.send(None)  # type: ignore[arg-type]  # no message_id is what this is about
    rig.peer.drop()
    rig.network.advance(1)
    assert sent.receipt is not None
    assert sent.confirmed
    assert rig.arrived() == [sent.receipt.message_id] * 2
    assert sent.receipt.id == sent.receipt.message_id
    rig.stop()


@pytest.mark.parametrize(
    ("given", "mandatory", "mode"),
    [({}, True, 2), ({"mandatory": False, "delivery_mode": 1}, False, 1), ({"delivery_mode": 2}, True, 2)],
)
def test_mandatory_and_persistent_are_the_defaults_and_the_message_may_differ(
    rig: Rig, given: dict[str, Any], mandatory: bool, mode: int
) -> None:
    rig.start()
    rig.send("a", **given)
    (published,) = rig.broker.published
    assert (published.mandatory, published.properties.delivery_mode) == (mandatory, mode)
    rig.stop()


def test_many_are_accepted_in_order_or_not_at_all(rig: Rig) -> None:
    rig.start()
    receipts = answer(rig.publisher.submit_many(message(str(n)) for n in range(5)))
    rig.network.flush()
    assert [receipt.message_id for receipt in receipts] == rig.arrived() == list("01234")
    bad = message("bad")
    tamper(bad, "timestamp", "now")
    problem = answer(rig.publisher.submit_many([message("good"), bad]))
    assert isinstance(problem, InvalidMessage)
    assert problem.field == "timestamp"
    assert rig.publisher.account().books.accepted == 5
    rig.stop()


def test_no_messages_are_no_problem(rig: Rig) -> None:
    rig.start()
    assert answer(rig.publisher.submit_many([])) == []
    rig.stop()


def test_a_full_spool_refuses_by_name_and_takes_messages_again_after_confirmations(network: MemoryNetwork) -> None:
    rig = Rig(network, spool=MemorySpool(max_bytes=2_000)).start()
    rig.peer.hold()
    a, b = rig.send("a", "b", body=b"x" * 1_000)
    assert isinstance(b.refused, SpoolFull)
    assert b.refused.limit == "max_bytes"
    rig.peer.release()
    rig.network.flush()
    assert a.confirmed
    (c,) = rig.send("c", body=b"x" * 1_000)
    assert c.confirmed
    rig.stop()


def test_a_wrong_url_is_refused_when_the_publisher_is_made() -> None:
    with pytest.raises(InvalidOption, match="scheme"):
        Publisher.from_url("http://localhost", reactor=MemoryNetwork())


def test_the_reactor_of_the_process_is_the_default() -> None:
    from twisted.internet import reactor

    publisher = Publisher.from_url("amqp://localhost")
    assert publisher._reactor is reactor


def test_of_several_brokers_the_first_that_answers_is_used(network: MemoryNetwork) -> None:
    publisher = Publisher.from_url(["amqp://localhost:1111", "amqp://localhost:2222"], reactor=network)
    network.refuse_next(2)
    publisher.startService()
    network.advance(2)
    assert {port for _, _, port in network.dialled} == {1111, 2222}
    assert publisher.status().link is LinkState.READY
    publisher.stopService()
    network.advance(1)


# Receipts


def test_cancelling_a_waiter_does_not_disturb_the_message(rig: Rig) -> None:
    rig.start().peer.hold()
    (sent,) = rig.send("a")
    assert sent.receipt is not None
    cancelled = sent.receipt.settled()
    cancelled.cancel()
    assert isinstance(answer(cancelled), CancelledError)
    rig.peer.release()
    rig.network.flush()
    assert sent.confirmed
    assert isinstance(answer(sent.receipt.settled()), Confirmed)
    rig.stop()


def test_receipts_that_nobody_keeps_cost_nothing(rig: Rig) -> None:
    rig.start().peer.hold()
    seen = [weakref.ref(receipt) for receipt in answer(rig.publisher.submit_many(message(str(n)) for n in range(100)))]
    gc.collect()
    assert [ref for ref in seen if ref() is not None] == []
    rig.peer.release()
    rig.network.flush()
    assert rig.publisher.account().books.confirmed == 100
    rig.stop()


def test_memory_does_not_grow_with_the_messages_that_went_through(rig: Rig) -> None:
    rig.start()

    def through(count: int) -> int:
        for _ in range(count):
            answer(rig.publisher.submit(message()))
        rig.network.flush()
        rig.broker.published.clear()
        rig.peer.published.clear()
        gc.collect()
        return len(gc.get_objects())

    through(300)
    before = through(300)
    assert through(300) - before < 150
    rig.stop()


def test_a_coroutine_that_nobody_holds_is_told(rig: Rig) -> None:
    rig.start().peer.hold()
    told: list[Confirmed] = []

    async def one() -> None:
        receipt = await rig.publisher.submit(message("a"))
        told.append(await receipt.settled())

    Deferred.fromCoroutine(one())
    rig.network.flush()
    gc.collect()
    rig.peer.release()
    rig.network.flush()
    assert [confirmed.message_id for confirmed in told] == ["a"]
    rig.stop()


def test_a_count_of_a_timer_survives_garbage_collection(rig: Rig) -> None:
    rig.start().peer.hold()
    finished: list[bool] = []
    timer = TimerIntake(
        clock=rig.network,
        submit=rig.publisher.submit,
        make=message,
        interval=1.0,
        count=3,
        finished=lambda: finished.append(True),
    )
    timer.startService()
    rig.network.advance(5)
    gc.collect()
    rig.peer.release()
    rig.network.advance(5)
    assert finished == [True]
    assert rig.publisher.account().acked == 3
    timer.stopService()
    rig.stop()


def test_an_error_of_an_application_callback_is_the_applications_own(rig: Rig, logged: Logged) -> None:
    rig.start()

    def mistake(_: object) -> None:
        raise RuntimeError("mistake of the application")

    receipt = answer(rig.publisher.submit(message("a")))
    receipt.settled().addCallback(mistake)
    (b,) = rig.send("b")
    assert b.confirmed
    del receipt
    assert len(logged.flush(RuntimeError)) == 1
    rig.stop()


# Policies


def test_a_returned_message_can_be_retried_by_policy(network: MemoryNetwork) -> None:
    rig = Rig(network, policy=Policy(on_return=OnReturn.RETRY, max_attempts=3)).start()
    (sent,) = rig.send("a", key="later")
    rig.network.advance(0.5)
    rig.broker.exchanges["x"].add("later")
    rig.network.advance(1)
    assert sent.confirmed
    (never,) = rig.send("b", key="never")
    rig.network.advance(10)
    assert isinstance(never.answer, MessageParked)
    assert "312 NO_ROUTE" in str(never.answer)
    rig.stop()


def test_a_returned_message_can_be_dropped_by_policy(network: MemoryNetwork) -> None:
    rig = Rig(network, policy=Policy(on_return=OnReturn.DROP)).start()
    (sent,) = rig.send("a", key="nowhere")
    assert isinstance(sent.answer, MessageDiscarded)
    assert rig.publisher.account().books.discarded == 1
    rig.stop()


def test_deferred_messages_are_each_woken_when_they_are_due(network: MemoryNetwork) -> None:
    shares = iter([0.0, 0.7, 0.3, 0.0, 0.0, 0.0])
    policy = Policy(max_attempts=3)
    rig = Rig(network, policy=policy, random=lambda: next(shares, 0.0), spool=SlowSpool(network)).start()
    rig.peer.hold()
    rig.send("a", "b", "c")
    for tag in (1, 2, 3):
        rig.peer.nack(rig.channel(), tag)
    rig.network.flush()
    rig.peer.release()
    seen = []
    for _ in range(12):
        rig.network.advance(0.1)
        seen.append(len(rig.broker.published))
    assert (seen[0], seen[-1]) == (3, 6)
    assert len(set(seen)) == 4
    assert all(one.confirmed for one in rig.sent)
    rig.stop()


# The account


def test_the_account_tells_how_every_delivery_ended(rig: Rig) -> None:
    rig.start().peer.hold()
    rig.submit("confirmed")
    rig.submit("returned", key="nowhere")
    rig.submit("nacked")
    rig.submit("lost")
    rig.network.flush()
    channel = rig.channel()
    rig.peer.return_(channel, rig.broker.published[1])
    rig.peer.ack(channel, 2, multiple=True)
    rig.peer.nack(channel, 3)
    rig.network.flush()
    assert rig.publisher.account().pending == 1
    rig.peer.drop()
    rig.network.advance(0.1)
    account = rig.publisher.account()
    assert (account.published, account.pending) == (4, 0)
    assert (account.acked, account.returned, account.nacked, account.lost, account.poison) == (1, 1, 1, 1, 0)
    assert account.books.difference == 0
    assert (account.books.parked, account.books.deferred, account.books.ready) == (1, 1, 1)
    rig.network.advance(10)
    rig.stop()


# Parked


def test_receipts_of_a_group_that_heals_wait_for_the_settlement_that_comes(network: MemoryNetwork) -> None:
    rig = Rig(network, policy=Policy(heal=True, heal_interval=10.0)).start()
    sent = rig.send(*map(str, range(12)), key="later")
    assert all(each.parked for each in sent)
    network.broker.exchanges["x"].add("later")
    # Only the probe is answered.
    network.broker.on_publish = lambda _, published: published.properties.message_id != "0"
    network.advance(10)
    network.flush()
    assert rig.publisher.account().books.in_flight == 11
    again = [each.receipt.settled() for each in sent if each.receipt is not None]
    assert [each.called for each in again] == [True] + [False] * 11
    network.broker.on_publish = None
    rig.peer.drop()
    network.advance(5)
    assert [type(answer(each)) for each in again] == [Confirmed] * 12
    rig.stop()


def test_a_parked_message_is_copied_once_more_when_a_person_retried_it_and_it_is_parked_again(
    network: MemoryNetwork,
) -> None:
    network.broker.exchanges["graves"] = {"#"}
    rig = Rig(network, policy=Policy(park_to="graves")).start()
    (sent,) = rig.send("a", key="nowhere")
    assert sent.receipt is not None
    copies = [2, 3]
    for count in copies:
        assert rig.publisher.account().books.accepted == count
        assert rig.publisher.account().books.parked == 1
        rig.publisher.retry([sent.receipt.id])
        rig.network.flush()
    rig.stop()


# The spool's troubles


class BrokenSpool(MemorySpool):
    """Fails where it is told to."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.broken = set(broken)

    def _or_fail(self, name: str, call: Any, *given: Any, **named: Any) -> Any:
        if name in self.broken:
            return fail(SpoolFailed(f"{name}: no space left on device"))
        return call(*given, **named)

    def open(self) -> Any:
        return self._or_fail("open", super().open)

    def append(self, *given: Any, **named: Any) -> Any:
        return self._or_fail("append", super().append, *given, **named)

    def append_each(self, *given: Any, **named: Any) -> Any:
        return self._or_fail("append", super().append_each, *given, **named)

    def claim(self, *given: Any, **named: Any) -> Any:
        return self._or_fail("claim", super().claim, *given, **named)

    def settle(self, *given: Any, **named: Any) -> Any:
        return self._or_fail("settle", super().settle, *given, **named)

    def due(self, *given: Any, **named: Any) -> Any:
        return self._or_fail("due", super().due, *given, **named)


def test_a_spool_that_cannot_be_opened_is_said_and_nothing_is_published(network: MemoryNetwork, logged: Logged) -> None:
    rig = Rig(network, spool=BrokenSpool("open"))
    rig.publisher.startService()
    network.advance(5)
    assert network.dialled == []
    critical = [e for e in logged.events if e["log_level"] is LogLevel.critical]
    assert len(critical) == 1
    logged.events = [e for e in logged.events if e["log_level"] is not LogLevel.critical]
    rig.stop()


def test_a_failing_commit_refuses_the_submission(network: MemoryNetwork) -> None:
    rig = Rig(network, spool=BrokenSpool("append")).start()
    (sent,) = rig.send("a")
    assert isinstance(sent.refused, SpoolFailed)
    rig.stop()


def test_a_settlement_that_cannot_be_stored_is_told_to_nobody(network: MemoryNetwork, logged: Logged) -> None:
    spool = BrokenSpool("settle")
    rig = Rig(network, spool=spool, drain_timeout=1.0).start()
    (sent,) = rig.send("a")
    assert sent.answer is None
    assert "settlements could not be stored: settle: no space left on device" in logged.texts
    rig.stop()
    assert isinstance(sent.answer, PublisherStopped)


def test_a_failing_claim_is_logged_and_the_lane_goes_on_with_the_next_wake(
    network: MemoryNetwork, logged: Logged
) -> None:
    spool = BrokenSpool("claim")
    rig = Rig(network, spool=spool).start()
    (a,) = rig.send("a")
    assert "lane 'x' could not claim from the spool: claim: no space left on device" in logged.texts
    spool.broken.clear()
    (b,) = rig.send("b")
    assert a.confirmed
    assert b.confirmed
    rig.stop()


def test_a_spool_that_cannot_say_what_is_due_is_logged(network: MemoryNetwork, logged: Logged) -> None:
    rig = Rig(network, spool=BrokenSpool("due")).start()
    rig.peer.hold()
    rig.send("a")
    rig.peer.nack(rig.channel(), 1)
    rig.network.flush()
    rig.peer.release()
    rig.network.advance(2)
    assert rig.sent[0].confirmed
    assert "due: no space left on device" in logged.texts
    rig.stop()


# Starting and stopping


def test_what_waits_in_the_spool_is_published_at_the_start(network: MemoryNetwork) -> None:
    spool = SlowSpool(network, durable=True)
    first = Rig(network, spool=spool, drain_timeout=1.0).start()
    first.peer.hold()
    first.send("a", "b")
    first.peer.nack(first.channel(), 1)
    first.network.flush()
    first.stop()
    assert {type(one.answer) for one in first.sent} == {PublisherStopped}
    assert spool.books().held == 2
    second = Rig(network, spool=spool).start()
    network.advance(2)
    assert spool.books().confirmed == 2
    second.stop()


def test_a_durable_spool_is_left_with_what_was_not_published_yet(network: MemoryNetwork, logged: Logged) -> None:
    network.down = True
    rig = Rig(network, spool=SlowSpool(network, durable=True))
    rig.publisher.startService()
    network.advance(1)
    rig.send("a", "b")
    stopped = rig.publisher.stopService()
    network.advance(0.1)
    assert stopped.called
    assert {type(one.answer) for one in rig.sent} == {PublisherStopped}
    assert "stopped; 2 messages wait in the spool for the next start" in said(logged, LogLevel.info)


def test_a_spool_in_memory_is_drained_before_the_end(network: MemoryNetwork, logged: Logged) -> None:
    rig = Rig(network, window=2).start()
    rig.peer.hold()
    sent = [rig.submit(str(n)) for n in range(6)]
    rig.network.flush()
    stopped = rig.publisher.stopService()
    rig.network.advance(1)
    assert not stopped.called
    rig.peer.release()
    rig.network.advance(1)
    assert stopped.called
    assert all(one.confirmed for one in sent)
    assert "stopped; every accepted message is settled" in said(logged, LogLevel.info)
    assert network.factory.violations == []
    assert rig.peer.closed_by is not None


def test_stopping_ends_in_time_whatever_the_broker_does_and_says_what_is_lost(
    network: MemoryNetwork, logged: Logged
) -> None:
    rig = Rig(network, drain_timeout=5.0).start()
    rig.peer.silence()
    sent = rig.send("a", "b")
    stopped = rig.publisher.stopService()
    rig.network.advance(4.9)
    assert not stopped.called
    rig.network.advance(2.2)
    assert stopped.called
    for one in sent:
        assert isinstance(one.answer, PublisherStopped)
    assert any("2 messages were held in memory and are gone" in text for text in said(logged, LogLevel.warn))


def test_a_durable_stop_waits_for_what_is_in_flight_only(network: MemoryNetwork) -> None:
    rig = Rig(network, spool=SlowSpool(network, durable=True), window=2).start()
    rig.peer.hold()
    sent = [rig.submit(str(n)) for n in range(6)]
    rig.network.flush()
    assert rig.arrived() == ["0", "1"]
    stopped = rig.publisher.stopService()
    rig.network.advance(1)
    rig.peer.release()
    rig.network.advance(1)
    assert stopped.called
    assert [one.confirmed for one in sent] == [True, True] + [False] * 4
    assert rig.publisher.account().books.ready == 4


def test_a_nack_during_the_stop_leaves_no_timer(network: MemoryNetwork) -> None:
    spool = SlowSpool(network, commit=0.5, durable=True)
    rig = Rig(network, spool=spool).start()
    rig.network.advance(1)
    rig.peer.hold()
    rig.send("a")
    rig.network.advance(2)
    stopped = rig.publisher.stopService()
    rig.peer.nack(rig.channel(), 1)
    rig.network.advance(3)
    assert stopped.called
    assert network.getDelayedCalls() == []
    assert spool.books().deferred == 1


def test_a_spool_in_memory_waits_for_all_of_its_deferred_messages(network: MemoryNetwork) -> None:
    shares = iter([0.0, 0.7, 0.3])
    rig = Rig(network, random=lambda: next(shares, 0.0), policy=Policy(max_attempts=3)).start()
    rig.peer.hold()
    rig.send("a", "b")
    rig.peer.nack(rig.channel(), 1)
    rig.peer.nack(rig.channel(), 2)
    rig.network.flush()
    rig.peer.release()
    stopped = rig.publisher.stopService()
    rig.network.advance(2)
    assert stopped.called
    assert all(one.confirmed for one in rig.sent)


def test_stopping_while_the_spool_opens_never_connects(network: MemoryNetwork) -> None:
    spool = SlowSpool(network, opening=2.0)
    rig = Rig(network, spool=spool)
    rig.publisher.startService()
    stopped = rig.publisher.stopService()
    network.advance(5)
    assert stopped.called
    assert network.dialled == []
    assert not spool.is_open
    assert network.getDelayedCalls() == []


def test_a_commit_under_way_at_the_stop_is_waited_for(network: MemoryNetwork) -> None:
    rig = Rig(network, spool=SlowSpool(network, commit=1.0, durable=True)).start()
    sent = rig.submit("a")
    stopped = rig.publisher.stopService()
    rig.network.advance(5)
    assert stopped.called
    assert sent.receipt is not None
    assert isinstance(sent.answer, PublisherStopped)
    assert rig.publisher.account().books.ready == 1


def test_stopping_twice_or_before_the_start_is_harmless(rig: Rig) -> None:
    assert rig.publisher.stopService().called
    rig.start()
    first, second = rig.publisher.stopService(), rig.publisher.stopService()
    rig.network.advance(1)
    assert first.called
    assert second.called
    assert rig.network.getDelayedCalls() == []


def test_a_publisher_that_was_stopped_can_be_started_again(rig: Rig) -> None:
    for _ in range(2):
        rig.start()
        (sent,) = rig.send("a")
        assert sent.confirmed
        rig.stop()


def test_two_publishers_live_in_one_application(network: MemoryNetwork) -> None:
    application = MultiService()
    made = [Rig(network, url=f"amqp://guest:guest@localhost:{port}") for port in (1111, 2222)]
    for one in made:
        one.publisher.setServiceParent(application)
    application.startService()
    network.advance(1)
    assert len(network.factory.peers) == 2
    sent = [one.submit(f"m{n}") for n, one in enumerate(made)]
    network.flush()
    assert all(one.confirmed for one in sent)
    assert [[one.properties.message_id for one in peer.published] for peer in network.factory.peers] in (
        [["m0"], ["m1"]],
        [["m1"], ["m0"]],
    )
    application.stopService()
    network.advance(5)
    assert network.getDelayedCalls() == []
    assert network.factory.violations == []


def test_a_broker_that_is_away_for_long_costs_no_attempt(rig: Rig) -> None:
    rig.start().peer.hold()
    sent = rig.send("a", "b")
    for _ in range(10):
        rig.network.down = True
        rig.peer.drop()
        rig.network.advance(60)
        rig.network.down = False
        rig.broker.acks = rig.broker.acks.HELD
        rig.network.advance(60)
    rig.peer.release()
    rig.network.flush()
    for one in sent:
        assert isinstance(one.answer, Confirmed)
        assert one.answer.attempts == 0
    rig.stop()
