"""The bad-input tables of all ways in, against the real daemon: each row is answered as it must be, again and again;
nothing is stored, and memory and file descriptors are afterwards where they were.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.directories import Box
from tests.integration.test_directory import BAD as FILES
from tests.lines import answers as all_answers
from tests.lines import connect, said, talk
from tests.service import bad_foreign
from tests.service.bad_input import Daemon, endured, started
from tests.service.conftest import Run
from tests.service.process import until
from tests.service.test_http_bad_input import ROWS as HTTP
from tests.service.test_http_bad_input import coded, gzip_bomb, gzip_of_gzip, zstd_bomb
from tests.unit.test_lines_bad_input import TABLE as LINES
from tests.web import GOOD, answers, post

#: The daemon knows no principals: what a grant forbids is allowed here.
UNLIKE = "not allowed"


@pytest.fixture
def daemon(run: Run, tmp_path: Path, nowhere: str) -> Daemon:
    return started(run, tmp_path, nowhere)


@pytest.mark.parametrize(
    ("rows", "problems"),
    [(HTTP, True), (bad_foreign.CLOUDEVENTS, True), (bad_foreign.MANAGEMENT, False)],
    ids=["http", "cloudevents", "management"],
)
def test_requests(rows: Mapping[str, tuple[bytes, int]], problems: bool, daemon: Daemon) -> None:
    assert len(rows) >= 25

    def each_round() -> None:
        for name, (data, expected) in rows.items():
            got = daemon.ask(data)
            assert got.status == expected, f"{name}: {got}"
            if problems:
                assert got.headers["content-type"] == "application/problem+json", name
                assert got.json["detail"], name

    endured(daemon, each_round)
    assert daemon.ask(post()).status == 202
    assert daemon.accepted == 1


def test_bombs(daemon: Daemon) -> None:
    bombs = [coded("gzip", gzip_bomb()), coded("gzip", gzip_of_gzip()), coded("zstd", zstd_bomb())]

    def each_round() -> None:
        assert [daemon.ask(bomb).status for bomb in bombs] == [413, 413, 413]

    endured(daemon, each_round)


def test_requests_cut_at_every_byte(daemon: Daemon) -> None:
    request = post()

    def each_round() -> None:
        for end in range(len(request)):
            with connect(daemon.port) as client:
                client.sendall(request[:end])
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass

    endured(daemon, each_round)


def test_requests_that_come_too_slowly(daemon: Daemon) -> None:
    """Slow-loris: in the head, in the body, and one byte at a time."""
    request = post()
    head = request.index(b"\r\n\r\n") + 4

    def each_round() -> None:
        halves = [(b"", None), (request[:10], 408), (request[: head - 3], 408), (request[: head + 5], 408)]
        clients = [connect(daemon.port) for _ in halves for _ in range(50)]
        trickling = connect(daemon.port)
        try:
            for at, client in enumerate(clients):
                client.sendall(halves[at // 50][0])
            for byte in request[:60]:
                try:
                    trickling.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.1)
            for at, client in enumerate((*clients, trickling)):
                expected = halves[at // 50][1] if client is not trickling else 408
                came = b""
                while more := client.recv(1 << 16):
                    came += more
                got = [each.status for each in answers(came)[0]]
                assert got == ([] if expected is None else [expected])
        finally:
            for client in (*clients, trickling):
                client.close()

    endured(daemon, each_round, warm=1, rounds=2)


def test_lines(daemon: Daemon) -> None:
    assert len(LINES) >= 25

    def each_round() -> None:
        for name, (given, expected) in LINES.items():
            assert said(talk(daemon.lines, given)) == expected, name
        for end in range(1, len(GOOD)):
            with connect(daemon.lines) as client:
                client.sendall(GOOD[:end])
                client.shutdown(socket.SHUT_WR)
                assert said(all_answers(client)) == ["malformed"], end

    endured(daemon, each_round)


def _rename(box: Box, staged: Box, prefix: str) -> int:
    """All that is staged into ``new/``, under names of its own; how many will be rejected."""
    count = 0
    # A .meta.json goes first.
    for raw in sorted(os.listdir(os.fsencode(staged.new)), key=lambda raw: not raw.endswith(b".meta.json")):
        path = os.path.join(os.fsencode(staged.new), raw)
        if stat.S_ISREG(os.lstat(path).st_mode):
            # Or what looks cut off were waited for.
            os.utime(path, (1, 1))
        name = raw if len(raw) > 200 else prefix.encode() + raw
        os.rename(path, os.path.join(os.fsencode(box.new), name))
        count += not raw.endswith(b".meta.json") or b"\n" in raw
    return count


def test_files(daemon: Daemon, tmp_path: Path) -> None:
    rows = {name: row for name, row in FILES.items() if name != UNLIKE}
    assert len(rows) >= 25
    box, rounds = Box(daemon.directory / "box"), 0

    def each_round() -> None:
        nonlocal rounds
        expected: Counter[str] = Counter()
        for at, (name, (put, type, _)) in enumerate(rows.items()):
            if name == "hard link" and rounds:
                # It has ten seconds to become one.
                continue
            staged = Box(tmp_path / f"staged-{rounds}-{at}").make()
            put(staged)
            expected[type] += _rename(box, staged, f"{at}-")
        foreign = box.tmp / "foreign"
        foreign.write_bytes(b"x")
        os.chown(foreign, 54321, 54321)
        foreign.rename(box.new / "foreign")
        expected["not-allowed"] += 1
        rounds += 1
        until(lambda: not box.waiting, 60, lambda: f"{box.waiting}")
        found: Counter[str] = Counter()
        for reason in box.rejected.glob("*.reason"):
            found[json.loads(reason.read_text().splitlines()[0])["type"]] += 1
            reason.unlink()
        assert found == expected

    endured(daemon, each_round)
    box.put("good", b"good")
    until(lambda: daemon.accepted == 1, what=lambda: daemon.program.output)
    assert "Traceback" not in daemon.program.output
