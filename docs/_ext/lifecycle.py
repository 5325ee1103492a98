"""``.. lifecycle:: MODULE`` draws the life cycle of a module, from the table that the module itself goes by.

The module's ``TRANSITIONS`` map (state, input) to the next state, or to a pair of that and what is done on the way.
Transitions between the same two states become one arrow.
"""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.ext.graphviz import graphviz

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import Enum

    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


def dot(transitions: Mapping[tuple[Enum, Enum], Enum | tuple[Enum, object]]) -> str:
    """The graph in the language of graphviz."""
    labels: dict[tuple[str, str], list[str]] = {}
    for (origin, happened), row in transitions.items():
        target = row[0] if isinstance(row, tuple) else row
        labels.setdefault((origin.value, target.value), []).append(happened.value)
    # A string of JSON is one of graphviz too, line ends included.
    arrows = [
        f"{json.dumps(origin)} -> {json.dumps(target)} [label={json.dumps(chr(10).join(several))}]"
        for (origin, target), several in labels.items()
    ]
    settings = 'node [shape=box, style=rounded, fontname="sans-serif"]; edge [fontname="sans-serif", fontsize=10]'
    return "\n".join(["digraph {", settings, *arrows, "}"])


class LifeCycle(Directive):
    """One argument: the full name of a module with ``TRANSITIONS``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        drawing = graphviz()
        drawing["code"] = dot(module.TRANSITIONS)
        drawing["options"] = {}
        drawing["alt"] = f"Life cycle of {self.arguments[0]}"
        return [drawing]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("lifecycle", LifeCycle)
    return {"parallel_read_safe": True}
