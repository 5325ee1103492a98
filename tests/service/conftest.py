"""Fixtures of the tests of the real program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rabbitmq import Node, free_ports
from tests.service.process import Program

Run = Callable[..., Program]
Pubd = Callable[..., Program]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """`run("twistd", ...)`: a process in a directory of its own, ended with the test."""
    programs: list[Program] = []

    def start(*command: str | Path, **environment: str) -> Program:
        programs.append(Program(tmp_path, command, **environment))
        return programs[-1]

    yield start
    for program in programs:
        program.remove()


@pytest.fixture
def pubd(run: Run) -> Pubd:
    """`pubd("--interval", "1")`: `twistd -n pubd` with these options."""
    return lambda *options: run("twistd", "-n", "--pidfile=", "pubd", *options)


@pytest.fixture
def url(shared_node: Node, vhost: str) -> str:
    """A virtual host with nothing in it."""
    return f"amqp://guest:guest@{shared_node.host}:{shared_node.port}/{vhost}"


@pytest.fixture
def nowhere() -> str:
    """A broker that does not answer; its password is not to be seen."""
    (port,) = free_ports(1)
    return f"amqp://somebody:s3cret@127.0.0.1:{port}/%2F"
