"""Returned messages: every unroutable one is settled as returned, every other one as confirmed, none wrong."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs
import pytest
import pytest_twisted

from pubd.outcome import Cause, Reason
from tests.integration.support import Load, in_thread, operators_log, publishing, route, take, vhost_url
from tests.rabbitmq import Node
from tests.strictness import Logged

BATCH = 5000
NO_ROUTE = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")


@attrs.frozen(kw_only=True)
class Mix:
    messages: int
    one_in: int
    persistent: bool


@pytest.mark.parametrize(
    "mix",
    [
        Mix(messages=50_000, one_in=50, persistent=False),
        Mix(messages=30_000, one_in=5, persistent=False),
        Mix(messages=30_000, one_in=5, persistent=True),
    ],
    ids=["1 in 50 transient", "1 in 5 transient", "1 in 5 persistent"],
)
@pytest_twisted.ensureDeferred
async def test_exactly_the_unroutable_messages_of_a_pipelined_load_are_parked_as_returned(
    shared_node: Node, vhost: str, unique: Callable[..., str], logged: Logged, mix: Mix
) -> None:
    url, exchange, queue = vhost_url(shared_node, vhost), unique("exchange"), unique("queue")
    await in_thread(route, url, exchange, queue)
    # Irregular, so that no rhythm of acknowledgements fits it by chance.
    unroutable = set(Random(mix.one_in).sample(range(mix.messages), mix.messages // mix.one_in))
    async with publishing(url, persistent=mix.persistent) as publisher:
        load = Load(publisher, exchange, queue)
        for start in range(0, mix.messages, BATCH):
            await load.submit_messages(
                [
                    load.message(routing_key="nowhere" if number in unroutable else queue)
                    for number in range(start, start + BATCH)
                ]
            )
        await load.settled()
        account = publisher.account()

    assert load.is_answered_once()
    assert load.parked == dict.fromkeys(sorted(unroutable), NO_ROUTE)
    assert load.confirmed == [number for number in range(mix.messages) if number not in unroutable]
    assert (account.acked, account.returned) == (mix.messages - len(unroutable), len(unroutable))
    assert (account.nacked, account.lost, account.poison) == (0, 0, 0)
    taken = await in_thread(take, url, queue)
    assert [one.number for one in taken] == load.confirmed
    load.check_ids(taken)
    # Far fewer lines than returned messages.
    assert len(operators_log(logged)) < 50
