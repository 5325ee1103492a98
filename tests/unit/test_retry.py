"""Backoff."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.amqp.link import BACKOFF, REFUSAL_BACKOFF
from pubd.retry import Backoff

shares = st.floats(0, 1, exclude_max=True)


def test_the_waits_double_up_to_the_cap() -> None:
    backoff = Backoff(jitter=0)
    assert [backoff.delay(attempt, lambda: 0.5) for attempt in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_full_jitter_takes_any_share_of_the_wait() -> None:
    backoff = Backoff(first=1, max=300, jitter=1)
    assert backoff.delay(3, lambda: 0.0) == 8
    assert backoff.delay(3, lambda: 0.75) == 2


def test_a_link_s_jitter_takes_a_small_share() -> None:
    assert Backoff(first=10, max=30, jitter=0.2).delay(0, lambda: 0.5) == 9


@given(
    attempt=st.integers(0, 10**9),
    share=shares,
    first=st.floats(1e-3, 100),
    factor=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
)
def test_no_wait_is_negative_or_above_the_cap(
    attempt: int, share: float, first: float, factor: float, jitter: float
) -> None:
    backoff = Backoff(first=first, factor=factor, max=max(first, 30), jitter=jitter)
    assert 0 <= backoff.delay(attempt, lambda: share) <= backoff.max


@pytest.mark.parametrize("factor", [1.0, 1.0000001, 2.0, 1e300])
def test_a_billion_attempts_do_not_overflow(factor: float) -> None:
    assert 0 < Backoff(factor=factor, jitter=0).delay(10**9, lambda: 0.0) <= 30


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("backoff", [BACKOFF, REFUSAL_BACKOFF])
def test_the_link_s_waits_never_exceed_half_a_minute(backoff: Backoff, share: float) -> None:
    assert all(backoff.delay(attempt, lambda: share) <= 30 for attempt in range(50))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_refusals_allow_at_most_six_attempts_in_the_first_minute(share: float) -> None:
    waits = [REFUSAL_BACKOFF.delay(attempt, lambda: share) for attempt in range(10)]
    assert sum(moment <= 60 for moment in accumulate([0.0, *waits])) <= 6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first", 0),
        ("first", math.inf),
        ("factor", 0.5),
        ("factor", math.nan),
        ("max", 0.1),
        ("max", math.inf),
        ("jitter", -0.1),
        ("jitter", 1.1),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} must"):
        Backoff(**({"jitter": 0.0} | {field: value}))


def test_a_negative_attempt_is_refused() -> None:
    with pytest.raises(ValueError, match="attempt"):
        Backoff(jitter=0).delay(-1, lambda: 0.0)
