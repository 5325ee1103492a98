"""The ledger, also against a plain model: each delivery ends once and rightly, in whatever order of answers."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pubd.entry import Entry
from pubd.ledger import Delivery, Ledger
from pubd.outcome import Cause, Outcome, Reason

NO_ROUTE = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
GONE = Reason(cause=Cause.LOST, code=320, text="CONNECTION_FORCED")


def entry(message_id: str, body: bytes = b"body") -> Entry:
    return Entry(
        id=message_id, exchange="e", routing_key="k", message_id=message_id, mandatory=True, properties=b"", body=body
    )


def filled(count: int) -> Ledger:
    ledger = Ledger()
    for number in range(1, count + 1):
        ledger.add(entry(f"m{number}"), now=float(number))
    return ledger


def ended(deliveries: list[Delivery]) -> list[tuple[int, Outcome | None]]:
    return [(delivery.tag, delivery.outcome) for delivery in deliveries]


def test_tags_are_consecutive_from_one_and_an_ack_ends_one_delivery() -> None:
    ledger = filled(3)
    assert ended(ledger.ack(2, multiple=False)) == [(2, Outcome.CONFIRMED)]
    assert len(ledger) == 2
    assert ledger.add(entry("m1"), now=4.0) == 0
    assert ledger.add(entry("m2"), now=4.0) == 4


def test_a_multiple_ack_ends_everything_up_to_its_tag_in_order() -> None:
    ledger = filled(5)
    ledger.ack(2, multiple=False)
    assert ended(ledger.ack(4, multiple=True)) == [(tag, Outcome.CONFIRMED) for tag in (1, 3, 4)]
    assert ended(ledger.ack(0, multiple=True)) == [(5, Outcome.CONFIRMED)]


def test_a_nack_ends_deliveries_as_nacked() -> None:
    assert ended(filled(2).nack(2, multiple=True)) == [(1, Outcome.NACKED), (2, Outcome.NACKED)]


def test_a_returned_message_is_never_confirmed_whatever_answers_it() -> None:
    for answer in (Ledger.ack, Ledger.nack):
        ledger = filled(3)
        assert ledger.returned("m2", NO_ROUTE)
        first, second, third = answer(ledger, 3, True)
        assert second.outcome is Outcome.RETURNED
        assert second.reason == NO_ROUTE
        assert first.outcome is third.outcome is not Outcome.RETURNED


def test_an_answer_for_an_unknown_tag_or_message_id_is_counted_and_ends_nothing() -> None:
    ledger = filled(1)
    assert ledger.ack(7, multiple=False) == []
    assert not ledger.returned("nobody", NO_ROUTE)
    assert ledger.ack(1, multiple=True)
    assert ledger.ack(1, multiple=True) == []
    assert ledger.unknown == 3


def test_loss_ends_everything_in_order_but_what_was_returned_stays_returned() -> None:
    ledger = filled(3)
    ledger.returned("m2", NO_ROUTE)
    lost = ledger.lose(GONE)
    assert ended(lost) == [(1, Outcome.LOST), (2, Outcome.RETURNED), (3, Outcome.LOST)]
    assert [delivery.reason for delivery in lost] == [GONE, NO_ROUTE, GONE]
    assert (len(ledger), ledger.bytes, ledger.oldest) == (0, 0, None)


def test_a_message_id_in_flight_has_to_wait_and_is_free_again_once_answered() -> None:
    ledger = filled(1)
    assert (ledger.add(entry("m1"), now=2.0), len(ledger)) == (0, 1)
    ledger.ack(1, multiple=False)
    assert ledger.add(entry("m1"), now=3.0) == 2


def test_the_oldest_is_the_first_that_is_still_pending() -> None:
    ledger = filled(3)
    ledger.ack(1, multiple=False)
    oldest = ledger.oldest
    assert oldest is not None
    assert (oldest.tag, oldest.sent_at) == (2, 2.0)


class LedgerAgainstModel(RuleBasedStateMachine):
    """The model: a list of pending tags and a set of returned ones."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.pending: dict[int, int] = {}
        self.returned: set[int] = set()
        self.last = 0

    @rule(size=st.integers(0, 100))
    def publish(self, size: int) -> None:
        self.last += 1
        one = entry(f"m{self.last}", b"x" * size)
        assert self.ledger.add(one, now=0.0) == self.last
        self.pending[self.last] = one.size

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def return_one(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.pending)))
        self.ledger.returned(f"m{tag}", NO_ROUTE)
        self.returned.add(tag)

    @rule(data=st.data(), multiple=st.booleans(), good=st.booleans())
    def answer(self, data: st.DataObject, multiple: bool, good: bool) -> None:
        tag = data.draw(st.integers(0, self.last + 2))
        if not multiple:
            expected = [tag] if tag in self.pending else []
        else:
            expected = [each for each in self.pending if tag == 0 or each <= tag]
        otherwise = Outcome.CONFIRMED if good else Outcome.NACKED
        answered = (self.ledger.ack if good else self.ledger.nack)(tag, multiple)
        assert ended(answered) == [
            (each, Outcome.RETURNED if each in self.returned else otherwise) for each in expected
        ]
        for each in expected:
            del self.pending[each]

    @rule()
    def lose(self) -> None:
        lost = self.ledger.lose(GONE)
        assert ended(lost) == [
            (each, Outcome.RETURNED if each in self.returned else Outcome.LOST) for each in self.pending
        ]
        self.pending.clear()

    @invariant()
    def the_account_agrees(self) -> None:
        assert len(self.ledger) == len(self.pending)
        assert self.ledger.bytes == sum(self.pending.values())
        oldest = self.ledger.oldest
        assert (oldest.tag if oldest else None) == min(self.pending, default=None)


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
