"""The documentation says what the code does: options, URL parameters, states and public names do not drift apart."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import attrs
import click
import pytest
from docutils.core import publish_doctree
from docutils.utils import SystemMessage

import pubd
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.amqp.url import _PARAMETERS
from pubd.arguments import DEFAULT_URL, Options
from pubd.cli import COMMANDS, main
from pubd.config import Config
from pubd.outcome import Cause

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SERVICE = (ROOT / "docs/service.rst").read_text()
README = (ROOT / "README.rst").read_text()


def described() -> dict[str, str]:
    """Each long option of the page with its directive line and text."""
    blocks: dict[str, str] = {}
    for found in re.finditer(r"^\.\. option:: (--([\w-]+).*\n(?:\n|   .*\n)*)", SERVICE, re.MULTILINE):
        assert found[2] not in blocks, f"{found[2]} is described twice"
        blocks[found[2]] = found[1]
    return blocks


def existing() -> dict[str, str | None]:
    """Each long option of ``twistd pubd`` with its letter, from the parser itself."""
    options = Options()
    letters = {long: short for short, long in options.synonyms.items() if len(short) == 1}
    return {name.rstrip("="): letters.get(name.rstrip("=")) for name in options.longOpt}


def test_the_page_has_every_option_and_no_other() -> None:
    assert set(described()) == set(existing())


def test_the_page_has_the_letters_of_the_options() -> None:
    for name, block in described().items():
        assert re.findall(r", -(\w)", block.splitlines()[0]) == [letter for letter in [existing()[name]] if letter]


def test_the_page_has_the_defaults_of_the_options() -> None:
    rows: Any = Options.optParameters
    parameters = {row[0]: (row[2], row[4] if len(row) > 4 else str) for row in rows}
    for name, block in described().items():
        found = re.search(r"Default\s+``([^`]*)``", block)
        if name == "url":
            assert found is not None
            assert found[1] == DEFAULT_URL
        elif name == "on-channel-close":
            assert parameters[name][0] == "recover"
            assert "Default ``recover``" in block
        elif name in parameters and parameters[name][0] is not None:
            default, read = parameters[name]
            assert found is not None, f"{name} is described without its default"
            assert read(" ".join(found[1].split())) == default, name
        else:
            assert found is None, f"{name} has no default"


def test_the_page_has_every_url_parameter_and_no_other() -> None:
    table = SERVICE.split(":class: url-parameters", 1)[1].split("Files are read again", 1)[0]
    rows = re.findall(r"^   \* - (``.*)$", table, re.MULTILINE)
    assert sorted(re.findall(r"``(\w+)``", " ".join(rows))) == sorted(_PARAMETERS)


@pytest.mark.parametrize(("kind", "states"), [("link", LinkState), ("lane", LaneState)])
def test_the_tables_of_states_are_complete(kind: str, states: type[LinkState] | type[LaneState]) -> None:
    page = (ROOT / "docs/lifecycles.rst").read_text()
    table = page.split(f":class: {kind}-states", 1)[1].split("\n\n\n", 1)[0]
    assert re.findall(r"^   \* - ``(\w+)``$", table, re.MULTILINE) == [state.value for state in states]


def test_the_api_page_has_every_public_name() -> None:
    page = (ROOT / "docs/api.rst").read_text()
    named = set(re.findall(r"^\.\. auto(?:class|exception):: (\w+)$", page, re.MULTILINE))
    assert named == set(pubd.__all__)


def test_the_readme_is_plain_rest_without_warnings() -> None:
    try:
        publish_doctree(README, settings_overrides={"report_level": 2, "halt_level": 2})
    except SystemMessage as problem:
        pytest.fail(str(problem))


def test_the_readme_shows_the_example_that_is_tested() -> None:
    example = (ROOT / "docs/examples/compose.py").read_text().strip("\n")
    indented = "\n".join(f"    {line}" if line else "" for line in example.splitlines())
    assert indented in README


def blocks(text: str, start: str) -> list[str]:
    """The indented blocks that follow lines matching ``start``."""
    found = re.finditer(rf"^{start}\n\n((?:\n|[ ]+.*\n)+)", text, re.MULTILINE)
    return [dedent(each[1]).strip("\n") + "\n" for each in found]


def test_the_readme_shows_a_configuration_without_a_mistake() -> None:
    (toml,) = blocks(README, "This is a ``pubd.toml``::")
    config = Config.parse(toml, {})
    assert not config.hints
    assert config.spool.url == "sqlite:///pubd.db"
    assert [each.name for each in config.schedules] == ["heartbeat"]


@pytest.mark.parametrize("page", ["config", "schedules", "spool"])
def test_each_piece_of_configuration_is_without_a_mistake(page: str) -> None:
    found = blocks(
        (DOCS / f"{page}.rst").read_text().split(".. The rest is written by", 1)[0], r"\.\. code-block:: toml"
    )
    assert found
    for toml in found:
        assert not Config.parse(toml, {}).hints


@pytest.mark.parametrize("page", ["composing", "spool"])
def test_each_piece_of_python_can_be_compiled_and_imports_what_there_is(page: str) -> None:
    found = blocks((DOCS / f"{page}.rst").read_text(), r"\.\. code-block:: python")
    assert found
    for code in found:
        compile(code, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for line in re.findall(r"^ *(from pubd import .*)$", code, re.MULTILINE):
            exec(line, {})


@pytest.mark.parametrize("title", ["Options", "Topology"])
def test_the_composing_page_gives_values_that_can_be_made(title: str) -> None:
    found = blocks((DOCS / "composing.rst").read_text(), r"\.\. code-block:: python")
    (code,) = (each for each in found if re.search(rf"^{title}\(", each, re.MULTILINE))
    *lines, value = ast.parse(code).body
    assert isinstance(value, ast.Expr)
    names: dict[str, Any] = {}
    exec(compile(ast.Module(lines, []), "composing", "exec"), names)
    made = eval(compile(ast.Expression(value.value), "composing", "eval"), names)
    if title == "Options":
        # What it shows are the defaults, but for the policies of its own.
        assert attrs.evolve(made, policies=()) == pubd.Options()
        assert {field.name for field in attrs.fields(pubd.Options)} == {word.arg for word in value.value.keywords}  # type: ignore[attr-defined]


def test_the_table_of_message_states_is_complete() -> None:
    table = (DOCS / "spool.rst").read_text().split(":class: message-states", 1)[1].split("\n\n\n", 1)[0]
    assert re.findall(r"^   \* - ``(\w+)``$", table, re.MULTILINE) == [state.value for state in pubd.State]


def test_the_table_of_limits_is_complete() -> None:
    table = (DOCS / "spool.rst").read_text().split("``SpoolFull.limit``", 1)[1].split("\n\n", 1)[0]
    named = re.findall(r"^   \* - ``(\w+)``$", table, re.MULTILINE)
    assert named == [*(field.name for field in attrs.fields(pubd.Limits)), "disk"]


def test_the_table_of_parked_messages_has_every_cause() -> None:
    table = SERVICE.split(".. _parked:", 1)[1]
    named = set(re.findall(r"^   \* - ``([\w ]+): ", table, re.MULTILINE))
    assert named == {
        cause.value for cause in Cause if cause not in (Cause.REFUSED, Cause.DISCARDED, Cause.TTL, Cause.LOST)
    }


def test_the_page_of_the_command_has_every_command_and_no_other() -> None:
    page = (DOCS / "cli.rst").read_text()
    assert sorted(re.findall(r"^pubd (\w+)\n-+$", page, re.MULTILINE)) == sorted(COMMANDS)
    for name in COMMANDS:
        assert main.get_command(click.Context(main), name) is not None


def test_the_composing_page_gives_limits_that_are_taken() -> None:
    found = blocks((DOCS / "composing.rst").read_text(), r"\.\. code-block:: python")
    (code,) = (each for each in found if "limits=Limits(" in each)
    # Nothing is opened before the service is started.
    exec(code, {})
    with pytest.raises(pubd.InvalidOption, match="to the spool itself"):
        pubd.Publisher.from_url("amqp://localhost", spool=pubd.MemorySpool(), limits=pubd.Limits())
