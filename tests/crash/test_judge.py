"""The judge notices whatever pubd must not do: a verdict is worth no more than that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import pytest

from tests.crash.judge import Arrived, Books, History, Verdict, judge
from tests.crash.plan import UNROUTED, Plan

PLAN = Plan(prefix="crash", seed=1, window=2)
NUMBERS = range(100)


@attrs.define
class Case:
    """A run in which nothing went wrong; a test spoils it."""

    history: History
    arrived: list[Arrived]
    parked: list[Arrived]
    books: Books

    def verdict(self) -> Verdict:
        return judge(PLAN, self.history, self.arrived, self.parked, self.books)

    def counted(self, **changes: int) -> None:
        self.books = attrs.evolve(self.books, **{k: getattr(self.books, k) + n for k, n in changes.items()})


def arrival(number: int, life: int = 0, id: str | None = None) -> Arrived:
    message = PLAN.message(number)
    queue = "" if message.routing_key == UNROUTED else message.exchange
    return Arrived.of(queue, life, id or f"id-{number}", message.exchange, message.routing_key, message.body)


@pytest.fixture
def case() -> Case:
    history = History()
    history.hear("try " + " ".join(map(str, NUMBERS)))
    history.hear("ack " + " ".join(f"{n}=id-{n}" for n in NUMBERS))
    everything = [arrival(n) for n in NUMBERS]
    arrived = [each for each in everything if each.queue]
    parked = [each for each in everything if not each.queue]
    books = Books(accepted=100, confirmed=len(arrived), expired=0, discarded=0, held=len(parked), parked=len(parked))
    return Case(history, arrived, parked, books)


def test_a_run_without_a_fault_has_none(case: Case) -> None:
    verdict = case.verdict()
    assert verdict.problems == ()
    assert (verdict.attempted, verdict.acknowledged, verdict.ok) == (100, 100, 100)
    assert (verdict.lost, verdict.unexpected, verdict.duplicated) == (0, 0, 0)
    assert case.parked, "the plan has unroutable messages"


def lost_in_a_queue(case: Case) -> None:
    case.arrived.pop()
    case.counted(confirmed=-1, accepted=-1)


def lost_while_parked(case: Case) -> None:
    case.parked.pop()
    case.counted(parked=-1, held=-1, accepted=-1)


def never_attempted(case: Case) -> None:
    case.arrived.append(arrival(777))
    case.counted(confirmed=1, accepted=1)


def not_even_ours(case: Case) -> None:
    case.arrived.append(attrs.evolve(case.arrived[0], number=-1, message_id="other"))
    case.counted(confirmed=1, accepted=1)


def altered(case: Case) -> None:
    content = attrs.evolve(case.arrived[0].content, body=0)
    case.arrived[0] = attrs.evolve(case.arrived[0], content=content)


def in_the_wrong_queue(case: Case) -> None:
    queue = next(each for each in PLAN.queues if each != case.arrived[-1].queue)
    case.arrived[-1] = attrs.evolve(case.arrived[-1], queue=queue)


def accepted_twice(case: Case) -> None:
    case.arrived.append(attrs.evolve(case.arrived[-1], message_id="another"))
    case.counted(confirmed=1, accepted=1)


def receipt_of_another(case: Case) -> None:
    case.history.acknowledged[case.arrived[0].number] = "another"


def two_receipts(case: Case) -> None:
    case.history.hear(f"ack {case.arrived[0].number}=another")


def told_as_parked_though_routed(case: Case) -> None:
    case.history.hear(f"end {case.arrived[0].number}=parked")


def duplicate_within_one_life(case: Case) -> None:
    case.arrived.append(case.arrived[-1])


def more_duplicates_than_the_window(case: Case) -> None:
    queue = case.arrived[0].queue
    again = [attrs.evolve(each, life=1) for each in case.arrived if each.queue == queue]
    case.arrived += again[: PLAN.window + 1]


def out_of_order(case: Case) -> None:
    keys = [(each.queue, PLAN.message(each.number).ordering_key) for each in case.arrived]
    first = next(n for n, key in enumerate(keys) if key[1] is not None and keys.count(key) > 1)
    case.arrived.append(case.arrived.pop(first))


def books_that_do_not_balance(case: Case) -> None:
    case.counted(accepted=1)


def refused(case: Case) -> None:
    case.history.hear("no the spool is full")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lost_in_a_queue, "1 acknowledged and lost"),
        (lost_while_parked, "1 acknowledged and lost"),
        (never_attempted, "was never attempted"),
        (not_even_ours, "was never attempted"),
        (altered, "was altered"),
        (in_the_wrong_queue, "1 unexpected"),
        (accepted_twice, "was accepted twice"),
        (receipt_of_another, "was answered as another"),
        (two_receipts, "was given two receipts"),
        (told_as_parked_though_routed, "not settled as they should be"),
        (duplicate_within_one_life, "duplicates without a crash"),
        (more_duplicates_than_the_window, "more duplicates on a lane than its window of 2"),
        (out_of_order, "out of order"),
        (books_that_do_not_balance, "the books say 101 accepted"),
        (refused, "the spool is full"),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_the_judge_notices(case: Case, spoil: Callable[[Case], None], sentence: str) -> None:
    spoil(case)
    assert any(sentence in problem for problem in case.verdict().problems), case.verdict().problems


@pytest.mark.parametrize(
    ("ordered", "same_session", "found"), [(True, True, True), (False, True, True), (False, False, False)]
)
def test_order_is_judged_by_ordering_key_and_connection(
    case: Case, ordered: bool, same_session: bool, found: bool
) -> None:
    plan = attrs.evolve(PLAN, through="http")

    def key(number: int) -> tuple[str, str | None, int]:
        message = plan.message(number)
        return message.exchange, message.ordering_key, plan.session(number, message.ordering_key)

    arrived = case.arrived
    earlier, later = next(
        (one, other)
        for one, each in enumerate(arrived)
        for other in range(one + 1, len(arrived))
        if (key(each.number)[1] is not None) == ordered
        and key(each.number)[:2] == key(arrived[other].number)[:2]
        and (key(each.number) == key(arrived[other].number)) == same_session
    )
    # Only these two have come, the wrong way round.
    case.arrived[:] = [arrived[later], arrived[earlier]]
    problems = judge(plan, case.history, case.arrived, case.parked, case.books).problems
    assert any("out of order" in problem for problem in problems) == found


def test_who_is_answered_again_has_to_get_the_same_id(case: Case) -> None:
    case.history.hear("ack 1=id-1 2=another")
    assert any("message 2 was given two receipts" in problem for problem in case.verdict().problems)


def test_duplicates_within_the_window_of_a_crash_are_no_fault(case: Case) -> None:
    case.history.crash()
    queue = case.arrived[0].queue
    again = [attrs.evolve(each, life=1) for each in case.arrived if each.queue == queue][: PLAN.window]
    case.arrived += again
    verdict = case.verdict()
    assert (verdict.problems, verdict.duplicated, verdict.worst, verdict.kills) == ((), 2, 2, 1)


def test_an_unanswered_message_may_be_there_or_not(case: Case) -> None:
    def without_answer(numbers: Sequence[int]) -> list[int]:
        for number in numbers:
            del case.history.acknowledged[number]
        return case.history.crash()

    there, gone = case.arrived[-2].number, case.arrived[-1].number
    assert without_answer([there, gone]) == sorted([there, gone])
    case.arrived.pop()
    case.counted(confirmed=-1, accepted=-1)
    verdict = case.verdict()
    assert (verdict.problems, verdict.in_doubt, verdict.recovered) == ((), 2, 1)
