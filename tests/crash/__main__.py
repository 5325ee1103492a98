"""The command line of crash testing: campaign after campaign, and the table of their verdicts."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom

from pubd import failpoints
from tests.crash.judge import Verdict
from tests.crash.plan import SESSIONS
from tests.crash.processes import CampaignFailed
from tests.crash.supervisor import Campaign, carry_out
from tests.rabbitmq import Node

COLUMNS = ("attempted", "acknowledged", "ok", "lost", "unexpected", "in_doubt", "recovered", "duplicated", "worst")


def table(rows: Sequence[tuple[Campaign, Verdict, float]]) -> str:
    """The verdicts, one a line."""
    lines = [["through", "where", "kills", *COLUMNS, "seconds", "verdict"]]
    for campaign, verdict, seconds in rows:
        figures = [str(getattr(verdict, name)) for name in ("kills", *COLUMNS)]
        judgement = f"{len(verdict.problems)} PROBLEMS" if verdict.problems else "kept its word"
        where = campaign.failpoint or "random times"
        lines.append([campaign.through, where, *figures, f"{seconds:.0f}", judgement])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def show(what: str, text: str) -> None:
    """The progress line: written over at a terminal, a line each in a log."""
    end = "\r" if sys.stdout.isatty() and not text.endswith("\n") else "\n"
    print(f"{what}: {text.rstrip()}".ljust(79), end=end, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/crash", description="Kill pubd again and again, and judge.")
    parser.add_argument("--cycles", type=int, default=200, help="kills at random times (%(default)s)")
    parser.add_argument("--messages", type=int, default=2000, help="messages for each of these (%(default)s)")
    parser.add_argument("--failpoints", type=int, default=20, help="kills at each failpoint (%(default)s)")
    parser.add_argument("--only", choices=failpoints.NAMES, action="append", help="these failpoints only")
    parser.add_argument(
        "--through", choices=(*SESSIONS, "all"), default="python", help="the way in, or all (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to repeat it")
    parser.add_argument("--keep", type=Path, default=Path("var/crash"), help="where failed spools stay (%(default)s)")
    arguments = parser.parse_args()
    seed = SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    # The workers run in a directory below it.
    keep = arguments.keep.absolute()
    keep.mkdir(parents=True, exist_ok=True)
    campaigns = []
    for through in SESSIONS if arguments.through == "all" else (arguments.through,):
        if arguments.cycles:
            campaigns.append(Campaign(seed=seed, cycles=arguments.cycles, messages=arguments.messages, through=through))
        if arguments.failpoints:
            campaigns += [
                Campaign.at(name, seed=seed, cycles=arguments.failpoints, through=through)
                for name in arguments.only or failpoints.NAMES
            ]
    print(f"seed {seed}: script/crash --seed {seed} repeats this run", flush=True)
    rows: list[tuple[Campaign, Verdict, float]] = []
    with Node() as node:
        for campaign in campaigns:
            what = f"{campaign.through}, {campaign.failpoint or 'random times'}"
            began = time.monotonic()
            try:
                verdict = carry_out(campaign, node, partial(show, what), keep)
            except CampaignFailed as failure:
                show(what, f"{failure}\n")
                continue
            rows.append((campaign, verdict, time.monotonic() - began))
            for problem in verdict.problems:
                show(what, f"{problem}\n")
    print(table(rows), flush=True)
    return 1 if len(rows) < len(campaigns) or any(verdict.problems for _, verdict, _ in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
