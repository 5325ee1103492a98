"""Every state of a lane with every input."""

from __future__ import annotations

import itertools

import pytest

from pubd.amqp.lane_cycle import PUBLISHING, TRANSITIONS, LaneInput, LaneState, next_state

S, I = LaneState, LaneInput  # noqa: E741 (as in the table itself)

#: Written by hand and not taken from the module. A row is a state; what is not in it changes nothing.
EXPECTED: dict[LaneState, dict[LaneInput, LaneState]] = {
    S.IDLE: {I.WORK: S.OPENING},
    S.OPENING: {
        I.OPENED: S.OPEN,
        I.OPENED_SUSPICIOUS: S.PROBATION,
        I.SUSPECTED: S.REFUSED,
        I.REFUSED: S.REFUSED,
        I.LINK_LOST: S.IDLE,
    },
    S.OPEN: {I.SUSPECTED: S.OPENING, I.REFUSED: S.REFUSED, I.QUIET: S.CLOSING, I.LINK_LOST: S.IDLE},
    S.PROBATION: {I.CLEARED: S.OPEN, I.SUSPECTED: S.OPENING, I.REFUSED: S.REFUSED, I.LINK_LOST: S.IDLE},
    S.REFUSED: {I.RETRY: S.OPENING, I.QUIET: S.IDLE, I.LINK_LOST: S.IDLE},
    S.CLOSING: {I.CLOSED: S.IDLE, I.SUSPECTED: S.IDLE, I.REFUSED: S.IDLE, I.LINK_LOST: S.IDLE},
}


@pytest.mark.parametrize(
    ("state", "happened"), list(itertools.product(LaneState, LaneInput)), ids=lambda one: one.name.lower()
)
def test_each_input_leads_where_the_table_says_or_changes_nothing(state: LaneState, happened: LaneInput) -> None:
    assert next_state(state, happened) is EXPECTED[state].get(happened, state)


def test_every_state_can_be_reached_and_left() -> None:
    assert {target for (_, _), target in TRANSITIONS.items()} == set(LaneState)
    assert {state for state, _ in TRANSITIONS} == set(LaneState)


def test_without_a_link_every_lane_is_idle() -> None:
    assert {next_state(state, LaneInput.LINK_LOST) for state in LaneState} == {LaneState.IDLE}


def test_only_a_channel_in_confirm_mode_is_published_on() -> None:
    assert {LaneState.OPEN, LaneState.PROBATION} == PUBLISHING
    ways_in = {happened for (state, happened), target in TRANSITIONS.items() if target in PUBLISHING}
    assert ways_in == {LaneInput.OPENED, LaneInput.OPENED_SUSPICIOUS, LaneInput.CLEARED}


def test_the_table_has_every_expected_row_and_no_other() -> None:
    assert len(TRANSITIONS) == sum(map(len, EXPECTED.values()))
