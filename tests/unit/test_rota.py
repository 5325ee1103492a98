"""Whose turn it is among the brokers."""

from __future__ import annotations

import pytest

from pubd.amqp.rota import Rota
from pubd.amqp.url import BrokerUrl
from pubd.retry import Backoff

URLS = [BrokerUrl.parse(f"amqp://{name}") for name in "abc"]


def rota(count: int) -> Rota:
    return Rota(
        URLS[:count],
        backoff=Backoff(first=0.5, jitter=0),
        refusal_backoff=Backoff(first=5, jitter=0),
        random=lambda: 0.0,
    )


def run(it: Rota, seconds: float, **verdicts: str) -> list[tuple[float, str]]:
    """The attempts of so many seconds, when each broker answers as told ("down", "refused" or "silent")."""
    now, seen = 0.0, []
    while now <= seconds:
        seen.append((now, it.url.host))
        verdict = verdicts[it.url.host]
        now += it.failed(now, slow=verdict != "down", lasting=verdict == "refused")
    return seen


def test_all_are_tried_before_there_is_a_pause() -> None:
    expected = [(0, "a"), (0, "b"), (0, "c"), (0.5, "a"), (0.5, "b"), (0.5, "c"), (1.5, "a"), (1.5, "b"), (1.5, "c")]
    assert run(rota(3), 2, a="down", b="down", c="down") == expected


def test_one_that_refuses_sits_out_and_hinders_no_other() -> None:
    attempts = run(rota(2), 60, a="refused", b="down")
    assert [moment for moment, host in attempts if host == "b"][:6] == [0, 0.5, 1.5, 3.5, 7.5, 15.5]
    assert len([moment for moment, host in attempts if host == "a"]) <= 6


def test_one_alone_that_refuses_is_tried_slowly() -> None:
    assert run(rota(1), 70, a="refused") == [(0, "a"), (5, "a"), (15, "a"), (35, "a"), (65, "a")]


@pytest.mark.parametrize(("verdicts", "refused"), [(["refused", "refused"], True), (["refused", "silent"], False)])
def test_it_is_refused_only_when_all_refuse(verdicts: list[str], refused: bool) -> None:
    it = rota(2)
    for verdict in verdicts:
        it.failed(0, slow=True, lasting=verdict == "refused")
    assert it.all_refused is refused


def test_success_begins_every_count_anew() -> None:
    it = rota(1)
    for _ in range(5):
        it.failed(0, slow=True, lasting=True)
    it.succeeded(100)
    assert not it.all_refused
    assert it.failed(200, slow=False, lasting=False) == 0.5


def test_a_link_that_was_ready_for_long_moves_on_at_once() -> None:
    it = rota(2)
    it.succeeded(10)
    assert it.failed(100, slow=False, lasting=False) == 0
    assert it.url.host == "b"


def test_two_brokers_that_drop_the_link_at_once_are_no_loop_without_a_pause() -> None:
    it = rota(2)
    it.succeeded(10)
    assert it.failed(10, slow=False, lasting=False) == 0.5


def test_a_rota_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        rota(0)
