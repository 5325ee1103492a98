"""Ordering keys on a real broker, with returns and nacks: a held head blocks its key, and its key only."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from pubd.errors import MessageDiscarded, MessageParked
from pubd.outcome import State
from pubd.policy import Policy
from pubd.receipt import Confirmed
from pubd.retry import Backoff
from tests.integration.spooled import (
    QUICK,
    at_most,
    bind,
    bodies,
    declare,
    end,
    purge,
    reaches,
    record,
    spooling,
    submit,
)
from tests.integration.support import channel_of, in_thread, vhost_url
from tests.rabbitmq import Node


@pytest.fixture
def url(shared_node: Node, vhost: str) -> str:
    return vhost_url(shared_node, vhost)


@pytest.mark.parametrize("durable", [True, False], ids=["sqlite", "memory"])
@pytest.mark.parametrize("decision", ["retry", "discard"])
@pytest_twisted.ensureDeferred
async def test_a_parked_head_blocks_its_key_only_until_a_person_decides(
    url: str, tmp_path: Path, decision: str, durable: bool
) -> None:
    await in_thread(declare, url, "x")
    await in_thread(bind, url, "x", "q", "good")
    async with spooling(url, tmp_path / "spool.db" if durable else None) as publisher:
        head = await submit(publisher, "x", "missing", b"a1", ordering_key="a")
        behind = [await submit(publisher, "x", "good", body, ordering_key="a") for body in (b"a2", b"a3")]
        assert isinstance(await end(head), MessageParked)
        for body in (b"b1", b"b2", b"b3"):
            assert isinstance(await end(await submit(publisher, "x", "good", body, ordering_key="b")), Confirmed)
        assert isinstance(await end(await submit(publisher, "x", "good", b"free")), Confirmed)

        books = publisher.account().books
        assert (books.parked, books.ready, books.in_flight) == (1, 2, 0), "who waits behind it is seen"
        known = await record(publisher, head)
        assert known.state is State.PARKED
        assert known.reason is not None
        assert known.reason.code == 312
        for receipt in behind:
            waiting = await record(publisher, receipt)
            assert (waiting.state, waiting.in_flight, waiting.attempts) == (State.READY, False, 0)
        assert await bodies(url, "q") == [b"b1", b"b2", b"b3", b"free"]

        if decision == "retry":
            await in_thread(bind, url, "x", "q", "missing")
            await publisher.retry([head.id])
            assert isinstance(await end(head), Confirmed)
        else:
            assert list(await publisher.discard([head.id], "not wanted")) == [head.id]
            assert isinstance(await end(head), MessageDiscarded)
        for receipt in behind:
            assert isinstance(await end(receipt), Confirmed)
    assert await bodies(url, "q") == [b"a1"] * (decision == "retry") + [b"a2", b"a3"]


@pytest_twisted.ensureDeferred
async def test_a_nacked_head_is_waited_for_and_other_keys_go_on_meanwhile(url: str, tmp_path: Path) -> None:
    await in_thread(declare, url, "x")
    await in_thread(lambda: bind(url, "x", "full", "full", **at_most(1)))
    await in_thread(bind, url, "x", "q", "good")
    async with spooling(url, tmp_path / "spool.db", Policy(max_attempts=1000, backoff=QUICK)) as publisher:
        await end(await submit(publisher, "x", "full", b"filling"))
        head = await submit(publisher, "x", "full", b"a1", ordering_key="a")
        behind = await submit(publisher, "x", "good", b"a2", ordering_key="a")
        for number in range(10):
            other = await submit(publisher, "x", "good", b"b%d" % number, ordering_key="b")
            assert isinstance(await end(other), Confirmed)
        await reaches(publisher, head, State.DEFERRED)
        assert (await record(publisher, behind)).state is State.READY
        await in_thread(purge, url, "full")
        assert isinstance(await end(behind), Confirmed)
        assert (await record(publisher, head)).state is State.CONFIRMED, "it went before the one behind it"
    assert await bodies(url, "q") == [b"b%d" % number for number in range(10)] + [b"a2"]


@pytest_twisted.ensureDeferred
async def test_a_queue_that_is_full_again_and_again_changes_no_order_within_a_key(url: str, tmp_path: Path) -> None:
    keys, each = 5, 30
    await in_thread(declare, url, "x")
    await in_thread(lambda: bind(url, "x", "q", "k", **at_most(4)))

    def consume() -> list[bytes]:
        """Slowly enough that the queue is full most of the time."""
        taken: list[bytes] = []
        with channel_of(url) as channel:
            while len(taken) < keys * each:
                method, _, body = channel.basic_get("q", auto_ack=True)
                if method is None:
                    channel.connection.sleep(0.01)
                else:
                    taken.append(body)
        return taken

    policy = Policy(max_attempts=10_000, backoff=Backoff(first=0.01, factor=1.5, max=0.05, jitter=1.0))
    async with spooling(url, tmp_path / "spool.db", policy, random=Random(7).random) as publisher:
        receipts = [
            await submit(publisher, "x", "k", b"%d %d" % (key, number), ordering_key=f"key {key}")
            for number, key in itertools.product(range(each), range(keys))
        ]
        consumed = Deferred.fromCoroutine(in_thread(consume))
        for receipt in receipts:
            assert isinstance(await end(receipt), Confirmed)
        taken = await consumed
        assert publisher.account().nacked > 0, "the queue was never full"
    order = defaultdict(list)
    for body in taken:
        key, number = map(int, body.split())
        order[key].append(number)
    assert order == {key: list(range(each)) for key in range(keys)}
