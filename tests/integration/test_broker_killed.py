"""The broker is killed with -9 and started again: nothing is lost, and at most the window comes twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest_twisted

from tests.integration.support import (
    PATIENCE,
    Load,
    depth,
    duplicates,
    in_thread,
    lane,
    loaded,
    operators_log,
    publishing,
    reactor,
    relayed,
    route,
    take,
    until,
)
from tests.rabbitmq import Node
from tests.strictness import Logged

WINDOW = 10_000
BEHIND = 2_000
"""Messages that wait behind a full window."""


async def until_stored(url: str, queue: str, count: int) -> None:
    stored = 0
    deadline = reactor.seconds() + PATIENCE
    while stored < count:
        before, stored = stored, await in_thread(depth, url, queue)
        if stored != before:
            deadline = reactor.seconds() + PATIENCE
        assert reactor.seconds() < deadline, f"only {stored} messages came to the queue"


@pytest_twisted.ensureDeferred
async def test_a_full_window_in_flight_when_the_broker_is_killed_is_confirmed_once_it_is_back(
    own_node: Node, unique: Callable[..., str], logged: Logged
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, own_node.url, exchange, queue)
    async with relayed(own_node) as (relay, url), publishing(url, window=WINDOW) as publisher:
        load = Load(publisher, exchange, queue)
        await load.submit(1)
        await load.settled()
        # RabbitMQ takes, stores and confirms all of them; that none of its answers comes through keeps all in flight.
        relay.silent = True
        await load.submit(WINDOW + BEHIND)
        await until(lambda: lane(publisher, exchange).in_flight == WINDOW, "no full window in flight")
        await until_stored(own_node.url, queue, 1 + WINDOW)
        assert lane(publisher, exchange).in_flight == WINDOW
        assert load.answered == 1
        await in_thread(own_node.kill)
        relay.silent = False
        await in_thread(own_node.start)
        await load.settled()
        account = publisher.account()

    assert relay.withheld > 0
    assert load.is_answered_once()
    assert load.confirmed == list(range(1 + WINDOW + BEHIND))
    assert account.lost == WINDOW
    taken = await in_thread(take, own_node.url, queue)
    assert {one.number for one in taken} == set(load.confirmed)
    assert duplicates(taken) <= WINDOW
    load.check_ids(taken)
    assert len(operators_log(logged)) < 50


@pytest_twisted.ensureDeferred
async def test_a_broker_killed_under_flowing_load_costs_nothing_but_duplicates_within_the_window(
    own_node: Node, unique: Callable[..., str], logged: Logged
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(route, own_node.url, exchange, queue)
    async with publishing(own_node.url, window=WINDOW) as publisher:
        load = Load(publisher, exchange, queue)
        async with loaded(load, level=2 * WINDOW, at_most=4 * WINDOW):
            await until(lambda: load.answered > WINDOW, "the load does not flow", lambda: load.answered)
            await in_thread(own_node.kill)
            await until(lambda: not publisher.account().pending, "the loss of the broker was not noticed")
            lost = publisher.account().lost
            await in_thread(own_node.start)
            await until(lambda: len(load.messages) == 4 * WINDOW, "the load does not flow", lambda: load.answered)
        await load.settled()

    assert 0 < lost <= WINDOW
    assert load.is_answered_once()
    assert load.confirmed == list(range(4 * WINDOW))
    taken = await in_thread(take, own_node.url, queue)
    assert {one.number for one in taken} == set(load.confirmed)
    assert duplicates(taken) <= lost
    load.check_ids(taken)
    assert len(operators_log(logged)) < 50
