"""``python -m tests.drill``: see ``--help``."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.drill.cases import cases
from tests.drill.playing import Played, play
from tests.drill.stage import prepare
from tests.drill.telling import page, text
from tests.rabbitmq import Node

PAGE = Path(__file__).resolve().parents[2] / "docs/drill.rst"


def main() -> None:
    """Play all faults or some, print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="FAULT", help=", ".join(case.name for case in cases()))
    parser.add_argument("--parked", type=int, default=100_000, help="messages that are parked (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} from it (all faults)")
    given = parser.parse_args()
    chosen = [case for case in cases(parked=given.parked) if not given.names or case.name in given.names]
    played: list[Played] = []
    with Node(plugins=["rabbitmq_management"]) as node:
        prepare(node)
        for case in chosen:
            played.append(play(case, node))
            print(text(played[-1]), flush=True)
    if given.write:
        PAGE.write_text(page(played))


main()
