"""What the HTTP intake refuses: over real sockets, nothing stored, everything given back."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache

import pytest
import pytest_twisted
from backports import zstd

from tests.web import GOOD, JSON, Web, chunked, get, post, serving

H = "Host: localhost\r\n"
LINES = "Content-Type: application/x-ndjson\r\n"
CHUNKED = JSON + "Transfer-Encoding: chunked\r\n"


def raw(*lines: str, body: bytes = b"") -> bytes:
    """A request of exactly these lines."""
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def in_chunks(body: bytes, first: str = "POST /messages HTTP/1.1", more: str = "") -> bytes:
    return f"{first}\r\n{H}{CHUNKED}{more}\r\n".encode() + body


def coded(coding: str, body: bytes) -> bytes:
    return post(body, headers=f"{JSON}Content-Encoding: {coding}\r\n")


@cache
def zstd_bomb() -> bytes:
    """512 MiB in 16 KiB."""
    return zstd.compress(b"\0" * (512 << 20), 1)


@cache
def gzip_bomb() -> bytes:
    """512 MiB in 512 KiB, as small as gzip can make them."""
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    part = b"\0" * (1 << 20)
    return b"".join([*(made.compress(part) for _ in range(512)), made.flush()])


@cache
def gzip_of_gzip() -> bytes:
    """What is 512 MiB when it is undone twice, in less than 16 KiB: once is all that is done."""
    return gzip.compress(gzip_bomb(), 9)


#: name: (bytes, expected status)
ROWS: dict[str, tuple[bytes, int]] = {
    # Request smuggling: what two programs could read as different requests.
    "Content-Length and Transfer-Encoding": (
        raw("POST /messages HTTP/1.1", "Host: a", "Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
    ),
    "Transfer-Encoding and Content-Length": (
        raw("POST /messages HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 3", body=b"0\r\n\r\n"),
        400,
    ),
    "two Content-Lengths": (raw("POST /messages HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 2"), 400),
    "one Content-Length twice": (
        raw("POST /messages HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 1", body=b"x"),
        400,
    ),
    "a list of Content-Lengths": (raw("POST /messages HTTP/1.1", "Host: a", "Content-Length: 1, 1", body=b"x"), 400),
    "Content-Length with a sign": (raw("POST /messages HTTP/1.1", "Host: a", "Content-Length: +1", body=b"x"), 400),
    "negative Content-Length": (raw("POST /messages HTTP/1.1", "Host: a", "Content-Length: -1"), 400),
    "hexadecimal Content-Length": (raw("POST /messages HTTP/1.1", "Host: a", "Content-Length: 0x1", body=b"x"), 400),
    "Content-Length of 5000 digits": (raw("POST /messages HTTP/1.1", "Host: a", "Content-Length: " + "1" * 5000), 400),
    "empty Content-Length": (raw("POST /messages HTTP/1.1", "Host: a", "Content-Length:"), 400),
    "Transfer-Encoding: identity": (
        raw("POST /messages HTTP/1.1", "Host: a", JSON.strip(), "Transfer-Encoding: identity", body=GOOD),
        400,
    ),
    "Transfer-Encoding: gzip, chunked": (
        raw("POST /messages HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"),
        400,
    ),
    "two Transfer-Encodings": (
        raw("POST /messages HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        400,
    ),
    "Transfer-Encoding hidden by a vertical tab": (
        raw("POST /messages HTTP/1.1", "Host: a", "Transfer-Encoding: \x0bchunked"),
        400,
    ),
    "chunks in HTTP/1.0": (
        raw("POST /messages HTTP/1.0", "Host: a", JSON.strip(), "Transfer-Encoding: chunked", body=chunked(GOOD)),
        400,
    ),
    "a header that goes on in the next line": (raw("GET /livez HTTP/1.1", "Host: a", "X-A: b", " c: d"), 400),
    "a first header that begins with a space": (raw("GET /livez HTTP/1.1", " Host: a"), 400),
    "a space before the colon": (raw("GET /livez HTTP/1.1", "Host : a"), 400),
    "a space in a header's name": (raw("GET /livez HTTP/1.1", "Host: a", "X A: b"), 400),
    "a header without a colon": (raw("GET /livez HTTP/1.1", "Host: a", "Nonsense"), 400),
    "a header without a name": (raw("GET /livez HTTP/1.1", "Host: a", ": b"), 400),
    "NUL in a header": (raw("GET /livez HTTP/1.1", "Host: a", "X-A: b\0c"), 400),
    "NUL in the path": (raw("GET /live\0z HTTP/1.1", "Host: a"), 400),
    "a control character in a header": (raw("GET /livez HTTP/1.1", "Host: a", "X-A: b\x01c"), 400),
    "a bare CR in a header": (raw("GET /livez HTTP/1.1", "Host: a", "X-A: b\rX-B: c"), 400),
    "bare LFs": (b"GET /livez HTTP/1.1\nHost: a\n\nX\r\n\r\n", 400),
    "no Host": (raw("GET /livez HTTP/1.1", "X-A: b"), 400),
    "two Hosts": (raw("GET /livez HTTP/1.1", "Host: a", "Host: b"), 400),
    "a Host that is none": (raw("GET /livez HTTP/1.1", "Host: a/b"), 400),
    "absolute-form for another host": (raw("GET http://b/livez HTTP/1.1", "Host: a"), 400),
    # Request lines
    "HTTP/0.9": (b"GET /livez\r\n\r\n", 400),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/1.2": (raw("GET /livez HTTP/1.2", "Host: a"), 400),
    "two spaces in the request line": (raw("GET  /livez HTTP/1.1", "Host: a"), 400),
    "a tab in the request line": (raw("GET\t/livez HTTP/1.1", "Host: a"), 400),
    "authority-form": (raw("CONNECT a:443 HTTP/1.1", "Host: a:443"), 400),
    "a path without a slash": (raw("GET livez HTTP/1.1", "Host: a"), 400),
    "bytes beyond ASCII in the path": ("GET /messages/\xa0 HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1"), 400),
    "a fragment": (raw("GET /livez#a HTTP/1.1", "Host: a"), 400),
    "a TLS client": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60 + b"\r\n\r\n", 400),
    # Limits of the head
    "a request line of 20,000 bytes": (raw("GET /" + "a" * 20000 + " HTTP/1.1", "Host: a"), 400),
    "20,000 bytes without an end of line": (b"a" * 20000, 400),
    "a head of 40,000 bytes": (
        raw("GET /livez HTTP/1.1", "Host: a", *(f"X-{n}: {'a' * 1000}" for n in range(40))),
        400,
    ),
    "200 headers": (raw("GET /livez HTTP/1.1", "Host: a", *(f"X-{n}: a" for n in range(200))), 400),
    # Chunks
    "a chunk size that is no number": (in_chunks(b"zz\r\n{}\r\n0\r\n\r\n"), 400),
    "a negative chunk size": (in_chunks(b"-1\r\n"), 400),
    "a chunk size with 0x": (in_chunks(b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk size with a space": (in_chunks(b"2 \r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk longer than its size": (in_chunks(b"2\r\n{}}\r\n0\r\n\r\n"), 400),
    "a chunk extension of 2,000 bytes": (in_chunks(b"2;" + b"a" * 2000 + b"\r\n{}\r\n0\r\n\r\n"), 400),
    "a control character in a chunk extension": (in_chunks(b"2;a\x01\r\n{}\r\n0\r\n\r\n"), 400),
    "trailers of 100,000 bytes": (in_chunks(b"0\r\n" + b"A: b\r\n" * 20000), 400),
    # Limits of the body
    "a body over the limit by its Content-Length": (post(b"x" * 150_001), 413),
    "a body over the limit in chunks": (in_chunks(chunked(b"x" * 80_000, b"x" * 80_000)), 413),
    "gzip that is none": (coded("gzip", GOOD), 400),
    "zstd that is none": (coded("zstd", GOOD), 400),
    "gzip that ends too early": (coded("gzip", gzip.compress(GOOD)[:-4]), 400),
    "zstd that ends too early": (coded("zstd", zstd.compress(GOOD)[:-2]), 400),
    "gzip with something behind it": (coded("gzip", gzip.compress(GOOD) + b"more"), 400),
    "zstd frames of nothing over the limit": (coded("zstd", zstd.compress(b"") * 40_000), 413),
    "gzip members of nothing over the limit": (coded("gzip", gzip.compress(b"") * 20_000), 413),
    "gzip of nothing": (coded("gzip", b""), 400),
    "a wrong checksum": (coded("gzip", gzip.compress(GOOD)[:-8] + b"\0" * 8), 400),
    "deflate": (coded("deflate", zlib.compress(GOOD)), 415),
    "br": (coded("br", GOOD), 415),
    "gzip twice": (coded("gzip, gzip", gzip.compress(gzip.compress(GOOD))), 415),
    # What the body says
    "no body": (raw("POST /messages HTTP/1.1", "Host: localhost", JSON.strip()), 400),
    "an empty body": (post(b""), 400),
    "no JSON": (post(b"{"), 400),
    "JSON twice": (post(GOOD + GOOD), 400),
    "a string": (post(b'"x"'), 400),
    "NaN": (post(b'{"exchange":"x","priority":NaN}'), 400),
    "a key twice": (post(b'{"exchange":"x","exchange":"y"}'), 422),
    "an unknown key": (post(b'{"exchange":"x","bodi":"y"}'), 422),
    "no exchange": (post(b"{}"), 422),
    "priority 256": (post(b'{"exchange":"x","priority":256}'), 422),
    "2^64": (post(b'{"exchange":"x","timestamp":18446744073709551616}'), 422),
    "CC that is no list": (post(b'{"exchange":"x","headers":{"CC":"a"}}'), 422),
    "headers larger than a frame": (
        post(b'{"exchange":"x","headers":{"a":"%b"}}' % (b"x" * 140_000)),
        422,
    ),
    "no UTF-8": (post(b'{"exchange":"x","body":"\xff"}'), 400),
    "nested a thousand deep": (post(b'{"exchange":"x","headers":{"a":' + b"[" * 1000 + b"]" * 1000 + b"}}"), 400),
    # The request
    "no Content-Type": (post(headers=""), 415),
    "a form": (post(headers="Content-Type: application/x-www-form-urlencoded\r\n"), 415),
    "another charset": (post(headers="Content-Type: application/json; charset=utf-16\r\n"), 415),
    "two Content-Types": (post(headers=JSON + JSON), 400),
    "an unknown path": (post(path="/messsages"), 404),
    "the path of somebody else": (post(path="/../etc/passwd"), 404),
    "another method": (get("/messages", method="PUT"), 405),
    "a method in lower case": (get("/livez", method="get"), 405),
    "TRACE": (get("/livez", method="TRACE"), 405),
    "a body where there is none": (post(b"x", path="/messages/1/retry"), 400),
    "an expectation": (post(headers=JSON + "Expect: 200-ok\r\n"), 417),
    "wait for something": (post(path="/messages?wait=delivered"), 400),
    "a timeout without wait": (post(path="/messages?timeout=5s"), 400),
    "a timeout over the limit": (post(path="/messages?wait=confirmed&timeout=1h"), 400),
    "a timeout that is none": (post(path="/messages?wait=confirmed&timeout=soon"), 400),
    "an unknown name in the query": (post(path="/messages?wiat=confirmed"), 400),
    "a name twice in the query": (post(path="/messages?wait=stored&wait=confirmed"), 400),
    "a broken escape": (post(b"x", path="/publish/x/%zz"), 400),
    "an escape that is no UTF-8": (post(b"x", path="/publish/x/%ff"), 400),
    "a header twice, by query and path": (post(b"x", path="/publish/x/k?exchange=y"), 400),
    "a routing key of 256 bytes": (post(b"x", path="/publish/x/" + "k" * 256), 422),
    "a priority of 256 in the query": (post(b"x", path="/publish/x/k?priority=256"), 422),
    "an empty Idempotency-Key": (post(headers=JSON + "Idempotency-Key:\r\n"), 400),
    "two Idempotency-Keys": (post(headers=JSON + "Idempotency-Key: a\r\nIdempotency-Key: b\r\n"), 400),
    "an Idempotency-Key beside another one": (
        post(b'{"exchange":"x","idempotency_key":"a"}', headers=JSON + "Idempotency-Key: b\r\n"),
        422,
    ),
    "a token that nobody has": (post(headers=JSON + "Authorization: Bearer x\r\n"), 401),
    "a password": (post(headers=JSON + "Authorization: Basic dXNlcjpwYXNz\r\n"), 401),
    "a web page": (post(headers=JSON + "Origin: https://example.com\r\n"), 403),
    "a web page of the same host": (post(headers=JSON + "Origin: http://localhost\r\n"), 403),
    "a name that was bound again": (post(host="Host: example.com\r\n"), 403),
    "an id that is none": (get("/messages/none"), 404),
    "an unknown state": (get("/messages?state=lost"), 400),
    "no id after which to go on": (get("/messages?after=zzz"), 400),
    "a limit of 0": (get("/messages?limit=0"), 400),
}


async def row(web: Web, data: bytes, expected: int) -> None:
    """One row: the answer, and what is left of it."""
    client = await web.client()
    client.transport.write(data)
    (got,) = await client.answers()
    assert got.status == expected, got
    assert got.headers["content-type"] == "application/problem+json"
    assert got.headers["server"] == "pubd"
    problem = got.json
    assert problem["status"] == expected
    assert problem["detail"]
    assert problem["title"]
    assert b"Traceback" not in got.body
    assert b"<" not in got.body
    if got.headers.get("connection") != "close":
        # What follows is read as what it is.
        assert (await client.ask(get("/livez"))).status == 200
    else:
        await client.until(lambda: client.closed)
    assert web.accepted == 0
    await web.quiet()


@pytest.mark.parametrize("name", ROWS)
@pytest_twisted.ensureDeferred
async def test_bad_input(name: str) -> None:
    data, expected = ROWS[name]
    async with serving(max_body=150_000) as web:
        await row(web, data, expected)
        assert (await web.ask(post())).status == 202
        assert web.accepted == 1


@pytest_twisted.ensureDeferred
async def test_what_is_coded_twice_is_undone_once() -> None:
    data = gzip_of_gzip()
    assert len(data) < 16 << 10
    async with serving(max_body=1 << 20, room=4 << 20) as web:
        await row(web, coded("gzip", data), 400)
        await row(web, coded("gzip, gzip", data), 415)


@pytest.mark.parametrize(
    ("coding", "bomb"), [("gzip", gzip_bomb), ("zstd", zstd_bomb), ("zstd", lambda: b"".join([zstd_bomb()] * 3))]
)
@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
@pytest_twisted.ensureDeferred
async def test_bombs_take_no_memory(coding: str, bomb: Callable[[], bytes], media: str) -> None:
    data = bomb()
    async with serving(max_body=1 << 20, room=4 << 20) as web:
        client = await web.client()
        tracemalloc.start()
        try:
            client.transport.write(post(data, headers=f"Content-Type: {media}\r\nContent-Encoding: {coding}\r\n"))
            (got,) = await client.answers()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if media == "application/json":
            assert got.status == 413
        else:
            # One line without an end.
            assert got.status == 200, got
            assert [line["error"]["type"] for line in got.lines] == ["too-large"]
        assert peak < 8 << 20
        assert web.accepted == 0
        await web.quiet()
