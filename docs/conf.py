"""Sphinx's configuration: ``script/test docs`` builds it, warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path

from pubd._version import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pubd"
author = "pubd contributors"
copyright = "2026, pubd contributors"
version = release = __version__

extensions = ["lifecycle", "sphinx.ext.autodoc", "sphinx.ext.graphviz"]
exclude_patterns = ["_build", "_ext"]
html_theme = "alabaster"
html_theme_options = {"description": "publishes to RabbitMQ and answers for every message"}
graphviz_output_format = "svg"
default_role = "code"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"

# Builds do not ask the network, so names of other projects have nothing to point to.
nitpick_ignore_regex = [(r"py:.*", r"(attrs?|collections|enum|pika|random|twisted|typing|zope)\..*")]
nitpick_ignore = [
    # Imported where only the type checker looks, so autodoc has them by their bare names.
    *(("py:class", name) for name in ("BrokerUrl", "Deferred", "LaneState", "LinkState", "Receipts", "Spool")),
    ("py:class", "datetime"),
    # Names in signatures of what applications do not call or make: seams between the rooms, and aliases of types.
    *(("py:class", name) for name in ("BrokerSide", "Declaration", "FieldValue", "Supply", "Traces")),
    ("py:class", "pubd.spool.base.Spool"),
]
