"""pubd.toml: whatever is given is read, or refused without a password and without a traceback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pubd.config import Config, ConfigError
from pubd.config.keys import TABLES
from tests.config_texts import FULL, PASSWORD, problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pubd.config import Problem
    from pubd.config.key import Table


# A mistake takes longer than its absence, and machines are busy.
patient = settings(deadline=None)

_PATHS = [(table, (key.name,)) for table in TABLES for key in table.keys] + [
    (table, (key.name, inner.name)) for table in TABLES for key in table.keys for inner in key.keys
]
_scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(),
    st.from_regex(r"-?[0-9]{0,4}\.?[0-9]{0,3} ?[a-zA-Z]{0,4}", fullmatch=True),
    st.sampled_from(
        ["amqp://", "amqps://h?x=1", "sqlite:///", "memory:", "* * * * *", "{epoch", "UTC", "unlimited", ""]
    ),
    st.sampled_from(["1979-05-27", "07:32:00", "1979-05-27T07:32:00", "1979-05-27T07:32:00Z", "inf", "nan"]).map(
        lambda text: type("Raw", (str,), {})(text)
    ),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def toml(value: object) -> str:
    """``value`` as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value) if type(value) is str else str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)} = {toml(inner)}" for name, inner in value.items()) + "}"
    return str(value)


def quoted(text: str) -> str:
    return '"' + "".join(each if each.isalnum() and each.isascii() else f"\\U{ord(each):08X}" for each in text) + '"'


def _read(text: str, environ: Mapping[str, str] | None = None) -> None:
    found: Sequence[Problem] = ()
    try:
        Config.parse(text, environ or {}, Path("/nonexistent/pubd.toml"))
    except ConfigError as error:
        found = error.problems or pytest.fail("an error without problems")
    for each in found:
        assert each.sentence
        assert each.line is None or 1 <= each.line <= text.count("\n") + 1, (each, text)
        assert PASSWORD not in str(each)


@patient
@given(text=st.text())
@example("a = 1\r")
@example("[[a]]\n[a.b]\n[[a]]\n[a.b]\n")
def test_any_text_is_read_or_refused(text: str) -> None:
    _read(text)


_FRAGMENTS = [*re.findall(r"\S+|\s", FULL), "[[", "]]", '"""', "'''", "{", "}", "=", ",", "#", "\\", "\0"]


@patient
@given(parts=st.lists(st.sampled_from([each for each in _FRAGMENTS if PASSWORD not in each]), max_size=30))
def test_any_fragments_are_read_or_refused(parts: list[str]) -> None:
    _read("".join(parts))


@patient
@given(data=st.data())
def test_a_file_with_some_lines_lost_doubled_or_changed_is_read_or_refused(data: st.DataObject) -> None:
    lines = [line for line in FULL.split("\n") if PASSWORD not in line]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "double", "cut", "insert", "swap"]))
        line = lines[at]
        cut = data.draw(st.integers(0, len(line)))
        if change == "drop" and len(lines) > 1:
            del lines[at]
        elif change == "double":
            lines.insert(at, line)
        elif change == "cut":
            lines[at] = line[:cut]
        elif change == "insert":
            lines[at] = line[:cut] + data.draw(st.text(max_size=3)) + line[cut:]
        else:
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
    _read("\n".join(lines))


@patient
@given(where=st.sampled_from(_PATHS), value=_values)
def test_any_value_of_any_key_is_read_or_refused(where: tuple[Table, tuple[str, ...]], value: object) -> None:
    table, path = where
    _read(f"{table.heading}\n{'.'.join(path)} = {toml(value)}")


@patient
@given(value=_values)
def test_any_value_in_place_of_a_table_is_read_or_refused(value: object) -> None:
    for table in TABLES:
        _read(f"{table.name} = {toml(value)}")


@patient
@given(
    path=st.sampled_from([(t.name, *p) for t, p in _PATHS if not t.many]),
    text=st.text(st.characters(exclude_characters="\0")),
    surrogate=st.booleans(),
)
def test_any_environment_is_read_or_refused(path: tuple[str, ...], text: str, surrogate: bool) -> None:
    name = "PUBD_" + "_".join(path).upper()
    _read("", {name: text + ("\udcff" if surrogate else ""), f"{name}X": text})
    _read("", {"PUBD_BROKER_URLS_FILE": text})


@patient
@given(password=st.text("abcdefghij@:/?#%[] &=", min_size=6, max_size=20).filter(lambda text: text.strip() == text))
def test_no_error_shows_a_password_in_a_url(password: str) -> None:
    marked = f"{PASSWORD}{password}{PASSWORD}"
    for text in (
        f"[broker]\nurls = ['amqp://u:{marked}@h:x']",
        f"[broker]\nurls = 'amqp://u:{marked}@h'",
        f"[broker]\nurls = amqp://u:{marked}@h",
        f"[broker]\nurls = ['amqp://u:{marked}@h]",
        f"[broker]\nurl = ['amqp://u:{marked}@h']",
        f"[broker]\nheartbeat = 'amqp://u:{marked}@h'",
        f"[spool]\nurl = 'amqp://u:{marked}@h'",
        f"[delivery]\non_return = 'amqp://u:{marked}@h'",
    ):
        assert PASSWORD not in "".join(map(str, problems(text)))
    for name in ("PUBD_BROKER_URLS", "PUBD_BROKER_HEARTBEAT", "PUBD_SPOOL_URL"):
        assert PASSWORD not in "".join(map(str, problems("", {name: f"http://u:{marked}@h"})))
