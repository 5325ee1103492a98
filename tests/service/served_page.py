"""A daemon with its status page on a loopback port, as ``twistd -n pubd --config`` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from pubd.entry import Entry
from pubd.outcome import Cause, Reason, Settlement, State
from pubd.spool.sqlite import SqliteSpool
from tests.rabbitmq import free_ports
from tests.service.process import Program, until

#: Properties of a message with delivery_mode 2, as on the wire.
PERSISTENT = b"\x10\x00\x02"
_BATCH = 10_000
EXCHANGES = 20


class ServedPage:
    """``more`` is further configuration; ``token`` is shown by programs that ask."""

    def __init__(
        self, run: Callable[..., Program], directory: Path, broker: str, more: str = "", token: str = ""
    ) -> None:
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        (self.port,) = free_ports(1)
        self._run = run
        self._config = directory / "pubd.toml"
        self._config.write_text(
            f'[broker]\nurls = ["{broker}"]\n[spool]\nurl = "sqlite:///{directory / "pubd.db"}"\n'
            f'[delivery]\ndrain_timeout = "1s"\n[http]\nlisten = ["tcp:{self.port}:interface=127.0.0.1"]\n{more}'
        )
        self.start()

    def start(self) -> None:
        """Again, after it ended."""
        self.process = self._run("twistd", "-n", "--pidfile=", "pubd", "--config", str(self._config))
        self.process.says("listening on")
        until(lambda: self.get("/readyz")["status"] == "ok")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        """What programs are answered."""
        try:
            request = urllib.request.Request(f"{self.url}{path}", headers=self._headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)

    def submit(self, **message: Any) -> str:
        """One message; its id."""
        body = json.dumps({"body": "hello", **message}).encode()
        request = urllib.request.Request(
            f"{self.url}/messages", body, {"Content-Type": "application/json", **self._headers}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            found: str = json.load(answer)["id"]
        return found

    def state(self, id: str) -> str:
        found: str = self.get(f"/messages/{id}")["state"]
        return found

    def reaches(self, id: str, state: str) -> None:
        """Wait for it."""
        until(lambda: self.state(id) == state)


def fill(path: Path, count: int, *, parked: int = 0) -> None:
    """A spool with so many messages, the first of them parked; in a process of its own, which has a reactor."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.service.served_page", str(path), str(count), str(parked)]
    subprocess.run(command, check=True, cwd=root, timeout=250)


async def _filled(path: Path, count: int, parked: int) -> None:
    """The spool itself makes it."""
    spool = SqliteSpool(path, reactor=reactor)
    await spool.open()
    assert spool.ids is not None
    done = 0
    for start in range(0, count, _BATCH):
        entries = []
        for n in range(start, min(start + _BATCH, count)):
            seq = spool.ids.next()
            id = spool.ids.id_of(seq)
            entry = Entry(
                id=id,
                exchange=f"exchange-{n % EXCHANGES}",
                routing_key="order.new",
                message_id=f"order-{n}" if n % 2 else id,
                mandatory=True,
                properties=PERSISTENT,
                body=b"x" * 100,
                accepted_at=time.time(),
                seq=seq,
            )
            entries.append(entry)
        await spool.append(entries)
        if done < parked:
            done += await _park(spool, parked - done)
    await spool.close()


async def _park(spool: SqliteSpool, most: int) -> int:
    reason = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
    done = 0
    for n in range(EXCHANGES):
        entries = await spool.claim(f"exchange-{n}", min(most - done, _BATCH), 1 << 30, time.time())
        await spool.settle(
            [], [Settlement(entry=entry, state=State.PARKED, attempts=1, reason=reason) for entry in entries]
        )
        done += len(entries)
    return done


if __name__ == "__main__":
    path, count, parked = sys.argv[1:]
    react(lambda _: Deferred.fromCoroutine(_filled(Path(path), int(count), int(parked))))
