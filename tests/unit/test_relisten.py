"""Listening elsewhere while connections are open: only what changed is closed or opened, and all of it or nothing."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from pubd.errors import InvalidOption
from pubd.intake.listen import Listeners
from tests.certs import Certificates, Identity
from tests.lines import connect, descriptors, in_thread, reactor, until
from tests.rabbitmq import free_ports
from tests.strictness import Logged
from tests.unit.test_listen import EchoFactory, echo, listening, modes, over_tls


def tcp(port: int, interface: str = "127.0.0.1") -> str:
    return f"tcp:{port}:interface={interface}"


def tls(port: int, identity: Identity) -> str:
    return f"tls:{port}:interface=127.0.0.1:certificate={identity.cert}:key={identity.key}"


def go(listeners: Listeners, *listen: str) -> Any:
    """Listen there instead; fires when what is gone is closed."""
    return listeners.prepare(listen, authenticated=False).apply()


def closed(where: Path | int) -> bool:
    try:
        connect(where).close()
    except OSError:
        return True
    return False


@pytest_twisted.ensureDeferred
async def test_what_stays_keeps_its_socket_and_its_connections(tmp_path: Path) -> None:
    one, other = free_ports(2)
    path = tmp_path / "s"
    async with listening(tcp(one), f"unix:{path}") as listeners:
        before = path.stat().st_ino
        with await in_thread(connect, path) as kept:
            kept.sendall(b"1")
            assert await in_thread(kept.recv, 10) == b"1"
            await go(listeners, f"unix:{path}", tcp(other))
            assert path.stat().st_ino == before
            kept.sendall(b"2")
            assert await in_thread(kept.recv, 10) == b"2"
        assert await in_thread(echo, other) == b"hello"
        assert await in_thread(closed, one)
        assert [str(getattr(each, "port", "")) for each in listeners.addresses] == ["", str(other)]


@pytest_twisted.ensureDeferred
async def test_a_mode_and_a_backlog_change_in_place(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with listening(f"unix:{path}:mode=600") as listeners:
        before = path.stat().st_ino
        await go(listeners, f"unix:{path}:mode=660:backlog=7")
        assert (modes(path), path.stat().st_ino) == (0o660, before)
        assert await in_thread(echo, path) == b"hello"
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_a_port_that_gets_tls_or_loses_it_refuses_nobody(certificates: Certificates) -> None:
    (port,) = free_ports(1)
    async with listening(tcp(port)) as listeners:
        with await in_thread(connect, port) as kept:
            await go(listeners, tls(port, certificates.server))
            answer, first = await in_thread(over_tls, port, certificates)
            assert first
            assert answer
            kept.sendall(b"plain")
            assert await in_thread(kept.recv, 10) == b"plain"
        await go(listeners, tls(port, certificates.other_host))
        with pytest.raises(ssl.SSLCertVerificationError):
            await in_thread(over_tls, port, certificates)
        await go(listeners, tcp(port))
        assert await in_thread(echo, port) == b"hello"


@pytest_twisted.ensureDeferred
async def test_one_that_cannot_be_opened_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (one, new) = free_ports(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with listening(tcp(one)) as listeners:
            before = descriptors()
            for bad in (tcp(taken.getsockname()[1]), f"unix:{tmp_path}/no/s", f"tls:{new}:certificate=no:key=no"):
                with pytest.raises(InvalidOption):
                    listeners.prepare([tcp(one), tcp(new), f"unix:{tmp_path}/s", bad], authenticated=True)
            await until(lambda: descriptors() == before)
            assert list(tmp_path.iterdir()) == []
            assert await in_thread(closed, new)
            assert await in_thread(echo, one) == b"hello"


@pytest_twisted.ensureDeferred
async def test_what_was_prepared_and_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    async with listening(f"unix:{tmp_path}/s") as listeners:
        before = descriptors()
        listeners.prepare([f"unix:{tmp_path}/other"], authenticated=False).drop()
        assert descriptors() == before
        assert sorted(each.name for each in tmp_path.iterdir()) == ["s", "s.lock"]


@pytest_twisted.ensureDeferred
async def test_one_in_the_way_is_closed_first_and_comes_back_if_that_does_not_help(logged: Logged) -> None:
    (port,) = free_ports(1)
    async with listening(tcp(port)) as listeners:
        await go(listeners, tcp(port, "127.0.0.2"))
        assert await in_thread(closed, port)
        with socket.socket() as taken:
            taken.bind(("127.0.0.3", port))
            taken.listen()
            await go(listeners, tcp(port, "127.0.0.3"))
        (event,) = logged.flush()
        assert "in use" in str(event)
        assert [(each.host, each.port) for each in listeners.addresses] == [("127.0.0.2", port)]  # type: ignore[attr-defined]  # TCP


@pytest_twisted.ensureDeferred
async def test_connections_by_an_endpoint_that_is_gone_are_ended_and_no_others(tmp_path: Path) -> None:
    ended: list[Any] = []

    def end(protocol: Any) -> None:
        ended.append(protocol)
        protocol.transport.loseConnection()

    one, other = tmp_path / "one", tmp_path / "other"
    factory = EchoFactory()
    listeners = Listeners(
        reactor=reactor,
        listen=[f"unix:{one}", f"unix:{other}"],
        factory=factory,
        authenticated=False,
        end=end,
    )
    listeners.startService()
    with await in_thread(connect, one) as leaving, await in_thread(connect, other) as staying:
        for client in (leaving, staying):
            client.sendall(b"1")
            assert await in_thread(client.recv, 10) == b"1"
        # One that is not accepted yet when its endpoint goes.
        with await in_thread(connect, one) as late:
            await go(listeners, f"unix:{other}")
            assert await in_thread(leaving.recv, 10) == b""
            assert await in_thread(late.recv, 10) == b""
        assert len(ended) == 2
        staying.sendall(b"2")
        assert await in_thread(staying.recv, 10) == b"2"
    await listeners.stopService()


@pytest_twisted.ensureDeferred
async def test_before_the_start_sockets_are_opened_and_taken_over(tmp_path: Path) -> None:
    listeners = Listeners(reactor=reactor, listen=[f"unix:{tmp_path}/s"], factory=EchoFactory(), authenticated=False)
    await go(listeners, f"unix:{tmp_path}/s")
    assert (tmp_path / "s").exists()
    before = (tmp_path / "s").stat().st_ino
    listeners.startService()
    assert (tmp_path / "s").stat().st_ino == before
    assert await in_thread(echo, tmp_path / "s") == b"hello"
    await listeners.stopService()
    assert list(tmp_path.iterdir()) == []
