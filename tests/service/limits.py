"""What both intakes show of their limits, on a real daemon: the tests are those of test_limits_http and _lines."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from tests.service.conftest import Run
from tests.service.crowd import (
    KIB,
    MIB,
    Client,
    Way,
    back_to,
    busy,
    cpu,
    cpu_of_a_second,
    crowd,
    descriptors,
    many_files,
    rss,
)
from tests.service.process import Program, until

IDLE, BUSY = 1000, 50
FILES = 200
REFUSED = "connections are refused, because file descriptors run out"


def daemon(run: Run, directory: Path, way: Way, broker: str, more: str = "", files: int | None = None) -> Program:
    """Listens on ``socket`` in ``directory``; ``files`` is its hard limit of descriptors."""
    path = directory / "socket"
    (directory / "pubd.toml").write_text(
        f'[broker]\nurls = ["{broker}"]\n'
        f'[spool]\nurl = "sqlite:///pubd.db"\n'
        f"[delivery]\ndrain_timeout = 0\n"
        f'[{way.table}]\nlisten = ["unix:{path}"]\n{more}'
    )
    command = ["twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"]
    if files is not None:
        command[0] = str(Path(sysconfig.get_path("scripts"), command[0]))
        command = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *command]
    program = run(*command)
    until(path.exists, what=lambda: program.output)
    return program


def idle_ones_are_no_burden(run: Run, directory: Path, way: Way, broker: str, more: str = "") -> None:
    program = daemon(run, directory, way, broker, f"max_connections = {IDLE + BUSY}\n{more}")
    path, pid = directory / "socket", program.pid
    with Client(path) as first:
        assert first.is_served(way.message)
    with many_files(2 * IDLE), crowd(path, BUSY) as active:
        busy(active, way, rounds=5)
        before, open_before = rss(pid), descriptors(pid)
        with crowd(path, IDLE) as idle:
            silent, halfway = idle[: IDLE // 2], idle[IDLE // 2 :]
            for client in halfway:
                client.send(way.half)
            until(lambda: descriptors(pid) >= open_before + IDLE, what=lambda: program.output)
            each = (rss(pid) - before) / IDLE
            used = cpu_of_a_second(pid)
            longest = busy(active, way, rounds=20)
            # And whoever was idle is served when it goes on.
            assert all(client.is_served(way.message) for client in silent[::50])
            assert all(client.is_served(way.rest) for client in halfway[::50])
            grown = rss(pid) - before
        back_to(pid, open_before)
        busy(active, way, rounds=1)
    print(f"{each / KIB:.1f} KiB each, {used * 1000:.0f} ms of CPU a second; 50 posts {longest * 1000:.0f} ms")
    assert each < 32 * KIB
    assert grown < 64 * MIB
    assert used < 0.2
    assert "Traceback" not in program.output


def at_the_end_of_descriptors_it_refuses_and_recovers(
    run: Run, directory: Path, way: Way, broker: str, meanwhile: Callable[[], None] = lambda: None
) -> None:
    program = daemon(run, directory, way, broker, files=FILES)
    path, pid = directory / "socket", program.pid
    with Client(path) as first:
        assert first.is_served(way.message)
    open_before = descriptors(pid)
    with many_files(1000), crowd(path, 2 * FILES) as clients:
        program.says(REFUSED)
        served = [client for client in clients if client.is_served(way.message)]
        # A quarter is kept for the spool and RabbitMQ, some are taken by them.
        assert FILES // 2 < len(served) < FILES * 3 // 4
        meanwhile()
        quiet = cpu_of_a_second(pid)
        knocks, loud = knocking(path, pid)
        # What has come in by then is served as before, to the spool and back.
        assert all(client.is_served(way.message) for client in served)
        assert len(program.lines(REFUSED)) < 12
        for client in served[:20]:
            client.close()
        until(lambda: welcome(path, way), what=lambda: program.output)
        print(f"{len(served)} served; CPU {quiet * 1000:.0f} ms in a second, {loud * 1000:.0f} ms with {knocks}")
    back_to(pid, open_before)
    with Client(path) as last:
        assert last.is_served(way.message)
    assert quiet < 0.2
    assert "Traceback" not in program.output


def knocking(path: Path, pid: int) -> tuple[int, float]:
    """Connections tried in a second, none of them let in, and the seconds of CPU that the daemon spent on them."""
    count, before, until_then = 0, cpu(pid), time.monotonic() + 1
    while time.monotonic() < until_then:
        with Client(path) as client:
            assert client.read() == b""
        count += 1
    return count, cpu(pid) - before


def welcome(path: Path, way: Way) -> bool:
    with Client(path) as client:
        return client.is_served(way.message)
