"""From options and lines to messages as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.cli import compose
from pubd.cli.compose import InvalidHeader


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("k=v", "k", "v"),
        ("k=", "k", ""),
        ("k=a=b", "k", "a=b"),
        ("k=a: b", "k", "a: b"),
        ("key: value", "key", "value"),
        ("url: http://x?a=b", "url", "http://x?a=b"),
        ("cloudEvents:type=order", "cloudEvents:type", "order"),
        ("cloudEvents:n:=1", "cloudEvents:n", 1),
        ("n:=5", "n", 5),
        ("n:=1.5", "n", 1.5),
        ("b:=true", "b", True),
        ('CC:=["a", "b"]', "CC", ["a", "b"]),
        ('t:={"$timestamp": 1700000000}', "t", {"$timestamp": 1700000000}),
        ("z:=null", "z", None),
    ],
)
def test_a_header_is_a_string_or_typed(text: str, name: str, value: object) -> None:
    assert compose.header(text) == (name, value)


@pytest.mark.parametrize(
    "text", ["", "k", "=v", ": v", ":=1", "k:v", "k:=", "k:=text", "k:=NaN", "k:=" + "[" * 100_000]
)
def test_what_is_no_header_says_how_it_is_written(text: str) -> None:
    with pytest.raises(InvalidHeader, match="write"):
        compose.header(text)


def test_a_header_given_twice_is_refused() -> None:
    with pytest.raises(InvalidHeader, match=r"k is given twice"):
        compose.headers(["k=1", "a=2", "k: 3"])


def test_a_body_that_is_no_text_goes_as_base64() -> None:
    assert compose.body("Grüße\0".encode()) == {"body": "Grüße\0"}
    assert compose.body(b"\xff\x00") == {"body_base64": "/wA="}


def test_a_pretty_printed_object_is_one_line() -> None:
    line = compose.one_line(b'{\r\n  "exchange": "a",\n  "body": "x\\ny"\n}\n')
    assert b"\n" not in line
    assert json.loads(line) == {"exchange": "a", "body": "x\ny"}


def test_a_message_without_a_key_gets_one_and_stays_as_it_was_written() -> None:
    line = b'{"exchange": "a" , "x": 1e400}'
    assert compose.completed(line, {}, "n:7") == b'{"idempotency_key":"n:7","exchange": "a" , "x": 1e400}'


@pytest.mark.parametrize(
    "line",
    [
        b'{"idempotency_key": "mine", "exchange": "a"}',
        b'{"idempotency\\u005fkey": "mine", "exchange": "a"}',
        b'{ "exchange": "a", "idempotency_key":"mine"}',
    ],
)
def test_a_message_with_a_key_keeps_it(line: bytes) -> None:
    assert compose.completed(line, {}, "n:7") == line


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (b"{}", {}),
        (b"{ }", {}),
        (b' {"exchange": "a"}', {"exchange": "a"}),
        (b'{"body": "\\"idempotency_key\\""}', {"body": '"idempotency_key"'}),
        (b'{"headers": {"idempotency_key": 1}}', {"headers": {"idempotency_key": 1}}),
        (b'{"idempotency_key": null, "exchange": "a"}', {"exchange": "a"}),
    ],
)
def test_only_a_key_of_its_own_counts(line: bytes, made: dict[str, object]) -> None:
    assert json.loads(compose.completed(line, {}, "n:7")) == {**made, "idempotency_key": "n:7"}


@pytest.mark.parametrize(
    "line",
    [
        b'{"exchange": "a", "exchange": "b", "idempotency_key": null}',
        b'{"exchange": "a", "state": "ready", "state": "ready"}',
        b'{"exchange": "a", "priority": NaN, "idempotency_key": null}',
    ],
)
def test_what_the_daemon_would_refuse_is_not_put_right(line: bytes) -> None:
    assert compose.completed(line, {"type": "t"}, "k") == line


def test_numbers_stay_as_they_were_written() -> None:
    line = b'{"exchange":"a","body_json":[1.50,1e400],"idempotency_key":null}'
    assert compose.completed(line, {}, "k") == b'{"exchange":"a","body_json":[1.50,1E+400],"idempotency_key":"k"}'


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[1]", b'"text"', b"null", b"\xff{}", b'{"a":1}{"b":2}', b"[" * 100_000, b"nonsense"]
)
def test_what_is_no_object_is_left_to_the_daemon(line: bytes) -> None:
    assert compose.completed(line, {"exchange": "a"}, "k") == line


def test_options_fill_in_what_is_missing() -> None:
    line = b'{"exchange": "own", "body": "x"}'
    made = json.loads(compose.completed(line, {"exchange": "given", "routing_key": "r", "headers": {"a": 1}}, "k"))
    assert made == {"exchange": "own", "body": "x", "routing_key": "r", "headers": {"a": 1}, "idempotency_key": "k"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    message=st.dictionaries(st.text() | st.just("idempotency_key"), _JSON),
    options=st.dictionaries(st.text(), _JSON),
    ascii_only=st.booleans(),
    indent=st.none() | st.integers(0, 2),
)
def test_nothing_of_a_message_is_lost(
    message: dict[str, Any], options: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    options.pop("idempotency_key", None)
    line = compose.one_line(
        json.dumps(message, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    )
    try:
        line.decode()
    except UnicodeDecodeError:
        return
    made = json.loads(compose.completed(line, options, "key"))
    wanted = {**options, **message}
    if wanted.get("idempotency_key") is None:
        wanted["idempotency_key"] = "key"
    assert made == wanted


@pytest.mark.parametrize("state", ["ready", "deferred", "parked"])
def test_a_line_of_an_export_is_submitted_without_its_state(state: str) -> None:
    line = b'{"exchange":"e","routing_key":"k","body":"b","idempotency_key":"i","state":"%b"}' % state.encode()
    assert json.loads(compose.completed(line, {}, "key")) == {
        "exchange": "e",
        "routing_key": "k",
        "body": "b",
        "idempotency_key": "i",
    }
    assert json.loads(compose.completed(line, {"priority": 3}, "key"))["priority"] == 3


@pytest.mark.parametrize("line", [b'{"state": "lost"}', b'{"state":"ready","damaged":true}', b'{"state":["ready"]}'])
def test_what_no_export_says_is_for_the_daemon_to_refuse(line: bytes) -> None:
    assert "state" in json.loads(compose.completed(line, {}, "key"))
