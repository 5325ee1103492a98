"""The link's life cycle: every state with every input."""

from __future__ import annotations

import pytest

from pubd.amqp.lifecycle import IGNORED, TRANSITIONS, LinkAction, LinkInput, LinkState, UnexpectedInput, step

# Written down a second time, by state and input: the state that follows, "." ignored, "!" a mistake in pubd.
GRID = """
state       start       connected  opened   selected  blocked  unblocked  failed   refused  retry       give-up  stop
idle        connecting  !          !        !         !        !          !        !        !           .        stopped
connecting  .           handshake  !        !         !        !          waiting  refused  !           .        stopped
handshake   .           !          opening  !         .        .          waiting  refused  !           leaving  closing
opening     .           !          !        ready     .        .          waiting  refused  !           leaving  closing
ready       .           !          !        !         blocked  .          waiting  refused  !           leaving  closing
blocked     .           !          !        !         blocked  ready      waiting  refused  !           leaving  closing
leaving     .           !          .        .         .        .          waiting  refused  !           .        closing
waiting     .           !          !        !         !        !          !        !        connecting  .        stopped
refused     .           !          !        !         !        !          !        !        connecting  .        stopped
closing     !           !          .        .         .        .          stopped  stopped  !           .        .
stopped     connecting  !          !        !         !        !          .        .        .           .        .
"""
HEAD, *ROWS = [line.split() for line in GRID.strip().splitlines()]
CELLS = [
    (LinkState(row[0]), LinkInput(name.replace("-", " ")), cell)
    for row in ROWS
    for name, cell in zip(HEAD[1:], row[1:], strict=True)
]


@pytest.mark.parametrize(
    ("state", "event", "expected"), CELLS, ids=[f"{state.value}-{event.value}" for state, event, _ in CELLS]
)
def test_every_state_knows_every_input(state: LinkState, event: LinkInput, expected: str) -> None:
    if expected == "!":
        with pytest.raises(UnexpectedInput, match=f"{state.value} was told"):
            step(state, event)
    elif expected == ".":
        assert step(state, event) == (state, ())
    else:
        assert step(state, event)[0] is LinkState(expected)


def test_the_grid_has_every_pair() -> None:
    assert len(CELLS) == len(LinkState) * len(LinkInput)
    assert {(state, event) for state, event, _ in CELLS} == {(s, i) for s in LinkState for i in LinkInput}


def test_no_pair_is_both_a_transition_and_ignored() -> None:
    assert not IGNORED & TRANSITIONS.keys()


def test_every_state_can_be_reached_and_every_action_is_used() -> None:
    reached = {LinkState.IDLE}
    for _ in LinkState:
        reached |= {target for (source, _), (target, _) in TRANSITIONS.items() if source in reached}
    assert reached == set(LinkState)
    assert {action for _, actions in TRANSITIONS.values() for action in actions} == set(LinkAction)


def test_stop_leads_to_stopped_from_everywhere() -> None:
    for state in LinkState:
        target, _ = step(state, LinkInput.STOP)
        assert LinkState.STOPPED in (target, step(target, LinkInput.FAILED)[0])


def test_only_select_ok_resets_the_backoff() -> None:
    resetting = [pair for pair, (_, actions) in TRANSITIONS.items() if LinkAction.RESET_BACKOFF in actions]
    assert resetting == [(LinkState.OPENING, LinkInput.SELECTED)]


def test_whatever_waits_has_a_retry_scheduled_and_stopping_cancels_it() -> None:
    waits = (LinkState.WAITING, LinkState.REFUSED)
    for target, actions in TRANSITIONS.values():
        assert (target in waits) == (LinkAction.SCHEDULE_RETRY in actions)
    for state in waits:
        assert LinkAction.CANCEL_RETRY in step(state, LinkInput.STOP)[1]
