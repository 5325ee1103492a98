"""Listening: sockets in the file system, TLS, who is at the other end, and how many."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from pubd.access import Access, Grant, Principal
from pubd.errors import InvalidOption
from pubd.intake.endpoint import Endpoint
from pubd.intake.listen import Capped, Listeners, Peer, peer_of, principal_of
from pubd.intake.port import Opened
from tests.certs import Certificates, Identity
from tests.lines import connect, descriptors, in_thread, pause, reactor, until
from tests.strictness import Logged


class Echo(Protocol):
    """Says what it hears, and notes who spoke."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        factory = self.factory
        assert isinstance(factory, EchoFactory)
        factory.transports.append(self.transport)
        factory.peers.append(peer_of(self.transport))
        factory.principals.append(principal_of(self.transport, factory.access))
        self.transport.write(data)


class EchoFactory(Factory):
    noisy = False
    protocol = Echo

    def __init__(self, access: Access | None = None) -> None:
        self.access = access or Access()
        self.transports: list[Any] = []
        self.peers: list[Peer] = []
        self.principals: list[Principal | None] = []


@asynccontextmanager
async def listening(
    *listen: str, factory: Any = None, authenticated: bool = False, failures: list[InvalidOption] | None = None
) -> AsyncIterator[Listeners]:
    failed = failures if failures is not None else []
    listeners = Listeners(
        reactor=reactor,
        listen=listen,
        factory=factory or EchoFactory(),
        authenticated=authenticated,
        failed=failed.append,
    )
    listeners.privilegedStartService()
    listeners.startService()
    try:
        assert failures is not None or not failed
        yield listeners
    finally:
        await listeners.stopService()


def echo(where: Path | int, data: bytes = b"hello") -> bytes:
    with connect(where) as client:
        client.sendall(data)
        return client.recv(100)


async def fails(logged: Logged, *listen: str) -> str:
    """The sentence; it is in the log, once, and nothing is left open."""
    before = descriptors()
    failures: list[InvalidOption] = []
    async with listening(*listen, failures=failures) as listeners:
        assert listeners.addresses == []
        (error,) = failures
    await until(lambda: descriptors() == before)
    (event,) = logged.flush()
    assert formatEvent(event) == str(error)
    return str(error)


