"""The lines intake on real sockets, before a desk that takes messages instead of a publisher."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet import reactor as installed_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from pubd.access import Access, Quotas
from pubd.errors import InvalidOption, PubdError
from pubd.intake.door import Door
from pubd.intake.lines import LinesIntake
from pubd.intake.options import LinesOptions
from pubd.message import Message
from pubd.outcome import Reason, State
from pubd.receipt import Receipt

reactor: Any = installed_reactor

PATIENCE = 20.0
"""Seconds."""

GOOD = b'{"exchange":"orders","routing_key":"order.new","body":"text"}\n'
STORED = "stored"

_T = TypeVar("_T")


class Desk:
    """Takes messages as ``Publisher.submit_each`` does; ``hold`` keeps the answers back, ``refusal`` refuses all."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.principals: list[str | None] = []
        self.receipts: list[Receipt] = []
        self.batches: list[int] = []
        self.refusal: PubdError | None = None
        self.hold = False
        self.broken = False
        self._held: list[tuple[Deferred[list[Receipt | PubdError]], list[Receipt | PubdError]]] = []

    def submit_each(
        self, messages: Sequence[Message], *, principal: str | None = None, carrier: object = None
    ) -> Deferred[list[Receipt | PubdError]]:
        assert carrier is None
        answers: list[Receipt | PubdError] = []
        self.batches.append(len(messages))
        if self.broken:
            raise ZeroDivisionError
        for message in messages:
            if self.refusal is not None:
                answers.append(self.refusal)
                continue
            self.messages.append(message)
            self.principals.append(principal)
            receipt = Receipt(f"id-{len(self.messages)}", f"m-{len(self.messages)}")
            self.receipts.append(receipt)
            answers.append(receipt)
        if not self.hold:
            return succeed(answers)
        held: Deferred[list[Receipt | PubdError]] = Deferred()
        self._held.append((held, answers))
        return held

    def release(self) -> None:
        held, self._held = self._held, []
        for waiting, answers in held:
            waiting.callback(answers)

    def settle(self, number: int, state: State = State.CONFIRMED, reason: Reason | None = None) -> None:
        self.receipts[number].settle(state, 0, reason)


@attrs.frozen
class Served:
    intake: LinesIntake
    desk: Desk
    door: Door
    path: Path

    @property
    def port(self) -> int:
        return next(address.port for address in self.intake.addresses if isinstance(address, IPv4Address))


@asynccontextmanager
async def serving(
    tmp_path: Path,
    *,
    access: Access | None = None,
    listen: Sequence[str] | None = None,
    max_unanswered: int = 64 * 1024 * 1024,
    clock: Any = reactor,
    **options: Any,
) -> AsyncIterator[Served]:
    """A lines intake on a unix socket and a free port; what the door counted has to be given back in the end."""
    path = tmp_path / "lines.sock"
    desk = Desk()
    options.setdefault("max_line", min(16 * 1024 * 1024, max_unanswered // 2))
    door = Door(publisher=desk, clock=clock, quotas=Quotas(), max_unanswered=max_unanswered)
    failures: list[InvalidOption] = []
    intake = LinesIntake(
        reactor=reactor,
        options=LinesOptions(
            listen=tuple(listen if listen is not None else (f"unix:{path}", "tcp:0:interface=127.0.0.1")),
            max_unanswered=max_unanswered,
            **options,
        ),
        door=door,
        access=access or Access(),
        failed=failures.append,
    )
    intake.startService()
    assert not failures
    try:
        yield Served(intake, desk, door, path)
    finally:
        desk.hold = False
        desk.release()
        await intake.stopService()
    assert intake.connections == 0
    assert door.unanswered == 0
    assert not path.exists()


async def pause(seconds: float = 0.01) -> None:
    await deferLater(reactor, seconds, lambda: None)


async def until(condition: Callable[[], object]) -> None:
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        assert reactor.seconds() < deadline, "it did not come to pass"
        await pause()


async def in_thread(call: Callable[..., _T], *arguments: Any) -> _T:
    """A client that blocks, while the reactor turns."""
    result: _T = await deferToThread(call, *arguments)
    return result


def connect(where: Path | int) -> socket.socket:
    """Blocking; to a unix socket, or a port of this machine."""
    client = socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET)
    client.settimeout(PATIENCE)
    try:
        client.connect(str(where) if isinstance(where, Path) else ("127.0.0.1", where))
    except BaseException:
        client.close()
        raise
    return client


def talk(where: Path | int, data: bytes) -> list[dict[str, Any]]:
    """Send it all, end our side, and read to the end; at once, as who pipelines has to."""
    with connect(where) as client:

        def send() -> None:
            # It may be ended over there; what was said before is to be read.
            with contextlib.suppress(OSError):
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            return answers(client)
        finally:
            sender.join()


def answers(client: socket.socket) -> list[dict[str, Any]]:
    """Everything to the end."""
    got = bytearray()
    while data := client.recv(1 << 20):
        got += data
    assert not got or got.endswith(b"\n")
    return [json.loads(line) for line in got.splitlines()]


def line(client: socket.socket) -> dict[str, Any]:
    """One answer; nothing behind it is read."""
    got = bytearray()
    while not got.endswith(b"\n"):
        data = client.recv(1)
        assert data, f"the end, after {got!r}"
        got += data
    found: dict[str, Any] = json.loads(got)
    return found


def said(answers: Sequence[dict[str, Any]]) -> list[object]:
    """Each answer in short: its state, or type and field of the error."""
    short: list[object] = []
    for answer in answers:
        error = answer.get("error")
        if error is None:
            short.append(answer["state"])
        else:
            assert error["detail"]
            short.append((error["type"], error["field"]) if "field" in error else error["type"])
    return short


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))
