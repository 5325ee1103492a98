"""What the tests of the spool on a real broker share: a publisher with policies, and the ends of its messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pubd.errors import PubdError
from pubd.message import Message
from pubd.options import Options
from pubd.outcome import State
from pubd.policy import Policy
from pubd.publisher import Publisher
from pubd.receipt import Confirmed, Receipt
from pubd.retry import Backoff
from pubd.spool.base import Record
from tests.integration.support import PATIENCE, Load, channel_of, in_thread, pause, reactor

QUICK = Backoff(first=0.05, factor=2.0, max=0.2, jitter=1.0)


@asynccontextmanager
async def spooling(
    url: str,
    spool: Path | None = None,
    *policies: Policy,
    random: Callable[[], float] = lambda: 0.0,
    **options: Any,
) -> AsyncIterator[Publisher]:
    """A publisher with its spool in a file, or in memory; stopped at the end, and its books balance."""
    publisher = Publisher.from_url(
        url,
        spool="memory:" if spool is None else f"sqlite:///{spool}",
        reactor=reactor,
        options=Options(policies=policies, **{"drain_timeout": 5.0} | options),
        random=random,
    )
    publisher.startService()
    try:
        yield publisher
        assert publisher.account().books.difference == 0
    finally:
        await publisher.stopService()
    assert publisher.account().books.difference == 0


def numbered(publisher: Publisher, exchange: str, routing_key: str) -> Load:
    """Messages whose bodies are their numbers."""
    return Load(publisher, exchange, routing_key)


async def end(receipt: Receipt) -> Confirmed | PubdError:
    """What the receipt says in the end, errors as values."""
    try:
        return await receipt.settled().addTimeout(20, reactor)
    except PubdError as error:
        return error


async def record(publisher: Publisher, receipt: Receipt) -> Record:
    """What is known of the message."""
    known = await publisher.record(receipt.id)
    assert known is not None
    return known


async def reaches(publisher: Publisher, receipt: Receipt, state: State) -> Record:
    """Wait until the message is in this state."""
    until = reactor.seconds() + PATIENCE
    while (known := await record(publisher, receipt)).state is not state:
        assert reactor.seconds() < until, f"still {known}"
        await pause()
    return known


def declare(url: str, exchange: str, type: str = "direct") -> None:
    """An exchange to which nothing is bound."""
    with channel_of(url) as channel:
        channel.exchange_declare(exchange, type, durable=True)


def bind(url: str, exchange: str, queue: str, routing_key: str = "", **arguments: Any) -> None:
    """A durable queue, and its binding."""
    with channel_of(url) as channel:
        channel.queue_declare(queue, durable=True, arguments=arguments)
        channel.queue_bind(queue, exchange, routing_key)


#: Arguments of a queue that takes so many messages and nacks the others.
def at_most(length: int) -> dict[str, Any]:
    return {"x-max-length": length, "x-overflow": "reject-publish"}


def purge(url: str, queue: str) -> None:
    """Make room."""
    with channel_of(url) as channel:
        channel.queue_purge(queue)


async def submit(
    publisher: Publisher, exchange: str, routing_key: str = "", body: bytes = b"0", **more: Any
) -> Receipt:
    """Hand in one message."""
    return await publisher.submit(Message(exchange=exchange, routing_key=routing_key, body=body, **more))


async def get(url: str, queue: str) -> list[tuple[bytes, Any]]:
    """Take what is in the queue: bodies and properties."""

    def take() -> list[tuple[bytes, Any]]:
        taken: list[tuple[bytes, Any]] = []
        with channel_of(url) as channel:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return taken
                taken.append((body, properties))

    return await in_thread(take)


async def bodies(url: str, queue: str) -> list[bytes]:
    """Take what is in the queue."""
    return [body for body, _ in await get(url, queue)]
