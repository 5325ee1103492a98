"""Back-pressure from end to end, on a real daemon: a full spool, a stop, a flood; and what is left of them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.integration.support import channel_of
from tests.service.conftest import Run
from tests.service.crowd import MIB, Client, back_to, descriptors, line, peak, post, rss, until_quiet
from tests.service.process import BIN, Program, until

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "q"


@attrs.frozen
class Answer:
    """Of HTTP; header names in lower case."""

    status: int
    headers: dict[str, str]
    json: Any


@attrs.frozen
class Daemon:
    """With all ways in, in a directory of its own."""

    program: Program
    directory: Path

    @property
    def http(self) -> Path:
        return self.directory / "http.sock"

    @property
    def lines(self) -> Path:
        return self.directory / "lines.sock"

    def inbox(self, name: str) -> Path:
        return self.directory / "in" / "new" / name

    def ask(self, request: bytes) -> Answer:
        with Client(self.http) as client:
            return ask(client, request)

    def say(self, *messages: bytes) -> list[Any]:
        """The answers to so many lines."""
        with Client(self.lines) as client:
            client.send(b"".join(each + b"\n" for each in messages))
            return [json.loads(client.read_line()) for _ in messages]

    def drop(self, name: str, body: bytes) -> None:
        """As a maildir is written."""
        made = self.directory / "in" / "tmp" / name
        made.write_bytes(body)
        made.rename(self.inbox(name))

    def send(self, body: str) -> subprocess.CompletedProcess[str]:
        """``pubd send``."""
        command = [str(BIN / "pubd"), "send", "-e", "", "-r", QUEUE, "-b", body, "--server", f"unix:{self.http}"]
        # It would go on trying.
        command += ["--timeout", "1s"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    @contextmanager
    def flooded(self, socket: Path, data: bytes, connections: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
        """A flood while the block runs, unless it is over before."""
        (self.directory / "flood").write_bytes(data)
        command = [sys.executable, "-m", "tests.service.flood", socket, self.directory / "flood"]
        flood = subprocess.Popen(
            [*map(str, command), str(connections), str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        with flood:
            try:
                yield flood
            finally:
                if flood.poll() is None:
                    flood.kill()


def ask(client: Client, request: bytes) -> Answer:
    client.send(request)
    return answer(client)


def answer(client: Client) -> Answer:
    head = client.read(b"\r\n\r\n", at_most=1).decode()
    status, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
    body = client.read_exactly(int(headers.get("content-length", "0")))
    return Answer(int(status.split(" ")[1]), headers, json.loads(body) if body else None)


def daemon(run: Run, directory: Path, broker: str, *, spool: str = "", http: str = "", lines: str = "") -> Daemon:
    (directory / "in").mkdir()
    for name in ("tmp", "new"):
        (directory / "in" / name).mkdir()
    (directory / "pubd.toml").write_text(
        f'[broker]\nurls = ["{broker}"]\n'
        f'[spool]\nurl = "sqlite:///pubd.db"\n{spool}'
        "[delivery]\ndrain_timeout = 0\n"
        f'[http]\nlisten = ["unix:{directory}/http.sock"]\n{http}'
        f'[lines]\nlisten = ["unix:{directory}/lines.sock"]\n{lines}'
        f'[directory]\npath = "{directory}/in"\nexchange = ""\nrouting_key = "{QUEUE}"\nrescan = "500ms"\n'
    )
    started = Daemon(run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"), directory)
    until(lambda: started.http.exists() and started.lines.exists(), what=lambda: started.program.output)
    return started


def ids_of(answers: list[Answer]) -> list[str]:
    return [each.json["id"] for each in answers]


def test_a_full_spool_refuses_on_every_way_and_takes_again(run: Run, tmp_path: Path, nowhere: str) -> None:
    pubd = daemon(run, tmp_path, nowhere, spool='max_bytes = "64KiB"\n')
    large = "x" * 4096
    taken: list[Answer] = []
    while (last := pubd.ask(post(line(body=large)))).status == 202:
        taken.append(last)
        assert len(taken) < 20
    assert len(taken) > 8
    assert last.status == 507
    assert last.headers["content-type"] == "application/problem+json"
    assert last.headers["retry-after"].isdigit()
    assert last.json["type"] == "spool-full"

    refused = pubd.say(line(body=large), line(body=large))
    assert [each["error"]["type"] for each in refused] == ["spool-full"] * 2
    assert all(each["error"]["retry_after"] > 0 for each in refused)
    with Client(pubd.http) as client:
        client.send(
            post(
                line(body=large) + b"\n" + line(body=large),
                media="application/x-ndjson",
                headers="Connection: close\r\n",
            )
        )
        assert client.read(b"never").count(b'"spool-full"') == 2
    pubd.drop("waits", large.encode())
    sent = pubd.send(large)
    assert sent.returncode == 75
    assert sent.stdout == ""
    assert "full" in sent.stderr
    # Longer than it is looked at.
    time.sleep(1.2)
    assert pubd.inbox("waits").read_bytes() == large.encode()
    assert not list((tmp_path / "in").glob("rejected/*"))
    held = pubd.ask(get("/messages?limit=100")).json["messages"]
    assert len(held) == len(taken), "what was refused was stored"

    for id in ids_of(taken)[:6]:
        assert pubd.ask(get(f"/messages/{id}", "DELETE")).status in (200, 204)
    assert pubd.ask(post(line(body=large))).status == 202
    assert pubd.say(line(body=large))[0]["state"] == "stored"
    assert pubd.send(large).returncode == 0
    until(lambda: not pubd.inbox("waits").exists(), what=lambda: pubd.program.output)
    assert "Traceback" not in pubd.program.output


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_who_comes_while_pubd_stops_is_told_to_come_back(run: Run, tmp_path: Path, nowhere: str) -> None:
    pubd = daemon(run, tmp_path, nowhere, lines="max_unanswered_lines = 1\n")
    request = post(line())
    with Client(pubd.http) as half, Client(pubd.http) as waiting, Client(pubd.lines) as held:
        half.send(request[:-10])
        waiting.send(post(line(), path="/messages?wait=confirmed&timeout=30s"))
        held.send(line(wait="confirmed") + b"\n" + line() + b"\n")
        until(lambda: len(pubd.ask(get("/messages")).json["messages"]) == 2, what=lambda: pubd.program.output)
        pubd.program.signal(signal.SIGTERM)
        refused, accepted = answer(half), answer(waiting)
        assert (refused.status, refused.json["type"]) == (503, "stopping")
        assert refused.headers["retry-after"].isdigit()
        assert refused.headers["connection"] == "close"
        # It cannot be known any more what becomes of it, but it is stored.
        assert (accepted.status, accepted.json["state"]) == (202, "stored")
        first, second = (json.loads(held.read_line()) for _ in range(2))
        assert first["state"] == "stored"
        assert second["error"]["type"] == "stopping"
        assert second["error"]["retry_after"] > 0
        assert held.read_line() == b""
    assert pubd.program.ends() == 0
    assert "Traceback" not in pubd.program.output


@pytest.fixture
def queued(url: str) -> str:
    """The URL of a broker with the queue."""
    with channel_of(url) as channel:
        channel.queue_declare(QUEUE, durable=True)
    return url


def ready(url: str) -> int:
    with channel_of(url) as channel:
        return int(channel.queue_declare(QUEUE, passive=True).method.message_count)


def test_a_flood_of_lines_starves_neither_http_nor_publishing(run: Run, tmp_path: Path, queued: str) -> None:
    pubd = daemon(run, tmp_path, queued)
    pid = pubd.program.pid
    with Client(pubd.http) as client:
        assert ask(client, post(line(), path="/messages?wait=confirmed&timeout=20s")).status == 200
        calm = [timed(client) for _ in range(100)]
        open_before, before = descriptors(pid), rss(pid)
        with pubd.flooded(pubd.lines, (line() + b"\n") * 100, 4, 120) as flood:
            until(lambda: descriptors(pid) == open_before + 4, what=lambda: pubd.program.output)
            at_first, began = ready(queued), time.monotonic()
            beside = [timed(client) for _ in range(20)]
            pubd.drop("beside.json", line())
            until(lambda: not pubd.inbox("beside.json").exists(), what=lambda: pubd.program.output)
            until(lambda: ready(queued) > at_first + 1000, what=lambda: pubd.program.output)
            published = (ready(queued) - at_first) / (time.monotonic() - began)
            highest = rss(pid)
            assert flood.poll() is None, "it went on beside all that"
            flood.terminate()
            output, _ = flood.communicate(timeout=60)
        assert flood.returncode == 0
        told = json.loads(output)
        assert told['"state":"stored"'] == told["sent"] * 100
        back_to(pid, open_before)
        stored = 1 + 1 + len(calm) + len(beside) + told["sent"] * 100
        until(lambda: ready(queued) == stored, 60, lambda: f"{ready(queued)} of {stored}")
        after = rss(pid)
    print(
        f"alone {summary(calm)}; beside {told['sent'] * 100 / 4:,.0f} lines/s {summary(beside)}; {published:,.0f} "
        f"published/s meanwhile; {before / MIB:.0f} MiB before, {highest / MIB:.0f} at its end, {after / MIB:.0f} after"
    )
    assert after - before < 100 * MIB
    assert "Traceback" not in pubd.program.output


def timed(client: Client) -> float:
    began = time.monotonic()
    assert ask(client, post(line())).status == 202
    return time.monotonic() - began


def summary(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    part = [ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99)]
    return f"{len(ordered)} posts: p50 {part[0]:.1f}, p99 {part[1]:.1f}, max {ordered[-1] * 1000:.1f} ms"


BUDGET = 'max_unanswered = "8MiB"\n'


@pytest.mark.parametrize("way", ["http", "lines"])
def test_what_is_in_memory_for_a_flood_of_large_messages_is_bounded(
    way: str, run: Run, tmp_path: Path, nowhere: str
) -> None:
    pubd = daemon(run, tmp_path, nowhere, http=f'max_body = "4MiB"\n{BUDGET}', lines=f'max_line = "4MiB"\n{BUDGET}')
    pid = pubd.program.pid
    large = line(body="x" * MIB)
    with Client(pubd.http if way == "http" else pubd.lines) as client:
        assert client.is_served(post(large) if way == "http" else large + b"\n")
    until_quiet(pid)
    before, open_before = rss(pid), descriptors(pid)
    socket, data = (pubd.http, post(large)) if way == "http" else (pubd.lines, large + b"\n")
    with pubd.flooded(socket, data, 40, 3.0) as flood:
        output, _ = flood.communicate(timeout=60)
    told = json.loads(output)
    answered = sum(count for word, count in told.items() if word != "sent")
    highest = peak(pid)
    back_to(pid, open_before)
    until_quiet(pid)
    after = rss(pid)
    print(f"{told}; {before / MIB:.0f} MiB before, {highest / MIB:.0f} at most, {after / MIB:.0f} after")
    assert answered == told["sent"]
    # Not all at the same time: some of them at least get through.
    assert told['"state":"stored"'] > 10
    assert highest - before < 100 * MIB
    assert after - before < 60 * MIB
    assert re.search("Traceback", pubd.program.output) is None
