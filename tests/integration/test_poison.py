"""One poison message in a full window: exactly that one is parked with RabbitMQ's words, its neighbours go through."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
import pytest_twisted

from pubd.message import Message
from pubd.outcome import Cause
from tests.integration.support import (
    Load,
    furthest_back,
    in_thread,
    lane,
    loaded,
    operators_log,
    publishing,
    route,
    take,
    take_stream,
    until,
    vhost_url,
)
from tests.rabbitmq import Node
from tests.strictness import Logged
from tests.tampering import tamper

WINDOW = 1000
ENDLESS = 1 << 40
TRICKLE = 100
"""Open messages of the other load: few, as each suspect waits behind them for its answer."""
FIELDS = {
    "expiration": ("abc", "PRECONDITION_FAILED - invalid expiration 'abc'"),
    "user_id": ("somebody", "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was"),
}


def poisoned(message: Message, field: str) -> Message:
    """A message as no validation would let it pass."""
    tamper(message, field, FIELDS[field][0])
    return message


async def submit_window(node: Node, load: Load, poison: dict[int, str]) -> None:
    """Have a whole window in flight, with poison at these positions (from 1), before RabbitMQ reads any of it."""
    await load.submit(1)
    await load.settled()
    messages = [load.message() for _ in range(WINDOW)]
    for position, field in poison.items():
        poisoned(messages[position - 1], field)
    await in_thread(node.freeze)
    try:
        await load.submit_messages(messages)
        await until(lambda: lane(load.publisher, load.exchange).in_flight == WINDOW, "no full window in flight")
    finally:
        node.thaw()


def check_parked(load: Load, poison: dict[int, str]) -> None:
    assert load.is_answered_once()
    assert sorted(load.parked) == sorted(poison)
    for position, reason in load.parked.items():
        assert (reason.cause, reason.code) == (Cause.POISON, 406)
        assert reason.text.startswith(FIELDS[poison[position]][1])
    assert load.confirmed == [number for number in range(1 + WINDOW) if number not in poison]


@pytest.mark.parametrize(
    "poison",
    [
        {1: "expiration"},
        {500: "expiration"},
        {1000: "expiration"},
        {500: "user_id"},
        {100: "user_id", 101: "expiration", 900: "user_id"},
    ],
    ids=["first", "middle", "last", "user_id", "three"],
)
@pytest_twisted.ensureDeferred
async def test_exactly_the_poison_among_1000_in_flight_is_parked_and_the_others_are_confirmed_in_order(
    shared_node: Node, vhost: str, unique: Callable[..., str], logged: Logged, poison: dict[int, str]
) -> None:
    url, exchange, queue = vhost_url(shared_node, vhost), unique("exchange"), unique("queue")
    await in_thread(route, url, exchange, queue)
    async with publishing(url, window=WINDOW) as publisher:
        load = Load(publisher, exchange, queue)
        await submit_window(shared_node, load, poison)
        await load.settled()
        account = publisher.account()

    check_parked(load, poison)
    assert account.poison == len(poison)
    taken = await in_thread(take, url, queue)
    assert {one.number for one in taken} == set(load.confirmed)
    assert furthest_back(taken) <= WINDOW
    load.check_ids(taken)
    assert len(operators_log(logged)) < 20


@pytest_twisted.ensureDeferred
async def test_many_poisons_are_all_parked_and_the_log_stays_short(
    shared_node: Node, vhost: str, unique: Callable[..., str], logged: Logged
) -> None:
    url, exchange, queue = vhost_url(shared_node, vhost), unique("exchange"), unique("queue")
    await in_thread(route, url, exchange, queue)
    poison = dict.fromkeys(range(1, WINDOW + 1, 4), "user_id")
    async with publishing(url, window=WINDOW) as publisher:
        load = Load(publisher, exchange, queue)
        await submit_window(shared_node, load, poison)
        await load.settled()

    check_parked(load, poison)
    taken = await in_thread(take, url, queue)
    assert {one.number for one in taken} == set(load.confirmed)
    assert furthest_back(taken) <= WINDOW
    # One line a second, whatever the machine takes for it.
    assert len(operators_log(logged)) < len(poison) / 2


@pytest_twisted.ensureDeferred
async def test_a_poison_for_one_exchange_does_not_touch_another_one(
    shared_node: Node, vhost: str, unique: Callable[..., str], logged: Logged
) -> None:
    url = vhost_url(shared_node, vhost)
    exchange, other_exchange, queue, other_queue = unique("x"), unique("y"), unique("queue"), unique("queue")
    await in_thread(route, url, exchange, queue)
    await in_thread(route, url, other_exchange, other_queue)
    poison = {500: "expiration"}
    async with publishing(url, window=WINDOW) as publisher:
        load, other = Load(publisher, exchange, queue), Load(publisher, other_exchange, other_queue)
        async with loaded(other, level=TRICKLE, at_most=ENDLESS):
            await submit_window(shared_node, load, poison)
            before = other.answered
            await load.settled()
            assert other.answered > before
        await other.settled()

    check_parked(load, poison)
    taken = await in_thread(take, url, queue)
    assert {one.number for one in taken} == set(load.confirmed)
    assert furthest_back(taken) <= WINDOW
    # The other lane's channel was not closed: no repetition.
    assert other.confirmed == list(range(len(other.messages)))
    assert [one.number for one in await in_thread(take, url, other_queue)] == other.confirmed
    assert all(repr(other_exchange) not in line for line in operators_log(logged))
    assert len(operators_log(logged)) < 20


@pytest_twisted.ensureDeferred
async def test_a_message_over_which_rabbitmq_closes_the_whole_connection_is_found_and_parked(
    shared_node: Node, vhost: str, unique: Callable[..., str], logged: Logged
) -> None:
    """RabbitMQ 3.10 closes with 541 INTERNAL_ERROR when a decimal in the headers comes to a stream."""
    url = vhost_url(shared_node, vhost)
    exchange, other_exchange, stream, queue = unique("x"), unique("y"), unique("stream"), unique("queue")
    await in_thread(lambda: route(url, exchange, stream, **{"x-queue-type": "stream"}))
    await in_thread(route, url, other_exchange, queue)
    culprit, count = 50, 100
    async with publishing(url, window=WINDOW) as publisher:
        load, other = Load(publisher, exchange, stream), Load(publisher, other_exchange, queue)
        async with loaded(other, level=WINDOW, at_most=ENDLESS):
            await load.submit(culprit)
            await load.submit(1, headers={"price": Decimal("1.5")})
            await load.submit(count - culprit - 1)
            await load.settled()
            before = other.answered
            await until(lambda: other.answered > before + WINDOW, "the other lane stands still")
        await other.settled()

    assert load.is_answered_once()
    assert list(load.parked) == [culprit]
    assert (load.parked[culprit].cause, load.parked[culprit].code) == (Cause.POISON, 541)
    assert load.parked[culprit].text.startswith("INTERNAL_ERROR")
    assert load.confirmed == [number for number in range(count) if number != culprit]
    taken = await in_thread(take_stream, url, stream, count - 1)
    assert {one.number for one in taken} == set(load.confirmed)
    load.check_ids(taken)
    assert other.confirmed == list(range(len(other.messages)))
    taken = await in_thread(take, url, queue)
    assert {one.number for one in taken} == set(other.confirmed)
    assert furthest_back(taken) <= WINDOW
    assert len(operators_log(logged)) < 50
