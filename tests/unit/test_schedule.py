"""Schedules: when they run, and what they say."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubd.errors import InvalidMessage, InvalidOption
from pubd.schedule import NICKNAMES, Cron, Every, Schedule, Template

BERLIN = ZoneInfo("Europe/Berlin")
moments = st.floats(0, 4e9)


def berlin(text: str) -> float:
    """Epoch seconds of a time in Berlin; with an offset, of that one."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=BERLIN)).timestamp()


def runs(when: Cron | Every, start: float, count: int) -> list[str]:
    times = []
    for _ in range(count):
        start = when.next_after(start)
        times.append(datetime.fromtimestamp(start, BERLIN).strftime("%d %H:%M%z"))
    return times


def test_every_counts_from_its_anchor_so_that_restarts_do_not_shift_it() -> None:
    assert Every(3600.0).next_after(3599.0) == Every(3600.0).next_after(1.0) == 3600.0
    assert Every(10.0, anchor=3.0).next_after(3.0) == 13.0
    assert Every(10.0, anchor=3.0).next_after(-20.0) == -17.0


@given(now=moments, seconds=st.floats(0.001, 1e9))
def test_every_comes_after_now_and_no_later_than_the_interval(now: float, seconds: float) -> None:
    at = Every(seconds).next_after(now)
    assert now < at <= now + seconds * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.0001, math.inf, math.nan])
def test_every_refuses_what_is_no_interval(seconds: float) -> None:
    with pytest.raises(InvalidOption, match="every"):
        Every(seconds)


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        # 29 March 2026: 02:00 becomes 03:00.
        ("30 2 * * *", "2026-03-28T12:00", ["29 03:00+0200", "30 02:30+0200"]),
        ("0 3 * * *", "2026-03-28T12:00", ["29 03:00+0200", "30 03:00+0200"]),
        ("0,30 2 * * *", "2026-03-28T12:00", ["29 03:00+0200", "30 02:00+0200", "30 02:30+0200"]),
        ("0 * * * *", "2026-03-29T00:30", ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"]),
        ("*/30 * * * *", "2026-03-29T01:10", ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]),
        # 25 October 2026: 03:00 becomes 02:00.
        ("30 2 * * *", "2026-10-24T12:00", ["25 02:30+0200", "26 02:30+0100"]),
        ("30 2 * * *", "2026-10-25T02:10+01:00", ["26 02:30+0100"]),
        ("0 * * * *", "2026-10-25T01:30", ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
        (
            "*/30 * * * *",
            "2026-10-25T01:40",
            ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "25 03:00+0100"],
        ),
    ],
)
def test_daylight_saving_is_as_in_debian_s_cron(expression: str, start: str, expected: list[str]) -> None:
    assert runs(Cron(expression, "Europe/Berlin"), berlin(start), len(expected)) == expected


def test_cron_goes_by_utc_unless_told_otherwise() -> None:
    at = Cron("30 2 * * *").next_after(berlin("2026-03-29T00:00"))
    assert datetime.fromtimestamp(at, UTC).isoformat() == "2026-03-29T02:30:00+00:00"


def test_nicknames_are_known() -> None:
    assert runs(Cron("@Daily", "Europe/Berlin"), berlin("2026-06-01T12:00"), 2) == ["02 00:00+0200", "03 00:00+0200"]
    for name in NICKNAMES:
        assert Cron(name).next_after(0.0) < math.inf


def test_a_sixth_field_is_seconds() -> None:
    assert Cron("*/10 * * * * *").next_after(1000.0) == 1010.0


@settings(deadline=None)  # a time zone is read from a file
@given(
    now=st.floats(1.6e9, 2.2e9),
    expression=st.sampled_from(
        ["30 2 * * *", "*/5 * * * *", "0 0 * * *", "15 1-3 * * *", "0 */2 * * *", "59 23 L * *"]
    ),
    zone=st.sampled_from(["Europe/Berlin", "UTC", "America/Sao_Paulo", "Asia/Beirut", "Australia/Lord_Howe"]),
)
def test_the_next_run_is_always_later_and_never_skips_one(now: float, expression: str, zone: str) -> None:
    cron = Cron(expression, zone)
    at = cron.next_after(now)
    assert at > now
    assert at == cron.next_after((now + at) / 2)


