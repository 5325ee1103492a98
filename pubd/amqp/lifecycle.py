"""The life cycle of a link, as one table.

A link that was started tries its brokers in turn (CONNECTING). Once the transport stands, TLS and the AMQP handshake
run (HANDSHAKE), then a control channel is put into confirm mode (OPENING); only its SelectOk makes the link READY,
because only then is it proven that publishing with confirms is possible. RabbitMQ may block a ready link when it
runs out of memory or disk (BLOCKED) and unblock it again.

Whatever ends an attempt or a connection comes in as FAILED (a retry may cure it: WAITING) or REFUSED (no retry will
cure it, every broker says so: REFUSED, retried slowly, because somebody may repair the other side). RETRY is the
end of either wait. GIVE_UP is pubd's own decision to leave a connection that does not answer (LEAVING): the
connection is aborted and its end comes in as FAILED.

STOP ends it all. Where a connection stands, it is closed first (CLOSING), and the end of it comes in as FAILED or
REFUSED like every other end; then the link is STOPPED and may be started again.
"""

from __future__ import annotations

import enum


class LinkState(enum.Enum):
    """Where a link stands; the value is what an operator reads."""

    IDLE = "idle"
    CONNECTING = "connecting"
    HANDSHAKE = "handshake"
    OPENING = "opening"
    READY = "ready"
    BLOCKED = "blocked"
    LEAVING = "leaving"
    WAITING = "waiting"
    REFUSED = "refused"
    CLOSING = "closing"
    STOPPED = "stopped"


class LinkInput(enum.Enum):
    """What can happen to a link."""

    START = "start"
    CONNECTED = "connected"
    OPENED = "opened"
    SELECTED = "selected"
    BLOCKED = "blocked"
    UNBLOCKED = "unblocked"
    FAILED = "failed"
    REFUSED = "refused"
    RETRY = "retry"
    GIVE_UP = "give up"
    STOP = "stop"


class LinkAction(enum.Enum):
    """What the link does on a transition, in the order given."""

    CONNECT = "connect"
    OPEN_CONTROL = "open control channel"
    RESET_BACKOFF = "reset backoff"
    TELL_READY = "tell ready"
    TELL_BLOCKED = "tell blocked"
    TELL_UNBLOCKED = "tell unblocked"
    TELL_LOST = "tell lost"
    SCHEDULE_RETRY = "schedule retry"
    CANCEL_RETRY = "cancel retry"
    CANCEL_CONNECT = "cancel connect"
    ABORT = "abort"
    CLOSE = "close"
    TELL_STOPPED = "tell stopped"


S, I, A = LinkState, LinkInput, LinkAction  # noqa: E741 - three columns of a table, read as a table

