"""The bad-input table of the lines intake: for each input its answers, and what is stored."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.lines import GOOD, STORED, connect, descriptors, in_thread, line, said, serving, talk, until

MAX_LINE = 300_000
MALFORMED = "malformed"


def bad(field: str) -> tuple[str, str]:
    return ("invalid-message", field)


def message(**given: Any) -> bytes:
    return json.dumps({"exchange": "x", "body": "b"} | given).encode() + b"\n"


#: name: (input, answers).
TABLE: dict[str, tuple[bytes, list[object]]] = {
    "nothing at all": (b"", []),
    "empty lines": (b"\n\r\n\n", []),
    "blanks": (b"  \n", [MALFORMED]),
    "no JSON": (b"hello\n", [MALFORMED]),
    "HTTP": (b"POST /messages HTTP/1.1\r\nHost: x\r\n\r\n", [MALFORMED, MALFORMED]),
    "half a line at the end": (GOOD[:-1], [MALFORMED]),
    "CR only": (GOOD[:-1] + b"\r" + GOOD[:-1] + b"\r", [MALFORMED]),
    "two objects in a line": (GOOD[:-1] + GOOD, [MALFORMED]),
    "an array": (b"[" + GOOD[:-1] + b"]\n", [MALFORMED]),
    "a string": (b'"x"\n', [MALFORMED]),
    "null": (b"null\n", [MALFORMED]),
    "NaN": (b'{"exchange":"x","headers":{"a":NaN}}\n', [MALFORMED]),
    "NUL": (b"\0\n", [MALFORMED]),
    "NUL in a string": (b'{"exchange":"\0"}\n', [MALFORMED]),
    "NUL behind the object": (GOOD[:-1] + b"\0\n", [MALFORMED]),
    "invalid UTF-8": (b'{"exchange":"\xff\xfe"}\n', [MALFORMED]),
    "overlong UTF-8": (b'{"exchange":"\xc0\xaf"}\n', [MALFORMED]),
    "half of a surrogate pair": (b'{"exchange":"\\ud800"}\n', [MALFORMED]),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, [MALFORMED]),
    "UTF-16": (GOOD[:-1].decode().encode("utf-16-le") + b"\n", [MALFORMED]),
    "doubled keys": (b'{"exchange":"x","exchange":"y"}\n', [bad("exchange")]),
    "an unknown key": (message(exchnage="y"), [bad("exchnage")]),
    "no exchange": (b'{"body":"x"}\n', [bad("exchange")]),
    "an exchange that is a number": (message(exchange=3), [bad("exchange")]),
    "an exchange of 256 bytes": (message(exchange="x" * 256), [bad("exchange")]),
    "a routing key that is null and a list": (message(routing_key=["a"]), [bad("routing_key")]),
    "a body that is an object": (message(body={}), [bad("body")]),
    "two bodies": (message(body_base64="YQ=="), [bad("body_base64")]),
    "broken base64": (b'{"exchange":"x","body_base64":"a"}\n', [bad("body_base64")]),
    "priority 256": (message(priority=256), [bad("priority")]),
    "priority -1": (message(priority=-1), [bad("priority")]),
    "priority true": (message(priority=True), [bad("priority")]),
    "timestamp 2**64": (message(timestamp=2**64), [bad("timestamp")]),
    "a header of 2**64": (message(headers={"n": 2**64}), [bad("headers['n']")]),
    "a number of 5,000 digits": (b'{"exchange":"x","priority":' + b"9" * 5000 + b"}\n", [MALFORMED]),
    "headers over frame_max": (message(headers={f"k{n}": "v" * 200 for n in range(700)}), [bad("headers")]),
    "headers that are a list": (message(headers=[1]), [bad("headers")]),
    "CC is not a list": (message(headers={"CC": "a"}), [bad("headers['CC']")]),
    "CC with a number": (message(headers={"CC": [1]}), [bad("headers['CC'][0]")]),
    "deep nesting": (b'{"exchange":"x","headers":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}\n", [MALFORMED]),
    "deep and unclosed": (b"[" * 100_000 + b"\n", [MALFORMED]),
    "an expiration with a sign": (message(expiration="-1"), [bad("expiration")]),
    "delivery mode 3": (message(delivery_mode=3), [bad("delivery_mode")]),
    "a delay without sense": (message(delay="soon"), [bad("delay")]),
    "a wish to wait for something else": (message(wait="forever"), [bad("wait")]),
    "a wish to wait that is true": (message(wait=True), [bad("wait")]),
    "a timeout without a wish": (message(timeout=5), [bad("timeout")]),
    "a timeout for what is stored": (message(wait="stored", timeout=5), [bad("timeout")]),
    "a timeout below nothing": (message(wait="confirmed", timeout=-1), [bad("timeout")]),
    "a timeout of a week": (message(wait="confirmed", timeout="1w"), [bad("timeout")]),
    "a timeout that is a list": (message(wait="confirmed", timeout=[]), [bad("timeout")]),
    "to wait for what is no message": (b'{"wait":"confirmed"}\n', [bad("exchange")]),
    "an unknown operation": (b'{"op":"wait","id":"x"}\n', [bad("op")]),
    "a line over the limit": (b"x" * (MAX_LINE + 1) + b"\n", ["too-large"]),
    "a line over the limit, never ended": (b"x" * (3 * MAX_LINE), ["too-large"]),
    "a message over the limit": (message(body="x" * MAX_LINE), ["too-large"]),
    "an operation that there is not": (b'{"op":"wait","id":"1"}\n', [bad("op")]),
    "a bad token": (b'{"op":"auth","token":"guess"}\n', ["not-authenticated"]),
}


@pytest.mark.parametrize("name", TABLE)
@pytest_twisted.ensureDeferred
async def test_bad_input_is_answered_and_stores_nothing(name: str, tmp_path: Path) -> None:
    given, expected = TABLE[name]
    async with serving(tmp_path, max_line=MAX_LINE) as served:
        before = descriptors()
        assert said(await in_thread(talk, served.path, given)) == expected
        assert served.desk.messages == []
        await until(lambda: served.intake.connections == 0 and descriptors() == before)
        assert served.door.unanswered == 0


@pytest_twisted.ensureDeferred
async def test_neighbours_of_bad_lines_are_stored_and_answers_are_in_order(tmp_path: Path) -> None:
    rows = [row for name, row in TABLE.items() if row[0].endswith(b"\n") and name != "a bad token"]
    given = GOOD + b"".join(GOOD + line + GOOD for line, _ in rows)
    expected: list[object] = [STORED]
    for _, row_answers in rows:
        expected += [STORED, *row_answers, STORED]
    async with serving(tmp_path, max_line=MAX_LINE) as served:
        assert said(await in_thread(talk, served.port, given)) == expected
        assert len(served.desk.messages) == 1 + 2 * len(rows)


@pytest_twisted.ensureDeferred
async def test_the_error_names_the_limit(tmp_path: Path) -> None:
    async with serving(tmp_path, max_line=100) as served:
        (answer,) = await in_thread(talk, served.path, b"x" * 200 + b"\n")
        assert "100 bytes (max_line)" in answer["error"]["detail"]


@pytest_twisted.ensureDeferred
async def test_a_message_cut_at_every_byte_is_no_message(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        before = descriptors()
        for end in range(1, len(GOOD)):
            assert said(await in_thread(talk, served.path, GOOD[:end])) == [MALFORMED]
            # The same as a line of its own.
            if end < len(GOOD) - 1:
                assert said(await in_thread(talk, served.path, GOOD[:end] + b"\n")) == [MALFORMED]
        assert served.desk.messages == []
        await until(lambda: descriptors() == before)


@pytest.mark.parametrize("over", ["unix", "tcp"])
@pytest_twisted.ensureDeferred
async def test_a_client_killed_at_every_byte(over: str, tmp_path: Path) -> None:
    """What was complete is taken, what was not is not; and nothing of the connection remains."""

    def killed(where: Path | int, data: bytes) -> None:
        client = connect(where)
        # No farewell: what is unread over there may be thrown away, and is on TCP.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(data)
        client.close()

    async with serving(tmp_path) as served:
        where = served.path if over == "unix" else served.port
        before = descriptors()
        for end in range(len(GOOD)):
            await in_thread(killed, where, GOOD[:end])
        await until(lambda: served.intake.connections == 0 and descriptors() == before)
        assert served.desk.messages == []
        for end in range(len(GOOD)):
            await in_thread(killed, where, GOOD + GOOD[:end])
        await until(lambda: served.intake.connections == 0 and descriptors() == before)
        assert len(served.desk.messages) <= len(GOOD)
        assert {each.body for each in served.desk.messages} <= {b"text"}
        if over == "unix":
            # The last one may not even have been accepted yet.
            await until(lambda: len(served.desk.messages) == len(GOOD))


@pytest_twisted.ensureDeferred
async def test_a_line_byte_by_byte(tmp_path: Path) -> None:
    def slowly(where: int) -> dict[str, Any]:
        with connect(where) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in GOOD:
                client.sendall(bytes([byte]))
            return line(client)

    async with serving(tmp_path) as served:
        assert (await in_thread(slowly, served.port))["state"] == STORED
