"""The durable spool between stops, kills and starts; and what it does with time: delay, ttl, expiration."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from pubd.errors import IdempotencyConflict, MessageExpired, MessageParked, SpoolError, SpoolInUse
from pubd.message import Message
from pubd.outcome import Cause, State
from pubd.publisher import Publisher
from pubd.receipt import Confirmed
from tests.integration.spooled import bind, bodies, declare, end, get, reaches, record, spooling, submit
from tests.integration.support import in_thread, reactor, until, vhost_url
from tests.rabbitmq import Node, free_ports
from tests.strictness import Logged

REPOSITORY = Path(__file__).resolve().parents[2]
WORKER = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from pubd import Message, Publisher

publisher = Publisher.from_url(sys.argv[1], spool=sys.argv[2], reactor=reactor)
publisher.startService()

async def main():
    number = 0
    while True:
        bodies = [b"%d" % each for each in range(number, number + 20)]
        await publisher.submit_many([Message(exchange="x", routing_key="k", body=body) for body in bodies])
        number += 20
        print(number, flush=True)

reactor.callWhenRunning(lambda: ensureDeferred(main()).addErrback(lambda failure: failure.printTraceback()))
reactor.run()
"""


@pytest.fixture
def url(shared_node: Node, vhost: str) -> str:
    return vhost_url(shared_node, vhost)


@pytest.fixture
def nowhere() -> str:
    (port,) = free_ports(1)
    return f"amqp://guest:guest@127.0.0.1:{port}/%2F"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@contextmanager
