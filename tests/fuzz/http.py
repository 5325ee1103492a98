"""The HTTP intake against any stream: ``python -m tests.fuzz.http --seconds 300``, as :mod:`tests.fuzz.wire`.

The first byte of an input says how the rest is cut into reads.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.fuzz.engine import Found, command
from tests.fuzz.wire import FRAGMENTS as WORDS

if TYPE_CHECKING:
    from tests.web import Bench

MAX_BODY = 1000
MESSAGE = b'{"exchange":"x","routing_key":"k","body":"text"}'
#: An answer to lines of which the last one says why no more are read.
BROKEN = "200 broken"
#: In reserve: each is made anew, with a publisher and a broker, when it has stored enough.
_benches: list[Bench] = []


def _post(body: bytes, head: bytes, path: bytes = b"/messages") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b" % (path, head, len(body), body)


_JSON, _LINES = b"Content-Type: application/json\r\n", b"Content-Type: application/x-ndjson\r\n"
WHOLE: tuple[bytes, ...] = (
    _post(MESSAGE, _JSON),
    _post(b"[%b,{}]" % MESSAGE, _JSON),
    _post(MESSAGE + b"\n{}\n\n" + MESSAGE, _LINES),
    _post(b"text", b"Content-Type: text/plain\r\n", b"/publish/x/k?priority=5&header.a=b"),
    _post(MESSAGE, _JSON + b"Idempotency-Key: key\r\n"),
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /messages?limit=2&state=parked HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"HEAD /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"DELETE /messages/0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /messages HTTP/1.1\r\nHost: localhost\r\n" + _LINES + b"Transfer-Encoding: chunked\r\n\r\n",
)
PARTS: tuple[bytes, ...] = (
    b"POST /messages HTTP/1.1\r\n",
    b"POST /publish/x/k HTTP/1.1\r\n",
    b"POST /messages?wait=confirmed&timeout=0s HTTP/1.0\r\n",
    b"GET http://a/livez HTTP/1.1\r\n",
    b"PUT /messages/%00/%2e%2e HTTP/1.1\r\n",
    b"Host: localhost\r\n",
    b"Host: a\r\n",
    b"Host: a:b:c\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 48\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: zstd\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Authorization: Bearer x\r\n",
    b"Origin: http://b\r\n",
    _JSON,
    _LINES,
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"30\r\n" + MESSAGE + b"\r\n",
    b"1\r\n\n\r\n",
    b"0\r\n\r\n",
    b"5;a=b\r\nhello\r\n",
    b"ffffffffffffffffff\r\n",
    b"-1\r\n",
    b"x" * 300,
    b"(\xb5/\xfd\x20\x00\x01\x00\x00",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


def check(raw: bytes) -> bool:
    """Whether something was stored. Raises Found, or what was raised, if a promise was broken.

    Answers are HTTP, errors are problems and none is a mistake of pubd's; the same whatever the reads; nothing is left
    of the connection, and nothing is written into the log as a mistake of pubd's.
    """
    size, stream = (raw[0] % 64 + 1, raw[1:]) if raw else (1, b"")
    whole, stored = _heard([stream], raw)
    cut, _ = _heard([stream[at : at + size] for at in range(0, len(stream), size)], raw)
    if cut != whole and not _lines_that_break(cut, whole):
        raise Found(f"the reads make a difference: {whole}, {cut}", raw)
    return stored


def _lines_that_break(one: list[str], other: list[str]) -> bool:
    """Lines in a body that breaks further on: those that came with the break are not handed in, those before it are."""
    if one[:-1] != other[:-1] or not one or not other:
        return False
    lasts = {one[-1], other[-1]}
    return BROKEN in lasts and all(each == BROKEN or each >= "400" for each in lasts)


def _heard(chunks: list[bytes], raw: bytes) -> tuple[list[str], bool]:
    from pubd.intake.problem import TYPES
    from tests.fuzz.complaints import no_complaints
    from tests.web import Bench

    if not _benches or _benches[0].accepted > 500:
        _benches[:] = [Bench(max_body=MAX_BODY)]
    bench = _benches[0]
    before = bench.accepted
    with no_complaints(raw):
        channel, wire = bench.connect()
        for chunk in chunks:
            if not wire.aborted:
                channel.dataReceived(chunk)
            bench.clock.advance(0)
        bench.rig.network.flush()
        bench.clock.advance(0)
        # What has not come by now never will.
        for _ in range(4):
            bench.clock.advance(100.0)
            bench.site.tick()
        said = wire.value()
        channel.connectionLost(None)
        bench.clock.advance(10.0)
    if bench.door.unanswered or bench.site.channels or bench.clock.getDelayedCalls():
        raise Found("something is left", raw)
    found = [_kind(status, body) for status, body in _answers(said, raw) if _is_sound(status, body, TYPES, raw)]
    return found, bench.accepted > before


def _kind(status: int, body: bytes) -> str:
    last = body.splitlines()[-1:]
    return BROKEN if status == 200 and last and last[0].startswith(b'{"error":{"type":"malformed"') else str(status)


def _is_sound(status: int, body: bytes, types: Any, raw: bytes) -> bool:
    """False for what is said in between, which depends on how much has come."""
    if status == 100:
        return False
    if status >= 400 and body:
        problem = json.loads(body)
        if status == 500 or types[problem["type"]][0] != status or not problem["detail"].isprintable():
            raise Found(f"{problem}", raw)
    return True


def _answers(said: bytes, raw: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each; one to HEAD, which has none, is told by what follows."""
    found = []
    while said:
        head, end, rest = said.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        if not end or not first.startswith("HTTP/1.1 "):
            raise Found(f"no answer: {said[:200]!r}", raw)
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while True:
                size, end, rest = rest.partition(b"\r\n")
                if not end:
                    # It was cut with the connection.
                    break
                chunk, rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
                body += chunk
                if not chunk:
                    break
        elif "content-length" not in headers and " 20" in first[8:12] and " 204 " not in first:
            # To HTTP/1.0, bit by bit: all that comes.
            body, rest = rest, b""
        elif not rest.startswith(b"HTTP/1.1 "):
            length = int(headers.get("content-length", "0"))
            body, rest = rest[:length], rest[length:]
            if len(body) < length and body:
                raise Found("half an answer", raw)
        found.append((int(first.split(" ")[1]), body))
        said = rest
    return found


inputs: st.SearchStrategy[bytes] = st.builds(
    lambda size, parts: bytes([size]) + b"".join(parts),
    st.integers(0, 63),
    st.lists(
        st.sampled_from(WHOLE) | st.sampled_from(PARTS) | st.sampled_from(WORDS) | st.binary(max_size=5), max_size=15
    ),
)

main = command(
    check,
    inputs=inputs,
    seeds=[b"\x3f" + b"".join(WHOLE[:6]), b"\x07" + WHOLE[10] + PARTS[25] * 2 + PARTS[27] + WHOLE[0]],
    fragments=(*WHOLE, *PARTS, *WORDS),
    instrument=("pubd.intake",),
    load=("tests.web",),
    doc="Look for streams on which the HTTP intake breaks its promises.",
)

if __name__ == "__main__":
    main()
