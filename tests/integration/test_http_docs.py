"""The commands of docs/http.rst do what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest_twisted
from twisted.internet.utils import getProcessOutputAndValue

from tests.integration.spooled import bind, declare
from tests.integration.support import in_thread, vhost_url
from tests.integration.test_http import daemon
from tests.rabbitmq import Node

SOCKET = "/run/pubd/http.sock"


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command with what it shows, from the blocks of rst."""
    for block in re.findall(r"^\.\. code-block:: console\n\n((?:   .*\n|\n)+)", text, re.MULTILINE):
        for part in re.split(r"^   \$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.rstrip().split("\n")
            # What belongs to the command is indented deeper.
            shown = next((n for n, line in enumerate(lines) if n and not line.startswith("       ")), len(lines))
            yield "\n".join(lines[:shown]), "\n".join(line.strip() for line in lines[shown:])


def matches(shown: str, output: str) -> bool:
    return re.fullmatch(".*?".join(map(re.escape, shown.split("..."))), output.strip(), re.DOTALL) is not None


@pytest_twisted.ensureDeferred
async def test_the_documented_commands(shared_node: Node, vhost: str, tmp_path: Path, repository: Path) -> None:
    url = vhost_url(shared_node, vhost)
    await in_thread(declare, url, "orders", "topic")
    await in_thread(bind, url, "orders", "orders", "order.*")
    found = list(commands((repository / "docs" / "http.rst").read_text(encoding="utf-8")))
    assert len(found) >= 9
    async with daemon(url, tmp_path) as curl:
        for command, shown in found:
            line = "set -o pipefail\n" + command.replace(SOCKET, str(tmp_path / "http.sock"))
            out, errors, code = await getProcessOutputAndValue("/bin/bash", ["-c", line])
            assert code == 0, (command, errors)
            assert matches(shown, out.decode()), (command, out)
            for answer in out.decode().splitlines():
                json.loads(answer)
        assert curl.held.account().books.accepted == 8
