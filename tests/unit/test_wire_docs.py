"""docs/messages.rst says what the codec does: every key, every error, and examples that are taken."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent

import pytest
from docutils.core import publish_doctree

from pubd.errors import InvalidMessage
from pubd.fields import MAX_DEPTH
from pubd.intake import strict_json, wire

PAGE = (Path(__file__).parents[2] / "docs/messages.rst").read_text()


def table(of: str) -> str:
    return PAGE.split(f":class: {of}", 1)[1].split("\n\n\n", 1)[0].split("\n\n", 2)[1]


def rows(of: str) -> list[list[str]]:
    """Cells as they are written, line breaks apart."""
    found = re.split(r"^   \* - ", table(of), flags=re.MULTILINE)[2:]
    return [[" ".join(cell.split()) for cell in re.split(r"^     -", row, flags=re.MULTILINE)] for row in found]


def test_the_page_is_sound() -> None:
    publish_doctree(PAGE, settings_overrides={"report_level": 2, "halt_level": 2})


def test_the_table_of_keys_is_complete() -> None:
    named = [key.strip("`") for key, _ in rows("message-keys")]
    assert len(named) == len(set(named))
    assert set(named) == wire.KEYS


def test_each_example_is_a_message_and_comes_back() -> None:
    examples = [dedent(block) for block in re.findall(r"\.\. code-block:: json\n\n((?:   .*\n)+)", PAGE)]
    assert len(examples) == 3
    for example in examples:
        message = wire.decode(example.encode())
        assert wire.decode(wire.dumps(wire.encode_message(message)).encode()) == message
    assert set(json.loads(examples[1])) == wire.KEYS - {"body_base64", "body_json", "not_before"}


def test_each_error_is_word_for_word_that_of_the_codec() -> None:
    errors = rows("message-errors")
    assert len(errors) == 13
    for given, field, problem in errors:
        with pytest.raises(InvalidMessage) as caught:
            wire.decode(given.removeprefix("``").removesuffix("``").encode())
        assert (caught.value.field, caught.value.problem) == (field, problem)


def test_each_notation_of_the_page_is_read() -> None:
    for notation in re.findall(r"^   \* - ``(\{\"\$.*\})``$", PAGE, re.MULTILINE):
        message = wire.decode(f'{{"exchange":"x","headers":{{"a":{notation}}}}}'.encode())
        assert wire.encode_message(message)["headers"] == {"a": json.loads(notation)}


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{strict_json.MAX_VALUES:,} values" in PAGE
    assert f"nested {MAX_DEPTH} deep" in PAGE
    assert f"at most {MAX_DEPTH} levels deep" in PAGE