TRANSITIONS: dict[tuple[LinkState, LinkInput], tuple[LinkState, tuple[LinkAction, ...]]] = {
    (S.IDLE, I.START): (S.CONNECTING, (A.CONNECT,)),
    (S.IDLE, I.STOP): (S.STOPPED, (A.TELL_STOPPED,)),
    (S.CONNECTING, I.CONNECTED): (S.HANDSHAKE, ()),
    (S.CONNECTING, I.FAILED): (S.WAITING, (A.SCHEDULE_RETRY,)),
    (S.CONNECTING, I.REFUSED): (S.REFUSED, (A.SCHEDULE_RETRY,)),
    (S.CONNECTING, I.STOP): (S.STOPPED, (A.CANCEL_CONNECT, A.TELL_STOPPED)),
    (S.HANDSHAKE, I.OPENED): (S.OPENING, (A.OPEN_CONTROL,)),
    (S.HANDSHAKE, I.FAILED): (S.WAITING, (A.SCHEDULE_RETRY,)),
    (S.HANDSHAKE, I.REFUSED): (S.REFUSED, (A.SCHEDULE_RETRY,)),
    (S.HANDSHAKE, I.GIVE_UP): (S.LEAVING, (A.ABORT,)),
    (S.HANDSHAKE, I.STOP): (S.CLOSING, (A.CLOSE,)),
    (S.OPENING, I.SELECTED): (S.READY, (A.RESET_BACKOFF, A.TELL_READY)),
    (S.OPENING, I.FAILED): (S.WAITING, (A.SCHEDULE_RETRY,)),
    (S.OPENING, I.REFUSED): (S.REFUSED, (A.SCHEDULE_RETRY,)),
    (S.OPENING, I.GIVE_UP): (S.LEAVING, (A.ABORT,)),
    (S.OPENING, I.STOP): (S.CLOSING, (A.CLOSE,)),
    (S.READY, I.BLOCKED): (S.BLOCKED, (A.TELL_BLOCKED,)),
    (S.READY, I.FAILED): (S.WAITING, (A.TELL_LOST, A.SCHEDULE_RETRY)),
    (S.READY, I.REFUSED): (S.REFUSED, (A.TELL_LOST, A.SCHEDULE_RETRY)),
    (S.READY, I.GIVE_UP): (S.LEAVING, (A.ABORT,)),
    (S.READY, I.STOP): (S.CLOSING, (A.CLOSE,)),
    (S.BLOCKED, I.BLOCKED): (S.BLOCKED, (A.TELL_BLOCKED,)),
    (S.BLOCKED, I.UNBLOCKED): (S.READY, (A.TELL_UNBLOCKED,)),
    (S.BLOCKED, I.FAILED): (S.WAITING, (A.TELL_LOST, A.SCHEDULE_RETRY)),
    (S.BLOCKED, I.REFUSED): (S.REFUSED, (A.TELL_LOST, A.SCHEDULE_RETRY)),
    (S.BLOCKED, I.GIVE_UP): (S.LEAVING, (A.ABORT,)),
    (S.BLOCKED, I.STOP): (S.CLOSING, (A.CLOSE,)),
    (S.LEAVING, I.FAILED): (S.WAITING, (A.TELL_LOST, A.SCHEDULE_RETRY)),
    (S.LEAVING, I.REFUSED): (S.REFUSED, (A.TELL_LOST, A.SCHEDULE_RETRY)),
    (S.LEAVING, I.STOP): (S.CLOSING, (A.CLOSE,)),
    (S.WAITING, I.RETRY): (S.CONNECTING, (A.CONNECT,)),
    (S.WAITING, I.STOP): (S.STOPPED, (A.CANCEL_RETRY, A.TELL_STOPPED)),
    (S.REFUSED, I.RETRY): (S.CONNECTING, (A.CONNECT,)),
    (S.REFUSED, I.STOP): (S.STOPPED, (A.CANCEL_RETRY, A.TELL_STOPPED)),
    (S.CLOSING, I.FAILED): (S.STOPPED, (A.TELL_LOST, A.TELL_STOPPED)),
    (S.CLOSING, I.REFUSED): (S.STOPPED, (A.TELL_LOST, A.TELL_STOPPED)),
    (S.STOPPED, I.START): (S.CONNECTING, (A.CONNECT,)),
}
"""TELL_LOST reaches the link's owner only when it had been told READY before."""

_RUNNING = (S.CONNECTING, S.HANDSHAKE, S.OPENING, S.READY, S.BLOCKED, S.LEAVING, S.WAITING, S.REFUSED)

IGNORED: frozenset[tuple[LinkState, LinkInput]] = frozenset(
    # Starting twice and stopping twice are harmless, and what a connection says while it is being left is late.
    [(state, I.START) for state in _RUNNING]
    + [(state, late) for state in (S.LEAVING, S.CLOSING) for late in (I.OPENED, I.SELECTED, I.BLOCKED, I.UNBLOCKED)]
    # A broker may block the connection before the control channel stands; nothing is published then.
    + [(state, early) for state in (S.HANDSHAKE, S.OPENING) for early in (I.BLOCKED, I.UNBLOCKED)]
    + [(S.READY, I.UNBLOCKED)]
    # There is no connection to give up, or it is being left already.
    + [(state, I.GIVE_UP) for state in S if state not in (S.HANDSHAKE, S.OPENING, S.READY, S.BLOCKED)]
    + [(S.CLOSING, I.STOP), (S.STOPPED, I.STOP)]
    # What was cancelled may still report its end.
    + [(S.STOPPED, late) for late in (I.FAILED, I.REFUSED, I.RETRY)]
)
"""Inputs that change nothing. Every pair that is neither here nor in the table is a mistake in the program."""


class UnexpectedInput(Exception):
    """The link was told something that cannot happen in its state: a mistake in pubd, please report it."""


def step(state: LinkState, event: LinkInput) -> tuple[LinkState, tuple[LinkAction, ...]]:
    """The next state and what is to be done; raises :class:`UnexpectedInput` for an impossible pair."""
    if (state, event) in IGNORED:
        return state, ()
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise UnexpectedInput(f"a link that is {state.value} was told {event.value!r}") from None
