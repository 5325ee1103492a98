"""Who comes over TLS, to a real daemon: by the name in a client's certificate, or by a token; and who does not."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from pubd.access.tokens import hash_of, new_token
from tests.certs import Certificates, Identity
from tests.rabbitmq import free_ports
from tests.service.conftest import Run
from tests.service.crowd import line, post
from tests.service.process import PATIENCE, Program, until

TOKEN = new_token()
#: ``guest`` is the common name of the client's certificate.
PRINCIPALS = f"""
[[principal]]
name = "machine"
certificates = ["guest"]
grants = [{{ exchange = "", routing_key = "of.machine" }}]

[[principal]]
name = "shop"
tokens = ["{hash_of(TOKEN)}"]
operate = true
grants = [{{ exchange = "", routing_key = "of.shop" }}]
"""


@attrs.frozen
class Daemon:
    """``mutual`` is a port that takes a client's certificate, ``plain`` one that asks for none."""

    program: Program
    certificates: Certificates
    mutual: int
    plain: int

    def connect(self, port: int, identity: Identity | None) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.certificates.ca))
        if identity is not None:
            context.load_cert_chain(str(identity.cert), str(identity.key))
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        try:
            return context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def talk(self, port: int, data: bytes, identity: Identity | None = None) -> bytes:
        """Everything that is said until the connection is closed over there."""
        got = b""
        with self.connect(port, identity) as client:
            client.sendall(data)
            while more := client.recv(1 << 16):
                got += more
        return got


def start(run: Run, directory: Path, table: str, certificates: Certificates, broker: str) -> Daemon:
    mutual, plain = free_ports(2)
    shown = f"certificate={certificates.server.cert}:key={certificates.server.key}"
    # On every interface, which takes both TLS and principals.
    listen = [f"tls:{mutual}:{shown}:client_ca={certificates.ca}", f"tls:{plain}:{shown}"]
    (directory / "pubd.toml").write_text(
        f'[broker]\nurls = ["{broker}"]\n[spool]\nurl = "sqlite:///pubd.db"\n[delivery]\ndrain_timeout = 0\n'
        f"[{table}]\nlisten = {json.dumps(listen)}\n{PRINCIPALS}"
    )
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
    until(lambda: len(program.lines("listening on")) == 2, what=lambda: program.output)
    return Daemon(program, certificates, mutual, plain)


