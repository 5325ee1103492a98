"""The receipts that somebody holds: found by id as long as they are held, forgotten by themselves."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from pubd.entry import Entry
from pubd.errors import MessageDiscarded, MessageExpired, MessageParked, PubdError, PublisherStopped
from pubd.ledger import Delivery
from pubd.outcome import Cause, Reason, State
from pubd.receipt import Confirmed, Receipt, Receipts
from pubd.spool.base import Accepted


def test_a_receipt_that_is_held_is_found_until_it_is_popped() -> None:
    receipts = Receipts()
    receipt = receipts.add("id-1", "m-1")
    assert (receipt.id, receipt.message_id) == ("id-1", "m-1")
    assert receipts.get("id-1") is receipt
    assert receipts.pop("id-1") is receipt
    assert receipts.get("id-1") is receipts.pop("id-1") is None
    assert len(receipts) == 0


def test_a_receipt_that_nobody_holds_leaves_nothing_behind() -> None:
    receipts = Receipts()
    kept = receipts.add("id-1", "m-1")
    receipts.add("id-2", "m-2")
    gc.collect()
    assert list(receipts) == [kept]
    assert len(receipts) == 1


def test_the_end_of_an_older_receipt_does_not_hide_the_newer_one_of_the_same_message() -> None:
    receipts = Receipts()
    older = receipts.add("id-1", "m-1")
    newer = receipts.add("id-1", "m-1")
    del older
    gc.collect()
    assert receipts.get("id-1") is newer


def test_a_receipt_is_held_by_whoever_waits_for_its_settlement() -> None:
    receipts = Receipts()
    answers: list[Confirmed] = []
    receipts.add("id-1", "m-1").settled().addCallback(answers.append)
    gc.collect()
    receipt = receipts.pop("id-1")
    assert receipt is not None
    receipt.settle(State.CONFIRMED, 0)
    assert answers == [Confirmed(id="id-1", message_id="m-1", attempts=0)]


def test_receipts_may_go_while_they_are_gone_through() -> None:
    receipts = Receipts()
    held = [receipts.add(str(number), "m") for number in range(3)]
    seen = []
    for receipt in receipts:
        seen.append(receipt.id)
        held.clear()
        del receipt
        gc.collect()
    assert seen == ["0"]
    assert len(receipts) == 0


def test_what_goes_while_others_are_gone_through_is_passed_over_whoever_forgot_it_first() -> None:
    receipts = Receipts()
    held = [receipts.add(id, "m") for id in ("a", "b")]
    seen = []
    for receipt in receipts:
        seen.append(receipt.id)
        receipts.pop("b")
        held.clear()
        gc.collect()
    assert seen == ["a"]


REASON = Reason(cause=Cause.ATTEMPTS, text="3 of 3")


def ask(receipt: Receipt) -> Any:
    answers: list[Any] = ["waiting"]
    receipt.settled().addCallbacks(answers.append, lambda failure: answers.append(failure.value))
    return answers[-1]


@pytest.mark.parametrize(
    ("state", "error"),
    [(State.PARKED, MessageParked), (State.EXPIRED, MessageExpired), (State.DISCARDED, MessageDiscarded)],
    ids=lambda value: getattr(value, "value", ""),
)
def test_a_message_accepted_before_gives_a_receipt_that_knows_what_became_of_it(
    state: State, error: type[PubdError]
) -> None:
    receipts = Receipts()
    (receipt,) = receipts.issue([Accepted("id-1", "m-1", state, False, 3, REASON)])
    answer = ask(receipt)
    assert isinstance(answer, error)
    assert getattr(answer, "reason", REASON) == REASON


def test_a_message_confirmed_before_gives_a_receipt_that_says_so() -> None:
    (receipt,) = Receipts().issue([Accepted("id-1", "m-1", State.CONFIRMED, False, 3)])
    assert ask(receipt) == Confirmed(id="id-1", message_id="m-1", attempts=3)


@pytest.mark.parametrize("state", [State.READY, State.DEFERRED])
def test_a_message_accepted_before_and_open_still_gives_the_receipt_that_is_held(state: State) -> None:
    receipts = Receipts()
    (first,) = receipts.issue([Accepted("id-1", "m-1", State.READY, True)])
    assert receipts.issue([Accepted("id-1", "m-1", state, False)]) == [first]
    del first
    gc.collect()
    (again,) = receipts.issue([Accepted("id-1", "m-1", state, False)])
    assert ask(again) == "waiting"
    assert receipts.get("id-1") is again


def test_whoever_waits_for_a_message_that_the_publisher_forgot_is_not_kept_by_it() -> None:
    receipts = Receipts()
    receipt = receipts.add("id-1", "m-1")
    receipts.pop("id-1")
    assert ask(receipt) == "waiting"
    assert len(receipts) == 0


def test_the_only_waiter_may_leave_and_the_receipt_is_not_kept_for_it() -> None:
    receipts = Receipts()
    receipt = receipts.add("id-1", "m-1")
    waiter = receipt.settled().addErrback(lambda failure: failure.trap(CancelledError) and None)
    waiter.cancel()
    del receipt, waiter
    gc.collect()
    assert len(receipts) == 0


def delivery(id: str) -> Delivery:
    entry = Entry(id=id, exchange="x", routing_key="", message_id=id, mandatory=True, properties=b"", body=b"")
    return Delivery(entry, 1, 0.0, entry.size)


def test_confirmations_reach_those_that_are_held_and_nobody_minds_the_others() -> None:
    receipts = Receipts()
    receipts.confirmed([delivery("nobody holds any")])
    receipt = receipts.add("id-1", "m-1")
    receipts.confirmed([delivery("nobody holds this"), delivery("id-1")])
    assert ask(receipt) == Confirmed(id="id-1", message_id="m-1", attempts=0)
    assert len(receipts) == 0


def test_all_that_are_open_hear_of_the_stop() -> None:
    receipts = Receipts()
    open_, parked = receipts.add("id-1", "m-1"), receipts.add("id-2", "m-2")
    receipts.changed("id-2", State.PARKED, 3, REASON)
    receipts.stop()
    assert isinstance(ask(open_), PublisherStopped)
    assert isinstance(ask(parked), MessageParked)
