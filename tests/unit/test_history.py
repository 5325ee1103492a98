"""The history: what happened lately, in bounded memory, without a count of its own."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from twisted.internet.task import Clock

from pubd.intake.http.answer import Refusal
from pubd.intake.http.openapi_schemas import SCHEMAS
from pubd.operate.distribution import SECONDS, Distribution, quantile
from pubd.operate.history import COARSE, COLUMNS, FINE, History, Series
from pubd.operate.tally import Tally
from tests.operating import Shown
from tests.rig import Rig
from tests.slow_spool import SlowSpool
from tests.strictness import Logged


@pytest.fixture
def shown() -> Iterator[Shown]:
    shown = Shown(Rig(confirm_timeout=1000.0)).start()
    yield shown
    shown.stop()
    shown.rig.stop()


def history(shown: Shown, query: str = "") -> dict[str, Any]:
    """What GET /history answers; it is as openapi.json says."""
    found: dict[str, Any] = json.loads(shown.ask(f"/history{query}").body)
    OAS31Validator(SCHEMAS["History"]).validate(found)
    lengths = {len(found[name]) for name in ("time", *COLUMNS)}
    assert len(lengths) == 1
    return found


def test_before_the_first_sample_there_is_nothing(shown: Shown) -> None:
    assert history(shown)["time"] == []
    shown.rig.network.advance(4)
    assert history(shown)["time"] == []


def test_rates_are_a_second_and_what_is_held_is_that_of_the_moment(shown: Shown) -> None:
    rig = shown.rig.start()
    rig.send(*(f"m{n}" for n in range(10)))
    rig.send("unroutable", key="nowhere")
    rig.network.advance(5)
    found = history(shown)
    assert found["interval"] == 5.0
    assert found["accepted"] == [pytest.approx(11 / 5)]
    assert found["confirmed"] == [pytest.approx(10 / 5)]
    assert found["returned"] == [pytest.approx(1 / 5)]
    assert (found["ready"], found["parked"], found["oldest"]) == ([0], [1], [0.0])
    assert found["confirm_p50"][0] is not None
    assert found["time"] == [pytest.approx(rig.network.seconds(), abs=1.0)]
    rig.network.advance(5)
    found = history(shown)
    assert found["accepted"][1] == 0
    assert found["confirm_p99"][1] is None


def test_a_connection_that_is_gone_or_blocked_shows_as_share_of_the_time(shown: Shown) -> None:
    rig = shown.rig.start()
    rig.network.advance(5)
    rig.peer.block("low on memory")
    rig.network.advance(5)
    rig.peer.unblock()
    rig.network.advance(5)
    found = history(shown)
    assert max(found["blocked"]) == 1.0
    assert found["blocked"][0] == 0.0
    rig.network.down = True
    rig.peer.drop()
    rig.network.advance(10)
    assert history(shown)["down"][-1] == 1.0


def test_the_oldest_grows_while_nothing_is_published(shown: Shown) -> None:
    rig = shown.rig
    rig.network.down = True
    rig.start()
    rig.send("a")
    rig.network.advance(15)
    oldest = history(shown)["oldest"]
    assert oldest == sorted(oldest)
    assert oldest[-1] - oldest[0] == pytest.approx(10.0)


def test_whoever_knows_the_first_samples_gets_the_others(shown: Shown) -> None:
    network = shown.rig.start().network
    network.advance(20)
    first = history(shown)
    network.advance(10)
    more = history(shown, f"?after={first['last']}")
    assert len(more["time"]) == 2
    assert more["last"] == first["last"] + 2
    assert history(shown, f"?after={more['last']}")["time"] == []
    assert first["time"] + more["time"] == pytest.approx(history(shown)["time"])


def test_a_number_that_is_still_to_come_is_that_of_another_life(shown: Shown) -> None:
    shown.rig.start().network.advance(20)
    assert len(history(shown, "?after=999999999999")["time"]) == 4


def test_an_hour_is_kept_finely_and_more_by_the_minute(shown: Shown) -> None:
    network = shown.rig.start().network
    for _ in range(65):
        network.advance(60)
    assert len(history(shown, "?last=1h")["time"]) == FINE[1]
    assert len(history(shown, "?last=10m")["time"]) == 120
    day = history(shown, "?last=24h")
    assert (day["interval"], len(day["time"])) == (60.0, 65)
    assert len(history(shown, "?last=90000m")["time"]) == 65
    assert day["time"] == sorted(day["time"])


@pytest.mark.parametrize(("looks", "most"), [FINE, COARSE])
def test_it_never_grows_beyond_its_bound(looks: int, most: int) -> None:
    tally = Tally()
    history = History(clock=Clock(), wall=lambda: 0.0, publisher=Rig().publisher, tally=tally)
    series = Series(looks, most, 0)
    series.start(history.counts())
    for n in range(1, most + 10):
        series.add(attrs.evolve(history.counts(), looks=n * looks, at=n * looks), history.held())
    samples = series.samples(last=1e9)
    assert [sample.number for sample in samples] == list(range(9, most + 9))
    assert sum(map(sys.getsizeof, samples)) < 500_000


def test_a_minute_has_the_most_that_was_held_in_it(shown: Shown) -> None:
    rig = shown.rig.start()
    rig.peer.block("low on memory")
    rig.send(*(f"m{n}" for n in range(7)))
    rig.network.advance(20)
    rig.peer.unblock()
    rig.network.advance(40)
    (ready,), (in_flight,) = (history(shown, "?last=2h")[name] for name in ("ready", "in_flight"))
    assert ready + in_flight >= 7
    assert history(shown)["ready"][-1] == 0


class AskedSpool(SlowSpool):
    """Counts how often it is asked for its oldest message."""

    asked = 0

    def oldest(self, *given: Any, **named: Any) -> Any:
        self.asked += 1
        return super().oldest(*given, **named)


def test_a_spool_that_does_not_answer_is_asked_once_and_leaves_the_age_open() -> None:
    network = Rig().network
    spool = AskedSpool(network)
    shown = Shown(Rig(network, spool=spool)).start()
    shown.rig.start()
    network.advance(10)
    asked, spool.claiming = spool.asked, 100.0
    network.advance(60)
    assert history(shown)["oldest"][-11:] == [None] * 11
    assert spool.asked == asked + 1
    spool.claiming = 0.0
    network.advance(60)
    assert history(shown)["oldest"][-1] == 0.0
    shown.stop()
    shown.rig.stop()


def test_a_spool_that_is_not_open_leaves_the_age_open(shown: Shown, logged: Logged) -> None:
    shown.rig.network.advance(10)
    assert history(shown)["time"] != []
    assert not logged.alarming()


def test_one_that_is_stopped_and_started_counts_on_from_there(shown: Shown) -> None:
    rig = shown.rig.start()
    rig.network.advance(7)
    shown.stop()
    rig.send("a", "b")
    rig.network.advance(100)
    shown.start()
    rig.network.advance(10)
    found = history(shown)
    assert found["accepted"][1:] == [0.0, 0.0]
    assert len(found["time"]) == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("last=1parsec", "last"),
        ("last=", "last"),
        ("after=-1", "after"),
        ("after=1e5", "after"),
        (f"after={10**15}", "after"),
        ("since=1", "since"),
    ],
)
def test_what_it_cannot_be_asked(query: str, field: str, shown: Shown) -> None:
    with pytest.raises(Refusal) as refused:
        shown.ask(f"/history?{query}")
    assert refused.value.problem.field == field


# Latencies out of buckets


@given(
    st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=50), st.sampled_from([0.01, 0.5, 0.99, 1.0])
)
def test_a_quantile_is_in_the_bucket_of_the_observation(values: list[float], share: float) -> None:
    found = Distribution()
    for value in values:
        found.observe(value)
    quantiles = quantile(found.counts, share)
    assert quantiles is not None
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    upper = next((bound for bound in SECONDS if exact <= bound), SECONDS[-1])
    lower = max((bound for bound in (0.0, *SECONDS) if bound < upper), default=0.0)
    assert lower <= quantiles <= upper


def test_where_nothing_was_observed_there_is_no_quantile() -> None:
    assert quantile(Distribution().counts, 0.5) is None
