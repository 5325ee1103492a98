"""What is handed in one by one, many at once, or each on its own: who is answered what, and in how many commits."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pubd.accepting import APPENDS, Accepting
from pubd.entry import Entry
from pubd.errors import IdempotencyConflict, InvalidMessage, PubdError, SpoolFailed, SpoolFull
from pubd.message import Message
from pubd.options import Options
from pubd.receipt import Receipt, Receipts
from pubd.spool.base import Limits
from pubd.spool.memory import MemorySpool
from tests.slow_spool import SlowSpool


class Bench:
    """A spool that takes a second for each commit, and notes the sizes of its batches."""

    def __init__(self, max_body: int | None = None, commit: float = 1.0, max_bytes: int = 1 << 30) -> None:
        self.clock = Clock()
        self.batches: list[list[str]] = []
        self.announced: list[str] = []
        self.took: list[float] = []
        bench = self

        class Noted(SlowSpool):
            def append(self, entries: Any) -> Any:
                bench.batches.append([entry.message_id for entry in entries])
                return super().append(entries)

            def append_each(self, entries: Any) -> Any:
                bench.batches.append([entry.message_id for entry in entries])
                return super().append_each(entries)

        self.spool = Noted(self.clock, commit=commit, max_bytes=max_bytes)
        self.ended = 0
        self.accepting = Accepting(
            spool=self.spool,
            receipts=Receipts(),
            options=Options(max_body=max_body),
            wall=self.clock.seconds,
            clock=self.clock.seconds,
            announce=self.announce,
            appended=self.appended,
        )

    def announce(self, entries: Any, seconds: float) -> None:
        self.announced += [entry.message_id for entry in entries]
        self.took.append(seconds)

    def appended(self) -> None:
        self.ended += 1

    def one(self, name: str, **given: Any) -> Deferred[Receipt]:
        return self.accepting.one(message(name, **given), None)


def message(name: str, **given: Any) -> Message:
    return Message(exchange="x", message_id=name, **given)


def answer(deferred: Deferred[Any]) -> Any:
    """What it fired with, an error as such; None if it has not."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    if not found:
        return None
    return getattr(found[0], "value", found[0])


def ids(answers: list[Any]) -> list[str]:
    return [each.message_id for each in answers]


def test_single_submissions_beyond_the_first_two_wait_for_a_commit_and_go_together() -> None:
    bench = Bench()
    sent = [bench.one(str(n)) for n in range(10)]
    assert bench.batches == [["0"], ["1"]]
    assert APPENDS == 2
    bench.clock.advance(1)
    assert bench.batches[2] == [str(n) for n in range(2, 10)]
    bench.clock.advance(1)
    assert ids([answer(each) for each in sent]) == [str(n) for n in range(10)]
    assert bench.announced == [str(n) for n in range(10)]
    # The last eight were a batch of their own from the second second on.
    assert bench.took == [1.0] * 3
    assert bench.accepting.under_way == 0


def test_the_order_of_submission_is_kept_between_singles_and_batches() -> None:
    bench = Bench()
    sent: list[Deferred[Any]] = [bench.one(name) for name in "abcd"]
    sent.append(bench.accepting.many([message("e"), message("f")], None))
    sent.append(bench.one("g"))
    sent.append(bench.accepting.each([message("h")], None))
    bench.clock.pump([1, 1, 1])
    assert [name for batch in bench.batches for name in batch] == list("abcdefgh")
    assert all(answer(each) is not None for each in sent)


def test_one_of_many_singles_that_is_refused_harms_no_other() -> None:
    bench = Bench()
    sent = [bench.one("a"), bench.one("b"), bench.one("c", idempotency_key="k")]
    sent += [bench.one("d", idempotency_key="k"), bench.one("e")]
    bench.clock.pump([1, 1])
    answers = [answer(each) for each in sent]
    assert isinstance(answers[3], IdempotencyConflict)
    assert ids(answers[:3] + answers[4:]) == list("abce")
    assert bench.announced == list("abce")


@pytest.mark.parametrize("way", ["many", "each"])
def test_a_batch_waits_for_nothing(way: str) -> None:
    bench = Bench()
    for n in range(5):
        getattr(bench.accepting, way)([message(str(n))], None).addErrback(lambda _: None)
    assert len(bench.batches) == 5


def test_each_says_what_is_wrong_with_which() -> None:
    bench = Bench(max_body=10, max_bytes=700)
    answers: Any = bench.accepting.each(
        [message("a"), message("large", body=b"x" * 11), message("b"), message("full")], "shop"
    )
    bench.clock.advance(1)
    a, large, b, full = answer(answers)
    assert ids([a, b]) == ["a", "b"]
    assert isinstance(large, InvalidMessage)
    assert isinstance(full, SpoolFull)
    assert bench.batches == [["a", "b", "full"]]


def test_a_batch_of_wrong_ones_only_is_answered() -> None:
    bench = Bench(max_body=10)
    answers = bench.accepting.each([message("large", body=b"x" * 11)], None)
    bench.clock.advance(1)
    (large,) = answer(answers)
    assert isinstance(large, InvalidMessage)


def test_many_are_accepted_together_or_not_at_all() -> None:
    bench = Bench(max_body=10, max_bytes=700)
    assert isinstance(answer(bench.accepting.many([message("a"), message("b", body=b"x" * 11)], None)), InvalidMessage)
    assert bench.batches == []
    refused = bench.accepting.many([message("a"), message("b"), message("c")], None)
    bench.clock.advance(1)
    assert isinstance(answer(refused), SpoolFull)
    assert bench.announced == []
    assert bench.ended == 1


class FailingSpool(MemorySpool):
    """Its storage is gone."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def append_each(self, entries: Any) -> Any:
        del entries
        failing: Deferred[Any] = Deferred()
        failing.errback(self.error)
        return failing


def accepting(spool: MemorySpool) -> Accepting:
    return Accepting(
        spool=spool,
        receipts=Receipts(),
        options=Options(),
        wall=lambda: 0.0,
        clock=lambda: 0.0,
        announce=lambda *_: None,
        appended=lambda: None,
    )


def test_a_storage_that_fails_refuses_everybody_in_their_own_place() -> None:
    broken = accepting(FailingSpool(SpoolFailed("EIO")))
    assert isinstance(answer(broken.one(message("a"), None)), SpoolFailed)
    answers = answer(broken.each([message("a"), message("b")], None))
    assert [type(each) for each in answers] == [SpoolFailed, SpoolFailed]
    assert broken.under_way == 0


def test_what_is_no_error_of_pubds_is_not_swallowed() -> None:
    broken = accepting(FailingSpool(ZeroDivisionError()))
    assert isinstance(answer(broken.each([message("a")], None)), ZeroDivisionError)
    assert isinstance(answer(broken.one(message("a"), None)), ZeroDivisionError)


def test_the_principal_is_noted() -> None:
    seen: list[Entry] = []

    class Noting(MemorySpool):
        def append(self, entries: Any) -> Any:
            seen.extend(entries)
            return super().append(entries)

        def append_each(self, entries: Any) -> Any:
            seen.extend(entries)
            return super().append_each(entries)

    one = accepting(Noting(limits=Limits()))
    results: list[Deferred[Any]] = [
        one.one(message("a"), "p"),
        one.many([message("b")], "q"),
        one.each([message("c")], "r"),
    ]
    assert [each.principal for each in seen] == ["p", "q", "r"]
    assert not any(isinstance(answer(each), PubdError) for each in results)
    assert answer(succeed(None)) is None
