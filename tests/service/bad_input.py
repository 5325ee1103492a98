"""The real daemon for bad input: what it endures round after round, and what is left of that."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs

from tests.directories import Box
from tests.lines import connect
from tests.rabbitmq import free_ports
from tests.service.conftest import Run
from tests.service.crowd import MIB, back_to, descriptors, rss, until_quiet
from tests.service.process import Program, until
from tests.unit.test_lines_bad_input import MAX_LINE
from tests.web import Got, answers, get

#: The limit of a body in bytes, as the tables have it.
MAX_BODY = 150_000
#: Rounds before memory is looked at, and after.
WARM, ROUNDS = 2, 4
#: What the allocator may keep, and no more with more rounds.
SLACK = 12 * MIB


@attrs.frozen
class Daemon:
    program: Program
    directory: Path
    port: int

    @property
    def lines(self) -> Path:
        return self.directory / "lines.sock"

    def ask(self, data: bytes) -> Got:
        """The first answer to these bytes, over a connection of their own."""
        with connect(self.port) as client:
            return first_answer(client, data)

    @property
    def accepted(self) -> int:
        """By the books."""
        books = self.ask(get("/status")).json["books"]
        assert isinstance(books["accepted"], int)
        return books["accepted"]


def first_answer(client: socket.socket, data: bytes) -> Got:
    came = b""
    # It may have said what it has to say, and read no more.
    with suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(data)
    while not (found := answers(came)[0]):
        more = client.recv(1 << 16)
        assert more, f"no answer, but {came!r}"
        came += more
    return found[0]


def listens(where: Path | int) -> bool:
    try:
        connect(where).close()
    except OSError:
        return False
    return True


def endured(pubd: Daemon, each_round: Callable[[], None], *, warm: int = WARM, rounds: int = ROUNDS) -> None:
    """Several rounds of it leave nothing behind."""
    pid = pubd.program.pid
    for _ in range(warm):
        each_round()
    until_quiet(pid)
    opened, before = descriptors(pid), rss(pid)
    for _ in range(rounds):
        each_round()
    back_to(pid, opened)
    until_quiet(pid)
    grown = rss(pid) - before
    print(f"{before / MIB:.0f} MiB, {grown / MIB:+.1f} MiB after {rounds} rounds more")
    assert pubd.accepted == 0
    assert grown < SLACK
    assert "Traceback" not in pubd.program.output


def started(run: Run, tmp_path: Path, nowhere: str) -> Daemon:
    """With HTTP, lines and a directory, and a broker that does not answer."""
    (port,) = free_ports(1)
    Box(tmp_path / "box").make()
    (tmp_path / "pubd.toml").write_text(
        f'[broker]\nurls = ["{nowhere}"]\n[spool]\nurl = "sqlite:///pubd.db"\n[delivery]\ndrain_timeout = 0\n'
        f'[http]\nlisten = ["tcp:{port}:interface=127.0.0.1"]\nmax_body = {MAX_BODY}\n'
        'header_timeout = "1s"\nbody_timeout = "1s"\nidle_timeout = "1s"\n'
        f'[lines]\nlisten = ["unix:{tmp_path}/lines.sock"]\nmax_line = {MAX_LINE}\n'
        f'[directory]\npath = "{tmp_path}/box"\nexchange = "x"\nrouting_key = "k"\nmax_file = 2000\n'
    )
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
    until(lambda: listens(port) and listens(tmp_path / "lines.sock"), what=lambda: program.output)
    return Daemon(program, tmp_path, port)
