"""Finding the culprit: a channel error convicts who was alone, a connection error only who was alone twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.entry import Entry
from pubd.ledger import Delivery
from pubd.outcome import Cause, Outcome, Reason
from pubd.probation import CHANNEL_STRIKES, CONNECTION_STRIKES, Suspects, about_one_message

POISON = Reason(cause=Cause.LOST, code=406, text="PRECONDITION_FAILED - invalid expiration 'soon': no_integer")
KILLED = Reason(cause=Cause.LOST, code=541, text="INTERNAL_ERROR")


def deliveries(*names: str) -> list[Delivery]:
    entries = [
        Entry(id=name, exchange="e", routing_key="k", message_id=name, mandatory=True, properties=b"", body=b"")
        for name in names
    ]
    return [Delivery(entry, tag, 0.0, entry.size, Outcome.LOST) for tag, entry in enumerate(entries, 1)]


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (406, "PRECONDITION_FAILED - invalid expiration", True),
        (403, "ACCESS_REFUSED - access to topic 'a.b' in exchange 'e' in vhost '/' refused for user 'guest'", True),
        (403, "ACCESS_REFUSED - access to exchange 'e' in vhost '/' refused for user 'guest'", False),
        (404, "NOT_FOUND - no exchange 'e' in vhost '/'", False),
        (None, "connection lost", False),
    ],
)
def test_only_some_channel_errors_are_about_one_message(code: int | None, text: str, expected: bool) -> None:
    assert about_one_message(Reason(cause=Cause.LOST, code=code, text=text)) is expected


def test_those_who_do_not_come_are_acquitted() -> None:
    suspects = Suspects()
    accused = deliveries("a", "b")
    suspects.accuse(accused, KILLED, CONNECTION_STRIKES)
    assert accused[0].entry in suspects
    suspects.acquit()
    assert (len(suspects), suspects.of_connection) == (0, False)
    assert accused[0].entry not in suspects


def test_of_several_nobody_is_convicted_yet() -> None:
    suspects = Suspects()
    lost = deliveries("a", "b", "c")
    assert suspects.accuse(lost, POISON, CHANNEL_STRIKES) is None
    assert len(suspects) == 3
    assert {one.outcome for one in lost} == {Outcome.LOST}


def test_who_was_alone_when_the_channel_closed_is_poison_in_rabbitmqs_words() -> None:
    suspects = Suspects()
    suspects.accuse(deliveries("a", "b"), POISON, CHANNEL_STRIKES)
    (alone,) = deliveries("a")
    assert suspects.accuse([alone], POISON, CHANNEL_STRIKES) is alone
    assert alone.outcome is Outcome.POISON
    assert alone.reason == Reason(cause=Cause.POISON, code=406, text=POISON.text)
    assert len(suspects) == 1


def test_a_channel_that_closes_with_nothing_in_flight_accuses_nobody() -> None:
    suspects = Suspects()
    assert suspects.accuse([], KILLED, CONNECTION_STRIKES) is None
    assert (len(suspects), suspects.of_connection) == (0, False)


def test_a_connection_error_convicts_at_the_second_strike_only() -> None:
    suspects = Suspects()
    (alone,) = deliveries("a")
    assert suspects.accuse([alone], KILLED, CONNECTION_STRIKES) is None
    assert (alone.outcome, len(suspects), suspects.of_connection) == (Outcome.LOST, 1, True)
    assert suspects.accuse([alone], KILLED, CONNECTION_STRIKES) is alone
    assert (alone.outcome, len(suspects), suspects.of_connection) == (Outcome.POISON, 0, False)


def test_strikes_survive_being_accused_in_company_but_not_an_answer() -> None:
    suspects = Suspects()
    (alone,) = deliveries("a")
    suspects.accuse([alone], KILLED, CONNECTION_STRIKES)
    suspects.accuse([alone, *deliveries("b")], KILLED, CONNECTION_STRIKES)
    assert not suspects.clear([alone.entry])
    assert suspects.accuse([alone], KILLED, CONNECTION_STRIKES) is None


def test_clearing_says_when_the_last_suspect_is_gone() -> None:
    suspects = Suspects()
    a, b = deliveries("a", "b")
    suspects.accuse([a, b], KILLED, CONNECTION_STRIKES)
    assert not suspects.clear([a.entry])
    assert suspects.of_connection
    assert suspects.clear([b.entry])
    assert not suspects.of_connection
    assert not suspects.clear([a.entry])


def test_suspects_of_a_channel_do_not_endanger_the_connection() -> None:
    suspects = Suspects()
    suspects.accuse(deliveries("a", "b"), POISON, CHANNEL_STRIKES)
    assert not suspects.of_connection


@given(st.integers(2, 30), st.data())
def test_replaying_one_at_a_time_finds_exactly_the_culprits(count: int, data: st.DataObject) -> None:
    guilty = data.draw(st.sets(st.integers(0, count - 1)))
    suspects = Suspects()
    waiting = deliveries(*map(str, range(count)))
    suspects.accuse(waiting, POISON, CHANNEL_STRIKES)
    convicted = []
    for one in waiting:
        if int(one.entry.id) in guilty:
            culprit = suspects.accuse([one], POISON, CHANNEL_STRIKES)
            assert culprit is not None
            convicted.append(int(culprit.entry.id))
        else:
            suspects.clear([one.entry])
    assert set(convicted) == guilty
    assert len(suspects) == 0
