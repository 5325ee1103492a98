"""Clients that are killed while they talk, and answers that are lost: nothing half is stored, and nothing twice.

One process has a connection for each place at which a request can be cut off, has written that much of it into each,
and is killed: the kernel ends all of them as if each client had died there. pubd and RabbitMQ are real.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.conftest import Drained
from tests.integration.support import channel_of, route
from tests.lines import connect, line
from tests.rabbitmq import Node, free_ports
from tests.service.process import Program, until
from tests.web import Got, answers, get, post, post_chunked

#: Reads what to write, a list for each connection; writes it all, says so, and waits to be killed.
CLIENT = """
import json, socket, sys
where, texts = json.loads(sys.stdin.readline())
clients = []
for text in texts:
    client = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    client.connect(where if isinstance(where, str) else ("127.0.0.1", where))
    client.sendall(text.encode())
    clients.append(client)
print("sent", flush=True)
sys.stdin.read()
"""
NOWHERE = "amqp://guest:guest@127.0.0.1:1/%2F"
Drain = Callable[..., list[Drained]]


@attrs.frozen
class Daemon:
    """pubd in ``directory``. Sockets of both kinds for both ways in."""

    program: Program
    directory: Path
    ports: tuple[int, int]

    def where(self, way: str, kind: str) -> Path | int:
        if kind == "unix":
            return self.directory / f"{way}.sock"
        return self.ports[("http", "lines").index(way)]

    def ask(self, request: bytes) -> Got:
        """One request over a connection of its own; an assertion fails if it is not answered."""
        with connect(self.where("http", "unix")) as client:
            (got,) = replies(client, request)
            return got

    def stored(self, exchange: str) -> list[dict[str, Any]]:
        """What pubd knows of the exchange."""
        found, after = [], ""
        while True:
            page = self.ask(get(f"/messages?exchange={exchange}&limit=1000{after}")).json
            found += page["messages"]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.program.pid}/fd"))


def replies(client: socket.socket, request: bytes) -> list[Got]:
    """The answer to one request; none if the connection ends before."""
    client.sendall(request)
    data = b""
    while not (found := answers(data)[0]):
        more = client.recv(1 << 16)
        if not more:
            return []
        data += more
    return found


@contextmanager
def daemon(directory: Path, url: str, **environment: str) -> Iterator[Daemon]:
    http, lines = free_ports(2)
    (directory / "pubd.toml").write_text(
        f'[broker]\nurls = ["{url}"]\n[spool]\nurl = "sqlite:///spool.db"\n'
        f'[http]\nlisten = ["unix:http.sock:mode=600", "tcp:{http}:interface=127.0.0.1"]\n'
        f'[lines]\nlisten = ["unix:lines.sock:mode=600", "tcp:{lines}:interface=127.0.0.1"]\n'
    )
    program = Program(directory, ["twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"], **environment)
    pubd = Daemon(program, directory, (http, lines))
    try:
        until(lambda: all(_listens(pubd.where(way, "unix")) for way in ("http", "lines")), what=lambda: program.output)
        yield pubd
    finally:
        program.remove()


def _listens(where: Path | int) -> bool:
    try:
        connect(where).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def pubd(shared_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("killed"), shared_node.url) as pubd:
        yield pubd
        pubd.program.interrupt()
        assert pubd.program.ends() == 0, pubd.program.output
        assert "Traceback" not in pubd.program.output


@pytest.fixture
def exchange(shared_node: Node, unique: Callable[..., str]) -> Iterator[str]:
    """With a queue of the same name, and the routing key "k"."""
    name = unique("killed")
    route(shared_node.url, name, name)
    with channel_of(shared_node.url) as channel:
        channel.queue_bind(name, name, "k")
    yield name
    with channel_of(shared_node.url) as channel:
        channel.queue_delete(name)
        channel.exchange_delete(name)


# What is said


@attrs.frozen
class Said:
    """The bytes of one client, and where in them each of its messages is complete: (offset, body)."""

    data: bytes
    messages: tuple[tuple[int, str], ...]


def message(exchange: str, body: str, **more: str) -> bytes:
    return json.dumps({"exchange": exchange, "routing_key": "k", "body": body, **more}).encode()


def keyed(exchange: str, name: str) -> list[bytes]:
    """Three lines with keys of their own."""
    return [message(exchange, f"{name}.{n}", idempotency_key=f"{exchange}-{name}.{n}") + b"\n" for n in range(3)]


def one(exchange: str, name: str) -> Said:
    headers = f"Content-Type: application/json\r\nIdempotency-Key: {exchange}-{name}\r\n"
    return _whole(post(message(exchange, name), headers=headers), [name])


def chunks(exchange: str, name: str) -> Said:
    body = message(exchange, name, idempotency_key=f"{exchange}-{name}")
    return _whole(post_chunked(body[:30], body[30:]), [name])


def array(exchange: str, name: str) -> Said:
    body = b"[" + b",".join(each.strip() for each in keyed(exchange, name)) + b"]"
    return _whole(post(body), [f"{name}.{n}" for n in range(3)])


def raw(exchange: str, name: str) -> Said:
    headers = f"Idempotency-Key: {exchange}-{name}\r\n"
    return _whole(post(name.encode(), f"/publish/{exchange}/k", headers), [name])


def stream(exchange: str, name: str) -> Said:
    body = b"".join(keyed(exchange, name))
    request = post(body, headers="Content-Type: application/x-ndjson\r\n")
    return _by_line(request, len(request) - len(body), name)


def lines(exchange: str, name: str) -> Said:
    return _by_line(b"".join(keyed(exchange, name)), 0, name)


def _whole(data: bytes, bodies: Sequence[str]) -> Said:
    return Said(data, tuple((len(data), body) for body in bodies))


def _by_line(data: bytes, start: int, name: str) -> Said:
    ends = [place + 1 for place, byte in enumerate(data) if byte == ord("\n") and place >= start]
    return Said(data, tuple((end, f"{name}.{n}") for n, end in enumerate(ends)))


SHAPES = {"http": (one, chunks, array, raw, stream), "lines": (lines,)}
CASES = [(way, kind, make) for way, shapes in SHAPES.items() for make in shapes for kind in ("unix", "tcp")]


@contextmanager
def client(where: Path | int, texts: Sequence[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has written each text into a connection of its own, and reads nothing; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        to = where if isinstance(where, int) else str(where)
        process.stdin.write(json.dumps([to, [text.decode() for text in texts]]).encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"sent\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def submit(pubd: Daemon, way: str, said: Said) -> list[str]:
    """All of it, and every answer: the ids."""
    if way == "http":
        got = pubd.ask(said.data)
        assert got.status in (200, 202), got
        results = json.loads(got.body) if got.body[:1] == b"[" else got.lines
    else:
        with connect(pubd.where("lines", "unix")) as connection:
            connection.sendall(said.data)
            results = [line(connection) for _ in said.messages]
    return [each["id"] for each in results]


@pytest.mark.parametrize(("way", "kind", "make"), CASES, ids=[f"{make.__name__}-{kind}" for _, kind, make in CASES])
def test_a_client_killed_at_every_byte_leaves_nothing_half(
    pubd: Daemon, exchange: str, drain: Drain, way: str, kind: str, make: Callable[[str, str], Said]
) -> None:
    size = len(make(exchange, "000").data)
    cut = [make(exchange, f"{place:03}") for place in range(size)]
    assert {len(said.data) for said in cut} == {size}
    before = pubd.descriptors
    with client(pubd.where(way, kind), [said.data[:place] for place, said in enumerate(cut)]):
        until(lambda: pubd.descriptors == before + size, what=lambda: f"{pubd.descriptors} of {before + size}")
    until(lambda: pubd.descriptors == before, what=lambda: f"{pubd.descriptors} instead of {before}")

    # Whatever had arrived as a whole may be stored, since nobody knows what the client heard; and nothing else may be.
    arrived = {body for place, said in enumerate(cut) for end, body in said.messages if end <= place}
    until(lambda: all(each["state"] == "confirmed" for each in pubd.stored(exchange)))
    known = {each["id"] for each in pubd.stored(exchange)}
    assert len(known) <= len(arrived)
    if make in (stream, lines):
        assert known
    else:
        assert not known

    # Who does not know what became of a message submits it again.
    ids: dict[str, str] = {}
    for said in cut:
        ids.update(zip((body for _, body in said.messages), submit(pubd, way, said), strict=True))
    assert known <= {id for body, id in ids.items() if body in arrived}
    until(lambda: [each["state"] for each in pubd.stored(exchange)] == ["confirmed"] * len(ids))
    came = drain(exchange)
    assert len(came) == len(ids)
    assert {each.body.decode(): each.properties.message_id for each in came} == ids


@pytest.mark.parametrize(("way", "kind", "make"), CASES, ids=[f"{make.__name__}-{kind}" for _, kind, make in CASES])
def test_an_answer_that_no_client_was_there_to_read_is_given_again(
    pubd: Daemon, exchange: str, drain: Drain, way: str, kind: str, make: Callable[[str, str], Said]
) -> None:
    said = [make(exchange, f"{number:03}") for number in range(20)]
    count = sum(len(each.messages) for each in said)
    before = pubd.descriptors
    with client(pubd.where(way, kind), [each.data for each in said]):
        until(lambda: len(pubd.stored(exchange)) == count)
    until(lambda: pubd.descriptors == before)
    first = {each["id"] for each in pubd.stored(exchange)}

    ids: dict[str, str] = {}
    for _ in range(2):
        for each in said:
            for body, id in zip((body for _, body in each.messages), submit(pubd, way, each), strict=True):
                assert ids.setdefault(body, id) == id
    assert set(ids.values()) == first
    until(lambda: [each["state"] for each in pubd.stored(exchange)] == ["confirmed"] * count)
    came = drain(exchange)
    assert len(came) == count
    assert {each.body.decode(): each.properties.message_id for each in came} == ids


@pytest.mark.parametrize("way", ["http", "lines"])
def test_an_answer_lost_because_pubd_was_killed_after_the_commit_is_given_by_the_next_one(
    shared_node: Node, tmp_path: Path, exchange: str, drain: Drain, way: str
) -> None:
    make = one if way == "http" else lines
    unanswered: Said | None = None
    ids: dict[str, str] = {}
    # Without a broker nothing is committed but submissions, and what opening the spool takes.
    with (
        daemon(tmp_path, NOWHERE, PUBD_FAILPOINT="after-commit:9") as pubd,
        connect(pubd.where(way, "unix")) as connection,
    ):
        for number in range(20):
            said = make(exchange, f"{number:03}")
            answered = _answered(connection, way, said)
            if answered is None:
                unanswered = said
                break
            ids.update(zip((body for _, body in said.messages), answered, strict=True))
        assert pubd.program.ends() == -9
    assert unanswered is not None
    assert ids, "the first ones were answered"

    with daemon(tmp_path, shared_node.url) as pubd:
        left = {each["id"] for each in pubd.stored(exchange)}.difference(ids.values())
        assert len(left) == len(unanswered.messages), "they were committed"
        again = submit(pubd, way, unanswered)
        assert set(again) == left
        ids.update(zip((body for _, body in unanswered.messages), again, strict=True))
        until(lambda: [each["state"] for each in pubd.stored(exchange)] == ["confirmed"] * len(ids))
        came = drain(exchange)
        assert len(came) == len(ids)
        assert {each.body.decode(): each.properties.message_id for each in came} == ids
        pubd.program.interrupt()
        assert pubd.program.ends() == 0


def _answered(connection: socket.socket, way: str, said: Said) -> list[str] | None:
    """The ids, or None if the connection ended instead."""
    try:
        if way == "http":
            return [got.json["id"] for got in replies(connection, said.data)] or None
        connection.sendall(said.data)
        return [line(connection)["id"] for _ in said.messages]
    except (OSError, AssertionError):
        return None
