"""The operations manual says everything that the code may say: states, reasons, findings, alerts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pubd
from pubd import findings
from pubd.amqp.lane_cycle import LaneState
from pubd.amqp.lifecycle import LinkState
from pubd.outcome import Cause

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / f"{name}.rst").read_text()


def named(page: str, table: str) -> list[str]:
    """The words in the first column of the table of this class."""
    text = page.split(f":class: {table}\n", 1)[1].split("\n\n", 1)[0]
    return [
        word for row in re.findall(r"^   \* - (``.*)$", text, re.MULTILINE) for word in re.findall(r"``([^`]+)``", row)
    ]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("manual-states", pubd.State),
        ("manual-reasons", Cause),
        ("manual-link", LinkState),
        ("manual-lane", LaneState),
    ],
)
def test_every_state_and_reason_is_there_with_what_to_do(
    table: str, words: type[pubd.State] | type[Cause] | type[LinkState] | type[LaneState]
) -> None:
    assert sorted(named(page("reasons"), table)) == sorted(word.value for word in words)


def sentences() -> Iterator[str]:
    """Of each text that a finding may have, the longest piece that is always the same."""
    tree = ast.parse(Path(findings.__file__).read_text())
    for node in ast.walk(tree):
        given = isinstance(node, ast.keyword) and node.arg == "text"
        named = isinstance(node, ast.Assign) and [ast.unparse(each) for each in node.targets] == ["text"]
        value = getattr(node, "value", None) if given or named else None
        if isinstance(value, ast.Constant):
            yield str(value.value)
        elif isinstance(value, ast.JoinedStr):
            pieces = [str(each.value) for each in value.values if isinstance(each, ast.Constant)]
            yield max(pieces, key=len).strip(" :;,(")


def test_every_sentence_of_the_findings_is_in_the_manual() -> None:
    found = [*sentences()]
    assert len(found) > 10
    text = " ".join(page("operating").split())
    missing = [sentence for sentence in found if sentence not in text]
    assert missing == []


def test_every_alert_is_in_the_manual_with_its_severity() -> None:
    rules = (ROOT / "packaging/prometheus/pubd.rules.yml").read_text()
    alerts = re.findall(r"alert: (\w+)\n.*?severity: (\w+)", rules, re.DOTALL)
    assert len(alerts) > 10
    rows = re.findall(r"^   \* - ``(\w+)``\n     - (\w+)\n     - \S", page("alerts"), re.MULTILINE)
    assert rows == alerts


def test_the_index_has_every_page_once() -> None:
    listed = re.findall(r"^   ([a-z-]+)$", page("index"), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in DOCS.glob("*.rst") if path.stem != "index")


def test_what_the_manual_tells_to_type_is_a_command_of_pubd() -> None:
    from pubd.cli import COMMANDS

    for path in DOCS.glob("*.rst"):
        for command in re.findall(r"(?:``|\$ )pubd ([a-z]+)\b", path.read_text()):
            assert command in COMMANDS, f"{path.name}: pubd {command}"
