"""What the benchmarks' reports have in common: ratios, medians, targets, and how they are printed."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import attrs

from benchmarks.measure import Spread, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Writes by which the disk is measured.
PROBES = 200


def ratio(own: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios within each round: what the machine does else changes from round to round."""
    return round(statistics.median(one / other for one, other in zip(own, others, strict=True)), 2)


def median(spreads: Sequence[Spread | None]) -> dict[str, float] | None:
    """The medians of each figure of those that are known; None where none is."""
    known = [spread for spread in spreads if spread is not None]
    return {name: round(value, 2) for name, value in attrs.asdict(Spread.median(known)).items()} if known else None


def disk(directory: Path) -> dict[str, float]:
    """What one write of 4 KiB and its fdatasync take there, in milliseconds."""
    took = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(PROBES):
            start = time.monotonic()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.monotonic() - start)
    return {name: round(value, 3) for name, value in attrs.asdict(Spread.of(took)).items()}


def target(what: str, found: float, wanted: float, *, at_least: bool = False) -> dict[str, Any]:
    """What is to be reached, at most unless ``at_least``, beside what was."""
    reached = found >= wanted if at_least else found <= wanted
    return {"what": what, "found": found, "wanted": wanted, "at_least": at_least, "reached": reached}


def disk_line(found: dict[str, float]) -> str:
    """What ``disk`` found, for people."""
    return f"disk: 4 KiB and fdatasync take {millis(found)} ms (p50 / p99 / max)"


def targets_table(rows: Sequence[dict[str, Any]]) -> str:
    """What ``target`` made, as a table for people."""
    cells = [
        (
            row["what"],
            f"{row['found']:g}",
            f"{'>=' if row['at_least'] else '<='} {row['wanted']:g}",
            "reached" if row["reached"] else "missed",
        )
        for row in rows
    ]
    return table(("target", "found", "wanted", ""), cells)


def millis(spread: dict[str, float] | None) -> str:
    """A spread's figures next to each other."""
    return "-" if spread is None else f"{spread['p50']:.2f} / {spread['p99']:.2f} / {spread['max']:.2f}"
