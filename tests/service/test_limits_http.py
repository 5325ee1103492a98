"""Many HTTP connections on a real daemon: idle ones cost little, and the end of descriptors is no end of service."""

from __future__ import annotations

from pathlib import Path

from tests.rabbitmq import Node
from tests.service.conftest import Run
from tests.service.crowd import HTTP
from tests.service.limits import at_the_end_of_descriptors_it_refuses_and_recovers, idle_ones_are_no_burden
from tests.service.process import until


def test_a_thousand_idle_connections_beside_fifty_busy_ones(run: Run, tmp_path: Path, nowhere: str) -> None:
    # Or those with half a head were cut on a slow machine before the end of the test.
    idle_ones_are_no_burden(run, tmp_path, HTTP, nowhere, more='header_timeout = "2m"\n')


def test_at_the_end_of_descriptors_rabbitmq_and_the_spool_have_theirs(run: Run, tmp_path: Path, own_node: Node) -> None:
    def connections() -> set[str]:
        return {each["name"] for each in own_node.connections()}

    def reconnect() -> None:
        before = connections()
        own_node.close_all_connections("to have it connect again")
        until(lambda: connections() - before, what=lambda: f"it did not come back: {connections()}")

    at_the_end_of_descriptors_it_refuses_and_recovers(run, tmp_path, HTTP, own_node.url, meanwhile=reconnect)
