"""Fixtures of all tests: brokers, isolation, a consumer that is not pubd, and strictness.

pytest-twisted enables itself (entry point); `-p no:twisted` would lose it.
A broker that cannot be had fails the test that wants it; nothing is skipped.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pika
import pytest

from tests.certs import Certificates, make_certificates
from tests.rabbitmq import Node, NodeFailed
from tests.strictness import SPARED, logged, strict

__all__ = ["logged", "strict"]


@dataclass(frozen=True)
class GivenBroker:
    """The broker that PUBD_BROKER_URL names: publish and consume only, it is not ours to control."""

    url: str
    has_control = False

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "localhost"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 5672


@dataclass(frozen=True, kw_only=True)
class Drained:
    """One message as a consumer saw it; `properties` are pika's."""

    body: bytes
    properties: pika.BasicProperties
    exchange: str
    routing_key: str
    redelivered: bool


def _started(config: pytest.Config, node: Node) -> Node:
    config.stash.setdefault(SPARED, set()).add(lambda: node.guard_pid)
    try:
        node.start()
    except NodeFailed as failed:
        node.remove()
        pytest.fail(f"this test needs RabbitMQ, which cannot be had: {failed}", pytrace=False)
    return node


def pytest_collection_finish() -> None:
    """The strict fixture collects garbage after each test; what was imported by now is none, and is left out."""
    gc.collect()
    gc.freeze()
    # A shell that runs this in the background has it ignored, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_node(pytestconfig: pytest.Config) -> Iterator[Node]:
    """One private node for all tests; whoever changes more of it than its own names puts that back."""
    node = _started(pytestconfig, Node())
    yield node
    node.remove()


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Node | GivenBroker:
    """For publishing and consuming: the broker of PUBD_BROKER_URL when that is set, else the shared node."""
    if url := os.environ.get("PUBD_BROKER_URL"):
        return GivenBroker(url)
    shared: Node = request.getfixturevalue("shared_node")
    return shared


@pytest.fixture(scope="session")
def broker_url(node: Node | GivenBroker) -> str:
    return node.url


@pytest.fixture(scope="module")
def _killable_node(pytestconfig: pytest.Config) -> Iterator[Node]:
    node = _started(pytestconfig, Node())
    yield node
    node.remove()


@pytest.fixture
def own_node(_killable_node: Node, pytestconfig: pytest.Config) -> Iterator[Node]:
    """A node that the test may kill, stop, freeze and raise alarms on; the module's, put right after each test."""
    node = _started(pytestconfig, _killable_node)
    yield node
    if node.is_frozen:
        node.thaw()
    if node.is_running:
        node.close_all_connections("the test is over")
        node.set_memory_alarm(False)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tls_node(pytestconfig: pytest.Config, certificates: Certificates) -> Iterator[Node]:
    """A node with a TLS listener that asks for, but does not insist on, a client certificate, and with EXTERNAL."""
    node = _started(pytestconfig, Node(plugins=["rabbitmq_auth_mechanism_ssl"], tls=certificates.listener()))
    yield node
    node.remove()


@pytest.fixture
def unique() -> Callable[..., str]:
    """`unique("queue")`: a fresh name for an exchange, queue, user or virtual host, the same in every call never."""
    run, numbers = uuid.uuid4().hex[:8], itertools.count(1)
    return lambda kind="name": f"pubd-test-{kind}-{run}-{next(numbers)}"


@pytest.fixture
def vhost(shared_node: Node, unique: Callable[..., str]) -> Iterator[str]:
    """A virtual host of the shared node, for this test only; everything in it goes with it."""
    name = unique("vhost")
    shared_node.add_vhost(name)
    yield name
    shared_node.delete_vhost(name)


@pytest.fixture
def drain(request: pytest.FixtureRequest) -> Callable[..., list[Drained]]:
    """`drain(queue, url=None, count=None, timeout=10)`: take the messages of a queue, by pika's blocking consumer.

    Without `count` it takes what is ready now; with it, it waits up to `timeout` seconds for that many, and returns
    what came. It blocks: call it before or after the reactor has work to do, or in `deferToThread` with the `url`.
    """

    def take(queue: str, url: str | None = None, *, count: int | None = None, timeout: float = 10) -> list[Drained]:
        return _drain(queue, url or request.getfixturevalue("broker_url"), count, timeout)

    return take


def _drain(queue: str, url: str, count: int | None, timeout: float) -> list[Drained]:
    taken: list[Drained] = []
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        if count is None:
            count = channel.queue_declare(queue, passive=True).method.message_count
        deadline = time.monotonic() + timeout
        for method, properties, body in channel.consume(queue, inactivity_timeout=0.05) if count else ():
            if method is not None and properties is not None and body is not None:
                taken.append(
                    Drained(
                        body=body,
                        properties=properties,
                        exchange=method.exchange,
                        routing_key=method.routing_key,
                        redelivered=method.redelivered,
                    )
                )
                if len(taken) == count:
                    channel.basic_ack(method.delivery_tag, multiple=True)
                    break
            elif time.monotonic() > deadline:
                channel.basic_ack(0, multiple=True)
                break
        channel.cancel()
    finally:
        connection.close()
    return taken


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the work tree."""
    return Path(__file__).resolve().parent.parent
