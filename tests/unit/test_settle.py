"""The table of settlements, row by row."""

from __future__ import annotations

import pytest

from pubd.entry import Entry
from pubd.ledger import Delivery
from pubd.outcome import Cause, Outcome, Reason, State, Via
from pubd.policy import OnNack, OnReturn, Policy
from pubd.retry import Backoff
from pubd.settle import settlement

NO_ROUTE = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")


def delivery(outcome: Outcome, *, attempts: int = 0, reason: Reason | None = None) -> Delivery:
    entry = Entry(
        id="i",
        exchange="e",
        routing_key="k",
        message_id="m",
        mandatory=True,
        properties=b"",
        body=b"",
        attempts=attempts,
    )
    return Delivery(entry, 1, 0.0, entry.size, outcome, reason)


def never() -> float:
    raise AssertionError("no randomness is needed here")


def test_a_lost_delivery_costs_no_attempt_and_changes_nothing() -> None:
    assert settlement(delivery(Outcome.LOST, attempts=9), Policy(), 100.0, never) is None


def test_poison_is_parked_with_the_words_of_rabbitmq() -> None:
    reason = Reason(cause=Cause.POISON, code=406, text="PRECONDITION_FAILED - invalid expiration")
    change = settlement(delivery(Outcome.POISON, reason=reason), Policy(on_return=OnReturn.RETRY), 100.0, never)
    assert change is not None
    assert (change.state, change.attempts, change.reason) == (State.PARKED, 1, reason)


@pytest.mark.parametrize(
    ("on_return", "state"), [(OnReturn.PARK, State.PARKED), (OnReturn.DROP, State.DISCARDED)], ids=lambda x: x.value
)
def test_a_returned_message_is_parked_or_dropped_as_the_policy_says(on_return: OnReturn, state: State) -> None:
    change = settlement(delivery(Outcome.RETURNED, reason=NO_ROUTE), Policy(on_return=on_return), 100.0, never)
    assert change is not None
    assert (change.state, change.attempts, change.reason) == (state, 1, NO_ROUTE)


@pytest.mark.parametrize(
    ("outcome", "policy"),
    [(Outcome.NACKED, Policy()), (Outcome.RETURNED, Policy(on_return=OnReturn.RETRY))],
    ids=["nacked", "returned"],
)
def test_nacks_and_retried_returns_wait_with_full_jitter(outcome: Outcome, policy: Policy) -> None:
    waits = []
    for attempts in range(3):
        change = settlement(delivery(outcome, attempts=attempts, reason=NO_ROUTE), policy, 100.0, lambda: 0.5)
        assert change is not None
        assert change.state is State.DEFERRED
        assert change.attempts == attempts + 1
        assert change.due is not None
        waits.append(change.due - 100.0)
    assert waits == [0.5, 1.0, 2.0]


def test_the_last_attempt_parks_and_says_how_it_ended() -> None:
    policy = Policy(max_attempts=3, backoff=Backoff(jitter=1.0))
    nacked = settlement(delivery(Outcome.NACKED, attempts=2), policy, 100.0, never)
    assert nacked is not None
    assert nacked.state is State.PARKED
    assert nacked.attempts == 3
    assert str(nacked.reason) == "attempts used up: 3 of 3, the last one nacked"
    returned = settlement(
        delivery(Outcome.RETURNED, attempts=2, reason=NO_ROUTE),
        Policy(max_attempts=3, on_return=OnReturn.RETRY),
        100.0,
        never,
    )
    assert returned is not None
    assert str(returned.reason) == "attempts used up: 3 of 3, the last one returned: 312 NO_ROUTE"


@pytest.mark.parametrize(
    ("on_nack", "state", "reason"),
    [
        (OnNack.PARK, State.PARKED, Reason(cause=Cause.NACKED, text="basic.nack")),
        (OnNack.DUPLICATE, State.CONFIRMED, None),
    ],
    ids=lambda value: getattr(value, "value", ""),
)
def test_a_nacked_message_is_parked_or_confirmed_where_the_policy_says_so(
    on_nack: OnNack, state: State, reason: Reason | None
) -> None:
    change = settlement(delivery(Outcome.NACKED, attempts=4), Policy(on_nack=on_nack), 100.0, never)
    assert change is not None
    assert (change.state, change.attempts, change.reason, change.due) == (state, 5, reason, None)


@pytest.mark.parametrize(("lifetime", "state"), [(100.5, State.DEFERRED), (100.4, State.PARKED)])
def test_what_would_be_tried_after_its_lifetime_is_parked_as_such(lifetime: float, state: State) -> None:
    # Accepted at 0, now it is 100, and it would be tried again at 100.5.
    policy = Policy(lifetime=lifetime, backoff=Backoff(first=1.0, max=9.0, jitter=1.0))
    change = settlement(delivery(Outcome.NACKED), policy, 100.0, lambda: 0.5)
    assert change is not None
    assert change.state is state
    if state is State.PARKED:
        assert (
            str(change.reason)
            == f"lifetime passed: {lifetime:g} s from acceptance, after 1 attempts, the last one nacked"
        )
        assert change.due is None


def test_used_up_attempts_go_before_a_lifetime_that_passed() -> None:
    change = settlement(delivery(Outcome.NACKED), Policy(max_attempts=1, lifetime=0.1), 100.0, never)
    assert change is not None
    assert change.reason is not None
    assert change.reason.cause is Cause.ATTEMPTS


def test_a_lifetime_does_not_cut_short_what_ends_anyway() -> None:
    for outcome in (Outcome.RETURNED, Outcome.POISON):
        change = settlement(delivery(outcome, reason=NO_ROUTE), Policy(lifetime=0.1), 100.0, never)
        assert change is not None
        assert change.reason == NO_ROUTE


def test_the_settlement_says_where_and_how_the_delivery_ended() -> None:
    nacked = delivery(Outcome.NACKED)
    nacked.via, nacked.tag = Via("rabbit@host", 5), 77
    change = settlement(nacked, Policy(), 100.0, lambda: 0.5)
    assert change is not None
    assert (change.outcome, change.via, change.tag, change.entry) == (
        Outcome.NACKED,
        Via("rabbit@host", 5),
        77,
        nacked.entry,
    )
