"""The table of settlements, row by row."""

from __future__ import annotations

import pytest

from pubd.entry import Entry
from pubd.ledger import Delivery
from pubd.outcome import Cause, Outcome, Reason, State
from pubd.policy import OnReturn, Policy
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
