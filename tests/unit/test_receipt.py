"""What a receipt answers, to whom, and how long it lives."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, race
from twisted.python.failure import Failure

from pubd.errors import MessageDiscarded, MessageExpired, MessageParked, PublisherStopped
from pubd.outcome import Cause, Reason, State
from pubd.receipt import Confirmed, Receipt, Receipts

NO_ROUTE = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")


def answer(deferred: Deferred[Any]) -> Any:
    """What it fired with; "waiting" if it did not."""
    seen: list[Any] = []
    deferred.addBoth(seen.append)
    return "waiting" if not seen else seen[0].value if isinstance(seen[0], Failure) else seen[0]


@pytest.fixture
def receipt() -> Receipt:
    return Receipt("id-1", "m-1")


def test_everyone_who_waits_or_asks_later_hears_of_the_confirmation(receipt: Receipt) -> None:
    first, second = receipt.settled(), receipt.settled()
    assert answer(first) == "waiting"
    receipt.settle(State.CONFIRMED, 2)
    confirmed = Confirmed(id="id-1", message_id="m-1", attempts=2)
    third = receipt.settled()
    assert answer(second) == answer(third) == confirmed


@pytest.mark.parametrize(
    ("state", "reason", "error", "text"),
    [
        (State.PARKED, NO_ROUTE, MessageParked, "message m-1 is parked: returned: 312 NO_ROUTE"),
        (State.EXPIRED, None, MessageExpired, "message m-1 expired before it could be published"),
        (State.DISCARDED, NO_ROUTE, MessageDiscarded, "message m-1 was discarded: returned: 312 NO_ROUTE"),
        (State.DISCARDED, None, MessageDiscarded, "message m-1 was discarded"),
    ],
)
def test_every_other_end_is_an_error_of_its_own(
    receipt: Receipt, state: State, reason: Reason | None, error: type[Exception], text: str
) -> None:
    waiting = receipt.settled()
    receipt.settle(state, 1, reason)
    problem: Any
    for problem in (answer(waiting), answer(receipt.settled())):
        assert type(problem) is error
        assert str(problem) == text
        assert isinstance(problem, (MessageParked, MessageExpired, MessageDiscarded))
        assert (problem.id, problem.message_id) == ("id-1", "m-1")


@pytest.mark.parametrize("state", [State.READY, State.DEFERRED])
def test_a_parked_message_that_is_open_again_gives_its_new_settlement(receipt: Receipt, state: State) -> None:
    receipt.settle(State.PARKED, 1, NO_ROUTE)
    receipt.settle(state, 1)
    waiting = receipt.settled()
    receipt.settle(State.CONFIRMED, 1)
    assert isinstance(answer(waiting), Confirmed)


def test_a_stopping_publisher_tells_those_who_wait_and_nobody_who_knows(receipt: Receipt) -> None:
    waiting = receipt.settled()
    receipt.stop()
    assert isinstance(answer(waiting), PublisherStopped)
    assert isinstance(answer(receipt.settled()), PublisherStopped)
    settled = Receipt("id-2", "m-2")
    settled.settle(State.CONFIRMED, 0)
    settled.stop()
    assert isinstance(answer(settled.settled()), Confirmed)


def test_cancelling_one_waiter_disturbs_no_other(receipt: Receipt) -> None:
    first, second = receipt.settled(), receipt.settled()
    first.cancel()
    assert isinstance(answer(first), CancelledError)
    receipt.settle(State.CONFIRMED, 0)
    assert isinstance(answer(second), Confirmed)


def test_a_waiter_may_cancel_the_next_one_while_both_are_told(receipt: Receipt) -> None:
    winner: Deferred[Any] = race([receipt.settled(), receipt.settled()])
    last = receipt.settled()
    receipt.settle(State.CONFIRMED, 0)
    assert answer(winner)[0] == 0
    assert isinstance(answer(last), Confirmed)


def test_a_waiter_may_ask_again_while_it_is_told(receipt: Receipt) -> None:
    waiting = receipt.settled().addCallback(lambda _: receipt.settled())
    receipt.settle(State.CONFIRMED, 0)
    assert isinstance(answer(waiting), Confirmed)


def test_it_is_kept_alive_by_who_waits_for_it_and_by_nobody_else() -> None:
    receipts = Receipts()
    receipt = receipts.add("id-1", "m-1")
    seen = weakref.ref(receipt)
    waiters = [receipt.settled() for _ in range(3)]
    del receipt
    gc.collect()
    for waiter in waiters:
        assert seen() is receipts.get("id-1") is not None
        waiter.addErrback(lambda failure: failure.trap(CancelledError))
        waiter.cancel()
    del waiters, waiter
    gc.collect()
    assert seen() is None
    assert len(receipts) == 0


def test_a_coroutine_that_nobody_holds_still_learns_of_the_settlement() -> None:
    receipts = Receipts()
    learned: list[Confirmed] = []

    async def wait() -> None:
        learned.append(await receipts.add("id-1", "m-1").settled())

    Deferred.fromCoroutine(wait())
    gc.collect()
    receipt = receipts.pop("id-1")
    assert receipt is not None
    receipt.settle(State.CONFIRMED, 0)
    assert [one.id for one in learned] == ["id-1"]
    assert len(receipts) == 0


def test_it_shows_its_id_and_nothing_of_the_message(receipt: Receipt) -> None:
    assert repr(receipt) == "<Receipt id-1>"
