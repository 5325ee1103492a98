"""The sentence that `systemctl status` shows: what is so, in the words of who said it, in one line."""

from __future__ import annotations

import pytest

from pubd.account import Account
from pubd.amqp.broker import BrokerStatus, LaneStatus
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.operate.sentence import age, said, sentence
from pubd.outcome import Cause, Reason
from pubd.spool.base import Books

REFUSED = Reason(cause=Cause.REFUSED, text="ACCESS_REFUSED - Login was refused", code=403)
CONNECTION = Reason(cause=Cause.LOST, text="connection refused by rabbit:5672")
NOT_FOUND = Reason(cause=Cause.LOST, text="NOT_FOUND - no exchange 'orders' in vhost '/'", code=404)


def status(
    link: LinkState,
    *,
    reason: Reason | None = None,
    blocked: str | None = None,
    refused: tuple[str, ...] = (),
) -> BrokerStatus:
    lanes = [
        LaneStatus(
            exchange=exchange,
            state=LaneState.REFUSED if exchange in refused else LaneState.OPEN,
            reason=NOT_FOUND,
            in_flight=0,
            in_flight_bytes=0,
            suspects=0,
        )
        for exchange in ("fine", *refused)
    ]
    return BrokerStatus(
        url="amqp://shop:***@rabbit:5672/%2F",
        link=link,
        reason=reason,
        blocked=blocked,
        published=0,
        lanes=lanes,
        refused=(),
    )


def account(*, ready: int = 0, in_flight: int = 0, deferred: int = 0, parked: int = 0, missing: int = 0) -> Account:
    held = ready + in_flight + deferred + parked
    books = Books(accepted=held + missing, ready=ready, in_flight=in_flight, deferred=deferred, parked=parked)
    return Account(books=books, published=0, pending=0, acked=0, nacked=0, returned=0, lost=0, poison=0)


def test_draining() -> None:
    text = sentence(status(LinkState.READY), account(ready=3), draining=True)
    assert text == "connected to rabbit:5672; DRAINING: nothing is accepted; 3 ready"


def test_connected() -> None:
    assert sentence(status(LinkState.READY), account()) == "connected to rabbit:5672; nothing waits"
    # Why the last connection ended is kept, and of no interest any more.
    assert sentence(status(LinkState.READY, reason=REFUSED), account(ready=5, in_flight=7), oldest=0.4) == (
        "connected to rabbit:5672; 12 ready, oldest 0.4 s"
    )
    assert sentence(status(LinkState.READY), account(deferred=1, parked=1000)) == (
        "connected to rabbit:5672; 1 deferred; 1,000 PARKED"
    )


def test_blocked() -> None:
    text = sentence(status(LinkState.BLOCKED, blocked="low on\nmemory"), account(ready=41_022), oldest=190)
    assert text == "BLOCKED by broker rabbit:5672: low on memory; 41,022 ready, oldest 3 min"
    assert sentence(status(LinkState.BLOCKED), account()) == "BLOCKED by broker rabbit:5672; nothing waits"


@pytest.mark.parametrize(
    "link",
    [
        LinkState.WAITING,
        LinkState.REFUSED,
        LinkState.CONNECTING,
        LinkState.HANDSHAKE,
        LinkState.OPENING,
        LinkState.LEAVING,
    ],
)
def test_not_connected_is_one_sentence_between_and_during_the_attempts(link: LinkState) -> None:
    assert sentence(status(link, reason=REFUSED), account()) == (
        "cannot connect to rabbit:5672: 403 ACCESS_REFUSED - Login was refused; nothing waits"
    )
    assert sentence(status(link, reason=CONNECTION), account(ready=1), oldest=86400 * 3) == (
        "cannot connect: connection refused by rabbit:5672; 1 ready, oldest 3 d"
    )
    # With several, the one whose turn it is has not refused anything.
    assert sentence(status(link, reason=REFUSED), account(), brokers=2) == (
        "cannot connect: 403 ACCESS_REFUSED - Login was refused; trying rabbit:5672; nothing waits"
    )


def test_the_first_attempt_and_the_end() -> None:
    assert sentence(status(LinkState.CONNECTING), account()) == "connecting to rabbit:5672; nothing waits"
    assert sentence(status(LinkState.STOPPED), account()) == "the connection to RabbitMQ is closed; nothing waits"


def test_an_exchange_that_is_refused_is_named() -> None:
    text = sentence(status(LinkState.READY, refused=("orders",)), account(ready=3), oldest=12.3)
    assert text == (
        "connected to rabbit:5672; exchange 'orders' REFUSED: 404 NOT_FOUND - no exchange 'orders' in vhost '/'; "
        "3 ready, oldest 12 s"
    )
    several = sentence(status(LinkState.READY, refused=("orders", "a", "b")), account())
    assert "exchange 'orders' and 2 more REFUSED: 404" in several


def test_books_that_do_not_balance_are_said() -> None:
    assert "the books do NOT balance by 2" in sentence(status(LinkState.READY), account(ready=1, missing=2))


def test_every_state_of_the_link_has_a_sentence_of_one_line() -> None:
    for link in LinkState:
        hostile = Reason(cause=Cause.LOST, text="a\nREADY=1\n" + "x" * 5000)
        text = sentence(status(link, reason=hostile, blocked="b\nb" + "y" * 5000), account())
        assert len(text.splitlines()) == 1
        assert len(text) < 500
        assert "***" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3.0, "0.0 s"),
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7199.0, "119 min"),
        (7200.0, "2 h"),
        (172_800.0, "2 d"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_reason_keeps_its_code_and_its_words() -> None:
    assert said(NOT_FOUND) == "404 NOT_FOUND - no exchange 'orders' in vhost '/'"
    assert len(said(Reason(cause=Cause.LOST, text="x" * 1000))) == 200
