"""What operators read: numbers, ages, reasons, bodies, tables; nothing in it moves a terminal's cursor."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.body_text import SHOWN, body_lines, body_of
from pubd.cli.screen import Column, Screen, wrapped
from pubd.cli.trace import events_of
from pubd.wording import age, exchange, octets, reason, short_reason, state, why

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202e\x9b31m"


def record(**given: Any) -> dict[str, Any]:
    """As GET /messages/ID answers it."""
    found: dict[str, Any] = {
        "id": "01a20a89-3c14-7000-9931-27461ad79368",
        "message_id": "m",
        "exchange": "orders",
        "routing_key": "k",
        "state": "ready",
        "in_flight": False,
        "attempts": 0,
        "accepted_at": "2026-11-23T12:00:00.000Z",
        "principal": None,
        "due": None,
        "settled_at": None,
        "reason": None,
        "node": None,
        "channel": None,
        "tag": None,
        "failures": [],
        "decisions": [],
    }
    assert set(given) <= set(found)
    return found | given


def failure(**given: Any) -> dict[str, Any]:
    found = {"number": 1, "outcome": "nacked", "at": "2026-11-23T12:00:01.000Z", "times": 1}
    return found | {"node": None, "channel": None, "tag": None, "code": None, "text": None} | given


NOW = 1795435200.0
"""2026-11-23T12:00:00Z."""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (172799, "47h"),
        (172800, "2d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (1e12, "999y"),
    ],
)
def test_ages_have_four_characters_at_most(seconds: float, text: str) -> None:
    assert age(seconds) == text
    assert len(text) <= 4


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1048575, "1.0 MiB"),
        (5 << 40, "5.0 TiB"),
        (5 << 60, "5,120.0 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert octets(count) == text


def test_reasons_are_rabbitmqs_words_and_shorter_in_a_column() -> None:
    returned = {"cause": "returned", "code": 312, "text": "NO_ROUTE"}
    assert reason(returned) == "returned: 312 NO_ROUTE"
    assert short_reason(returned) == "312 NO_ROUTE"
    assert short_reason({"cause": "discarded by an operator", "code": None, "text": "old"}) == "old"
    assert short_reason({"cause": "lifetime passed", "code": None, "text": "1 d"}) == "lifetime passed: 1 d"
    assert reason(None) == short_reason(None) == ""


def test_why_tells_when_a_deferred_one_is_due() -> None:
    due = record(state="deferred", due="2026-11-23T12:05:00.000Z")
    assert why(due, NOW) == "due in 5m"
    nacked = due | {"reason": {"cause": "nacked", "code": None, "text": "by RabbitMQ"}}
    assert why(nacked, NOW + 400) == "due; nacked: by RabbitMQ"
    assert state(record(in_flight=True)) == "in flight"
    assert exchange("") == "amq.default"


@given(st.text() | st.just(HOSTILE))
def test_words_of_others_are_harmless(text: str) -> None:
    told = reason({"cause": "refused", "code": 404, "text": text}) + exchange(text)
    assert told.isprintable()
    assert all(line.isprintable() for line in wrapped(text, width=80))


def test_commands_are_not_broken_over_lines() -> None:
    lines = list(
        wrapped("once the cause is gone give the command 'pubd retry --state parked -e orders' a try", width=50)
    )
    assert any("'pubd retry --state parked -e orders'" in line for line in lines)


# Bodies


def shown(body: bytes | None) -> list[str]:
    return list(body_lines(body, "ID"))


def test_text_is_shown_as_it_is() -> None:
    assert shown("Grüße\n\tfor 5 €\n\nend\n".encode()) == ["Grüße", "\tfor 5 €", "", "end"]
    assert shown(b"") == ["(the body is empty)"]
    assert shown(None) == ["(the body is kept until a message is settled, and no longer)"]


def test_control_characters_never_reach_the_terminal() -> None:
    (line,) = shown(HOSTILE.encode())
    assert line == r"\x1b]0;owned\x07\x1b[2J\r\u202e\x9b31m"


@given(st.binary(max_size=2000))
def test_no_body_does_harm(body: bytes) -> None:
    for line in shown(body):
        assert line.replace("\t", "").isprintable()


def test_bytes_are_shown_as_hexdump_does() -> None:
    assert shown(bytes(range(20)) + b"\xff|") == [
        "00000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  |................|",
        "00000010  10 11 12 13 ff 7c                                 |.....||",
    ]


def test_a_long_body_is_cut_even_within_a_character() -> None:
    lines = shown(("a" * (SHOWN - 1) + "€" * 1000).encode())
    assert lines[0] == "a" * (SHOWN - 1)
    assert "all of it: pubd show ID --raw > FILE" in lines[1]
    assert len(shown(b"\xff" * 10_000_000)) == SHOWN // 16 + 1


def test_the_bytes_of_each_kind_of_body() -> None:
    assert body_of({"body": "ä"}) == "ä".encode()
    assert body_of({"body_base64": "AP8="}) == b"\x00\xff"
    assert body_of({"body_json": {"a": ["ä"]}}) == '{"a":["ä"]}'.encode()
    assert body_of({}) == b""


# Tables


def test_a_table_fits_80_columns_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("x" * 500, "短" * 100, "1"), ("a", "b", "22")]
    Screen().table((Column("WORDS", share=1), Column("WIDE", share=2), Column("N", right=True)), rows)
    first, cut, whole = capsys.readouterr().out.splitlines()
    assert first.startswith("WORDS ")
    assert "…" in cut
    assert len(cut) + cut.count("短") <= 80
    assert whole.split() == ["a", "b", "22"]
    assert all(not line.endswith(" ") for line in (first, cut, whole))
    assert first.endswith(" N")


# Traces


def told(**given: Any) -> list[tuple[str | None, str, str]]:
    return [(event["at"], event["event"], event["detail"]) for event in events_of(record(**given))]


def test_a_trace_has_each_attempt_and_the_settlement_in_rabbitmqs_words() -> None:
    via = {"node": "rabbit@a", "channel": 2}
    events = told(
        principal="shop",
        state="confirmed",
        settled_at="2026-11-23T12:00:09.000Z",
        tag=9,
        **via,
        failures=[
            failure(number=0, outcome="lost", times=3),
            failure(outcome="nacked", tag=7, **via),
            failure(number=2, outcome="returned", code=312, text="NO_ROUTE", tag=8, **via),
        ],
    )
    assert events == [
        ("2026-11-23T12:00:00.000Z", "accepted", "from shop"),
        (
            "2026-11-23T12:00:01.000Z",
            "lost 3 times",
            "the last one: the channel or connection ended before an answer; RabbitMQ may have it",
        ),
        ("2026-11-23T12:00:01.000Z", "attempt 1 nacked", "RabbitMQ did not take it over; rabbit@a channel 2 tag 7"),
        ("2026-11-23T12:00:01.000Z", "attempt 2 returned", "312 NO_ROUTE; rabbit@a channel 2 tag 8"),
        ("2026-11-23T12:00:09.000Z", "confirmed", "rabbit@a channel 2 tag 9"),
    ]


@pytest.mark.parametrize(
    ("given", "last"),
    [
        ({}, (None, "ready", "waits for its turn; 'pubd status' says what its lane does")),
        ({"in_flight": True}, (None, "in flight", "published; RabbitMQ has not answered yet")),
        (
            {"state": "deferred", "due": "2026-11-23T13:00:00.000Z"},
            (None, "deferred", "will be published at 2026-11-23T13:00:00.000Z"),
        ),
        (
            {"state": "parked", "reason": {"cause": "returned", "code": 312, "text": "NO_ROUTE"}},
            (None, "parked", "returned: 312 NO_ROUTE"),
        ),
    ],
)
def test_a_trace_ends_with_where_the_message_is(given: dict[str, Any], last: tuple[None, str, str]) -> None:
    assert told(**given)[-1] == last


def decision(verb: str, at: str, text: str = "") -> dict[str, Any]:
    return {"verb": verb, "at": f"2026-11-23T12:00:{at}.000Z", "who": "alice (uid 7)", "text": text}


def test_a_trace_has_what_operators_decided_in_order_of_time() -> None:
    events = list(
        events_of(
            record(
                state="discarded",
                settled_at="2026-11-23T12:00:09.000Z",
                reason={"cause": "discarded by an operator", "code": None, "text": "old"},
                failures=[failure(at="2026-11-23T12:00:04.000Z")],
                decisions=[
                    decision("hold", "02", "wait"),
                    decision("release", "03"),
                    decision("pause", "05", "upgrade"),
                    decision("discard", "09", "old"),
                ],
            )
        )
    )
    assert [(each["event"], each["detail"]) for each in events] == [
        ("accepted", ""),
        ("held", "by alice (uid 7): wait"),
        ("released", "by alice (uid 7)"),
        ("attempt 1 nacked", "RabbitMQ did not take it over"),
        ("publishing paused", "by alice (uid 7): upgrade"),
        ("discarded", "by alice (uid 7): old"),
    ]