@pytest.mark.parametrize(
    ("expression", "zone", "words"),
    [
        ("61 * * * *", "UTC", ["minute", "five fields"]),
        ("* 24 * * *", "UTC", ["hour"]),
        ("* * * *", "UTC", ["4 fields"]),
        ("", "UTC", ["0 fields"]),
        ("@reboot", "UTC", ["@reboot", "@hourly"]),
        ("@dayly", "UTC", ["did you mean @daily"]),
        ("0 0 30 2 *", "UTC", ["day-of-month"]),
        ("0 0 " + "9" * 450 + " * *", "UTC", ["day-of-month"]),
        ("* " * 600, "UTC", ["not a cron expression"]),
        ("* * * * *", "Europe/Berln", ["timezone", "did you mean Europe/Berlin"]),
        ("* * * * *", "CEST", ["timezone", "CEST"]),
        ("* * * * *", "../../etc/passwd", ["timezone"]),
        ("* * * * *", "Europe", ["timezone"]),
        ("* * * * *", "", ["timezone"]),
        ("* * * * *", "\0", ["timezone"]),
    ],
)
def test_what_is_no_cron_is_named_with_its_fix(expression: str, zone: str, words: list[str]) -> None:
    with pytest.raises(InvalidOption) as caught:
        Cron(expression, zone)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@settings(deadline=None)
@given(
    expression=st.one_of(
        st.text(max_size=30), st.lists(st.text("0123456789*/,-#LW", max_size=6), max_size=7).map(" ".join)
    )
)
def test_whatever_is_given_as_cron_is_read_or_refused(expression: str) -> None:
    with contextlib.suppress(InvalidOption):
        assert Cron(expression).next_after(1.8e9) > 1.8e9


def test_a_template_is_filled_in() -> None:
    template = Template.parse('{{"at": "{now}", "epoch": {epoch}, "seq": {seq}, "from": "{hostname}"}}')
    text = template.render(now=1_700_000_000.25, seq=7, hostname="{epoch}")
    assert text == '{"at": "2023-11-14T22:13:20.250Z", "epoch": 1700000000, "seq": 7, "from": "{epoch}"}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{epoc}", ["{epoc}", "did you mean {epoch}?"]),
        ("{seq.__class__}", ["not known", "{hostname}"]),
        ("{seq!r}", ["not known"]),
        ("{0}", ["not known"]),
        ("{}", ["not known"]),
        ('{"a": 1}', ["written twice"]),
        ("{", ["stands alone", "{{"]),
        ("a } b", ["stands alone", "}}"]),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_are_known(text: str, words: list[str]) -> None:
    with pytest.raises(InvalidOption) as caught:
        Template.parse(text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@given(text=st.text())
def test_any_text_can_be_written_with_doubled_braces(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert Template.parse(doubled).render(now=0.0, seq=1, hostname="h") == text


@given(text=st.text("{}abepoch"))
def test_a_template_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidOption):
        Template.parse(text).render(now=0.0, seq=1, hostname="h")


def test_a_schedule_makes_its_message() -> None:
    schedule = Schedule(
        name="s",
        when=Every(1.0),
        exchange="e",
        routing_key="k",
        body=Template.parse("{seq}"),
        persistent=False,
        ttl=5.0,
    )
    message = schedule.message(now=0.0, seq=3, hostname="h")
    assert (message.exchange, message.routing_key, message.body) == ("e", "k", b"3")
    assert (message.delivery_mode, message.mandatory, message.ttl) == (1, None, 5.0)
    with pytest.raises(InvalidMessage, match="exchange"):
        Schedule(name="s", when=Every(1.0), exchange="e" * 300).message(now=0.0, seq=1, hostname="h")
