"""The HTTP intake over real sockets: who is at the other end, how many, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import ssl
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS

from pubd.access import LOCAL, Access, Principal
from pubd.access.tokens import hash_of, new_token
from tests.certs import Certificates
from tests.web import GOOD, JSON, get, post, reactor, serving, until


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_tells_who_it_is(tmp_path: Path) -> None:
    me = Principal(name="me", grants=LOCAL.grants, operate=True, users=(os.getuid(),))
    access = Access([me], anonymous=None)
    async with serving(listen=f"unix:{tmp_path}/s:mode=600", access=access, authenticated=True) as web:
        client = await web.connect(UNIXClientEndpoint(reactor, f"{tmp_path}/s"))
        got = await client.ask(post(host="Host: whatever.example\r\n"))
        assert got.status == 202
        record = await client.ask(get("/messages/" + got.json["id"]))
        assert record.json["principal"] == "me"


@pytest_twisted.ensureDeferred
async def test_nobody_is_let_in_without_a_token() -> None:
    token = new_token()
    shop = Principal(name="shop", grants=LOCAL.grants, tokens=(hash_of(token),))
    async with serving(access=Access([shop], anonymous=None), authenticated=True) as web:
        client = await web.client()
        assert (await client.ask(post())).status == 401
        assert (await client.ask(post(headers=JSON + f"Authorization: Bearer {token}\r\n"))).status == 202
        assert web.accepted == 1


@pytest_twisted.ensureDeferred
async def test_tls(certificates: Certificates) -> None:
    token = new_token()
    shop = Principal(name="shop", grants=LOCAL.grants, tokens=(hash_of(token),))
    listen = f"ssl:0:interface=127.0.0.1:certKey={certificates.server.cert}:privateKey={certificates.server.key}"
    async with serving(listen=listen, access=Access([shop], anonymous=None), authenticated=True, max_body=1000) as web:
        ca = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(certificates.ca.read_bytes())])
        options = ssl.optionsForClientTLS("127.0.0.1", trustRoot=ca)
        client = await web.connect(wrapClientTLS(options, HostnameEndpoint(reactor, b"127.0.0.1", web.port)))
        bearer = JSON + f"Authorization: Bearer {token}\r\n"
        assert (await client.ask(post(headers=bearer))).status == 202
        # Refused in the middle: the answer arrives, and then the goodbye of TLS.
        client.transport.write(post(b"x" * 1_000_000, headers=bearer))
        (got,) = await client.answers()
        assert got.status == 413
        await client.until(lambda: client.closed)


@pytest_twisted.ensureDeferred
async def test_a_refusal_reaches_who_is_still_sending() -> None:
    async with serving(max_body=1000) as web:
        for _ in range(20):
            client = await web.client()
            client.transport.write(post(b"x" * 2_000_000))
            (got,) = await client.answers()
            assert got.status == 413
            await client.until_closed()


@pytest_twisted.ensureDeferred
async def test_connections_over_the_limit_are_closed() -> None:
    async with serving(max_connections=3) as web:
        clients = [await web.client() for _ in range(3)]
        await until(lambda: len(web.intake.site.channels) == 3)
        over = await web.client()
        await over.until(lambda: over.closed)
        clients[0].transport.loseConnection()
        await until(lambda: len(web.intake.site.channels) == 2)
        assert (await web.ask(get("/livez"))).status == 200


@pytest_twisted.ensureDeferred
async def test_many_idle_and_some_busy() -> None:
    async with serving() as web:
        idle = [await web.client() for _ in range(200)]
        busy = [await web.client() for _ in range(20)]
        for _ in range(10):
            got = await gatherResults([_asked(client) for client in busy])
            assert got == [202] * 20
        assert web.accepted == 200
        assert not any(client.closed for client in idle)


def _asked(client: Any) -> Any:
    return Deferred.fromCoroutine(client.ask(post())).addCallback(lambda got: got.status)


@pytest_twisted.ensureDeferred
async def test_stop_answers_and_closes() -> None:
    async with serving() as web:
        idle, waiting, half = await web.client(), await web.client(), await web.client()
        waiting.transport.write(post(b'{"exchange":"x","routing_key":"k"}', path="/messages?wait=confirmed"))
        half.transport.write(post()[:-2])
        await until(lambda: web.accepted == 1 and web.door.unanswered)
        await web.intake.stopService()
        (stored,) = await waiting.answers()
        (stopping,) = await half.answers()
        assert (stored.status, stopping.status) == (202, 503)
        for client in (idle, waiting, half):
            await client.until_closed()
        # And it starts again.
        web.intake.startService()
        assert (await web.ask(post())).status == 202


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_leaves_nothing() -> None:
    async with serving() as web:
        request = post(b'{"exchange":"x","routing_key":"k","body":"' + b"x" * 100_000 + b'"}')
        for end in range(1, len(request), 4999):
            client = await web.client()
            client.transport.write(request[:end])
            client.transport.loseConnection()
        await web.quiet()
        assert web.accepted == 0
        assert (await web.ask(request)).status == 202


@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_who_ends_its_side_after_its_requests_gets_all_answers(way: str, tmp_path: Path) -> None:
    async with serving(listen=f"unix:{tmp_path}/s:mode=600" if way == "unix" else "tcp:0:interface=127.0.0.1") as web:
        for requests, statuses in (
            (post(), [202]),
            (post() + get("/livez") + post(), [202, 200, 202]),
            (post(GOOD + b"\n" + GOOD, headers="Content-Type: application/x-ndjson\r\n"), [200]),
            (post(b"{}"), [422]),
            (b"GET /\x01 HTTP/1.1\r\n\r\n", [400]),
            # Half a request is none.
            (post() + post()[:-2], [202]),
            (post()[:20], []),
            (b"", []),
        ):
            address = UNIXClientEndpoint(reactor, f"{tmp_path}/s") if way == "unix" else None
            client = await (web.connect(address) if address is not None else web.client())
            client.transport.write(requests)
            client.transport.loseWriteConnection()
            got = await client.answers(len(statuses)) if statuses else []
            assert [each.status for each in got] == statuses
            await client.until_closed()
        await web.quiet()
        assert web.door.unanswered == 0
