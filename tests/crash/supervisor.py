"""Kills pubd and judges what is left: a supervisor outside of pubd. `script/crash` runs it.

A campaign is a row of lives of pubd on one spool, driven through one of its ways in. Each life but the last ends by
SIGKILL: at a random time, or at a failpoint. Between two lives a marker goes into each queue, so that it is known which
life published what. At the end the queues are drained by a consumer that is not pubd, the spool is verified and
exported, and the judge speaks.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import apsw
import attrs
import pika
from pika.adapters.blocking_connection import BlockingChannel

from pubd.spool import schema
from tests.crash.judge import Arrived, Books, History, Verdict, judge
from tests.crash.plan import Orders, Plan
from tests.crash.processes import LOG, CampaignFailed, Life
from tests.rabbitmq import Node

MARKER = "marker"
PUBD = [sys.executable, "-c", "from pubd.cli import main; main()"]

#: Answers of earlier lives that the client makes as if it had not got them.
FORGOTTEN = 20

#: Visits of a failpoint at which pubd may die; each life has at least so many of them.
COUNTS = {
    "after-append": 4,
    "before-commit": 12,
    "after-commit": 12,
    "after-write": 20,
    "after-ack": 5,
    "during-migration": 2,
    "during-purge": 3,
}


@attrs.frozen(kw_only=True)
class Campaign:
    """``cycles`` lives are killed, each with its share of ``messages``; then one more finishes.

    ``failpoint`` None kills at random: somewhere within each share, or, one in ten, while pubd starts. ``through`` is
    the way in. ``rate`` is in messages a second; ``patience`` (seconds) bounds every wait.
    """

    seed: int
    cycles: int
    messages: int
    failpoint: str | None = None
    through: str = "python"
    rate: float = 5000.0
    patience: float = 60.0

    @classmethod
    def at(cls, failpoint: str, *, seed: int, cycles: int, messages: int = 500, through: str = "python") -> Campaign:
        """At a failpoint; slow enough that there is something to purge while messages still come."""
        rate = 400.0 if failpoint == "during-purge" else 5000.0
        # Only every other life is upgraded, so that each upgrade meets a spool in use.
        lives = cycles * 2 if failpoint == "during-migration" else cycles
        return cls(seed=seed, cycles=lives, messages=messages, failpoint=failpoint, through=through, rate=rate)

    @property
    def plan(self) -> Plan:
        prefix = f"crash-{self.seed}-{self.through}-{self.failpoint or 'random'}"
        return Plan(
            prefix=prefix,
            seed=self.seed,
            # Settled messages are forgotten soon, so that there is something to purge, and idempotency keys with them.
            keyed=not self._purges,
            retain=0.2 if self._purges else 3600.0,
            through=self.through,
        )

    @property
    def _purges(self) -> bool:
        return self.failpoint == "during-purge"


class Supervisor:
    """Carries out one campaign on a node of its own; ``directory`` gets the spool and pubd's log."""

    def __init__(
        self, campaign: Campaign, node: Node, directory: Path, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self.campaign = campaign
        self.plan = campaign.plan
        self.history = History()
        self._node = node
        self._directory = directory
        self.spool = directory / "spool.db"
        self._progress = progress
        self._random = Random(f"{campaign.seed}:{campaign.failpoint}")
        self._steps = 0
        self._next: Life | None = None

    def run(self) -> Verdict:
        """Raises CampaignFailed."""
        connection = pika.BlockingConnection(pika.URLParameters(f"{self._node.url}?heartbeat=0"))
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            for queue in self.plan.queues:
                channel.queue_declare(queue, durable=True)
            self._lives(partial(self.mark, channel))
            arrived = [each for queue in self.plan.queues for each in drain(channel, queue)]
            for name in self.plan.queues:
                channel.queue_delete(name)
                channel.exchange_delete(name)
        finally:
            connection.close()
            if self._next is not None:
                self._next.close()
        books, problems = self._verify()
        if "Traceback" in (self._directory / LOG).read_text(errors="replace"):
            problems.append(f"there is a traceback in {self._directory / LOG}")
        verdict = judge(self.plan, self.history, arrived, self._parked(), books)
        return attrs.evolve(verdict, problems=(*verdict.problems, *problems))

    def _lives(self, mark: Callable[[int], None]) -> None:
        campaign = self.campaign
        again: list[int] = []
        first = 0
        for number in range(campaign.cycles):
            failpoint = self._failpoint(number)
            orders = Orders(
                plan=self.plan,
                url=self._node.url,
                spool=str(self.spool),
                life=number,
                again=tuple(again),
                first=first,
                # Lives that end at a failpoint end early: what they leave of their share is dropped.
                until=campaign.messages + (first if failpoint else number * campaign.messages),
                rate=campaign.rate,
                steps=self._steps,
            )
            life = self._life(failpoint)
            self._end(life, orders, failpoint)
            again, first = self._after(number, mark)
            self._progress(
                f"{number + 1} of {campaign.cycles} kills, {len(self.history.acknowledged)} acknowledged, "
                f"{len(self.history.doubtful)} in doubt"
            )
        last = attrs.evolve(
            orders, life=campaign.cycles, again=tuple(again), first=first, until=max(first, orders.until), finish=True
        )
        self._finish(self._life(""), last)
        mark(campaign.cycles)

    def _failpoint(self, number: int) -> str:
        """Where this life is to die by itself; empty if it is killed."""
        name = self.campaign.failpoint
        if name is None:
            return ""
        if name == "during-migration":
            if number % 2 == 0:
                return ""
            self._steps += self._random.randint(1, 2)
        return f"{name}:{self._random.randint(1, COUNTS[name])}"

    def _life(self, failpoint: str) -> Life:
        """The processes of this life; without failpoints others are started, which are ready when these are dead."""
        through = self.campaign.through
        if self._next is not None and not failpoint:
            life, self._next = self._next, None
        else:
            life = Life(self._directory, failpoint, through)
        if self.campaign.failpoint is None:
            self._next = Life(self._directory, "", through)
        return life

    def _end(self, life: Life, orders: Orders, failpoint: str) -> None:
        patience = self.campaign.patience
        try:
            life.begin(orders)
            if failpoint:
                if life.listen(self.history, patience):
                    raise CampaignFailed(f"{failpoint} was not reached within {patience:g} s")
                if life.reap() != -signal.SIGKILL:
                    raise CampaignFailed(f"life {orders.life} ended by itself; see {self._directory / LOG}")
                return
            alive = self._kill_time(life, orders)
            if life.kill() != -signal.SIGKILL or not alive:
                raise CampaignFailed(f"life {orders.life} ended by itself; see {self._directory / LOG}")
            life.listen(self.history, patience)
        finally:
            life.close()

    def _kill_time(self, life: Life, orders: Orders) -> bool:
        """Wait until this life is to be killed; False if it ended before that."""
        history, random, share = self.history, self._random, self.campaign.messages
        patience = self.campaign.patience
        if random.random() < 0.1:
            return life.listen(history, random.uniform(0, 0.2))
        # What was in doubt and is not submitted again will never be acknowledged.
        given_up = len(history.attempted.difference(history.acknowledged, orders.again))
        enough = orders.until - given_up - random.uniform(0, share)
        if not life.listen(history, patience, lambda: life.ready and len(history.acknowledged) >= enough):
            return False
        if not life.ready:
            raise CampaignFailed(f"life {orders.life} did not start; see {self._directory / LOG}")
        return life.listen(history, random.uniform(0, 0.05))

    def _finish(self, life: Life, orders: Orders) -> None:
        patience = self.campaign.patience + self.campaign.messages * self.campaign.cycles / 1000
        try:
            life.begin(orders)
            if life.listen(self.history, patience):
                raise CampaignFailed(f"the last life did not settle everything within {patience:g} s")
            status = life.stop()
            if status or not life.done:
                raise CampaignFailed(f"the last life ended with {status}; see {self._directory / LOG}")
        finally:
            life.close()

    def _after(self, number: int, mark: Callable[[int], None]) -> tuple[list[int], int]:
        """What the next life is to submit before anything new, and where it goes on."""
        doubtful = self.history.crash()
        mark(number)
        attempted = self.history.attempted
        first = max(attempted, default=-1) + 1
        # A client cannot tell an answer that got lost from a message that did.
        known = list(self.history.acknowledged)
        forgotten = self._random.sample(known, min(FORGOTTEN, len(known)))
        again = [n for n in (*doubtful, *forgotten) if self.plan.message(n).idempotency_key is not None]
        # Where there are several sessions, some get ahead of others.
        passed_over = set(range(first)).difference(attempted)
        return sorted({*again, *passed_over}), first

    def mark(self, channel: BlockingChannel, life: int) -> None:
        """Everything that this life published is in its queue, when its connection is gone; say so there."""
        deadline = time.monotonic() + self.campaign.patience
        while self._connected():
            if time.monotonic() > deadline:
                raise CampaignFailed("RabbitMQ did not notice that the worker is dead")
            time.sleep(0.01)
        for queue in self.plan.queues:
            channel.basic_publish("", queue, str(life).encode(), pika.BasicProperties(type=MARKER))

    def _connected(self) -> bool:
        ours = f"{self.plan.prefix}@"
        properties = [each["client_properties"] for each in self._node.connections()]
        # One that is just being opened or closed has none, and may be ours.
        return any(not each or each.get("connection_name", "").startswith(ours) for each in properties)

    def _verify(self) -> tuple[Books, list[str]]:
        if self._steps:
            # Steps that were made up for this campaign: pubd verify would call the schema a newer one.
            connection = apsw.Connection(str(self.spool))
            connection.pragma("user_version", schema.steps()[-1][0])
            connection.close()
        done = subprocess.run([*PUBD, "verify", self.spool], capture_output=True, text=True, timeout=300)
        figures = {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", done.stdout.partition("\n")[0])}
        if "held" not in figures:
            raise CampaignFailed(f"pubd verify said: {done.stdout}{done.stderr}")
        books = Books(**{each.name: figures[each.name] for each in attrs.fields(Books)})
        return books, [] if not done.returncode else [f"pubd verify said: {done.stderr.strip()}"]

    def _parked(self) -> list[Arrived]:
        done = subprocess.run([*PUBD, "export", self.spool], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise CampaignFailed(f"pubd export said: {done.stderr}")
        found = []
        for each in map(json.loads, done.stdout.splitlines()):
            body = each.get("body", "").encode()
            arrived = Arrived.of("", 0, each.get("message_id", ""), each["exchange"], each["routing_key"], body)
            found.append(arrived if each["state"] == "parked" else attrs.evolve(arrived, queue=each["state"]))
        return found


def drain(channel: BlockingChannel, queue: str) -> Iterator[Arrived]:
    """The messages of a queue with the life that published each, the markers among them telling which."""
    count = channel.queue_declare(queue, passive=True).method.message_count
    life = 0
    while count:
        for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=30):
            if method is None:
                raise CampaignFailed(f"{queue} did not give all of its {count} messages")
            count -= 1
            if properties.type == MARKER:
                life = int(body) + 1
            else:
                yield Arrived.of(queue, life, properties.message_id or "", method.exchange, method.routing_key, body)
            if not count:
                break
        channel.cancel()


def carry_out(
    campaign: Campaign, node: Node, progress: Callable[[str], None] = lambda _: None, keep: Path | None = None
) -> Verdict:
    """One campaign in a directory of its own, which is kept if it fails (and ``keep`` says where)."""
    directory = Path(tempfile.mkdtemp(prefix="pubd-crash-", dir=keep))
    verdict = None
    try:
        verdict = Supervisor(campaign, node, directory, progress).run()
        return verdict
    finally:
        if verdict is not None and (not verdict.problems or keep is None):
            shutil.rmtree(directory)
        else:
            progress(f"kept: {directory}\n")
