"""The drill with fewer messages: pubd says what docs/drill.rst says, and following it leads out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drill.cases import cases
from tests.drill.playing import play
from tests.drill.stage import prepare
from tests.drill.telling import neutral
from tests.rabbitmq import Node
from tests.strictness import SPARED

CASES = cases(parked=2000)
PAGE = neutral((Path(__file__).resolve().parents[2] / "docs/drill.rst").read_text())


@pytest.fixture(scope="module")
def manageable(pytestconfig: pytest.Config) -> Iterator[Node]:
    """A node with the management plugin, for rabbitmqadmin."""
    node = Node(plugins=["rabbitmq_management"])
    pytestconfig.stash.setdefault(SPARED, set()).add(lambda: node.guard_pid)
    node.start()
    prepare(node)
    yield node
    node.remove()


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_what_is_said_leads_out_and_stands_in_the_docs(manageable: Node, number: int) -> None:
    played = play(CASES[number], manageable)
    assert [sight.view for sight in played.sights] == [view for view in PLACES if view in played.case.sees]
    for sight in played.sights:
        for sentence in sight.said.split(" -> "):
            assert neutral(sentence) in PAGE, f"{sight.view} says otherwise than docs/drill.rst: {sentence}"
    for command in played.typed:
        assert neutral(command) in PAGE


PLACES = ("pubd status", "/", "/readyz", "/publishz", "/metrics", "log")


def test_the_page_has_every_fault_and_each_place_where_one_looks() -> None:
    for case in CASES:
        assert neutral(case.title) in PAGE
        assert set(case.sees) == set(PLACES)
