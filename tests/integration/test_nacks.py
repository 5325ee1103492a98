"""Nacks of a real broker: backoff, attempts, parking, retry by hand; and what a nack means with several queues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted

from pubd.errors import MessageDiscarded, MessageParked
from pubd.outcome import Cause, State
from pubd.policy import OnNack, OnReturn, Policy
from pubd.receipt import Confirmed
from pubd.retry import Backoff
from tests.integration.spooled import (
    QUICK,
    at_most,
    bind,
    bodies,
    declare,
    end,
    get,
    purge,
    reaches,
    record,
    spooling,
    submit,
)
from tests.integration.support import in_thread, pause, reactor, vhost_url
from tests.rabbitmq import Node

Unique = Callable[..., str]


@pytest.fixture
def url(shared_node: Node, vhost: str) -> str:
    return vhost_url(shared_node, vhost)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest_twisted.ensureDeferred
async def test_a_full_queue_costs_attempts_with_backoff_then_parks_and_a_retry_by_hand_is_confirmed(
    url: str, spool: Path
) -> None:
    await in_thread(declare, url, "x")
    await in_thread(lambda: bind(url, "x", "q", "k", **at_most(2)))
    async with spooling(url, spool, Policy(max_attempts=4, backoff=QUICK)) as publisher:
        filling = [await submit(publisher, "x", "k", b"filling") for _ in range(2)]
        for receipt in filling:
            assert isinstance(await end(receipt), Confirmed)
        receipts = [await submit(publisher, "x", "k", b"%d" % number) for number in range(3)]
        for receipt in receipts:
            answer = await end(receipt)
            assert isinstance(answer, MessageParked)
            assert answer.reason.cause is Cause.ATTEMPTS
            assert answer.reason.text == "4 of 4, the last one nacked"
        account = publisher.account()
        assert (account.published, account.nacked, account.acked) == (2 + 3 * 4, 3 * 4, 2)
        assert (account.books.parked, account.books.held) == (3, 3)

        known = await record(publisher, receipts[0])
        assert (known.state, known.attempts, known.in_flight) == (State.PARKED, 4, False)
        assert [(each.number, each.outcome, each.times) for each in known.failures] == [
            (number, "nacked", 1) for number in (1, 2, 3, 4)
        ]
        assert all(each.node and each.channel and each.tag for each in known.failures)
        waits = [later.at - former.at for former, later in zip(known.failures, known.failures[1:], strict=False)]
        for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True):
            assert wait >= least * 0.95, waits

        # Parked is parked: nothing tries it again.
        await pause(0.5)
        assert publisher.account().published == account.published

        await in_thread(purge, url, "q")
        # One of the three finds no room again: retrying gives new attempts, not a promise.
        await publisher.retry([receipt.id for receipt in receipts[:2]])
        for receipt in receipts[:2]:
            assert await end(receipt) == Confirmed(id=receipt.id, message_id=receipt.message_id, attempts=0)
        confirmed = await record(publisher, receipts[1])
        assert (confirmed.state, confirmed.reason, confirmed.due) == (State.CONFIRMED, None, None)
        assert confirmed.via is not None
        assert confirmed.via.node.startswith("pubd@")
        assert confirmed.tag is not None
        assert confirmed.settled_at is not None
        assert len(confirmed.failures) == 4, "how it was parked stays known"
        await publisher.retry([receipts[2].id])
        assert isinstance(await end(receipts[2]), MessageParked)
    assert await bodies(url, "q") == [b"0", b"1"]


@pytest_twisted.ensureDeferred
async def test_a_queue_that_stays_full_is_no_hot_loop(url: str, spool: Path) -> None:
    messages, wait = 100, 0.3
    await in_thread(declare, url, "x")
    await in_thread(lambda: bind(url, "x", "q", "k", **at_most(1)))
    policy = Policy(max_attempts=1000, backoff=Backoff(first=wait, factor=1.0, max=wait, jitter=0.0))
    async with spooling(url, spool, policy) as publisher:
        await end(await submit(publisher, "x", "k", b"filling"))
        began = reactor.seconds()
        receipts = [await submit(publisher, "x", "k", b"%d" % number) for number in range(messages)]
        while publisher.account().published - 1 < 3 * messages:
            await pause()
        # However long that took: each was tried once, and once more after each wait.
        assert publisher.account().published - 1 <= messages * (1 + (reactor.seconds() - began) / wait)
        assert publisher.account().books.deferred + publisher.account().books.ready <= messages
        assert await publisher.discard([receipt.id for receipt in receipts], "the test is over")
        await pause(0.1)


@pytest_twisted.ensureDeferred
async def test_room_that_comes_by_itself_ends_the_nacks_without_a_person(url: str, spool: Path) -> None:
    await in_thread(declare, url, "x")
    await in_thread(lambda: bind(url, "x", "q", "k", **at_most(1)))
    async with spooling(url, spool, Policy(max_attempts=1000, backoff=QUICK)) as publisher:
        await end(await submit(publisher, "x", "k", b"filling"))
        receipt = await submit(publisher, "x", "k", b"patient")
        deferred = await reaches(publisher, receipt, State.DEFERRED)
        assert deferred.due is not None
        assert deferred.attempts >= 1
        await in_thread(purge, url, "q")
        answer = await end(receipt)
        assert isinstance(answer, Confirmed)
        assert answer.attempts >= deferred.attempts
    assert await bodies(url, "q") == [b"patient"]


@pytest.mark.parametrize(
    ("policy", "state", "copies"),
    [
        (Policy(max_attempts=3, backoff=QUICK), State.PARKED, 3),
        (Policy(on_nack=OnNack.PARK), State.PARKED, 1),
        (Policy(on_nack=OnNack.DUPLICATE), State.CONFIRMED, 1),
    ],
    ids=["retry", "park", "confirmed-as-duplicate"],
)
@pytest_twisted.ensureDeferred
async def test_with_one_full_queue_of_two_the_healthy_one_has_the_message_although_it_was_nacked(
    url: str, spool: Path, policy: Policy, state: State, copies: int
) -> None:
    """A nack does not mean "not delivered".

    RabbitMQ nacks a message when at least one of its queues did not take it; those that did keep it, and nothing tells
    the publisher which. So each retry is one copy more in the healthy queue (all with the same ``message_id``, by which
    consumers can drop them) until the full one has room or the attempts are used up. ``on_nack = "park"`` leaves it to
    a person after the first nack; ``on_nack = "confirmed-as-duplicate"`` takes the nack for an answer: right for
    brokers that nack what they have already, and a message lost to the full queue where they do not.
    """
    await in_thread(declare, url, "x", "fanout")
    await in_thread(lambda: bind(url, "x", "full", **at_most(1)))
    async with spooling(url, spool, policy) as publisher:
        await end(await submit(publisher, "x", body=b"filling"))
        await in_thread(bind, url, "x", "healthy")
        receipt = await submit(publisher, "x", body=b"both")
        answer = await end(receipt)
        assert isinstance(answer, Confirmed if state is State.CONFIRMED else MessageParked)
        known = await record(publisher, receipt)
        assert (known.state, known.attempts) == (state, copies)
        assert [each.outcome for each in known.failures] == ["nacked"] * copies
    taken = await get(url, "healthy")
    assert [body for body, _ in taken] == [b"both"] * copies
    assert {properties.message_id for _, properties in taken} == {receipt.message_id}
    assert await bodies(url, "full") == [b"filling"]


@pytest_twisted.ensureDeferred
async def test_nacks_of_one_route_do_not_hold_up_the_others_of_its_exchange(url: str, spool: Path) -> None:
    await in_thread(declare, url, "x")
    await in_thread(lambda: bind(url, "x", "full", "full", **at_most(1)))
    await in_thread(bind, url, "x", "healthy", "healthy")
    async with spooling(url, spool, Policy(max_attempts=1000, backoff=QUICK)) as publisher:
        await end(await submit(publisher, "x", "full"))
        stuck = await submit(publisher, "x", "full")
        for number in range(20):
            assert isinstance(await end(await submit(publisher, "x", "healthy", b"%d" % number)), Confirmed)
        assert (await record(publisher, stuck)).state in (State.DEFERRED, State.READY)
        assert list(await publisher.discard([stuck.id], "the test is over")) == [stuck.id]
        discarded = await end(stuck)
        assert isinstance(discarded, MessageDiscarded)
        assert "the test is over" in str(discarded)
    assert await bodies(url, "healthy") == [b"%d" % number for number in range(20)]


# Policies


@pytest_twisted.ensureDeferred
async def test_the_first_policy_that_matches_exchange_and_routing_key_decides(url: str, spool: Path) -> None:
    for name in ("metrics.cpu", "orders"):
        await in_thread(declare, url, name, "topic")
    policies = (
        Policy(exchange="metrics*", on_return=OnReturn.DROP),
        Policy(exchange="orders", routing_key="eu.#", on_return=OnReturn.RETRY, max_attempts=2, backoff=QUICK),
        Policy(exchange="orders", routing_key="eu.*", on_return=OnReturn.DROP),
    )
    async with spooling(url, spool, *policies) as publisher:
        dropped = await end(await submit(publisher, "metrics.cpu", "any"))
        assert isinstance(dropped, MessageDiscarded)
        assert dropped.reason is not None
        assert dropped.reason.code == 312
        retried = await end(await submit(publisher, "orders", "eu.new"))
        assert isinstance(retried, MessageParked)
        assert retried.reason.text == "2 of 2, the last one returned: 312 NO_ROUTE"
        other = await submit(publisher, "orders", "us.new")
        parked = await end(other)
        assert isinstance(parked, MessageParked)
        assert (parked.reason.cause, parked.reason.code, parked.reason.text) == (Cause.RETURNED, 312, "NO_ROUTE")
        (failure,) = (await record(publisher, other)).failures
        assert (failure.number, failure.outcome, failure.code, failure.text) == (1, "returned", 312, "NO_ROUTE")
        assert failure.node is not None
        assert failure.node.startswith("pubd@")
        assert failure.channel
        assert failure.tag
        books = publisher.account().books
        assert (books.discarded, books.parked, books.accepted) == (1, 2, 3)


@pytest_twisted.ensureDeferred
async def test_a_message_past_its_lifetime_is_parked_as_such_instead_of_tried_again(url: str, spool: Path) -> None:
    await in_thread(declare, url, "x")
    policy = Policy(on_return=OnReturn.RETRY, max_attempts=1000, backoff=QUICK, lifetime=0.4)
    async with spooling(url, spool, policy) as publisher:
        parked = await end(await submit(publisher, "x", "nowhere"))
        assert isinstance(parked, MessageParked)
        assert parked.reason.cause is Cause.LIFETIME
        assert "0.4 s from acceptance" in str(parked)
        assert publisher.account().returned in range(1, 6)


@pytest.mark.parametrize("durable", [True, False], ids=["sqlite", "memory"])
@pytest_twisted.ensureDeferred
async def test_parked_messages_are_copied_to_an_exchange_of_ones_own_with_why_when_and_how_often(
    url: str, spool: Path, durable: bool
) -> None:
    await in_thread(declare, url, "x")
    await in_thread(declare, url, "graveyard", "fanout")
    await in_thread(bind, url, "graveyard", "graves")
    policy = Policy(exchange="x", on_return=OnReturn.RETRY, max_attempts=2, backoff=QUICK, park_to="graveyard")
    async with spooling(url, spool if durable else None, policy) as publisher:
        receipt = await submit(publisher, "x", "nowhere", b"rest", headers={"mine": 1}, expiration="60000", type="t")
        assert isinstance(await end(receipt), MessageParked)
        while publisher.account().acked < 1:
            await pause()
        await pause(0.1)
        books = publisher.account().books
        assert (books.accepted, books.parked, books.confirmed) == (2, 1, 1), "the original stays parked"
    ((body, properties),) = await get(url, "graves")
    assert (body, properties.type, properties.message_id) == (b"rest", "t", receipt.message_id)
    # As with RabbitMQ's own dead letters: the copy is there for a person, and must not go by itself.
    assert properties.expiration is None
    assert properties.headers["mine"] == 1
    (death,) = properties.headers["x-pubd-parked"]
    assert death | {"time": 0} == {
        "reason": "attempts used up",
        "code": None,
        "text": "2 of 2, the last one returned: 312 NO_ROUTE",
        "exchange": "x",
        "routing-keys": ["nowhere"],
        "time": 0,
        "count": 2,
        "id": receipt.id,
        "original-expiration": "60000",
    }
    assert death["time"].year >= 2024
