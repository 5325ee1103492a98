"""GET /export and POST /backup: what is open, page by page; who does not read, leaves, or meets a failing spool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail

from pubd.errors import SpoolError, SpoolFull
from pubd.intake.http.contents import PAGE, Contents
from pubd.spool.base import Exported
from pubd.spool.memory import MemorySpool
from tests.rig import Rig
from tests.strictness import Logged
from tests.web import Bench, Got, Wire, answers, get


class Failing(MemorySpool):
    """It gives so many pages, and no copy."""

    def __init__(self, pages: int, error: SpoolError | None = None) -> None:
        super().__init__()
        self.pages = pages
        self.asked = 0
        self.error = error or SpoolError("the disk is gone")

    def exported(self, after: str | None, limit: int, max_bytes: int) -> Deferred[Sequence[Exported]]:
        self.asked += 1
        if self.asked > self.pages:
            return fail(self.error)
        return super().exported(after, limit, max_bytes)

    def snapshot(self) -> Deferred[Any]:
        return fail(self.error) if self.pages < 100 else super().snapshot()


class Held:
    """A bench whose publisher holds messages that are published much later."""

    def __init__(self, count: int, pages: int = 100, error: SpoolError | None = None) -> None:
        self.spool = Failing(pages, error)
        self.rig = Rig(spool=self.spool).start()
        self.bench = Bench(
            rig=self.rig, routes=lambda _: Contents(self.rig.publisher, reactor=self.rig.network).routes()
        )
        for n in range(count):
            self.rig.submit(f"m-{n}", delay=3600.0)

    def open(self, path: str = "/export", method: str = "GET") -> tuple[Any, Wire]:
        channel, wire = self.bench.connect()
        channel.dataReceived(get(path, method=method, headers="Content-Length: 0\r\n" if method == "POST" else ""))
        return channel, wire

    def ask(self, path: str = "/export", method: str = "GET") -> Got:
        _, wire = self.open(path, method)
        self.rig.network.advance(60)
        (got,), _ = answers(wire.value())
        return got


def ids(got: Got) -> list[str]:
    return [each["message_id"] for each in got.lines]


def test_everything_that_is_open_is_exported_in_order_over_many_pages() -> None:
    held = Held(2 * PAGE + 1)
    got = held.ask()
    assert got.status == 200
    assert got.headers["content-type"] == "application/x-ndjson"
    assert ids(got) == [f"m-{n}" for n in range(2 * PAGE + 1)]
    assert got.lines[0]["state"] == "deferred"
    assert held.spool.asked > 2


def test_nothing_is_open() -> None:
    assert Held(0).ask().body == b""


def test_what_is_accepted_meanwhile_is_left_out() -> None:
    held = Held(PAGE)
    channel, wire = held.open()
    held.rig.submit("later", delay=3600.0)
    held.rig.network.advance(60)
    (got,), _ = answers(wire.value())
    assert ids(got) == [f"m-{n}" for n in range(PAGE)]
    wire.clear()
    channel.dataReceived(get("/livez"))
    assert wire.value().startswith(b"HTTP/1.1 200 "), "the connection is kept"


def test_it_begins_after_a_message() -> None:
    held = Held(5)
    second = held.rig.sent[1].receipt
    assert second is not None
    assert ids(held.ask(f"/export?after={second.id}")) == ["m-2", "m-3", "m-4"]
    assert held.ask("/export?after=nonsense").status == 400
    assert held.ask("/export?state=parked").status == 400


def test_who_does_not_read_has_no_pages_read_for_it() -> None:
    held = Held(4 * PAGE)
    channel, wire = held.open()
    channel.pauseProducing()
    held.rig.network.advance(60)
    asked = held.spool.asked
    held.rig.network.advance(60)
    assert held.spool.asked == asked <= 2
    channel.resumeProducing()
    held.rig.network.advance(60)
    (got,), _ = answers(wire.value())
    assert len(got.lines) == 4 * PAGE


def test_who_has_gone_has_no_pages_read_for_it() -> None:
    held = Held(4 * PAGE)
    channel, _ = held.open()
    channel.pauseProducing()
    channel.connectionLost(None)
    asked = held.spool.asked
    held.rig.network.advance(60)
    assert held.spool.asked <= asked + 1


def test_an_answer_that_cannot_be_completed_is_cut_off(logged: Logged) -> None:
    held = Held(4 * PAGE, pages=2)
    _, wire = held.open()
    held.rig.network.advance(60)
    assert wire.aborted
    assert not wire.value().endswith(b"0\r\n\r\n")
    assert any("broken off: the disk is gone" in line for line in logged.texts)


def test_when_pubd_stops_it_is_cut_off() -> None:
    held = Held(4 * PAGE)
    _, wire = held.open()
    held.bench.intake.startService()
    held.bench.intake.stopService()
    assert wire.aborted


def test_head_reads_nothing() -> None:
    held = Held(5)
    _, wire = held.open(method="HEAD")
    held.rig.network.advance(60)
    assert wire.value().startswith(b"HTTP/1.1 200 ")
    assert held.spool.asked == 0


@pytest.mark.parametrize(
    ("error", "pages", "status", "type"),
    [
        (None, 100, 409, "wrong-state"),
        (SpoolError("secret path"), 1, 503, "spool-failed"),
        (SpoolFull("disk", "no room for a copy"), 1, 507, "spool-full"),
    ],
)
def test_why_there_is_no_copy(error: SpoolError | None, pages: int, status: int, type: str, logged: Logged) -> None:
    held = Held(1, pages=pages, error=error)
    for _ in range(2):
        # It can be asked again at once: no copy is being made.
        got = held.ask("/backup", "POST")
        assert (got.status, got.json["type"]) == (status, type)
        assert "secret" not in json.dumps(got.json)
    assert (status == 503) == any("secret path" in line for line in logged.texts)
