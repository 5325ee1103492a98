"""Observers hear, in batches, of everything that happens to messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest_twisted
from twisted.internet import reactor

from pubd.entry import Entry
from pubd.ledger import Delivery
from pubd.outcome import Outcome, Settlement, State
from pubd.spool.sqlite import SqliteSpool
from tests.rig import Rig


@attrs.define(eq=False)
class Heard:
    events: list[tuple[Any, ...]] = attrs.Factory(list)

    def accepted(self, entries: Sequence[Entry], seconds: float) -> None:
        self.events.append(("accepted", [entry.message_id for entry in entries], seconds))

    def answered(self, deliveries: Sequence[Delivery], now: float) -> None:
        for delivery in deliveries:
            assert 0 <= now - delivery.sent_at < 60
        self.events.append(("answered", [(each.entry.message_id, each.outcome) for each in deliveries]))

    def settled(self, confirmed: Sequence[Delivery], others: Sequence[Settlement]) -> None:
        self.events.append(
            ("settled", [each.entry.message_id for each in confirmed], [(e.entry.message_id, e.state) for e in others])
        )

    def committed(self, seconds: float) -> None:
        self.events.append(("committed", seconds))


def test_an_observer_hears_of_acceptance_outcome_and_settlement() -> None:
    rig, heard, other = Rig(), Heard(), Heard()
    rig.publisher.observers.add(heard)
    rig.publisher.observers.add(other)
    rig.start()
    rig.submit("a")
    rig.submit("b", key="nowhere")
    rig.network.flush()
    assert [each for each in heard.events if each[0] == "accepted"] == [("accepted", ["a"], 0), ("accepted", ["b"], 0)]
    outcomes = dict(pair for name, pairs, *_ in heard.events if name == "answered" for pair in pairs)
    assert outcomes == {"a": Outcome.CONFIRMED, "b": Outcome.RETURNED}
    settled = [each for each in heard.events if each[0] == "settled"]
    assert [name for _, names, _ in settled for name in names] == ["a"]
    assert [change for _, _, changes in settled for change in changes] == [("b", State.PARKED)]
    assert other.events == heard.events
    rig.publisher.observers.remove(other)
    rig.submit("c")
    rig.network.flush()
    assert len(heard.events) > len(other.events)
    rig.stop()


@pytest_twisted.ensureDeferred
async def test_the_spool_tells_what_its_commits_take(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "spool.db", reactor=reactor)
    took: list[float] = []
    spool.timed = took.append
    await spool.open()
    assert spool.ids is not None
    seq = spool.ids.next()
    entry = Entry(
        id=spool.ids.id_of(seq), exchange="e", routing_key="", message_id="m", mandatory=True, properties=b"", body=b""
    )
    entry.seq = seq
    await spool.append([entry])
    await spool.due("e", 0.0)
    await spool.close()
    assert len(took) == 1
    assert took[0] > 0
