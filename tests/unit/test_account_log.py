"""The account in the log: when it changed, once an interval, and loudly when the books do not balance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from pubd.account import Account
from pubd.operate.account_log import AccountLog
from pubd.spool.base import Books
from tests.strictness import Logged


def account(accepted: int = 0, confirmed: int = 0, ready: int = 0) -> Account:
    return Account(
        books=Books(accepted=accepted, confirmed=confirmed, ready=ready),
        published=accepted,
        pending=accepted - confirmed,
        acked=confirmed,
        nacked=2,
        returned=3,
        lost=4,
        poison=5,
    )


class Accounts:
    def __init__(self) -> None:
        self.now = account()
        self.mistake: Exception | None = None

    def __call__(self) -> Account:
        if self.mistake is not None:
            raise self.mistake
        return self.now


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock, accounts: Accounts) -> Iterator[AccountLog]:
    log = AccountLog(clock=clock, account=accounts, interval=1.0)
    log.startService()
    yield log
    log.stopService()
    assert clock.getDelayedCalls() == []


def lines(logged: Logged, level: LogLevel = LogLevel.info) -> list[str]:
    return [text for event, text in zip(logged.events, logged.texts, strict=True) if event["log_level"] is level]


@pytest.mark.usefixtures("log")
def test_nothing_is_said_as_long_as_nothing_was_published(clock: Clock, logged: Logged) -> None:
    clock.pump([1.0] * 5)
    assert logged.texts == []


@pytest.mark.usefixtures("log")
def test_it_speaks_in_the_words_of_pikas_example_and_only_of_changes(
    clock: Clock, accounts: Accounts, logged: Logged
) -> None:
    accounts.now = account(accepted=3, confirmed=1, ready=2)
    clock.pump([0.5, 0.4])
    assert logged.texts == []
    clock.pump([0.1, 1.0, 1.0])
    assert lines(logged) == [
        "Published 3 messages, 2 have yet to be confirmed, 1 were acked and 2 were nacked, "
        "3 were returned and 4 were lost; 2 held (0 parked)"
    ]
    accounts.now = account(accepted=3, confirmed=3)
    clock.advance(1)
    assert len(lines(logged)) == 2


@pytest.mark.usefixtures("log")
def test_books_that_do_not_balance_are_an_error(clock: Clock, accounts: Accounts, logged: Logged) -> None:
    accounts.now = account(accepted=3, confirmed=1, ready=1)
    clock.advance(1)
    (error,) = lines(logged, LogLevel.error)
    assert "1 of 3 accepted messages" in error


def test_after_the_stop_it_is_silent(log: AccountLog, clock: Clock, accounts: Accounts, logged: Logged) -> None:
    log.stopService()
    log.stopService()
    accounts.now = account(accepted=1)
    clock.advance(5)
    assert logged.texts == []


@pytest.mark.usefixtures("log")
def test_a_mistake_in_the_account_is_logged_and_ends_it(clock: Clock, accounts: Accounts, logged: Logged) -> None:
    accounts.mistake = RuntimeError("mistake")
    clock.advance(1)
    assert len(logged.flush(RuntimeError)) == 1
