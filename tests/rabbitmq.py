"""A private RabbitMQ node of Debian's rabbitmq-server, for tests, benchmarks and `script/run`.

Standard library only: `script/run` executes this file before anything else is installed. The node has its own
directory, ports (loopback only), name and cookie, and needs no epmd: the machine's own RabbitMQ is never touched.
A small guard process sits between us and the node; when we end in any way, kill -9 included, the pipe to the guard
closes and it ends the node. If the guard itself is killed, the kernel ends the node (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import fcntl
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Debian's scripts without the wrapper of /usr/sbin, which changes to the user rabbitmq and drops the environment."""
HOST = "127.0.0.1"
NAME = "pubd@localhost"
"""The same for every node: each knows the port of its own distribution only, so names never meet."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
LOCK_PATIENCE = 10.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class NodeFailed(Exception):
    """The node cannot be had, or did not do what it was told; the sentence says what to do about it."""


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files of the server side: the CA that signs clients, the server's chain and its key."""

    ca: Path
    cert: Path
    key: Path


class Node:
    """One private node; ports and data stay the same from one start to the next, so a restart is a real restart.

    `directory` is kept for the next run when given, and temporary otherwise. `config` are further lines of
    rabbitmq.conf. `memory` is the absolute high watermark. `erl_args` go to the Erlang machine ("+S 1:1"). Every
    method is blocking and bounded in time; all raise NodeFailed.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        plugins: Sequence[str] = (),
        tls: TlsFiles | None = None,
        config: Sequence[str] = (),
        memory: str = "1GB",
        erl_args: str = "",
    ) -> None:
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="pubd-rabbitmq-")).resolve()
        self.plugins = tuple(plugins)
        self.tls = tls
        self.memory = memory
        self._config = tuple(config)
        self._erl_args = erl_args
        self._pid = 0
        self._guard: subprocess.Popen[bytes] | None = None
        self._started_before = False
        self._choose_ports()
        self._finalizer = weakref.finalize(self, _remove, self.directory) if self._temporary else None

    def _choose_ports(self) -> None:
        self.port, self.tls_port, self.management_port, self._dist_port = free_ports(4)

    # what it is

    host = HOST
    has_control = True

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}/%2F"

    @property
    def amqps_url(self) -> str:
        """The TLS listener under the name `localhost`; where the certificates are is the client's business."""
        if self.tls is None:
            raise NodeFailed("this node has no TLS listener: give tls=TlsFiles(...) when it is made")
        return f"amqps://guest:guest@localhost:{self.tls_port}/%2F"

    @property
    def pid(self) -> int:
        """The pid of the Erlang machine."""
        if not self.is_running:
            raise NodeFailed("the node is not running")
        return self._pid

    @property
    def guard_pid(self) -> int | None:
        """The pid of our own child, whose child the node is; None when it is not running."""
        return self._guard.pid if self._guard is not None and self.is_running else None

    @property
    def log_path(self) -> Path:
        return self.directory / "log" / f"{NAME}.log"

    @property
    def is_running(self) -> bool:
        """Whether the process lives; a frozen node is running."""
        return self._guard is not None and self._guard.poll() is None

    # life

    def start(self) -> None:
        """Start and wait until every listener answers; the data of the last run, if any, is used again."""
        if self.is_running:
            return
        for attempt in range(3):
            try:
                self._start_once()
                break
            except NodeFailed as failed:
                if self._started_before or attempt == 2 or "eaddrinuse" not in str(failed):
                    raise
                self._choose_ports()
        self._started_before = True

    def _start_once(self) -> None:
        server = SCRIPTS / "rabbitmq-server"
        if not server.exists():
            raise NodeFailed(
                f"there is no {server}: install Debian's rabbitmq-server (apt-get install rabbitmq-server)"
            )
        for name in ("home", "log", "mnesia"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        try:
            self._write_files()
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, "guard", str(server), str(self.directory / "log" / "console")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[lock],
                env=self._environment(),
            )
        finally:
            os.close(lock)
        self._end = weakref.finalize(self, _end, self._guard)
        assert self._guard.stdout is not None
        try:
            self._pid = int(self._guard.stdout.readline() or 0)
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """Stop it in RabbitMQ's own way; killed when that takes more than STOP_TIMEOUT seconds or it is frozen."""
        if self._guard is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.is_running and not self.is_frozen:
                os.kill(self._pid, signal.SIGTERM)
                self._guard.wait(STOP_TIMEOUT)
        self._end()

    def kill(self) -> None:
        """kill -9; returns when the node and all its children are gone."""
        os.kill(self.pid, signal.SIGKILL)
        self._end()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing answers. Control methods would wait: thaw first."""
        os.kill(self.pid, signal.SIGSTOP)
        _until(lambda: self.is_frozen, 5, "the node did not stop at SIGSTOP")

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def is_frozen(self) -> bool:
        return self.is_running and _stat(self._pid)[0] == "T"

    def remove(self) -> None:
        """Stop it at once and, when the directory is temporary, remove it."""
        if self._guard is not None:
            self._end()
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._temporary:
            self.stop()
        self.remove()

    # control

    def ctl(self, *arguments: str, timeout: float = 30) -> str:
        """rabbitmqctl, about half a second each: its standard output."""
        command = [str(SCRIPTS / "rabbitmqctl"), "--quiet", *arguments]
        return self._call(command, b"", timeout)

    def eval_erl(self, expression: str, timeout: float = 10) -> str:
        """Evaluate Erlang (without the final dot) in the node, a few milliseconds each: the term as it prints."""
        command = ["erl_call", "-address", f"{HOST}:{self._dist_port}", "-timeout", str(int(timeout)), "-r", "-e"]
        try:
            answer = self._call(command, f"{expression}.\n".encode(), timeout + 5).strip()
        except NodeFailed as failed:
            if "failed to connect" not in str(failed):
                raise
            # Rare, on a busy machine; nothing was evaluated, so that asking again is safe.
            answer = self._call(command, f"{expression}.\n".encode(), timeout + 5).strip()
        if not (answer.startswith("{ok, ") and answer.endswith("}")):
            raise NodeFailed(f"the node answered {answer[:500]!r} to {expression}")
        return answer[len("{ok, ") : -1]

    def eval_json(self, expression: str) -> Any:
        """Like eval_erl, for a term that RabbitMQ can write as JSON: the JSON read."""
        text = self.eval_erl(f"binary_to_list(base64:encode(rabbit_json:encode({expression})))")
        return json.loads(base64.b64decode(text.strip('"')))

    def close_all_connections(self, reason: str = "closed by a test") -> None:
        """What `rabbitmqctl close_all_connections` does: 320 CONNECTION_FORCED to every client, within milliseconds."""
        self.eval_erl(f"rabbit_networking:close_connections(rabbit_networking:connections_local(), {_string(reason)})")

    def connections(self) -> list[dict[str, Any]]:
        """name, state, user, vhost and client_properties' connection_name of every AMQP connection.

        One that is just being opened or closed has no properties, and an empty dict instead.
        """
        rows: list[dict[str, Any]] = self.eval_json(
            "[maps:from_list([{K, if is_list(V) -> [[A, B] || {A, _, B} <- V, is_binary(B)]; true -> V end}"
            " || {K, V} <- rabbit_networking:connection_info(P, [name, state, user, vhost, client_properties])])"
            " || P <- rabbit_networking:connections_local()]"
        )
        return [{**row, "client_properties": _dict(row["client_properties"])} for row in rows]

    def set_memory_alarm(self, on: bool) -> None:
        """Raise the memory alarm as `set_vm_memory_high_watermark 0` does, or set the watermark back."""
        limit = "0" if on else f'{{absolute, "{self.memory}"}}'
        self.eval_erl(f"vm_memory_monitor:set_vm_memory_high_watermark({limit})")
        raised = "[] =/= rabbit_alarm:get_alarms()"
        wanted = str(on).lower()
        _until(lambda: self.eval_erl(raised) == wanted, 5, f"the memory alarm did not become {wanted}")

    def list_queues(self, vhost: str = "/") -> dict[str, int]:
        """Messages (ready and unacknowledged) of every queue of a virtual host."""
        pairs = self.eval_json(
            f"[[element(4, amqqueue:get_name(Q)), proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages]))]"
            f" || Q <- rabbit_amqqueue:list({_binary(vhost)})]"
        )
        return dict(pairs)

    def add_user(self, user: str, password: str) -> None:
        self.eval_erl(f"ok = rabbit_auth_backend_internal:add_user({_binary(user)}, {_binary(password)}, <<>>)")

    def add_vhost(self, vhost: str, user: str = "guest") -> None:
        """Add a virtual host in which `user` may do everything."""
        self.eval_erl(f"ok = rabbit_vhost:add({_binary(vhost)}, <<>>)")
        self.set_permissions(user, vhost)

    def delete_vhost(self, vhost: str) -> None:
        self.eval_erl(f"rabbit_vhost:delete({_binary(vhost)}, <<>>)")

    def set_permissions(
        self, user: str, vhost: str = "/", *, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Regular expressions of the names that `user` may configure, write and read."""
        patterns = ", ".join(map(_binary, (configure, write, read)))
        self.eval_erl(
            f"ok = rabbit_auth_backend_internal:set_permissions({_binary(user)}, {_binary(vhost)}, {patterns}, <<>>)"
        )

    # inside

    def _call(self, command: Sequence[str], given: bytes, timeout: float) -> str:
        _ = self.pid
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, timeout=timeout, env=self._environment(control=True)
            )
        except FileNotFoundError:
            raise NodeFailed(f"there is no {command[0]}: install Debian's rabbitmq-server") from None
        except subprocess.TimeoutExpired:
            raise NodeFailed(f"{command[0]} did not end within {timeout:g} s") from None
        if done.returncode:
            raise NodeFailed(f"{' '.join(command)} failed: {(done.stderr or done.stdout).decode(errors='replace')}")
        return done.stdout.decode()

    def _lock(self) -> int:
        """A lock on the directory, held by the guard as long as it lives: an earlier run may just be ending."""
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)

        def taken() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        try:
            _until(
                taken,
                LOCK_PATIENCE,
                f"another node is running under {self.directory}: stop it, or use another directory",
            )
        except NodeFailed:
            os.close(lock)
            raise
        return lock

    def _write_files(self) -> None:
        cookie = self.directory / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(f"{random.SystemRandom().getrandbits(128):X}")
        lines = [
            f"listeners.tcp.1 = {HOST}:{self.port}",
            f"vm_memory_high_watermark.absolute = {self.memory}",
            "disk_free_limit.absolute = 10MB",
        ]
        if self.tls is not None:
            lines += [
                f"listeners.ssl.1 = {HOST}:{self.tls_port}",
                f"ssl_options.cacertfile = {self.tls.ca}",
                f"ssl_options.certfile = {self.tls.cert}",
                f"ssl_options.keyfile = {self.tls.key}",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = false",
            ]
        if "rabbitmq_auth_mechanism_ssl" in self.plugins:
            lines += [f"auth_mechanisms.{n} = {m}" for n, m in enumerate(("PLAIN", "AMQPLAIN", "EXTERNAL"), 1)]
            lines += ["ssl_cert_login_from = common_name"]
        if "rabbitmq_management" in self.plugins:
            lines += [f"management.tcp.ip = {HOST}", f"management.tcp.port = {self.management_port}"]
        (self.directory / "rabbitmq.conf").write_text("\n".join([*lines, *self._config, ""]))
        (self.directory / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n")
        # What an earlier run said must not be read as this run's.
        for name in ("console", f"{NAME}.log"):
            (self.directory / "log" / name).write_bytes(b"")

    def _environment(self, *, control: bool = False) -> Mapping[str, str]:
        epmdless = f"-start_epmd false -erl_epmd_port {self._dist_port}"
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return {
            **ours,
            "HOME": str(self.directory / "home"),
            "LC_ALL": "C.UTF-8",
            "RABBITMQ_NODENAME": NAME,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            # Named from the start, RabbitMQ does not look for an epmd; `detached` makes its script become the node.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-sname {NAME} {epmdless} {loopback} {self._erl_args}",
            "RABBITMQ_SERVER_START_ARGS": "+B i",
            "RABBITMQ_CTL_ERL_ARGS": f"{epmdless} -dist_listen false" if control else "",
            "detached": "" if control else "true",
        }

    def _wait_until_ready(self) -> None:
        listeners = [self.port]
        listeners += [self.tls_port] if self.tls is not None else []
        listeners += [self.management_port] if "rabbitmq_management" in self.plugins else []
        deadline = time.monotonic() + START_TIMEOUT
        while not (_speaks_amqp(self.port) and all(map(_accepts, listeners[1:]))):
            if not self.is_running:
                raise NodeFailed(f"RabbitMQ ended while it was starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise NodeFailed(f"RabbitMQ did not answer within {START_TIMEOUT:g} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def log_tail(self, lines: int = 30) -> str:
        """The first errors and the last lines that it logged or printed, with the directory they came from."""
        said = [f"(from {self.directory}/log)"]
        for path in (self.directory / "log" / "console", self.log_path):
            with contextlib.suppress(OSError):
                written = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
                # An Erlang crash report is long: what it is about stands at its top.
                said += [line for line in written[:-lines] if "[error]" in line][:10] + written[-lines:]
        return "\n".join(said)


def free_ports(count: int) -> list[int]:
    """Free loopback ports below the kernel's ephemeral range: no outgoing connection can take one meanwhile."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.SystemRandom().sample(range(10_000, max(first_ephemeral, 20_000)), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise NodeFailed(f"no {count} free ports on {HOST}")


def children(pid: int) -> Iterator[int]:
    """The living children of a process (zombies are not living)."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            state, parent = _stat(int(name))
            if parent == pid and state not in "ZX":
                yield int(name)


def _stat(pid: int) -> tuple[str, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[1])


def _dict(pairs: Any) -> dict[str, Any]:
    """Of pairs; whatever else RabbitMQ says where it has none is none."""
    return dict(pairs) if isinstance(pairs, list) and all(isinstance(pair, list) for pair in pairs) else {}


def _until(condition: Callable[[], bool], seconds: float, sentence: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NodeFailed(sentence)
        time.sleep(0.01)


def _speaks_amqp(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1) as peer:
        peer.settimeout(5)
        peer.sendall(b"AMQP\x00\x00\x09\x01")
        return peer.recv(1) == b"\x01"
    return False


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def _string(text: str) -> str:
    return f"binary_to_list({_binary(text)})"


def _binary(text: str) -> str:
    return f"<<{','.join(map(str, text.encode()))}>>"


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _end(guard: subprocess.Popen[bytes]) -> None:
    """Close the pipe: the guard kills what is left and ends."""
    for pipe in (guard.stdin, guard.stdout):
        if pipe is not None:
            pipe.close()
    try:
        guard.wait(10)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait(5)


def _dying_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For preexec_fn: the child gets the signal when we end. Only for processes with one thread: it is bound to it."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(128 + number)

    return ask


# The guard: another process, which shares nothing with the above but this file.


def guard(server: str, console: str) -> int:
    """Run the node; end it when standard input closes; leave no process behind."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with open(console, "ab") as output:
        node = subprocess.Popen(
            [server],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_dying_with_parent(signal.SIGKILL),
        )
    print(node.pid, flush=True)
    ended = os.pidfd_open(node.pid)
    select.select([0, ended], [], [])
    node.kill()
    status = node.wait()
    patience = time.monotonic() + 1
    while left := list(children(os.getpid())):
        for pid in left if time.monotonic() > patience else ():
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)
    return status


# The command line.


class _Interrupted(Exception):
    """A signal came before there was a command to hand it to."""


def run(directory: Path, plugins: Sequence[str], command: Sequence[str]) -> int:
    """Start a node, run the command beside it, stop the node: the command's exit code (128 + n for a signal n).

    The command has a session of its own and gets each SIGINT and SIGTERM that we get, so it gets Ctrl-C once
    wherever that came from; it is told SIGTERM if we are killed.
    """
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if child is None:
            raise _Interrupted(number)
        child.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    try:
        print(f"starting a private RabbitMQ node under {directory} ...", flush=True)
        with Node(directory, plugins=plugins) as node:
            print(f"RabbitMQ is ready at {node.url} (log: {node.log_path})", flush=True)
            try:
                child = subprocess.Popen(
                    command,
                    env={**os.environ, "PUBD_BROKER_URL": node.url},
                    start_new_session=True,
                    preexec_fn=_dying_with_parent(signal.SIGTERM),
                )
            except OSError as error:
                print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
                return 127
            status = child.wait()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            print("stopping the private RabbitMQ node ...", flush=True)
        return status if status >= 0 else 128 - status
    except _Interrupted as interrupted:
        return 128 + int(interrupted.args[0])
    except NodeFailed as failed:
        print(f"RabbitMQ cannot be had: {failed}", file=sys.stderr)
        return 69


def main() -> NoReturn:
    if sys.argv[1:2] == ["guard"]:
        sys.exit(guard(*sys.argv[2:4]))
    parser = argparse.ArgumentParser(description="Run a command beside a private RabbitMQ node.")
    runner = parser.add_subparsers(required=True).add_parser("run", help="start a node, run COMMAND, stop the node")
    runner.add_argument("--dir", type=Path, default=Path("var/rabbitmq"), help="the node's directory (%(default)s)")
    runner.add_argument("--plugin", action="append", default=[], help="enable a plugin; may be given several times")
    runner.add_argument("command", nargs="+", metavar="COMMAND", help="after --; gets PUBD_BROKER_URL")
    arguments = parser.parse_args()
    sys.exit(run(arguments.dir, arguments.plugin, arguments.command))


if __name__ == "__main__":
    main()