def worker(url: str, spool: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that submits without end and says how many were accepted; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, f"sqlite:///{spool}"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def accepted_at_least(process: subprocess.Popen[str], count: int) -> int:
    """Read on until so many are accepted. Blocks."""
    assert process.stdout is not None
    while (accepted := int(process.stdout.readline())) < count:
        pass
    return accepted


# Stops and starts


@pytest_twisted.ensureDeferred
async def test_what_waits_at_the_stop_is_published_in_order_after_the_next_start(
    url: str, nowhere: str, spool: Path
) -> None:
    await in_thread(declare, url, "x")
    await in_thread(bind, url, "x", "q", "k")
    messages = [Message(exchange="x", routing_key="k", body=b"%d" % number) for number in range(500)]
    async with spooling(nowhere, spool) as publisher:
        await publisher.submit_many(messages[:300])
        assert publisher.account().books.ready == 300
    # A second stop in between, still without a broker.
    async with spooling(nowhere, spool) as publisher:
        receipts = await publisher.submit_many(messages[300:])
    async with spooling(url, spool) as publisher:
        await until(lambda: publisher.account().books.confirmed == 500, lambda: publisher.account())
        known = await record(publisher, receipts[-1])
        assert (known.state, known.attempts, known.failures) == (State.CONFIRMED, 0, ())
        assert known.via is not None
        assert known.via.node.startswith("pubd@")
        assert known.via.channel > 1
        assert known.tag == 500
        assert publisher.account().books.accepted == 500
    assert await bodies(url, "q") == [message.body for message in messages]
    async with spooling(url, spool) as publisher:
        assert publisher.account().books.accepted in (0, 500)
        await record(publisher, receipts[-1])
        assert (publisher.account().books.accepted, publisher.account().books.confirmed) == (500, 500)


@pytest_twisted.ensureDeferred
async def test_parked_and_deferred_messages_are_what_they_were_after_a_restart(url: str, spool: Path) -> None:
    await in_thread(declare, url, "x")
    async with spooling(url, spool) as publisher:
        parked = await submit(publisher, "x", "nowhere")
        assert isinstance(await end(parked), MessageParked)
        before = await record(publisher, parked)
        later = await submit(publisher, "x", "k", b"later", delay=3600)
        due = (await record(publisher, later)).due
    async with spooling(url, spool) as publisher:
        assert await record(publisher, parked) == before
        deferred = await record(publisher, later)
        assert (deferred.state, deferred.due) == (State.DEFERRED, due)
        await in_thread(bind, url, "x", "q", "k")
        await publisher.retry([later.id])
        await reaches(publisher, later, State.CONFIRMED)
    assert await bodies(url, "q") == [b"later"]


@pytest_twisted.ensureDeferred
async def test_after_a_kill_everything_accepted_is_in_the_queue_in_order(url: str, spool: Path) -> None:
    await in_thread(declare, url, "x")
    await in_thread(bind, url, "x", "q", "k")
    with worker(url, spool) as process:
        accepted = await in_thread(accepted_at_least, process, 400)
        process.send_signal(signal.SIGKILL)
        rest, _ = await in_thread(process.communicate)
        accepted = int(rest.split()[-1]) if rest.strip() else accepted
    async with spooling(url, spool) as publisher:
        last = await submit(publisher, "x", "k", b"last", ordering_key="last")
        assert isinstance(await end(last), Confirmed)
        await until(lambda: not publisher.account().books.held, lambda: publisher.account())
    taken = await bodies(url, "q")
    first = [int(body) for body in dict.fromkeys(taken) if body != b"last"]
    assert first == list(range(len(first))), "lost, or out of order"
    # One batch may have been stored without its answer.
    assert accepted <= len(first) <= accepted + 20
    assert len(taken) - len(set(taken)) <= 1000, "more duplicates than one window"


@pytest_twisted.ensureDeferred
async def test_a_spool_in_use_is_refused_naming_the_process_that_has_it(
    nowhere: str, spool: Path, logged: Logged
) -> None:
    with worker(nowhere, spool) as process:
        await in_thread(accepted_at_least, process, 20)
        failed: Deferred[SpoolError] = Deferred()
        publisher = Publisher.from_url(nowhere, spool=f"sqlite:///{spool}", reactor=reactor, failed=failed.callback)
        publisher.startService()
        try:
            error = await failed.addTimeout(10, reactor)
            assert isinstance(error, SpoolInUse)
            assert error.pid == str(process.pid)
            assert f"is in use by process {process.pid}: stop that one" in str(error)
            with pytest.raises(SpoolError, match="nothing was accepted"):
                await submit(publisher, "x")
        finally:
            await publisher.stopService()
        (event,) = logged.flush()
        assert str(process.pid) in event["error"]


# Idempotency


@pytest_twisted.ensureDeferred
async def test_an_idempotency_key_is_known_after_a_restart(url: str, nowhere: str, spool: Path) -> None:
    await in_thread(declare, url, "x")
    await in_thread(bind, url, "x", "q", "k")
    given = {"idempotency_key": "order 1", "headers": {"a": 1}, "ttl": 60.0}
    async with spooling(nowhere, spool) as publisher:
        first = await submit(publisher, "x", "k", b"content", **given)
        assert await submit(publisher, "x", "k", b"content", **given) is first
    async with spooling(url, spool) as publisher:
        second = await submit(publisher, "x", "k", b"content", **given)
        assert (second.id, second.message_id) == (first.id, first.message_id)
        with pytest.raises(IdempotencyConflict, match="order 1"):
            await submit(publisher, "x", "k", b"other content", **given)
        with pytest.raises(IdempotencyConflict):
            await submit(publisher, "x", "k", b"content", **given | {"headers": {"a": 2}})
        assert isinstance(await end(second), Confirmed)
        assert publisher.account().books.accepted == 1
    async with spooling(url, spool) as publisher:
        third = await submit(publisher, "x", "k", b"content", **given)
        assert third.id == first.id
        assert isinstance(await end(third), Confirmed), "what became of it is known, too"
    assert await bodies(url, "q") == [b"content"]


@pytest_twisted.ensureDeferred
async def test_a_key_is_free_again_when_its_message_is_forgotten(url: str, spool: Path) -> None:
    await in_thread(declare, url, "x")
    await in_thread(bind, url, "x", "q", "k")
    async with spooling(url, spool, retain=0.0) as publisher:
        first = await submit(publisher, "x", "k", b"1", idempotency_key="key")
        await end(first)
        deadline = reactor.seconds() + 10
        while await publisher.record(first.id) is not None:
            assert reactor.seconds() < deadline
        second = await submit(publisher, "x", "k", b"2", idempotency_key="key")
        assert second.id != first.id
        assert isinstance(await end(second), Confirmed)
    assert await bodies(url, "q") == [b"1", b"2"]


# Time


@pytest.mark.parametrize("durable", [True, False], ids=["sqlite", "memory"])
@pytest_twisted.ensureDeferred
async def test_a_delayed_message_is_published_when_it_is_due_and_not_before(
    url: str, spool: Path, durable: bool
) -> None:
    await in_thread(declare, url, "x")
    await in_thread(bind, url, "x", "q", "k")
    async with spooling(url, spool if durable else None) as publisher:
        began = time.time()
        moment = datetime.now(UTC) + timedelta(seconds=1.5)
        second = await submit(publisher, "x", "k", b"second", not_before=moment)
        first = await submit(publisher, "x", "k", b"first", delay=0.3)
        past = await submit(publisher, "x", "k", b"past", not_before=1)
        assert (await record(publisher, first)).state is State.DEFERRED
        assert publisher.account().books.deferred == 2
        assert isinstance(await end(past), Confirmed)
        assert isinstance(await end(first), Confirmed)
        assert time.time() >= began + 0.3
        assert isinstance(await end(second), Confirmed)
        assert time.time() >= moment.timestamp()
    assert await bodies(url, "q") == [b"past", b"first", b"second"]


@pytest.mark.parametrize("durable", [True, False], ids=["sqlite", "memory"])
@pytest_twisted.ensureDeferred
async def test_a_message_whose_ttl_passed_is_settled_as_expired_and_recorded(
    nowhere: str, spool: Path, durable: bool
) -> None:
    async with spooling(nowhere, spool if durable else None, drain_timeout=0.0) as publisher:
        receipt = await submit(publisher, "x", "k", ttl=0.2)
        kept = await submit(publisher, "x", "k", ttl=60)
        expired = await end(receipt)
        assert isinstance(expired, MessageExpired)
        assert (expired.id, expired.message_id) == (receipt.id, receipt.message_id)
        known = await record(publisher, receipt)
        assert known.state is State.EXPIRED
        assert known.reason is not None
        assert known.reason.cause is Cause.TTL
        assert known.settled_at is not None
        assert known.settled_at >= known.accepted_at + 0.2
        assert (await record(publisher, kept)).state is State.READY
        books = publisher.account().books
        assert (books.accepted, books.expired, books.held) == (2, 1, 1)


@pytest.mark.parametrize("durable", [True, False], ids=["sqlite", "memory"])
@pytest.mark.parametrize("counts", [True, False], ids=["counted", "not counted"])
@pytest_twisted.ensureDeferred
async def test_the_amqp_expiration_is_lowered_by_the_time_in_the_spool_when_asked_for(
    url: str, spool: Path, counts: bool, durable: bool
) -> None:
    await in_thread(declare, url, "x")
    async with spooling(url, spool if durable else None, expiration_counts_spool_time=counts) as publisher:
        receipt = await submit(publisher, "x", "k", b"old", expiration="60000", headers={"a": 1})
        # Tried, and claimed, more than once: the time is counted once all the same.
        assert isinstance(await end(receipt), MessageParked)
        await in_thread(time.sleep, 0.6)
        await publisher.retry([receipt.id])
        await reaches(publisher, receipt, State.PARKED)
        await in_thread(time.sleep, 0.6)
        await in_thread(bind, url, "x", "q", "k")
        await publisher.retry([receipt.id])
        assert isinstance(await end(receipt), Confirmed)
        assert isinstance(await end(await submit(publisher, "x", "k", b"plain")), Confirmed)
    (_, old), (_, plain) = await get(url, "q")
    assert old.headers == {"a": 1}
    assert plain.expiration is None
    if counts:
        assert 56_000 < int(old.expiration) <= 58_800
    else:
        assert old.expiration == "60000"