def modes(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# In the file system


@pytest.mark.parametrize(("option", "mode"), [("", 0o600), (":mode=660", 0o660), (":mode=666", 0o666)])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_has_the_mode_asked_for_and_goes_with_the_service(
    option: str, mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    old = os.umask(0)
    try:
        async with listening(f"unix:{path}{option}") as listeners:
            assert modes(path) == mode
            assert await in_thread(echo, path) == b"hello"
            assert [type(each) for each in listeners.addresses] == [UNIXAddress]
    finally:
        os.umask(old)
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_nothing_stays_open(tmp_path: Path) -> None:
    before = 0
    for turn in range(3):
        async with listening(f"unix:{tmp_path}/s", "tcp:0:interface=127.0.0.1"):
            await in_thread(echo, tmp_path / "s")
        await pause(0.05)
        # The first turn has made Twisted keep a descriptor in reserve.
        before = before if turn else descriptors()
    await until(lambda: descriptors() == before)


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_mode_is_narrow_at_every_moment(mode: int, tmp_path: Path) -> None:
    """A watcher that looks as often as it can never sees a wider mode than asked for."""
    path, seen, stop = tmp_path / "s", set[int](), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                seen.add(modes(path))

    watcher = threading.Thread(target=watch)
    watcher.start()
    old = os.umask(0)
    try:
        # The watcher may not have had a turn yet.
        for _ in itertools.takewhile(lambda n: n < 300 or (not seen and n < 30_000), itertools.count()):
            opened = Opened(Endpoint.parse(f"unix:{path}:mode={mode:o}"), reactor, authenticated=False)
            opened.close()
            opened.socket.close()
    finally:
        os.umask(old)
        stop.set()
        watcher.join()
    assert seen
    assert seen <= {0o600, mode}


@pytest_twisted.ensureDeferred
async def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    # A process that was killed leaves its lock, too; its pid may be somebody else's by now, such as ours.
    (tmp_path / "s.lock").write_text(f"{os.getpid()}\n")
    async with listening(f"unix:{path}"):
        assert await in_thread(echo, path) == b"hello"


@pytest_twisted.ensureDeferred
async def test_a_socket_that_is_listened_on_is_left_alone(tmp_path: Path, logged: Logged) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen(1)
        assert "is in use by another process; stop that one" in await fails(logged, f"unix:{path}")
        assert path.exists()
        # Even when its backlog is full.
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(9)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(str(path))
        assert "is in use" in await fails(logged, f"unix:{path}")
        for each in waiting:
            each.close()


@pytest_twisted.ensureDeferred
async def test_two_pubds_do_not_share_a_socket(tmp_path: Path, logged: Logged) -> None:
    path = tmp_path / "s"
    async with listening(f"unix:{path}"):
        assert f"is in use by process {os.getpid()}; stop that one" in await fails(logged, f"unix:{path}")
        assert await in_thread(echo, path) == b"hello"
    async with listening(f"unix:{path}"):
        assert await in_thread(echo, path) == b"hello"


@pytest_twisted.ensureDeferred
async def test_a_file_in_the_way_is_left_alone(tmp_path: Path, logged: Logged) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    assert "exists and is no socket; remove it" in await fails(logged, f"unix:{path}")
    assert path.read_text() == "precious"


@pytest_twisted.ensureDeferred
async def test_a_directory_that_is_missing_or_closed(tmp_path: Path, logged: Logged) -> None:
    assert "in a directory that does not exist; create it" in await fails(logged, f"unix:{tmp_path}/no/s")
    (tmp_path / "file").touch()
    assert "is no directory" in await fails(logged, f"unix:{tmp_path}/file/s")


@pytest_twisted.ensureDeferred
async def test_a_path_that_was_taken_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with listening(f"unix:{path}"):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


@pytest_twisted.ensureDeferred
async def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path, logged: Logged) -> None:
    (tmp_path / "s.lock").symlink_to(tmp_path / "target")
    assert "cannot be opened" in await fails(logged, f"unix:{tmp_path}/s")
    assert not (tmp_path / "target").exists()


# Ports


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_is_named_and_what_was_open_is_closed(tmp_path: Path, logged: Logged) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        text = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        assert f"{text!r} is in use by another process" in await fails(logged, f"unix:{tmp_path}/s", text)
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_an_address_of_another_machine(certificates: Certificates, logged: Logged) -> None:
    shown = certificates.server
    failures: list[InvalidOption] = []
    text = f"tls:0:interface=192.0.2.1:certificate={shown.cert}:key={shown.key}"
    async with listening(text, authenticated=True, failures=failures):
        assert "has an address that this machine does not have" in str(failures[0])
    assert len(logged.flush()) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="ports below 1024 take root")
@pytest_twisted.ensureDeferred
async def test_ports_that_take_privileges_are_opened_while_there_are_any(logged: Logged) -> None:
    """And what fails then is told once, not again at the start proper."""
    with socket.socket() as other:
        other.bind(("127.0.0.9", 0))
        free = next(port for port in range(1023, 500, -1) if other.connect_ex(("127.0.0.9", port)))
    text = f"tcp:{free}:interface=127.0.0.9"
    listeners = Listeners(reactor=reactor, listen=[text], factory=EchoFactory(), authenticated=False)
    listeners.privilegedStartService()
    assert len(listeners.addresses) == 1
    assert "is in use" in await fails(logged, text)
    listeners.startService()
    assert len(listeners.addresses) == 1
    await listeners.stopService()


