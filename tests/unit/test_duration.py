"""Durations as people write them."""

from __future__ import annotations

import pytest

from pubd.duration import LONGEST, NoDuration, seconds


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("90", 90),
        (" 1.5 ", 1.5),
        ("30s", 30),
        ("1h30m", 5400),
        ("1 H 30 M", 5400),
        ("100ms", 0.1),
        ("1w1d", 691200),
        ("1000000000", LONGEST),
    ],
)
def test_durations(text: str, number: float) -> None:
    assert seconds(text) == pytest.approx(number)


@pytest.mark.parametrize(
    "text", ["", " ", "m", "5 m x", "-5m", "5m-", "1 2s", "1,5s", "٣s", "1s" * 200, "nan", "inf", "."]
)
def test_other_text_is_none(text: str) -> None:
    with pytest.raises(NoDuration, match='such as "30s"') as caught:
        seconds(text)
    assert caught.value.unit is None


def test_unknown_units_are_named_apart_and_too_long_ones_refused() -> None:
    with pytest.raises(NoDuration, match="unknown unit; units of time are ms, s, m, h, d, w") as caught:
        seconds("1h 5 Parsecs")
    assert caught.value.unit == "parsecs"
    with pytest.raises(NoDuration, match="11574 days"):
        seconds("1000000001")
    with pytest.raises(NoDuration, match="11574 days"):
        seconds("999999999999999999w")
