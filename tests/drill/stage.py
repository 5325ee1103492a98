"""The host of the drill: a pubd as a daemon, its RabbitMQ, an application, and what an operator can type there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika

from tests.drill.application import Application
from tests.drill.clock import SetClock, until
from tests.rabbitmq import Node
from tests.service.process import BIN, Program
from tests.small_disk import MIB, SmallDisk, mounted

USER, PASSWORD, KEY = "pubd", "drill", "order.new"
#: Declared by pubd itself, and by somebody else.
OWN, FOREIGN = "orders", "invoices"
DISK = 120 * MIB
CONFIGURATION = """\
[broker]
urls = ["amqp://{user}:{password}@127.0.0.1:{port}/%2F"]
[spool]
url = "sqlite:///{disk}/pubd.db"
min_free = "8MiB"
[delivery]
drain_timeout = "5s"
[[exchange]]
name = "orders"
type = "topic"
[[queue]]
name = "orders"
[[binding]]
exchange = "orders"
queue = "orders"
routing_key = "order.#"
[http]
listen = ["unix:{socket}"]
"""
_SHIM = """#!/bin/sh
{exports}
exec {program} "$@"
"""


class Stage:
    """One fault is played on it; :meth:`begin` and :meth:`end` are around that."""

    def __init__(self, directory: Path, node: Node, disk: Path) -> None:
        self.directory = directory
        self.node = node
        self.disk = SmallDisk(disk)
        self.clock = SetClock(directory)
        self.socket = directory / "http.sock"
        self.application = Application(self.socket, (OWN, FOREIGN))
        self.typed: list[str] = []
        """What was typed since the fault."""
        self.others: list[Program] = []
        """Of these the log counts, too."""
        self.logged = 0
        """How many of the lines in the log are older than the fault."""
        self.more = 0
        """Messages that were handed in beside the application's, and have to arrive."""
        self._environment: dict[str, str] = {}
        self._write()

    def begin(self, *, clock: bool) -> None:
        """Everything runs, and is well. ``clock``: that of pubd can be set."""
        self._environment = self.clock.environment if clock else {}
        self.bring_in(FOREIGN)
        self.start()
        self.application.start()
        self.is_well("at the beginning")
        until(lambda: len(self.application.accepted) > 20, lambda: f"{self.application.accepted}")

    def start(self) -> None:
        """A pubd, until it listens."""
        self.program = self.another()
        self.program.says("listening on")

    def another(self) -> Program:
        """A pubd more; it may end by itself."""
        command = ["twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"]
        self.others.append(Program(self.directory, command, **self._environment))
        return self.others[-1]

    def end(self) -> str:
        """All that was accepted arrived, the books balance, and so says the file; what the books say in the end."""
        self.application.finish()
        self.is_well("in the end")
        until(lambda: not self.status()["books"]["held"], lambda: str(self.status()["books"]))
        books = self.status()["books"]
        arrived = self._arrived()
        missing = self.application.accepted - arrived
        assert not missing, f"{len(missing)} messages were accepted and did not arrive"
        assert books["accepted"] == len(self.application.accepted) + self.more, books
        assert (books["confirmed"], books["difference"]) == (books["accepted"], 0), books
        self.program.signal(signal.SIGTERM)
        assert self.program.ends() == 0, self.program.output
        verified = self.run(f"pubd verify {shlex.quote(str(self.disk.path / 'pubd.db'))}")
        assert "its books balance" in verified, verified
        return verified.splitlines()[0]

    def remove(self) -> None:
        """Whatever is left."""
        for program in self.others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(program.pid, signal.SIGCONT)
            program.remove()
        self.application.accepted.clear()

    # What an operator does

    def run(self, command: str) -> str:
        """What is typed, in a shell of that host; what it prints. Raises AssertionError where it fails."""
        if command == "systemctl start rabbitmq-server":
            # The part of systemd is played by the node itself.
            self.node.start()
            return ""
        done = self.attempt(command)
        assert done.returncode == 0, f"{command} failed: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def attempt(self, command: str) -> subprocess.CompletedProcess[str]:
        """The same, whatever comes of it."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env={**os.environ, "PATH": f"{self.directory}/bin:{BIN}:{os.environ['PATH']}", **self._command_environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def follow(self, said: str, command: str, **values: str) -> str:
        """Type the command that stands in what pubd said, with its words in capitals replaced."""
        assert f"'{command}'" in said, f"{command} does not stand in: {said}"
        for name, value in values.items():
            command, count = re.subn(rf"\b{name}\b", value, command)
            assert count == 1, f"{name} does not stand in {command}"
        self.typed.append(command)
        return self.run(command)

    def status(self) -> dict[str, Any]:
        """What ``pubd status --json`` prints."""
        found: dict[str, Any] = json.loads(self.attempt("pubd status --json").stdout or "{}")
        return found

    def is_well(self, when: str) -> None:
        """Wait until pubd says so."""
        until(lambda: self.status().get("healthy") is True, lambda: f"healthy {when}: {self.attempt('pubd status')}")

    # Somebody else's part of RabbitMQ

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        """As another application has it."""
        with pika.BlockingConnection(pika.URLParameters(self.node.url)) as connection:
            yield connection.channel()

    def bring_in(self, exchange: str) -> None:
        """An exchange that pubd does not know of, and its queue."""
        with self.channel() as channel:
            for name in (OWN, FOREIGN):
                channel.exchange_delete(name)
                channel.queue_delete(name)
            channel.exchange_declare(exchange, "topic", durable=True)
            channel.queue_declare(exchange, durable=True)
            channel.queue_bind(exchange, exchange, "order.#")

    def _arrived(self) -> set[int]:
        found = set()
        with self.channel() as channel:
            for queue in (OWN, FOREIGN):
                while (taken := channel.basic_get(queue, auto_ack=True))[0] is not None:
                    if taken[2].isdigit():
                        found.add(int(taken[2]))
        return found

    # Inside

    def _write(self) -> None:
        values = {"user": USER, "password": PASSWORD, "port": self.node.port}
        text = CONFIGURATION.format(**values, disk=self.disk.path, socket=self.socket)
        (self.directory / "pubd.toml").write_text(text)
        self._command_environment = {"PUBD_SERVER": f"unix:{self.socket}", "COLUMNS": "80"}
        bin = self.directory / "bin"
        bin.mkdir()
        node = self.node._environment(control=True)
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in node.items() if name != "PATH")
        admin = f"/usr/bin/rabbitmqadmin -H 127.0.0.1 -P {self.node.management_port}"
        shims = {
            "rabbitmqctl": _SHIM.format(exports=exports, program="/usr/lib/rabbitmq/bin/rabbitmqctl"),
            "rabbitmqadmin": _SHIM.format(exports="", program=admin),
            # Of a host without systemd: what it is asked for is the time.
            "timedatectl": _SHIM.format(exports="", program="date"),
        }
        for name, text in shims.items():
            (bin / name).write_text(text)
            (bin / name).chmod(0o755)


@contextlib.contextmanager
def stage(node: Node, *, small_disk: bool) -> Iterator[Stage]:
    """A host for one fault; nothing of it is left."""
    with contextlib.ExitStack() as left, tempfile.TemporaryDirectory(prefix="drill-") as name:
        disk = Path(name, "spool")
        disk.mkdir()
        if small_disk:
            disk = left.enter_context(mounted(disk, DISK))
        found = Stage(Path(name), node, disk)
        try:
            yield found
        finally:
            found.remove()
            left.close()


def prepare(node: Node) -> None:
    """pubd's user on RabbitMQ."""
    node.add_user(USER, PASSWORD)
    node.set_permissions(USER)
