"""Quotas: token buckets of messages and bytes, over time that the tests decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.access import LOCAL, Principal, Quotas

TEN = Principal(name="ten", rate=10)
SLOW = Principal(name="slow", rate=0.1)
BYTES = Principal(name="bytes", byte_rate=1000)
BOTH = Principal(name="both", rate=10, byte_rate=1000)


@pytest.fixture
def quotas() -> Quotas:
    return Quotas()


def test_who_has_no_quota_never_waits(quotas: Quotas) -> None:
    assert quotas.spend(LOCAL, 10**9, 10**12, 0.0) == 0
    assert quotas.spend(LOCAL, 10**9, 10**12, 0.0) == 0


def test_one_seconds_worth_comes_at_once_and_then_at_the_rate(quotas: Quotas) -> None:
    assert [quotas.spend(TEN, 1, 0, 5.0) for _ in range(10)] == [0.0] * 10
    assert quotas.spend(TEN, 1, 0, 5.0) == pytest.approx(0.1)
    assert quotas.spend(TEN, 5, 0, 5.0) == pytest.approx(0.5)
    assert quotas.spend(TEN, 5, 0, 5.4) == pytest.approx(0.1)
    assert quotas.spend(TEN, 5, 0, 5.5) == 0
    assert quotas.spend(TEN, 1, 0, 5.5) == pytest.approx(0.1)


def test_a_pause_saves_up_no_more_than_one_second(quotas: Quotas) -> None:
    assert quotas.spend(TEN, 10, 0, 0.0) == 0
    assert quotas.spend(TEN, 10, 0, 1000.0) == 0
    assert quotas.spend(TEN, 1, 0, 1000.0) == pytest.approx(0.1)


def test_what_is_refused_costs_nothing(quotas: Quotas) -> None:
    assert quotas.spend(TEN, 10, 0, 0.0) == 0
    for _ in range(1000):
        assert quotas.spend(TEN, 10, 0, 0.5) == pytest.approx(0.5)
    assert quotas.spend(TEN, 10, 0, 1.0) == 0


def test_a_slow_rate_lets_one_through_at_a_time(quotas: Quotas) -> None:
    assert quotas.spend(SLOW, 1, 0, 0.0) == 0
    assert quotas.spend(SLOW, 1, 0, 0.0) == pytest.approx(10)
    assert quotas.spend(SLOW, 1, 0, 10.0) == 0


def test_a_batch_larger_than_the_bucket_passes_when_that_is_full_and_leaves_a_debt(quotas: Quotas) -> None:
    assert quotas.spend(TEN, 1, 0, 0.0) == 0
    assert quotas.spend(TEN, 100, 0, 0.0) == pytest.approx(0.1)
    assert quotas.spend(TEN, 100, 0, 0.1) == 0
    # 90 too many: nine seconds until it is even, and a tenth for the next one.
    assert quotas.spend(TEN, 1, 0, 0.1) == pytest.approx(9.1)
    assert quotas.spend(TEN, 1, 0, 9.1) == pytest.approx(0.1)
    assert quotas.spend(TEN, 1, 0, 9.2) == 0


def test_bytes_are_counted_likewise(quotas: Quotas) -> None:
    assert quotas.spend(BYTES, 1, 600, 0.0) == 0
    assert quotas.spend(BYTES, 1, 600, 0.0) == pytest.approx(0.2)
    assert quotas.spend(BYTES, 1, 5000, 0.6) == 0
    assert quotas.spend(BYTES, 1, 1, 0.6) == pytest.approx(4.001)
    # No bytes are never too many.
    assert quotas.spend(BYTES, 1, 0, 0.6) == 0


def test_both_quotas_have_to_allow_it_and_neither_is_charged_if_one_does_not(quotas: Quotas) -> None:
    assert quotas.spend(BOTH, 1, 1000, 0.0) == 0
    assert quotas.spend(BOTH, 9, 500, 0.0) == pytest.approx(0.5)
    assert quotas.spend(BOTH, 9, 0, 0.0) == 0
    assert quotas.spend(BOTH, 10, 500, 0.0) == pytest.approx(1.0)


def test_each_principal_has_buckets_of_its_own_which_all_its_connections_share(quotas: Quotas) -> None:
    again = Principal(name="ten", rate=10, users=(5,))
    assert quotas.spend(TEN, 10, 0, 0.0) == 0
    assert quotas.spend(again, 1, 0, 0.0) > 0
    assert quotas.spend(Principal(name="eleven", rate=10), 10, 0, 0.0) == 0


def test_a_clock_that_is_set_back_neither_earns_nor_stalls(quotas: Quotas) -> None:
    assert quotas.spend(TEN, 10, 0, 1000.0) == 0
    assert quotas.spend(TEN, 1, 0, 5.0) == pytest.approx(0.1)
    assert quotas.spend(TEN, 1, 0, 5.1) == 0


RATES = st.floats(0.01, 1e6)


@given(RATES, st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 10)), min_size=1, max_size=40), st.floats(0, 1e9))
def test_no_sequence_of_batches_gets_more_than_burst_and_rate_allow(
    rate: float, batches: list[tuple[int, float]], start: float
) -> None:
    quotas, principal = Quotas(), Principal(name="p", rate=rate)
    now, passed = start, 0
    for size, pause in batches:
        now += pause
        wait = quotas.spend(principal, size, 0, now)
        if wait == 0:
            # What had passed before this batch was within what the time allowed.
            burst = max(1.0, rate)
            assert passed + min(size, burst) <= (burst + (now - start) * rate) * (1 + 1e-6) + rate * 1e-5
            passed += size


@given(RATES, st.lists(st.integers(1, 10_000), min_size=1, max_size=30), st.floats(0, 1e6))
def test_whoever_waits_as_long_as_told_gets_through(rate: float, sizes: list[int], now: float) -> None:
    quotas, principal = Quotas(), Principal(name="p", rate=rate)
    for size in sizes:
        wait = quotas.spend(principal, size, 0, now)
        assert wait >= 0
        if wait:
            now += wait
            assert quotas.spend(principal, size, 0, now) == 0
