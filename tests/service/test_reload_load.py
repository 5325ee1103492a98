"""A hundred reloads with random changes while messages come in: nothing is lost, nothing doubled, nobody cut off."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from pubd.access.tokens import hash_of
from tests.conftest import Drained
from tests.rabbitmq import Node, free_ports
from tests.service.conftest import Run
from tests.service.process import until
from tests.service.reloading import Http, Lines, Reloading

#: RELOAD_SEED repeats a run, RELOAD_ROUNDS makes a longer one.
SEED = int(os.environ.get("RELOAD_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
RELOADS = int(os.environ.get("RELOAD_ROUNDS", "100"))

FIXED = """\
[[exchange]]
name = "x"
type = "topic"
[[queue]]
name = "q"
[[binding]]
exchange = "x"
queue = "q"
routing_key = "#"
"""


@attrs.define
class Wanted:
    """What the configuration says at the moment; each of ``CHANGES`` changes one thing."""

    random: random.Random
    urls: list[str]
    ports: list[int]
    url: str = ""
    moves: int = 0
    delivery: dict[str, Any] = attrs.Factory(dict)
    http: dict[str, Any] = attrs.Factory(dict)
    lines: dict[str, Any] = attrs.Factory(dict)
    spool: dict[str, Any] = attrs.Factory(dict)
    log: dict[str, Any] = attrs.Factory(dict)
    extra: int | None = None
    rows: dict[str, str] = attrs.Factory(dict)

    def change(self) -> None:
        """Something at random."""
        choose = self.random
        what = choose.choice(
            ("window", "policy", "limits", "topology", "principal", "schedule", "listener", "log", "broker", "sizes")
        )
        if what == "window":
            self.delivery = {
                "window": choose.randrange(1, 2000),
                "confirm_timeout": choose.randrange(20, 40),
                "max_attempts": choose.randrange(1, 20),
                "mandatory": choose.choice(("true", "false")),
            }
        elif what == "policy":
            self.rows["policy"] = f'[[policy]]\nexchange = "{choose.choice("abc")}*"\non_return = "retry"\n'
        elif what == "limits":
            self.spool = {"max_messages": choose.randrange(10**6, 10**7), "retain": '"2h"'}
        elif what == "topology":
            name = f"more-{choose.randrange(5)}"
            if self.rows.pop(name, None) is None:
                self.rows[name] = (
                    f'[[exchange]]\nname = "{name}"\n[[queue]]\nname = "{name}"\n'
                    f'[[binding]]\nexchange = "{name}"\nqueue = "{name}"\n'
                )
        elif what == "principal":
            name = f"p{choose.randrange(3)}"
            if self.rows.pop(name, None) is None:
                token = hash_of(f"pubd_{choose.random()}")
                self.rows[name] = (
                    f'[[principal]]\nname = "{name}"\nrate = {choose.randrange(1, 99)}\ntokens = ["{token}"]\n'
                )
        elif what == "schedule":
            name = f"s{choose.randrange(3)}"
            every = choose.choice((0.05, 0.1, 3600))
            self.rows[name] = f'[[schedule]]\nname = "{name}"\nevery = {every}\nexchange = "x"\nbody = "{name} 0"\n'
            if choose.random() < 0.4:
                del self.rows[name]
        elif what == "listener":
            self.extra = choose.choice((None, *self.ports))
        elif what == "log":
            self.log = {"levels": choose.choice(('{ "pubd.spool" = "debug" }', '{ "pubd.intake.http" = "warn" }'))}
        elif what == "sizes":
            self.http = {"max_body": choose.randrange(10**5, 10**7), "idle_timeout": '"1m"'}
            self.lines = {
                "max_line": choose.randrange(10**5, 10**7),
                "max_unanswered_lines": choose.randrange(10, 1000),
            }
        else:
            new = choose.choice(self.urls)
            self.moves += new != self.url
            self.url = new

    @property
    def text(self) -> str:
        """As it stands in the file."""

        def keys(table: dict[str, Any]) -> str:
            return "".join(f"{name} = {value}\n" for name, value in table.items())

        listen = '"tcp:{port}:interface=127.0.0.1"'
        if self.extra is not None:
            listen += f', "tcp:{self.extra}:interface=127.0.0.1"'
        return (
            f'[broker]\nurls = ["{self.url}"]\n[spool]\nurl = "sqlite:///pubd.db"\n{keys(self.spool)}'
            f"[delivery]\ndrain_timeout = 10\n{keys(self.delivery)}[access]\nanonymous = true\n"
            f"[http]\nlisten = [{listen}]\n{keys(self.http)}"
            f'[lines]\nlisten = ["unix:l.sock"]\n{keys(self.lines)}[log]\n{keys(self.log)}{FIXED}'
        ) + "".join(self.rows.values())


class Client(threading.Thread):
    """Hands in numbered messages over one connection, one after the other, until told to stop."""

    def __init__(self, name: str, connection: Http | Lines) -> None:
        super().__init__(name=name, daemon=True)
        self._connection = connection
        self._over = threading.Event()
        self.accepted = 0
        self.problem: BaseException | str | None = None

    def run(self) -> None:
        try:
            while not self._over.is_set() and self.problem is None:
                self._one(f"{self.name} {self.accepted}")
        except BaseException as problem:
            self.problem = problem

    def _one(self, body: str) -> None:
        if isinstance(self._connection, Http):
            status, answer = self._connection.send("x", self.name, body)
            if status != 202:
                self.problem = f"{status}: {answer}"
                return
        else:
            answer = self._connection.send("x", self.name, body)
            if answer is None or answer.get("state") != "stored":
                self.problem = f"{answer}"
                return
        self.accepted += 1

    def finish(self) -> None:
        """Wait until it has done so."""
        self._over.set()
        self.join(60)


def test_a_hundred_reloads_under_load(
    run: Run,
    tmp_path: Path,
    url: str,
    shared_node: Node,
    vhost: str,
    unique: Callable[..., str],
    drain: Callable[..., list[Drained]],
) -> None:
    print(f"RELOAD_SEED={SEED}")
    chosen = random.Random(SEED)
    user = unique("user")
    shared_node.add_user(user, "s3cret")
    shared_node.set_permissions(user, vhost=vhost)
    urls = [url, url.replace("guest:guest", f"{user}:s3cret"), url + "?heartbeat=20"]
    wanted = Wanted(chosen, urls, free_ports(2), url=url)
    pubd = Reloading(tmp_path, run, wanted.text).ready()
    operator = pubd.http()
    clients = [
        Client("http-1", pubd.http()),
        Client("http-2", pubd.http()),
        Client("lines-1", pubd.lines("l.sock")),
        Client("lines-2", pubd.lines("l.sock")),
    ]
    for client in clients:
        client.start()
    refused = 0
    for _ in range(RELOADS):
        for _ in range(chosen.randrange(1, 4)):
            wanted.change()
        broken = chosen.random() < 0.1
        pubd.write(wanted.text + ("[nonsense]\n" if broken else ""))
        if chosen.random() < 0.2:
            done = len(ended(pubd))
            pubd.program.signal(signal.SIGHUP)
            until(lambda done=done: len(ended(pubd)) > done, what=lambda: pubd.program.output)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        else:
            status, answer = operator.ask("POST", "/reload")
            assert status == (422 if broken else 200), answer
        refused += broken
        threading.Event().wait(chosen.random() * 0.1)
        assert [client.problem for client in clients] == [None] * len(clients)
    wanted.rows.clear()
    assert pubd.reload(wanted.text)[0] == 200
    for client in clients:
        client.finish()
    assert [client.problem for client in clients] == [None] * len(clients)
    until(lambda: not pubd.status["books"]["held"], 60, lambda: str(pubd.status))

    books, deliveries = pubd.status["books"], pubd.status["deliveries"]
    handed_in = sum(client.accepted for client in clients)
    bodies = [each.body.decode().split() for each in drain("q", url)]
    assert books["difference"] == 0
    assert books["accepted"] == books["confirmed"] == len(bodies)
    assert (deliveries["lost"], deliveries["returned"], deliveries["nacked"]) == (0, 0, 0)
    for client in clients:
        # Each once, and in order.
        assert [int(number) for name, number in bodies if name == client.name] == list(range(client.accepted))
        assert client.accepted > 0
    assert len(bodies) == handed_in + sum(name.startswith("s") for name, _ in bodies)
    # RabbitMQ saw a new connection only where it had to.
    connected = len(pubd.program.lines("connected to "))
    assert connected <= 1 + wanted.moves
    assert len(pubd.program.lines("reload refused")) == refused
    assert pubd.program.lines("Traceback") == pubd.program.lines("please report") == []
    print(
        f"{handed_in} messages over {len(clients)} connections, {connected} connections to RabbitMQ, {refused} refused"
    )
    pubd.close()
    pubd.program.signal(signal.SIGTERM)
    assert pubd.program.ends() == 0
    pubd.program.says("every accepted message is settled")


def ended(pubd: Reloading) -> list[str]:
    """The reloads that are over."""
    return re.findall(r"\"message\": \"(?:reloaded |reload refused)", pubd.program.output)
