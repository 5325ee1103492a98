"""Policies: which one is for which message, and what they may not be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.policy import OnReturn, Policies, Policy, topic_matches


@pytest.mark.parametrize(
    ("pattern", "routing_key", "matches"),
    [
        ("#", "", True),
        ("#", "a.b.c", True),
        ("", "", True),
        ("", "a", False),
        ("a", "a", True),
        ("a", "ab", False),
        ("a", "A", False),
        ("*", "", True),  # An empty routing key is one empty word, as RabbitMQ splits it.
        ("*", "a", True),
        ("*", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "b", False),
        ("#.c", "a.b.c", True),
        ("#.c", "c", True),
        ("#.c", "c.d", False),
        ("a.#.c", "a.c", True),
        ("a.#.c", "a.b.b.c", True),
        ("a.#.c", "a.b", False),
        ("#.#", "a", True),
        ("*.#", "a", True),
        ("#.*", "a.b.c", True),
        ("a.*.#.c", "a.c", False),
        ("a?", "ab", False),
        ("a[b]", "ab", False),
        ("b.#", "a.b", False),
        ("x.y.#", "a", False),
    ],
)
def test_routing_keys_match_as_in_a_topic_binding(pattern: str, routing_key: str, matches: bool) -> None:
    assert topic_matches(pattern, routing_key) is matches


def plainly(pattern: list[str], words: list[str]) -> bool:
    """The rule of AMQP 0-9-1, 3.1.3.3, without any cleverness."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(plainly(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and plainly(pattern[1:], words[1:])


@given(
    st.lists(st.sampled_from(["a", "b", "*", "#", ""]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=6),
)
def test_they_match_as_the_rule_says_it_plainly(pattern: list[str], words: list[str]) -> None:
    assert topic_matches(".".join(pattern), ".".join(words)) == plainly(pattern, words)


@pytest.mark.parametrize(
    ("pattern", "exchange", "matches"),
    [
        ("*", "", True),
        ("orders*", "orders.eu", True),
        ("order?", "orders", True),
        ("order?", "order", False),
        ("Orders", "orders", False),
        ("", "", True),
        ("", "x", False),
    ],
)
def test_exchanges_match_as_file_names_do(pattern: str, exchange: str, matches: bool) -> None:
    assert Policy(exchange=pattern).matches(exchange, "any.key") is matches


def test_the_first_that_matches_decides_and_the_default_where_none_does() -> None:
    first = Policy(exchange="a*", routing_key="k.#", max_attempts=1)
    second = Policy(exchange="a*", max_attempts=2)
    default = Policy(on_return=OnReturn.DROP)
    policies = Policies([first, second], default)
    assert policies.of("ab", "k.1") is first
    assert policies.of("ab", "other") is second
    assert policies.of("b", "k.1") is default
    assert policies.all == (first, second, default)


def test_a_default_that_is_for_some_messages_only_is_for_all_the_others_nevertheless() -> None:
    default = Policy(exchange="a")
    assert Policies((), default).of("b", "k") is default


def test_without_any_policy_it_is_the_plain_one() -> None:
    assert Policies().of("x", "k") == Policy()


@pytest.mark.parametrize(
    "wrong",
    [{"max_attempts": 0}, {"lifetime": 0}, {"lifetime": -1.0}, {"heal_interval": 0}],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Policy(**wrong)
