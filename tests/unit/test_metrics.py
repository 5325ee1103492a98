"""Metrics: each says what it is called, costs little, and stays bounded whatever comes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from pubd.entry import Entry
from pubd.ledger import Delivery
from pubd.message import Message
from pubd.operate.distribution import SECONDS, Distribution
from pubd.operate.reading import IntakeReading
from pubd.operate.tally import NAMES, Tally
from pubd.outcome import Outcome, Settlement, State
from pubd.policy import OnReturn, Policy
from pubd.spool.base import Limits
from tests.network import MemoryNetwork
from tests.operating import Shown, promtool
from tests.peer import Broker
from tests.rig import Rig
from tests.slow_spool import SlowSpool

READING = IntakeReading(
    name="http",
    unanswered=lambda: 7,
    max_unanswered=100,
    connections=lambda: 3,
    max_connections=10,
    refused=lambda: 2,
    answers=lambda: {202: 5, 503: 1},
)


@pytest.fixture
def shown() -> Iterator[Shown]:
    shown = Shown(Rig(), intakes=(READING,), limits=Limits(max_bytes=1000, max_rows=10))
    yield shown
    shown.rig.stop()


def entry(exchange: str = "e", principal: str | None = None) -> Entry:
    return Entry(
        id="i",
        exchange=exchange,
        routing_key="k",
        message_id="m",
        mandatory=True,
        properties=b"",
        body=b"",
        principal=principal,
    )


def delivery(outcome: Outcome = Outcome.CONFIRMED, exchange: str = "e", sent_at: float = 0.0) -> Delivery:
    return Delivery(entry(exchange), 1, sent_at, 1, outcome)


# The whole page


def test_what_happens_to_messages_is_counted(shown: Shown) -> None:
    rig = shown.rig.start()
    rig.send("a", "b")
    rig.send("c", exchange="y")
    rig.send("unroutable", key="nowhere")
    rig.publisher.submit_many([Message(exchange="x", routing_key="k")] * 3, principal="shop")
    rig.network.flush()
    values = shown.values()
    assert values("pubd_accepted_messages_total", exchange="x") == 6
    assert values("pubd_accepted_messages_total", exchange="y") == 1
    assert values("pubd_principal_accepted_messages_total", principal="shop") == 3
    assert values("pubd_principal_accepted_messages_total", principal="(none)") == 4
    assert values("pubd_deliveries_total", exchange="x", outcome="confirmed") == 5
    assert values("pubd_deliveries_total", exchange="x", outcome="returned") == 1
    assert values("pubd_settlements_total", state="confirmed") == 6
    assert values("pubd_settlements_total", state="parked") == 1
    assert values("pubd_messages", state="parked") == 1
    assert values("pubd_messages", state="ready") == 0
    assert values("pubd_books_accepted_total") == 7
    assert values("pubd_books_settled_total", state="confirmed") == 6
    assert values("pubd_books_difference") == 0
    assert values("pubd_published_messages_total") == 7
    assert values("pubd_receipt_seconds_count") == 7
    assert values("pubd_confirm_seconds_count") == 6
    assert values("pubd_lanes", state="open") == 2
    assert values("pubd_link_state", state="ready") == 1
    assert values("pubd_link_state", state="waiting") == 0
    assert (values("pubd_can_accept"), values("pubd_can_publish")) == (1, 1)


def test_the_counts_agree_with_the_account(shown: Shown) -> None:
    rig = shown.rig.start()
    rig.send("a", "b")
    rig.send("unroutable", key="nowhere")
    rig.submit("poison", poison=True)
    rig.network.flush()
    rig.network.advance(5)
    account, values = rig.publisher.account(), shown.values()
    for outcome, count in (("returned", account.returned), ("confirmed", account.acked), ("poison", account.poison)):
        assert values("pubd_deliveries_total", exchange="x", outcome=outcome) == count, outcome


def test_a_submission_that_was_known_is_not_counted_again(shown: Shown) -> None:
    rig = shown.rig.start()
    for _ in range(2):
        rig.submit("a", idempotency_key="key")
    rig.publisher.submit_many(
        [Message(exchange="x", routing_key="k", idempotency_key=key) for key in ("key", "other")]
    ).addErrback(lambda _: None)
    values = shown.values()
    accepted = values("pubd_accepted_messages_total", exchange="x")
    assert accepted == values("pubd_books_accepted_total")


def test_the_oldest_message_has_an_age(shown: Shown) -> None:
    rig = shown.rig
    rig.publisher.startService()
    # Before the link is there.
    rig.submit("a")
    assert shown.values()("pubd_messages", state="ready") == 1
    assert shown.values()("pubd_oldest_ready_age_seconds") == 0
    rig.network.advance(0.25)
    values = shown.values()
    if values("pubd_messages", state="ready") == 1:
        assert values("pubd_oldest_ready_age_seconds") == 0.25
    rig.network.advance(5)
    assert shown.values()("pubd_oldest_ready_age_seconds") == 0


def test_a_spool_that_does_not_answer_delays_the_page_by_two_seconds_and_is_told() -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    spool = SlowSpool(network, claiming=0.0)
    rig = Rig(network, spool=spool)
    shown = Shown(rig)
    rig.start()
    spool.claiming = 60.0
    values = shown.values(seconds=2.0)
    assert values("pubd_spool_answers") == 0
    assert values("pubd_can_accept") == 0
    assert values("pubd_oldest_ready_age_seconds") is None
    # Of what was asked nothing is left that could hurt.
    rig.network.advance(60)
    spool.claiming = 0.0
    rig.network.advance(1)
    assert shown.values(seconds=0.1)("pubd_spool_answers") == 1
    rig.stop()


def test_before_the_start_and_after_the_stop_there_is_a_page(shown: Shown) -> None:
    values = shown.values()
    assert (values("pubd_can_accept"), values("pubd_can_publish")) == (0, 0)
    assert values("pubd_link_state", state="idle") == 1
    shown.rig.start()
    shown.rig.stop()
    assert shown.values()("pubd_can_accept") == 0


def test_intakes_and_limits_are_read_when_asked(shown: Shown) -> None:
    values = shown.values()
    assert values("pubd_intake_unanswered_bytes", intake="http") == 7
    assert values("pubd_intake_max_unanswered_bytes", intake="http") == 100
    assert values("pubd_intake_connections", intake="http") == 3
    assert values("pubd_intake_max_connections", intake="http") == 10
    assert values("pubd_intake_refused_connections_total", intake="http") == 2
    assert values("pubd_http_answers_total", code="202") == 5
    assert values("pubd_spool_max_bytes") == 1000
    assert values("pubd_spool_max_messages") == 10
    assert values("pubd_spool_free_bytes") is None


def test_the_disk_of_a_spool_is_asked(tmp_path: Path) -> None:
    rig = Rig()
    shown = Shown(rig, path=tmp_path / "spool.db", limits=Limits(min_free=5))
    values = shown.values()
    assert (values("pubd_spool_free_bytes") or 0) > 0
    assert values("pubd_spool_min_free_bytes") == 5
    # A directory that is gone takes one number, not the page.
    gone = Shown(rig, path=tmp_path / "gone" / "spool.db")
    assert gone.values()("pubd_spool_free_bytes") is None
    assert gone.values()("pubd_messages", state="ready") == 0
    rig.publisher.startService()
    rig.stop()


def test_promtool_finds_nothing_to_say(shown: Shown) -> None:
    rig = shown.rig.start()
    rig.send("a", exchange="x")
    # Names that have to be escaped.
    rig.send("b", exchange='y"\\é')
    rig.network.advance(1)
    assert promtool("check", "metrics", text=shown.values().text) == (0, "")


def test_the_process_and_the_build_are_there(shown: Shown) -> None:
    values = shown.values()
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"} <= values.names
    (build,) = values.labels("pubd_build_info")
    assert set(build) == {"version", "python", "twisted", "pika", "apsw"}


# Formats


def test_openmetrics_for_who_asks_for_it(shown: Shown) -> None:
    answer = shown.ask("/metrics", accept="application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert answer.content_type is not None
    assert answer.content_type.startswith(b"application/openmetrics-text; version=1.0.0")
    families = {family.name for family in openmetrics(answer.body.decode())}  # type: ignore[no-untyped-call]
    assert {"pubd_messages", "pubd_deliveries", "pubd_confirm_seconds"} <= families


def test_the_text_format_for_everybody_else(shown: Shown) -> None:
    for accept in ("", "*/*", "text/plain", "nonsense;;=,"):
        answer = shown.ask("/metrics", accept=accept)
        assert answer.content_type is not None
        assert answer.content_type.startswith(b"text/plain; version=")


def test_compressed_for_who_accepts_that(shown: Shown) -> None:
    answer = shown.ask("/metrics", accept_encoding="deflate, gzip;q=0.5")
    assert (b"Content-Encoding", b"gzip") in answer.headers
    assert b"pubd_messages" in gzip.decompress(answer.body)
    assert b"pubd_messages" in shown.ask("/metrics", accept_encoding="br").body


# Bounds


def test_exchanges_and_principals_beyond_so_many_are_counted_together() -> None:
    tally = Tally()
    for number in range(1000):
        tally.accepted([entry(f"e{number}", f"p{number}")], 0.0)
        tally.accepted([entry(f"e{number}", f"p{number}")] * 2, 0.0)
        tally.answered([delivery(exchange=f"e{number}")], 0.0)
    assert len(tally.by_exchange) == len(tally.by_principal) == len(tally.deliveries) == NAMES + 1
    assert tally.by_exchange["e0"] == 3
    assert tally.by_exchange["other"] == tally.by_principal["other"] == 3 * (1000 - NAMES)
    assert tally.deliveries["other", Outcome.CONFIRMED] == 1000 - NAMES


def test_the_default_exchange_has_a_name() -> None:
    tally = Tally()
    tally.accepted([entry("")], 0.0)
    assert tally.by_exchange == {"amq.default": 1}


# Counting by runs


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Outcome), st.sampled_from(["a", "b"]), st.sampled_from([0.0, 1.0, 2.0]), st.integers(1, 3)
        )
    )
)
def test_a_batch_counts_as_its_deliveries_one_by_one_do(runs: list[tuple[Outcome, str, float, int]]) -> None:
    deliveries = [delivery(outcome, exchange, at) for outcome, exchange, at, times in runs for _ in range(times)]
    batch, single = Tally(), Tally()
    batch.answered(deliveries, 3.0)
    for each in deliveries:
        single.answered([each], 3.0)
    assert batch.deliveries == single.deliveries
    assert batch.confirms.buckets() == single.confirms.buckets()
    assert batch.confirms.sum == pytest.approx(single.confirms.sum)


def test_settlements_are_counted_by_state() -> None:
    tally = Tally()
    change = Settlement(entry=entry(), state=State.DEFERRED, attempts=1)
    tally.settled([delivery()] * 3, [change, change])
    tally.settled([], [])
    assert tally.settlements == {State.CONFIRMED: 3, State.DEFERRED: 2}


def test_nothing_is_counted_of_an_empty_batch() -> None:
    tally = Tally()
    tally.accepted([], 0.0)
    tally.answered([], 0.0)
    assert not tally.by_exchange
    assert tally.receipts.count == tally.confirms.count == 0


# Distributions


@given(st.lists(st.tuples(st.floats(-1, 100), st.integers(1, 5))))
def test_each_bucket_has_all_that_is_not_above_it(observed: list[tuple[float, int]]) -> None:
    found = Distribution()
    for value, times in observed:
        found.observe(value, times)
    for bound, count in found.buckets():
        assert count == sum(times for value, times in observed if max(value, 0.0) <= bound)
    assert found.count == sum(times for _, times in observed)
    assert [bound for bound, _ in found.buckets()] == [*SECONDS, float("inf")]


# Batches, and many names


def test_a_batch_is_counted_as_a_whole() -> None:
    """What it costs is in benchmarks.operate."""
    tally = Tally()
    tally.accepted([entry() for _ in range(1000)], 0.001)
    deliveries = [delivery() for _ in range(1000)]
    tally.answered(deliveries, 0.001)
    tally.settled(deliveries, [])
    assert tally.by_exchange == {"e": 1000}
    assert tally.deliveries == {("e", Outcome.CONFIRMED): 1000}
    assert tally.settlements == {State.CONFIRMED: 1000}
    assert tally.receipts.count == tally.confirms.count == 1000


def test_a_page_has_as_many_names_as_are_told_apart(shown: Shown) -> None:
    """How long it takes is in benchmarks.operate."""
    tally = shown.operating.metrics._tally
    for number in range(NAMES):
        for outcome in Outcome:
            tally.answered([delivery(outcome, f"e{number}")], 0.0)
        tally.accepted([entry(f"e{number}", f"p{number}")], 0.0)
    values = shown.values()
    assert len(values.labels("pubd_deliveries_total")) == NAMES * len(Outcome)
    assert len(values.labels("pubd_accepted_messages_total")) == NAMES
    assert len(values.labels("pubd_principal_accepted_messages_total")) == NAMES


def test_a_policy_that_drops_is_a_settlement() -> None:
    rig = Rig(policy=Policy(on_return=OnReturn.DROP))
    shown = Shown(rig)
    rig.start()
    rig.send("a", key="nowhere")
    assert shown.values()("pubd_settlements_total", state="discarded") == 1
    rig.stop()
