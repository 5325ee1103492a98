"""Returned, then bound, then healed: released in order, by no operator, with few probes."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from pubd.errors import MessageParked
from pubd.outcome import State
from pubd.policy import Policy
from pubd.receipt import Confirmed
from tests.integration.spooled import bind, bodies, declare, end, reaches, record, spooling, submit
from tests.integration.support import in_thread, pause, until, vhost_url
from tests.rabbitmq import Node

MESSAGES = 30


@pytest.fixture
def url(shared_node: Node, vhost: str) -> str:
    return vhost_url(shared_node, vhost)


def numbers(count: int = MESSAGES) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("durable", [True, False], ids=["sqlite", "memory"])
@pytest_twisted.ensureDeferred
async def test_what_was_returned_is_released_in_order_once_it_is_bound_and_only_where_the_policy_says_so(
    url: str, tmp_path: Path, durable: bool
) -> None:
    await in_thread(declare, url, "x")
    heals = Policy(routing_key="heals.*", heal=True, heal_interval=0.2)
    async with spooling(url, tmp_path / "spool.db" if durable else None, heals) as publisher:
        healing = [await submit(publisher, "x", "heals.a", body) for body in numbers()]
        others = [await submit(publisher, "x", "heals.b", body) for body in numbers(3)]
        stays = await submit(publisher, "x", "stays")
        for receipt in (*healing, *others, stays):
            assert isinstance(await end(receipt), MessageParked)
        parked = publisher.account()
        assert parked.books.held == MESSAGES + 4

        await pause(1.1)
        probes = publisher.account().published - parked.published
        # Two routes, one message of each, five times a second.
        assert 4 <= probes <= 2 * 6
        (first,) = {each.outcome for each in (await record(publisher, healing[0])).failures}
        assert first == "returned"

        await in_thread(bind, url, "x", "q", "heals.a")
        await in_thread(bind, url, "x", "q", "stays")
        for receipt in healing:
            await reaches(publisher, receipt, State.CONFIRMED)
        await until(lambda: publisher.account().acked == MESSAGES, "not all were released")
        assert isinstance(await end(healing[-1]), Confirmed)
        assert (await record(publisher, others[0])).state is not State.CONFIRMED
        assert (await record(publisher, stays)).state is State.PARKED
        await until(lambda: publisher.account().books.parked == 4, "the other route is still parked")
    assert await bodies(url, "q") == numbers()


@pytest_twisted.ensureDeferred
async def test_a_probe_that_has_no_answer_yet_is_not_followed_by_another_of_its_route(
    shared_node: Node, url: str, tmp_path: Path
) -> None:
    await in_thread(declare, url, "unbound")
    policy = Policy(heal=True, heal_interval=0.1)
    async with spooling(url, tmp_path / "spool.db", policy) as publisher:
        receipts = [await submit(publisher, "unbound", "k", body) for body in numbers(10)]
        for receipt in receipts:
            assert isinstance(await end(receipt), MessageParked)
        shared_node.freeze()
        try:
            await pause(1.0)
            books = publisher.account().books
        finally:
            shared_node.thaw()
        assert books.held - books.parked <= 1
        await in_thread(bind, url, "unbound", "healed", "k")
        await until(lambda: publisher.account().acked == 10, "not all were released")
    assert await bodies(url, "healed") == numbers(10)
