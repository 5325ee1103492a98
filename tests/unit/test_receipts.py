"""The receipts that somebody holds: found by id as long as they are held, forgotten by themselves."""

from __future__ import annotations

import gc

from pubd.outcome import State
from pubd.receipt import Confirmed, Receipts


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
