"""What was seen, for a terminal and as the page docs/drill.rst."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill, indent

from tests.drill.playing import Played
from tests.drill.watching import STATUS

WIDTH = 120
HEAD = """\
.. Written by 'python -m tests.drill --write' from what was seen; do not edit.

The drill
=========

Seven everyday faults, brought about for real against a running pubd and a real RabbitMQ, while an application hands in
messages all the time: what pubd says of each in every place where an operator looks, and how many seconds after the
fault; what is typed because pubd says so; and that all is well afterwards, with balanced books. ``python -m
tests.drill`` plays it and writes this page; a shorter form is part of the tests, which fail when pubd says something
else than this page.

Seconds are as measured, on two cores that had other work: they tell seconds from minutes. pubd looks at its own health
once a second, and the drill at each place several times a second; ``pubd status`` itself takes about half a second.
"""


def text(played: Played) -> str:
    """For a terminal."""
    lines = [f"== {played.case.title}"]
    lines += [f"{sight.seconds:7.1f} s  {sight.view:12} {sight.said}" for sight in played.sights]
    lines += [f"           $ {command}" for command in played.typed]
    return "\n".join([*lines, f"{played.healthy:7.1f} s  until it is well; {played.books}", ""])


def page(all: Sequence[Played]) -> str:
    """docs/drill.rst."""
    return "\n".join([HEAD, *(_section(played) for played in all)])


def _section(played: Played) -> str:
    case = played.case
    rows = [
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 14 76 10",
        "   :class: drill",
        "",
        "   * - Where",
        "     - What it says",
        "     - After",
    ]
    for sight in played.sights:
        rows += [f"   * - ``{sight.view}``", f"     - {_said(sight.view, sight.said)}", f"     - {sight.seconds:.1f} s"]
    typed = "\n".join(f"   $ {command}" for command in played.typed)
    return "\n".join(
        [
            "",
            f".. _drill-{case.name}:",
            "",
            case.title,
            "-" * len(case.title),
            "",
            fill(case.done, WIDTH, break_long_words=False, break_on_hyphens=False),
            "",
            ".. code-block:: text",
            "",
            indent(played.screen.rstrip(), "   "),
            "",
            *rows,
            "",
            "What is typed:",
            "",
            ".. code-block:: console",
            "",
            typed,
            "",
            fill(case.then, WIDTH, break_long_words=False, break_on_hyphens=False),
            f"Well again {played.healthy:.1f} s after the first of these commands began. Then, with pubd stopped,",
            f"``pubd verify`` says: {played.books}.",
            "",
        ]
    )


def _said(view: str, said: str) -> str:
    """On one line, as it is."""
    if view == STATUS and " -> " in said:
        found, _, advice = said.partition(" -> ")
        return f"``{_plain(found)}`` → ``{_plain(advice)}``"
    return f"``{_plain(said)}``"


def _plain(said: str) -> str:
    return re.sub(r"\s+", " ", said).strip()


def neutral(said: str) -> str:
    """Without what differs from one time to the next."""
    return re.sub(r"\d+(?:[.,]\d+)*[smh]?\b", "N", _plain(said))
