"""`rabbitmqctl close_all_connections` every half second under load: nothing lost, order kept but for the replays.

What "order kept apart from the replayed window" means: of each message, the first arrival counts; these are in the
order of submission. Whenever the queue's content goes back, it goes back by at most one window.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest_twisted

from tests.integration.support import (
    Load,
    duplicates,
    furthest_back,
    in_thread,
    loaded,
    operators_log,
    pause,
    publishing,
    route,
    take,
    until,
    vhost_url,
)
from tests.rabbitmq import Node
from tests.strictness import Logged

WINDOW = 500
CLOSES, EVERY = 40, 0.5
AT_MOST = 100_000


@pytest_twisted.ensureDeferred
async def test_connections_closed_every_half_second_for_20_s_lose_nothing_and_keep_the_order(
    shared_node: Node, vhost: str, unique: Callable[..., str], logged: Logged
) -> None:
    url, exchange, queue = vhost_url(shared_node, vhost), unique("exchange"), unique("queue")
    await in_thread(route, url, exchange, queue)
    async with publishing(url, window=WINDOW) as publisher:
        load = Load(publisher, exchange, queue)
        async with loaded(load, level=4 * WINDOW, at_most=AT_MOST):
            await until(lambda: load.answered, "nothing is published")
            for _ in range(CLOSES):
                await in_thread(shared_node.close_all_connections)
                await pause(EVERY)
        await load.settled()
        account = publisher.account()

    closes = sum("320 CONNECTION_FORCED" in line for line in operators_log(logged))
    assert closes > 1
    assert account.lost > 0
    assert load.is_answered_once()
    assert load.confirmed == list(range(len(load.messages)))
    taken = await in_thread(take, url, queue)
    assert {one.number for one in taken} == set(load.confirmed)
    assert furthest_back(taken) <= WINDOW
    assert duplicates(taken) <= account.lost <= closes * WINDOW
    load.check_ids(taken)
    # A few lines for each connection that was closed, none for a message.
    assert len(operators_log(logged)) <= 5 * CLOSES
