"""pubd is killed for real, on a real broker, a few times; `script/crash` does it a few hundred times.

A seed that fails is named, and `script/crash --seed` repeats it.
"""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from pubd import failpoints
from tests.crash.plan import SESSIONS
from tests.crash.supervisor import Campaign, Supervisor
from tests.rabbitmq import Node


@pytest.fixture
def seed() -> int:
    chosen = SystemRandom().randrange(1 << 31)
    print(f"seed {chosen}")
    return chosen


@pytest.mark.parametrize("through", SESSIONS)
def test_pubd_killed_at_random_times_keeps_its_word(through: str, shared_node: Node, tmp_path: Path, seed: int) -> None:
    campaign = Campaign(seed=seed, cycles=6, messages=500, through=through)
    verdict = Supervisor(campaign, shared_node, tmp_path).run()
    assert verdict.problems == ()
    assert (verdict.kills, verdict.attempted, verdict.lost, verdict.unexpected) == (6, 3000, 0, 0)
    assert verdict.ok == verdict.acknowledged > 0


@pytest.mark.parametrize("name", failpoints.NAMES)
def test_pubd_killed_at_a_failpoint_keeps_its_word(name: str, shared_node: Node, tmp_path: Path, seed: int) -> None:
    kept_its_word_at(name, "python", shared_node, tmp_path, seed)


@pytest.mark.parametrize("name", ["after-append", "after-commit", "during-migration"])
@pytest.mark.parametrize("through", ["http", "lines"])
def test_the_daemon_killed_at_a_failpoint_keeps_its_word(
    through: str, name: str, shared_node: Node, tmp_path: Path, seed: int
) -> None:
    kept_its_word_at(name, through, shared_node, tmp_path, seed)


def kept_its_word_at(name: str, through: str, node: Node, directory: Path, seed: int) -> None:
    campaign = Campaign.at(name, seed=seed, cycles=1, messages=400, through=through)
    verdict = Supervisor(campaign, node, directory).run()
    assert verdict.problems == ()
    assert (verdict.kills, verdict.lost, verdict.unexpected) == (campaign.cycles, 0, 0)


class Thief(Supervisor):
    """Takes what is in one queue when pubd has done its work."""

    def mark(self, channel: BlockingChannel, life: int) -> None:
        if life == self.campaign.cycles:
            channel.queue_purge(self.plan.queues[0])
        super().mark(channel, life)


def test_a_broker_that_loses_messages_is_found_out(shared_node: Node, tmp_path: Path, seed: int) -> None:
    verdict = Thief(Campaign(seed=seed, cycles=1, messages=200), shared_node, tmp_path).run()
    assert verdict.lost > 0
    assert any("acknowledged and lost" in problem for problem in verdict.problems)
    assert any("confirmed, there are" in problem for problem in verdict.problems)
