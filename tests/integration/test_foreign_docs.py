"""The commands of docs/cloudevents.rst and docs/management.rst do what these pages say."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.utils import getProcessOutputAndValue

from tests.integration.serving import serving
from tests.integration.spooled import bind, declare
from tests.integration.support import channel_of, in_thread
from tests.integration.test_http_docs import commands, matches


def remove(url: str, exchange: str, queue: str) -> None:
    with channel_of(url) as channel:
        channel.queue_delete(queue)
        channel.exchange_delete(exchange)


@pytest.mark.parametrize(("page", "count", "accepted"), [("cloudevents", 3, 3), ("management", 3, 3)])
@pytest_twisted.ensureDeferred
async def test_the_documented_commands(
    page: str, count: int, accepted: int, broker_url: str, repository: Path, tmp_path: Path
) -> None:
    # The name that the pages have, on the virtual host that everybody has.
    await in_thread(declare, broker_url, "orders", "topic")
    await in_thread(bind, broker_url, "orders", "foreign-docs", "order.*")
    try:
        found = list(commands((repository / "docs" / f"{page}.rst").read_text(encoding="utf-8")))
        assert len(found) == count
        async with serving(broker_url) as pubd:
            for command, shown in found:
                out, errors, code = await getProcessOutputAndValue(
                    "/bin/bash",
                    ["-c", command.replace("8672", str(pubd.port))],
                    env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
                )
                assert code == 0, (command, errors)
                assert matches(shown, out.decode()), (command, out)
            assert pubd.publisher.account().books.accepted == accepted
    finally:
        await in_thread(remove, broker_url, "orders", "foreign-docs")
