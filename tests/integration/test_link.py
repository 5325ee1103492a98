"""The link against real RabbitMQ nodes, and against peers on real sockets that are none."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet import reactor as installed_reactor
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel

from pubd.amqp.lifecycle import LinkState
from pubd.amqp.link import Link
from pubd.amqp.protocol import LinkProtocol
from pubd.amqp.url import BrokerUrl
from pubd.errors import InvalidOption
from pubd.outcome import Reason
from pubd.retry import Backoff
from tests.certs import Certificates, Identity
from tests.rabbitmq import Node
from tests.strictness import Logged

reactor: Any = installed_reactor


class Owner:
    """Remembers what the link told."""

    def __init__(self) -> None:
        self.readies = 0
        self.lost: list[Reason] = []
        self.blocked: list[str] = []

    def link_ready(self, connection: LinkProtocol) -> None:
        del connection
        self.readies += 1

    def link_lost(self, reason: Reason) -> None:
        self.lost.append(reason)

    def link_blocked(self, text: str) -> None:
        self.blocked.append(text)

    def link_unblocked(self) -> None:
        self.blocked.append("")

    def link_resumed(self) -> None: ...

    def link_flush(self) -> None: ...


@asynccontextmanager
async def linked(*urls: str, owner: Owner | None = None, **options: Any) -> AsyncIterator[Link]:
    link = Link(
        reactor=reactor,
        urls=[BrokerUrl.parse(url) for url in urls],
        events=owner or Owner(),
        connection_name="pubd link-test@here:1",
        random=lambda: 0.0,
        **options,
    )
    link.start()
    try:
        yield link
    finally:
        await stopped(link)
        assert link.state is LinkState.STOPPED


async def stopped(link: Link) -> None:
    """Whoever waits for a frozen broker to take what is unsent waits for good."""
    await link.stop().addTimeout(15, reactor)


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await deferLater(reactor, 0.01, lambda: None)


async def ready(link: Link, seconds: float = 15) -> None:
    await until(lambda: link.state is LinkState.READY, seconds)


async def refusal(url: str, **options: Any) -> tuple[Link, Reason]:
    async with linked(url, **options) as link:
        await until(lambda: link.reason is not None)
        assert link.reason is not None
        reason, state = link.reason, link.state
        assert link.attempts == 1
    assert state in (LinkState.REFUSED, LinkState.WAITING)
    return link, reason


def quiet(logged: Logged) -> bool:
    """Whether no traceback is in what an operator sees."""
    return not any(
        "Traceback" in text or event.get("log_failure")
        for event, text in zip(logged.events, logged.texts, strict=True)
        if event.get("log_level") is not LogLevel.debug
    )


def amqps(node: Node, certificates: Certificates, host: str = "localhost", **parameters: str) -> str:
    given = {"cacertfile": str(certificates.ca)} | parameters
    return f"amqps://guest:guest@{host}:{node.tls_port}/%2F?" + "&".join(f"{k}={quote(v)}" for k, v in given.items())


# Ready, lost, blocked


@pytest_twisted.ensureDeferred
async def test_it_gets_ready_and_the_broker_knows_its_name(shared_node: Node, logged: Logged) -> None:
    async with linked(shared_node.url) as link:
        await ready(link)
        seen = await deferToThread(shared_node.ctl, "list_connections", "client_properties")
        assert '{"product","pubd"}' in seen
        assert '{"connection_name","pubd link-test@here:1"}' in seen
        assert '{"version","' in seen
    assert any("connected to 127.0.0.1" in text and "RabbitMQ" in text for text in logged.texts), logged.texts


@pytest_twisted.ensureDeferred
async def test_a_forced_close_is_told_in_rabbitmq_s_words_and_cured(own_node: Node) -> None:
    owner = Owner()
    async with linked(own_node.url, owner=owner) as link:
        await ready(link)
        await deferToThread(own_node.close_all_connections, "the test says so")
        await until(lambda: owner.readies == 2)
    assert owner.lost[0].code == 320
    assert "CONNECTION_FORCED" in owner.lost[0].text
    assert "the test says so" in owner.lost[0].text


@pytest_twisted.ensureDeferred
async def test_a_memory_alarm_is_a_state(own_node: Node) -> None:
    owner = Owner()
    async with linked(own_node.url, owner=owner) as link:
        await ready(link)
        await deferToThread(own_node.set_memory_alarm, True)
        opened = await link.connection.open_channel()  # type: ignore[union-attr]  # it is ready
        opened.basic_publish("", "nobody", b"x")
        await until(lambda: link.state is LinkState.BLOCKED)
        assert "memory" in owner.blocked[0]
        await deferToThread(own_node.set_memory_alarm, False)
        await ready(link)
        assert owner.blocked[-1] == ""


@pytest_twisted.ensureDeferred
async def test_a_frozen_broker_with_unsent_data_does_not_hold_up_the_close(own_node: Node) -> None:
    async with linked(own_node.url) as link:
        await ready(link)
        connection = link.connection
        assert connection is not None
        own_node.freeze()
        try:
            connection.write_frames(bytes(50_000_000))
            assert connection.paused
            await stopped(link)
        finally:
            own_node.thaw()


@pytest_twisted.ensureDeferred
async def test_a_frozen_broker_does_not_hold_up_the_close_of_tls_either(
    tls_node: Node, certificates: Certificates
) -> None:
    async with linked(amqps(tls_node, certificates)) as link:
        await ready(link)
        connection = link.connection
        assert connection is not None
        tls_node.freeze()
        try:
            connection.write_frames(bytes(20_000_000))
            assert connection.paused
            await stopped(link)
        finally:
            tls_node.thaw()


@pytest_twisted.ensureDeferred
async def test_a_killed_broker_is_found_again(own_node: Node) -> None:
    owner = Owner()
    async with linked(own_node.url, owner=owner) as link:
        await ready(link)
        own_node.kill()
        await until(lambda: owner.lost)
        await deferToThread(own_node.start)
        await ready(link, 40)


# Refusals


@pytest_twisted.ensureDeferred
async def test_a_wrong_password_is_told_in_rabbitmq_s_words(shared_node: Node, logged: Logged) -> None:
    _, reason = await refusal(f"amqp://guest:wr0ng@127.0.0.1:{shared_node.port}")
    assert reason.code == 403
    assert "ACCESS_REFUSED" in reason.text
    assert any("no retry will cure this" in text and "password" in text for text in logged.texts)
    assert "wr0ng" not in " ".join(logged.texts)
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_an_unknown_vhost_is_told_in_rabbitmq_s_words(shared_node: Node, logged: Logged) -> None:
    _, reason = await refusal(f"amqp://127.0.0.1:{shared_node.port}/nowhere")
    assert reason.code == 530
    assert "vhost nowhere not found" in reason.text
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_a_closed_port_is_told(logged: Logged) -> None:
    _, reason = await refusal("amqp://127.0.0.1:1")
    assert reason.text == "connection refused by 127.0.0.1:1"
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_tls_verifies_and_connects_by_name_and_by_address(tls_node: Node, certificates: Certificates) -> None:
    for host in ("localhost", "127.0.0.1"):
        async with linked(amqps(tls_node, certificates, host)) as link:
            await ready(link)


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_an_unknown_authority_is_refused(
    tls_node: Node, certificates: Certificates, logged: Logged
) -> None:
    _, reason = await refusal(amqps(tls_node, certificates, cacertfile=str(certificates.other_ca)))
    assert reason.text.startswith("certificate verify failed: ")
    assert quiet(logged)
    _, reason = await refusal(f"amqps://localhost:{tls_node.tls_port}")
    assert reason.text.startswith("certificate verify failed: ")


@pytest_twisted.ensureDeferred
async def test_verify_none_connects_to_anybody(tls_node: Node) -> None:
    async with linked(f"amqps://localhost:{tls_node.tls_port}?verify=verify_none") as link:
        await ready(link)


@pytest_twisted.ensureDeferred
async def test_mutual_tls_authenticates_by_external(tls_node: Node, certificates: Certificates) -> None:
    client = {"certfile": str(certificates.client.cert), "keyfile": str(certificates.client.key)}
    async with linked(amqps(tls_node, certificates, auth_mechanism="external", **client)) as link:
        await until(lambda: link.state is LinkState.READY or link.reason is not None)
        assert link.state is LinkState.READY, link.reason


@pytest_twisted.ensureDeferred
async def test_a_client_certificate_of_an_unknown_authority_is_refused_by_the_broker(
    tls_node: Node, certificates: Certificates, logged: Logged
) -> None:
    client = {"certfile": str(certificates.unknown_client.cert), "keyfile": str(certificates.unknown_client.key)}
    _, reason = await refusal(amqps(tls_node, certificates, **client))
    assert "refused the TLS handshake (" in reason.text, reason
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_external_that_is_not_offered_is_told(
    shared_node: Node, tls_node: Node, certificates: Certificates, logged: Logged
) -> None:
    del tls_node
    # A TLS front that passes everything on to a node without the plugin.
    async with listening(lambda: Relay(shared_node.port), certificates.server, certificates) as port:
        client = f"certfile={certificates.client.cert}&keyfile={certificates.client.key}"
        url = f"amqps://localhost:{port}?cacertfile={certificates.ca}&{client}&auth_mechanism=external"
        _, reason = await refusal(url)
    assert "does not offer EXTERNAL authentication" in reason.text
    assert quiet(logged)


# Peers that are no broker


class Mute(Protocol):
    """Reads and says nothing."""

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.read, self.gone = b"", False

    def dataReceived(self, data: bytes) -> None:
        self.read += data

    def connectionLost(self, reason: object = None) -> None:
        del reason
        self.gone = True


class Web(Mute):
    """Answers whatever comes as web servers do."""

    def dataReceived(self, data: bytes) -> None:
        self.read += data
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


class Relay(Mute):
    """Passes everything on to another port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connectionMade(self) -> None:
        super().connectionMade()
        relay, far = self, Protocol()
        self.waiting, self.far = b"", far

        class Far(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Protocol:
                del addr
                far.dataReceived = relay.transport.write  # type: ignore[method-assign, union-attr]
                far.connectionLost = lambda *_: relay.transport.loseConnection()  # type: ignore[method-assign, union-attr]
                far.connectionMade = lambda: far.transport.write(relay.waiting)  # type: ignore[method-assign, union-attr]
                return far

        TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(Far())

    def dataReceived(self, data: bytes) -> None:
        if self.far.transport is None:
            self.waiting += data
        else:
            self.far.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        super().connectionLost(reason)
        if self.far.transport is not None:
            self.far.transport.loseConnection()


class Listening(Factory[Any]):
    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self.make = make
        self.connections: list[Any] = []

    def buildProtocol(self, addr: object) -> Protocol:
        del addr
        protocol = self.make()
        protocol.factory = self
        return protocol


@asynccontextmanager
async def listening(
    make: Callable[[], Protocol],
    identity: Identity | None = None,
    certificates: Certificates | None = None,
    factory: Listening | None = None,
) -> AsyncIterator[int]:
    """A port of this machine, with TLS if there is an identity."""
    factory = factory or Listening(make)
    if identity is None:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    else:
        assert certificates is not None
        options = ssl.CertificateOptions(
            # Twisted's annotations know pyOpenSSL's deprecated types only.
            privateKey=load_pem_private_key(identity.key.read_bytes(), None),  # type: ignore[arg-type]
            certificate=x509.load_pem_x509_certificate(identity.cert.read_bytes()),  # type: ignore[arg-type]
        )
        port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()
        for connection in factory.connections:
            if not connection.gone:
                connection.transport.abortConnection()


@pytest_twisted.ensureDeferred
async def test_a_certificate_for_another_host_is_told_with_both_names(
    certificates: Certificates, logged: Logged
) -> None:
    async with listening(Mute, certificates.other_host, certificates) as port:
        _, reason = await refusal(f"amqps://localhost:{port}?cacertfile={certificates.ca}")
    assert reason.text == "certificate is for 'elsewhere.example', not for 'localhost'"
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_the_server_name_can_be_another_than_the_host(certificates: Certificates) -> None:
    async with listening(Web, certificates.other_host, certificates) as port:
        url = f"amqps://localhost:{port}?cacertfile={certificates.ca}&server_name_indication="
        _, reason = await refusal(url + "elsewhere.example")
        assert "it answered 'HTTP/1.1 400" in reason.text
        _, reason = await refusal(url + "disable")
        assert reason.text == "certificate is for 'elsewhere.example', not for 'localhost'"


@pytest_twisted.ensureDeferred
async def test_an_expired_certificate_is_told(certificates: Certificates, logged: Logged) -> None:
    async with listening(Mute, certificates.expired, certificates) as port:
        _, reason = await refusal(f"amqps://localhost:{port}?cacertfile={certificates.ca}")
    assert reason.text == "certificate verify failed: certificate has expired"
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_a_plaintext_broker_on_the_tls_port_is_told(shared_node: Node, logged: Logged) -> None:
    _, reason = await refusal(f"amqps://localhost:{shared_node.port}")
    assert f"localhost:{shared_node.port} does not speak TLS (" in reason.text
    assert "amqp://" in reason.text
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_a_tls_broker_on_the_plaintext_port_is_told(tls_node: Node, logged: Logged) -> None:
    _, reason = await refusal(f"amqp://localhost:{tls_node.tls_port}")
    assert "speaks TLS" in reason.text or "closed the connection during the AMQP handshake" in reason.text
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_a_web_server_is_told(logged: Logged) -> None:
    async with listening(Web) as port:
        _, reason = await refusal(f"amqp://localhost:{port}")
    assert f"localhost:{port} is not an AMQP broker: it answered 'HTTP/1.1 400" in reason.text
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_a_silent_peer_is_told(logged: Logged) -> None:
    async with listening(Mute) as port:
        _, reason = await refusal(f"amqp://localhost:{port}?connection_timeout=300")
        assert reason.text == f"no AMQP handshake from localhost:{port} within 0.3 s"
        _, reason = await refusal(f"amqps://localhost:{port}?connection_timeout=300")
        assert reason.text == f"no TLS handshake from localhost:{port} within 0.3 s"
    assert quiet(logged)


@pytest_twisted.ensureDeferred
async def test_amqps_never_says_a_word_in_plaintext() -> None:
    factory = Listening(Mute)
    async with listening(Mute, factory=factory) as port:
        await refusal(f"amqps://user:s3cr3t@localhost:{port}?connection_timeout=300")
        await refusal(f"amqps://user:s3cr3t@localhost:{port}?connection_timeout=300&verify=verify_none")
        assert len(factory.connections) == 2
        for connection in factory.connections:
            assert connection.read[:2] == b"\x16\x03"
            assert b"AMQP" not in connection.read
            assert b"s3cr3t" not in connection.read


# Files


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("cacertfile=/nowhere/ca.pem", ["cacertfile", "/nowhere/ca.pem", "No such file"]),
        ("cacertfile={key}", ["cacertfile", "no certificate"]),
        ("certfile=/nowhere/c.pem&keyfile={key}", ["certfile", "/nowhere/c.pem", "No such file"]),
        ("certfile={cert}&keyfile={cert}", ["keyfile", "no unencrypted private key"]),
        ("certfile={cert}&keyfile={other}", ["keyfile", "does not belong to certfile"]),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_once(
    parameters: str, words: list[str], certificates: Certificates
) -> None:
    client, other = certificates.client, certificates.unknown_client
    given = parameters.format(key=client.key, cert=client.cert, other=other.key)
    with pytest.raises(InvalidOption) as caught:
        Link(
            reactor=reactor,
            urls=[BrokerUrl.parse("amqps://localhost?" + given)],
            events=Owner(),
            connection_name="x",
            random=lambda: 0.0,
        )
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest_twisted.ensureDeferred
async def test_files_are_read_again_for_every_attempt(
    tls_node: Node, certificates: Certificates, tmp_path: Any, logged: Logged
) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(certificates.other_ca.read_bytes())
    soon = Backoff(first=0.2, jitter=0)
    async with linked(amqps(tls_node, certificates, cacertfile=str(authority)), refusal_backoff=soon) as link:
        await until(lambda: link.reason is not None)
        authority.unlink()
        await until(lambda: "No such file" in str(link.reason))
        assert link.state is LinkState.REFUSED
        authority.write_bytes(certificates.ca.read_bytes())
        await ready(link)
    assert quiet(logged)


def test_a_deferred_of_stop_is_one() -> None:
    link = Link(
        reactor=reactor,
        urls=[BrokerUrl.parse("amqp://localhost")],
        events=Owner(),
        connection_name="x",
        random=lambda: 0.0,
    )
    stopped = link.stop()
    assert isinstance(stopped, Deferred)
    assert stopped.called