@pytest_twisted.ensureDeferred
async def test_ipv6_and_a_second_start() -> None:
    listeners = Listeners(
        reactor=reactor, listen=[r"tcp6:0:interface=\:\:1"], factory=EchoFactory(), authenticated=False
    )
    for _ in range(2):
        listeners.startService()
        (address,) = listeners.addresses
        with socket.socket(socket.AF_INET6) as client:
            client.settimeout(5)
            client.connect(("::1", address.port))  # type: ignore[attr-defined]
            client.sendall(b"x")
            assert await in_thread(client.recv, 1) == b"x"
        await listeners.stopService()


def test_what_is_refused_is_refused_before_anything_is_opened() -> None:
    for listen, words in [
        (["tcp:0"], "without TLS"),
        (["nonsense"], "no kind"),
        (["unix:/x", "unix:/x"], "given twice"),
    ]:
        with pytest.raises(InvalidOption, match=words):
            Listeners(reactor=reactor, listen=listen, factory=EchoFactory(), authenticated=True)


# TLS


def over_tls(
    port: int, certificates: Certificates, identity: Identity | None = None, version: ssl.TLSVersion | None = None
) -> tuple[bytes, dict[str, Any]]:
    """An echo over verified TLS, and the server's certificate."""
    context = ssl.create_default_context(cafile=str(certificates.ca))
    if identity is not None:
        context.load_cert_chain(str(identity.cert), str(identity.key))
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    with connect(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(b"hello")
        return client.recv(100), dict(client.getpeercert() or {})


def tls(identity: Identity, **more: Path) -> str:
    options = "".join(f":{name}={path}" for name, path in more.items())
    return f"tls:0:interface=127.0.0.1:certificate={identity.cert}:key={identity.key}{options}"


def port_of(listeners: Listeners) -> int:
    (address,) = listeners.addresses
    assert isinstance(address, IPv4Address)
    return address.port


@pytest_twisted.ensureDeferred
async def test_tls_with_a_verified_certificate(certificates: Certificates) -> None:
    factory = EchoFactory()
    async with listening(tls(certificates.server), factory=factory) as listeners:
        assert (await in_thread(over_tls, port_of(listeners), certificates))[0] == b"hello"
        assert factory.peers[0].certificate == ()
        assert factory.peers[0].local


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None), (["x"], None)]
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_offers_protocols_as_curl_does_is_let_in(
    certificates: Certificates, offered: list[str], chosen: str | None
) -> None:
    def talk(port: int) -> tuple[str | None, bytes]:
        context = ssl.create_default_context(cafile=str(certificates.ca))
        context.set_alpn_protocols(offered)
        with connect(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(b"hello")
            return client.selected_alpn_protocol(), client.recv(5)

    async with listening(tls(certificates.server)) as listeners:
        assert await in_thread(talk, port_of(listeners)) == (chosen, b"hello")


@pytest_twisted.ensureDeferred
async def test_twisted_s_ssl(certificates: Certificates) -> None:
    server = certificates.server
    text = f"ssl:0:interface=127.0.0.1:privateKey={server.key}:certKey={server.cert}"
    async with listening(text) as listeners:
        assert (await in_thread(over_tls, port_of(listeners), certificates))[0] == b"hello"


@pytest_twisted.ensureDeferred
async def test_nothing_older_than_tls_1_2(certificates: Certificates) -> None:
    async with listening(tls(certificates.server)) as listeners:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert (await in_thread(over_tls, port_of(listeners), certificates, None, version))[0] == b"hello"
        with pytest.raises(OSError, match=r"(?i)protocol|alert|version"):
            await in_thread(over_tls, port_of(listeners), certificates, None, ssl.TLSVersion.TLSv1_1)


@pytest_twisted.ensureDeferred
async def test_mutual_tls_tells_names_and_refuses_strangers(certificates: Certificates) -> None:
    shop = Principal(name="shop", grants=(Grant(),), certificates=("guest",))
    factory = EchoFactory(Access([shop], anonymous=None))
    async with listening(tls(certificates.server, client_ca=certificates.ca), factory=factory) as listeners:
        port = port_of(listeners)
        assert (await in_thread(over_tls, port, certificates, certificates.client))[0] == b"hello"
        assert "guest" in factory.peers[0].certificate
        assert factory.principals == [shop]
        for stranger in (None, certificates.unknown_client):
            try:
                # TLS 1.3 lets a client speak before it is refused.
                got, _ = await in_thread(over_tls, port, certificates, stranger)
            except OSError:
                got = b""
            assert got == b""
        assert len(factory.peers) == 1


@pytest_twisted.ensureDeferred
async def test_names_of_a_certificate(certificates: Certificates, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop")])
    names = [x509.DNSName("a.example"), x509.UniformResourceIdentifier("spiffe://x/y"), x509.RFC822Name("a@b.example")]
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    made = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    client = Identity(cert=tmp_path / "c.pem", key=tmp_path / "c.key")
    client.cert.write_bytes(made.public_bytes(Encoding.PEM))
    client.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    factory = EchoFactory()
    async with listening(tls(certificates.server, client_ca=client.cert), factory=factory) as listeners:
        await in_thread(over_tls, port_of(listeners), certificates, client)
    assert factory.peers[0].certificate == ("shop", "a.example", "spiffe://x/y")


@pytest_twisted.ensureDeferred
async def test_certificates_are_read_again(certificates: Certificates, tmp_path: Path) -> None:
    here = Identity(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")

    def use(identity: Identity) -> None:
        shutil.copy(identity.cert, here.cert)
        shutil.copy(identity.key, here.key)

    use(certificates.server)
    async with listening(tls(here)) as listeners:
        port = port_of(listeners)
        _, first = await in_thread(over_tls, port, certificates)
        use(certificates.other_host)
        assert (await in_thread(over_tls, port, certificates))[1] == first
        listeners.prepare([tls(here)], authenticated=False).apply()
        with pytest.raises(ssl.SSLCertVerificationError):
            await in_thread(over_tls, port, certificates)
        here.cert.write_text("nothing")
        with pytest.raises(InvalidOption, match=r"certificate: .*cert.pem: it contains no certificate"):
            listeners.prepare([tls(here)], authenticated=False).apply()
        # As before.
        with pytest.raises(ssl.SSLCertVerificationError):
            await in_thread(over_tls, port, certificates)
        use(certificates.server)
        listeners.prepare([tls(here)], authenticated=False).apply()
        assert (await in_thread(over_tls, port, certificates))[1] == first


def test_files_that_cannot_be_used(certificates: Certificates, tmp_path: Path) -> None:
    server, client = certificates.server, certificates.client
    for listen, words in [
        (tls(Identity(cert=tmp_path / "no", key=server.key)), "certificate: .*No such file"),
        (tls(Identity(cert=server.cert, key=tmp_path / "no")), "key: .*No such file"),
        (tls(Identity(cert=server.key, key=server.key)), "contains no certificate"),
        (tls(Identity(cert=server.cert, key=server.cert)), "no unencrypted private key"),
        (tls(Identity(cert=server.cert, key=client.key)), "does not belong to"),
        (tls(server, client_ca=server.key), "client_ca: .*contains no certificate"),
        (tls(Identity(cert=tmp_path, key=server.key)), "certificate: .*Is a directory"),
    ]:
        with pytest.raises(InvalidOption, match=words):
            Listeners(reactor=reactor, listen=[listen], factory=EchoFactory(), authenticated=False)


@pytest_twisted.ensureDeferred
async def test_over_the_limit_a_tls_connection_is_closed_before_its_handshake(certificates: Certificates) -> None:
    capped = Capped(EchoFactory(), 0, clock=reactor)
    async with listening(tls(certificates.server), factory=capped) as listeners:
        with connect(port_of(listeners)) as client:
            assert await in_thread(client.recv, 1) == b""


# Who


@pytest_twisted.ensureDeferred
async def test_the_peer_of_a_unix_socket_is_a_process(tmp_path: Path) -> None:
    mine = Principal(name="mine", users=(os.getuid(),))
    factory = EchoFactory(Access([mine]))
    async with listening(f"unix:{tmp_path}/s", factory=factory):
        await in_thread(echo, tmp_path / "s")
    (peer,) = factory.peers
    assert (peer.pid, peer.uid, peer.gid, peer.local) == (os.getpid(), os.getuid(), os.getgid(), True)
    assert set(peer.groups) == set(os.getgroups())
    assert factory.principals == [mine]


@pytest.mark.skipif(os.getuid() != 0, reason="becoming somebody else takes root")
@pytest_twisted.ensureDeferred
async def test_the_peer_s_other_groups_count(tmp_path: Path) -> None:
    staff = Principal(name="staff", groups=(4242,))
    factory = EchoFactory(Access([staff], anonymous=None))
    client = (
        "import os,socket,sys; s=socket.socket(socket.AF_UNIX); os.setgroups(list(range(4200,4300)));"
        "s.connect(sys.argv[1]); s.sendall(b'x'); s.recv(1)"
    )
    async with listening(f"unix:{tmp_path}/s:mode=666", factory=factory):
        await in_thread(subprocess.run, [sys.executable, "-c", client, str(tmp_path / "s")])
    assert len(factory.peers[0].groups) == 100
    assert factory.principals == [staff]


@pytest_twisted.ensureDeferred
async def test_over_loopback_it_is_the_anonymous_one_or_nobody() -> None:
    for anonymous in (Principal(name="anybody"), None):
        factory = EchoFactory(Access([], anonymous=anonymous))
        async with listening("tcp:0:interface=127.0.0.1", factory=factory) as listeners:
            await in_thread(echo, port_of(listeners))
        assert factory.principals == [anonymous]
        assert factory.peers[0].local
        assert factory.peers[0].uid is None
        assert factory.peers[0].text.startswith("127.0.0.1 port ")


class Far:
    """A transport from another machine."""

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.7", 4711)


def test_from_elsewhere_it_is_nobody() -> None:
    assert peer_of(Far()) == Peer(text="192.0.2.7 port 4711", local=False)
    assert principal_of(Far(), Access()) is None


# How many


def test_so_many_and_no_more_and_again_when_one_is_gone(logged: Logged) -> None:
    clock = Clock()
    capped = Capped(EchoFactory(), 2, clock=clock)
    address = IPv4Address("TCP", "127.0.0.1", 1)
    made = [capped.buildProtocol(address) for _ in range(2)]
    assert None not in made
    for _ in range(1000):
        assert capped.buildProtocol(address) is None
    assert capped.refused == 1000
    clock.advance(1)
    assert capped.buildProtocol(address) is None
    told = [text for text in logged.texts if "refused" in text]
    assert [text.partition(" ")[0] for text in told] == ["1", "1000"]
    assert "2 are open, which is max_connections" in told[0]
    one = made[0]
    assert one is not None
    one.connectionLost(None)  # type: ignore[arg-type]
    one.connectionLost(None)  # type: ignore[arg-type]
    assert capped.open == 1
    assert capped.buildProtocol(address) is not None


# Without descriptors


SMALL = """
import os, resource, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
from twisted.internet import reactor, protocol
from twisted.logger import globalLogPublisher, formatEvent
from pubd.intake.listen import Listeners
kept = []
if sys.argv[2] == "full":
    from pubd.intake import port
    # As if others had taken what is kept back: the kernel itself refuses then.
    port.KEPT_BACK = 0
globalLogPublisher.addObserver(lambda event: print("LOG", formatEvent(event), file=sys.stderr, flush=True))
class Echo(protocol.Protocol):
    def dataReceived(self, data):
        if data == b"cpu":
            data = b"%f" % time.process_time()
        if data == b"open":
            os.close(os.open("/dev/null", os.O_RDONLY))
            data = b"yes"
        self.transport.write(data)
listeners = Listeners(reactor=reactor, listen=["unix:" + sys.argv[1]], factory=protocol.Factory.forProtocol(Echo),
                      authenticated=False)
reactor.callWhenRunning(listeners.startService)
reactor.run()
"""


@pytest.mark.parametrize("how", ["kept", "full"])
def test_out_of_file_descriptors_it_refuses_does_not_spin_and_recovers(how: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", SMALL, str(path), how], stderr=log)
    clients: list[socket.socket] = []

    def ask(client: socket.socket, question: bytes) -> bytes:
        client.sendall(question)
        return client.recv(100)

    try:
        deadline = threading.Event()
        while not path.exists() and process.poll() is None:
            deadline.wait(0.02)
        first = connect(path)
        clients.append(first)
        assert ask(first, b"x") == b"x"
        refused = 0
        for _ in range(120):
            client = connect(path)
            try:
                if ask(client, b"x") == b"x":
                    clients.append(client)
                    continue
            except OSError:
                pass
            refused += 1
            client.close()
            if refused == 5:
                break
        assert refused == 5, "everybody was let in"
        assert 30 < len(clients) < 80
        # Whoever was in is served, and what is kept back can be used.
        assert ask(clients[-1], b"still") == b"still"
        if how == "kept":
            assert ask(first, b"open") == b"yes"
        waiting = connect(path)
        used = []
        for _ in range(3):
            before = float(ask(first, b"cpu"))
            deadline.wait(1)
            used.append(float(ask(first, b"cpu")) - before)
        # Who spins does so in each of these seconds.
        assert min(used) < 0.2
        waiting.close()
        for client in clients[1:]:
            client.close()
        for _ in range(100):
            client = connect(path)
            try:
                if ask(client, b"again") == b"again":
                    break
            except OSError:
                pass
            finally:
                client.close()
            deadline.wait(0.05)
        else:
            pytest.fail("it did not recover")
        text = (tmp_path / "log").read_text()
        assert "file descriptors run out" in text
        assert text.count("\n") < 20
        assert "Traceback" not in text
    finally:
        for client in clients:
            client.close()
        process.terminate()
        process.wait(10)


# Passed by systemd


ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="lines")
from twisted.internet import reactor, protocol
from pubd.intake.listen import Listeners
class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)
def failed(error):
    print(error, flush=True)
    reactor.callLater(0, reactor.stop)
listeners = Listeners(reactor=reactor, listen=[sys.argv[2]], factory=protocol.Factory.forProtocol(Echo),
                      authenticated=False, failed=failed)
async def go():
    listeners.startService()
    if len(sys.argv) > 3:
        await listeners.stopService()
        listeners.startService()
    print("ready", flush=True)
from twisted.internet.defer import Deferred
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(go()))
reactor.run()
"""


def activated(passed: socket.socket, *arguments: str) -> subprocess.Popen[bytes]:
    passed.set_inheritable(True)
    return subprocess.Popen(
        [sys.executable, "-c", ACTIVATED, str(passed.fileno()), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[passed.fileno()],
    )


@pytest.mark.parametrize("listen", ["systemd:domain=UNIX:index=0", "systemd:name=lines"])
def test_a_unix_socket_that_systemd_passes_keeps_its_mode_and_stays(listen: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen(5)
        path.chmod(0o620)
        process = activated(passed, listen, "twice")
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            assert echo(path) == b"hello"
            assert modes(path) == 0o620
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()
        # The next start is activated by it.
        assert path.exists()
        with connect(path):
            pass


def test_what_systemd_passes_may_be_refused() -> None:
    def sentence(passed: socket.socket, listen: str) -> str:
        process = activated(passed, listen)
        out, _ = process.communicate(timeout=20)
        return out.decode()

    with socket.socket() as passed:
        passed.bind(("0.0.0.0", 0))
        assert "does not listen: the socket unit needs ListenStream=" in sentence(passed, "systemd:index=0")
        passed.listen(1)
        assert "on every interface without TLS: set ListenStream=127.0.0.1:PORT" in sentence(passed, "systemd:index=0")
        assert "systemd passed no such socket" in sentence(passed, "systemd:index=1")
        assert "systemd passed no such socket" in sentence(passed, "systemd:name=http")
