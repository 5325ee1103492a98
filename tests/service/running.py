"""A daemon as `pubd init` makes it, with a real RabbitMQ, and the `pubd` command in front of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pika
from click.testing import CliRunner, Result

from pubd.cli import main
from tests.service.conftest import Run
from tests.service.process import BIN, Program, until


@attrs.define
class Running:
    """``program`` publishes to ``exchange`` of the broker at ``url``, whose queue gets what begins with ``good.``."""

    run: Run
    config: Path
    server: str
    url: str
    exchange: str
    program: Program

    @property
    def spool(self) -> Path:
        return self.config.with_name("pubd.db")

    def pubd(self, *arguments: str | Path, stdin: str = "") -> Result:
        """A command for the daemon, in this process; never a traceback."""
        command = [str(arguments[0]), "-s", self.server, *map(str, arguments[1:])]
        result = CliRunner().invoke(main, command, input=stdin, prog_name="pubd")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def ok(self, *arguments: str | Path) -> Result:
        """The same for one that succeeds."""
        done = self.pubd(*arguments)
        assert done.exit_code == 0, done.output
        return done

    def json(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """JSON Lines of a command that succeeds."""
        return [json.loads(line) for line in self.ok(*arguments, "--json").stdout.splitlines()]

    def start(self, *arguments: str | Path) -> Program:
        """A command as a process of its own."""
        return self.run("pubd", arguments[0], "-s", self.server, *arguments[1:])

    def books(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.pubd("status", "--json").stdout)["books"]
        return found

    def send(self, key: str, body: str = "hello", *more: str) -> str:
        """A message's id; whatever becomes of it."""
        return self.ok("send", "-e", self.exchange, "-r", key, "-b", body, *more).stdout.strip()

    def fill(self, count: int, *, size: int = 100, key: str = "good.many", **more: Any) -> None:
        """So many messages, in one command; ``more`` are further keys of each."""
        lines = [
            json.dumps({"exchange": self.exchange, "routing_key": key, "body": f"{n:0{size}d}", **more})
            for n in range(count)
        ]
        done = subprocess.run(
            [BIN / "pubd", "send", "-s", self.server, "--ndjson", "-", "-o", "none", "-q"],
            input="\n".join(lines),
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert done.returncode == 0, done.stderr

    def settled(self) -> None:
        """Nothing is on its way any more."""
        until(lambda: not (found := self.books())["ready"] and not found["in_flight"], what=lambda: str(self.books()))

    def bind(self, key: str) -> str:
        """The name of a new queue that gets what has this key."""
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            queue: str = channel.queue_declare("", exclusive=False, auto_delete=False).method.queue
            channel.queue_bind(queue, self.exchange, key)
        return queue

    def restart(self) -> None:
        """Stop it, and start it again from its spool."""
        self.program.interrupt()
        assert self.program.ends() in (0, -2), self.program.output
        self.begin()

    def begin(self) -> None:
        self.program = self.run("twistd", "-n", "--pidfile=", "pubd", "--config", self.config)
        self.program.says("connected to")


@contextmanager
def running(run: Run, url: str, exchange: str, directory: Path, *more: str) -> Iterator[Running]:
    """``more`` are further lines of pubd.toml."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().exchange_declare(exchange, "topic", durable=True)
    config, server = directory / "pubd.toml", f"unix:{directory}/s"
    written = CliRunner().invoke(
        main, ["init", str(config), "--url", url, "--listen", server, "--spool", f"sqlite:///{directory}/pubd.db"]
    )
    assert written.exit_code == 0, written.output
    if more:
        with config.open("a") as file:
            file.write("\n" + "\n".join(more) + "\n")
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", config)
    program.says("connected to")
    found = Running(run, config, server, url, exchange, program)
    found.bind("good.#")
    yield found


Unique = Callable[..., str]
