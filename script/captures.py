"""The screens in docs/captures, made anew: `.venv/bin/python script/captures.py`.

A real RabbitMQ and a real pubd, messages of every kind, and tmux, whose windows of 80 and 120 columns are read. What
differs from run to run (ids, times, ports, pids) is left as it came: a capture shows what somebody saw.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import pika  # noqa: E402 (found by the line before)

from tests.rabbitmq import Node  # noqa: E402

BIN = ROOT / ".venv" / "bin"
TARGET = ROOT / "docs" / "captures"
WIDTHS = (80, 120)
HEIGHT = 42
#: Of which not everything is there.
CONFIGURATION = """
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///new.db"
[[exchange]]
name = "orders"
type = "topic"
[[exchange]]
name = "new"
[[queue]]
name = "invoices"
[[schedule]]
name = "report"
cron = "0 6 * * *"
exchange = "reports"
routing_key = "daily"
body = "."
"""
#: Seconds that anything may take.
PATIENCE = 30.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"captures: {what} did not come to pass")
        time.sleep(0.1)


class Tmux:
    """A server of its own, so that nobody's windows are touched."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._socket = directory / "tmux"
        self._directory = directory
        self._environment = environment
        # Without one that stays the server would end with each window.
        self("new-session", "-d", "-s", "base")

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=self._environment,
            cwd=self._directory,
            timeout=PATIENCE,
        )
        return done.stdout

    @contextlib.contextmanager
    def window(self, width: int, command: str) -> Iterator[Callable[[], str]]:
        """What stands in it now."""
        shown = f"{command}; printf '(exit code %s)' $?; sleep 1000"
        self("new-session", "-d", "-s", "capture", "-x", str(width), "-y", str(HEIGHT), "sh", "-c", shown)
        try:
            yield lambda: self("capture-pane", "-p", "-t", "capture")
        finally:
            self("kill-session", "-t", "capture")


class Stage:
    """The daemon, and commands for it."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PUBD_SERVER": f"unix:{directory}/http.sock",
            "LANG": "C.UTF-8",
            "TERM": "screen-256color",
            "PS1": "$ ",
        }
        self.tmux = Tmux(directory, self.environment)
        self.daemon: subprocess.Popen[bytes] | None = None

    def pubd(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            ["pubd", *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            cwd=self.directory,
            timeout=PATIENCE,
        )
        return done.stdout

    def start(self) -> None:
        log = (self.directory / "log").open("ab")
        command: list[str | Path] = [BIN / "twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"]
        self.daemon = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log, env=self.environment)
        log.close()
        until(lambda: (self.directory / "http.sock").exists() and "ready:" in self.pubd("status"), "the start of pubd")

    def stop(self) -> None:
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(PATIENCE)
            self.daemon = None

    def capture(self, name: str, command: str, *, after: str = "(exit code", seconds: float = 0.0) -> None:
        """At each width, once ``after`` can be read and so many seconds have passed."""
        for width in WIDTHS:
            with self.tmux.window(width, command) as shown:
                until(lambda shown=shown: after in shown(), f"{after!r} of {command!r}")  # type: ignore[misc]  # mypy cannot infer a lambda's default
                time.sleep(seconds)
                text = "\n".join(line.rstrip() for line in shown().rstrip().splitlines())
            (TARGET / f"{name}-{width}.txt").write_text(f"$ {command}\n{text}\n")
            print(f"captures: {name}-{width}.txt")


def declare(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for exchange in ("orders", "invoices", "metrics"):
            channel.exchange_declare(exchange, "topic", durable=True)
            queue = channel.queue_declare(exchange, durable=True, arguments={"x-max-length": 1000}).method.queue
            channel.queue_bind(queue, exchange, "order.#" if exchange == "orders" else "#")


def fill(stage: Stage) -> str:
    """Messages of every kind; the id of one that is parked."""
    for exchange, key, count in (("orders", "order.new", 300), ("metrics", "cpu", 200)):
        lines = "\n".join("x" * 200 for _ in range(count))
        stage.pubd("send", "-e", exchange, "-r", key, "-l", "-o", "none", "-q", given=lines)
    stage.pubd("send", "-e", "orders", "-r", "order.later", "--delay", "2h", "-b", "later")
    stage.pubd("send", "-e", "reports", "-r", "daily", "-b", "to an exchange that is not there")
    parked = [stage.pubd("send", "-e", "orders", "-r", f"gone.{n}", "-b", "nobody listens").strip() for n in range(3)]
    until(lambda: '"parked":3' in stage.pubd("status", "--json"), "parked messages")
    until(lambda: "404" in stage.pubd("status"), "the refused exchange")
    return parked[0]


@contextlib.contextmanager
def traffic(stage: Stage) -> Iterator[None]:
    """Messages all the time."""
    line = "x" * 200
    script = f"while :; do for i in $(seq 50); do echo {line}; done; sleep 0.1; done"
    command = f"({script}) | pubd send -e orders -r order.new -l -o none -q"
    sender = subprocess.Popen(["sh", "-c", command], env=stage.environment, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(sender.pid, signal.SIGKILL)
        sender.wait()


def main() -> None:
    if shutil.which("tmux") is None:
        raise SystemExit("captures: tmux is missing: apt-get install tmux")
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pubd-captures-") as name, Node() as node:
        stage = Stage(Path(name), node.url)
        declare(node.url)
        stage.pubd("init", "pubd.toml", "--url", node.url, "--listen", f"unix:{name}/http.sock")
        stage.start()
        try:
            parked = fill(stage)
            with traffic(stage):
                time.sleep(20)
                stage.capture("top", "pubd top", after="EXCHANGE", seconds=4)
                stage.capture("tail", "pubd tail -n 12")
            stage.capture("status", "pubd status")
            stage.capture("list", "pubd list --state parked; pubd list --state deferred")
            stage.capture("trace", f"pubd trace {parked}")
            stage.capture("show", f"pubd show {parked} --body")
            (stage.directory / "new.toml").write_text(CONFIGURATION.format(url=node.url))
            stage.capture("check", "pubd check new.toml --probe")
            stage.capture("drain", "pubd drain --within 1s")
            stage.pubd("drain", "--resume")
            node.stop()
            until(lambda: "not connected" in stage.pubd("status"), "the loss of the connection")
            stage.capture("status-without-rabbitmq", "pubd status")
            stage.capture("error-unknown-id", "pubd show 01a20a95-5333-7000-ab35-84120f97a391")
            stage.capture("error-no-terminal", "pubd top | cat")
            (stage.directory / "wrong.toml").write_text('[broker]\nurl = "amqp://localhost"\n[spol]\n')
            stage.capture("error-configuration", "pubd check wrong.toml")
        finally:
            stage.stop()
        stage.capture("error-not-running", f"pubd status -s unix:{shlex.quote(name)}/http.sock")
        with contextlib.suppress(subprocess.CalledProcessError):
            stage.tmux("kill-server")


if __name__ == "__main__":
    main()