def requests(*routing_keys: str, token: str | None = None) -> bytes:
    """HTTP; the last one closes."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return b"".join(
        post(line(key), headers=authorization + ("Connection: close\r\n" if key is routing_keys[-1] else ""))
        for key in routing_keys
    )


def statuses(said: bytes) -> list[int]:
    return [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
def over_http(run: Run, tmp_path: Path, certificates: Certificates, nowhere: str) -> Iterator[Daemon]:
    daemon = start(run, tmp_path, "http", certificates, nowhere)
    yield daemon
    check_silence(daemon)


@pytest.fixture
def over_lines(run: Run, tmp_path: Path, certificates: Certificates, nowhere: str) -> Iterator[Daemon]:
    daemon = start(run, tmp_path, "lines", certificates, nowhere)
    yield daemon
    check_silence(daemon)


def check_silence(daemon: Daemon) -> None:
    assert TOKEN not in daemon.program.output
    assert "Traceback" not in daemon.program.output


def test_http_knows_a_certificate_and_a_token(over_http: Daemon, certificates: Certificates) -> None:
    pubd, client = over_http, certificates.client
    both = ("of.machine", "of.shop")
    assert statuses(pubd.talk(pubd.mutual, requests(*both), client)) == [202, 403]
    # A token decides, whatever the certificate says.
    assert statuses(pubd.talk(pubd.mutual, requests(*both, token=TOKEN), client)) == [403, 202]
    assert statuses(pubd.talk(pubd.mutual, requests("of.machine", token=new_token()), client)) == [401]
    assert statuses(pubd.talk(pubd.plain, requests(*both, token=TOKEN))) == [403, 202]
    # It is not asked for there, and so nobody's.
    refused = pubd.talk(pubd.plain, requests("of.machine"), client)
    assert statuses(refused) == [401]
    assert b"WWW-Authenticate: Bearer" in refused
    assert b"machine" not in refused

    listed = f"GET /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    found = pubd.talk(pubd.plain, listed.encode()).partition(b"\r\n\r\n")[2]
    messages: list[dict[str, Any]] = json.loads(found)["messages"]
    assert sorted(each["principal"] for each in messages) == ["machine", "shop", "shop"]


def test_lines_know_a_certificate_and_a_token(over_lines: Daemon, certificates: Certificates) -> None:
    pubd, client = over_lines, certificates.client
    auth = json.dumps({"op": "auth", "token": TOKEN}).encode() + b"\n"
    wrong = json.dumps({"op": "auth", "token": new_token()}).encode() + b"\n"
    both = line("of.machine") + b"\n" + line("of.shop") + b"\n"

    def said(port: int, data: bytes, answers: int, identity: Identity | None = None) -> list[str]:
        with pubd.connect(port, identity) as peer, peer.makefile("rb") as lines:
            peer.sendall(data)
            found = [json.loads(lines.readline()) for _ in range(answers)]
        return [each["error"]["type"] if "error" in each else each["state"] for each in found]

    assert said(pubd.mutual, both, 2, client) == ["stored", "not-allowed"]
    assert said(pubd.mutual, auth + both, 3, client) == ["authenticated", "not-allowed", "stored"]
    assert said(pubd.plain, auth + both, 3) == ["authenticated", "not-allowed", "stored"]
    assert said(pubd.plain, both, 1, client) == ["not-authenticated"]
    assert said(pubd.mutual, wrong + both, 1, client) == ["not-authenticated"]


@pytest.mark.parametrize("who", ["nobody", "unknown_client"])
def test_without_a_certificate_that_is_known_nobody_gets_in(
    who: str, over_http: Daemon, certificates: Certificates
) -> None:
    pubd = over_http
    identity = None if who == "nobody" else certificates.unknown_client
    # With TLS 1.3 a client hears of its refusal when it reads.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        pubd.talk(pubd.mutual, requests("of.machine"), identity)
    assert statuses(pubd.talk(pubd.mutual, requests("of.machine"), certificates.client)) == [202]


EVERYWHERE = "interface=0.0.0.0"


def configured(run: Run, directory: Path, table: str, listen: str, access: str, broker: str) -> Program:
    (directory / "pubd.toml").write_text(
        f'[broker]\nurls = ["{broker}"]\n[spool]\nurl = "sqlite:///pubd.db"\n[delivery]\ndrain_timeout = 0\n'
        f'[{table}]\nlisten = ["{listen}"]\n{access}'
    )
    return run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")


@pytest.mark.parametrize("table", ["http", "lines"])
@pytest.mark.parametrize(
    ("listen", "access"),
    [
        (f"tcp:0:{EVERYWHERE}", ""),
        ("tcp:0", PRINCIPALS),
        (f"tls:0:{EVERYWHERE}:TLS", ""),
    ],
    ids=["nothing", "no-tls", "no-principal"],
)
def test_beyond_this_machine_it_takes_tls_and_principals(
    table: str, listen: str, access: str, run: Run, tmp_path: Path, certificates: Certificates, nowhere: str
) -> None:
    shown = f"certificate={certificates.server.cert}:key={certificates.server.key}"
    program = configured(run, tmp_path, table, listen.replace("TLS", shown), access, nowhere)
    assert program.ends() == 78
    assert listen.removesuffix(":TLS") in program.output
    assert "listening on" not in program.output
    assert "Traceback" not in program.output
    assert not (tmp_path / "pubd.db").exists()


@pytest.mark.parametrize("table", ["http", "lines"])
def test_whoever_is_anonymous_here_is_nobody_from_elsewhere(
    table: str, run: Run, tmp_path: Path, certificates: Certificates, nowhere: str
) -> None:
    """So that it may be listened on, with principals for those beyond."""
    shown = f"certificate={certificates.server.cert}:key={certificates.server.key}"
    access = f"[access]\nanonymous = true\n{PRINCIPALS}"
    program = configured(run, tmp_path, table, f"tls:0:{EVERYWHERE}:{shown}", access, nowhere)
    program.says("listening on")
    program.interrupt()
    assert program.ends() == 0
