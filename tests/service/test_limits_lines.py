"""Many lines connections on a real daemon: idle ones cost little, and the end of descriptors is no end of service."""

from __future__ import annotations

from pathlib import Path

from tests.service.conftest import Run
from tests.service.crowd import LINES
from tests.service.limits import at_the_end_of_descriptors_it_refuses_and_recovers, idle_ones_are_no_burden


def test_a_thousand_idle_connections_beside_fifty_busy_ones(run: Run, tmp_path: Path, nowhere: str) -> None:
    idle_ones_are_no_burden(run, tmp_path, LINES, nowhere)


def test_at_the_end_of_descriptors_it_refuses_and_recovers(run: Run, tmp_path: Path, nowhere: str) -> None:
    at_the_end_of_descriptors_it_refuses_and_recovers(run, tmp_path, LINES, nowhere)
