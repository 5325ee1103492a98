"""/openapi.json is true: schemathesis makes requests of it, right and wrong ones, and holds the answers against it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.utils import getProcessOutputAndValue

from pubd.access import Access, Grant, Principal
from pubd.access.tokens import hash_of, new_token
from tests.integration.serving import Serving, serving
from tests.integration.spooled import bind, declare
from tests.rabbitmq import Node
from tests.strictness import Logged

PROGRAM = Path(sys.executable).parent / "schemathesis"

# 422 is for what a schema cannot say; the management API has 400 for that. 504: RabbitMQ did not answer in time, which
# an exchange that is not there causes, too.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "417", "422"]
[parameters]
"path.vhost" = "{vhost}"
"path.name" = "{exchange}"
[[operations]]
include-path = "/api/exchanges/{{vhost}}/{{name}}/publish"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "404", "504"]
# It says that RabbitMQ refuses the exchanges that were made up.
[[operations]]
include-path = "/publishz"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "503"]
"""


async def findings(
    pubd: Serving, directory: Path, vhost: str, exchange: str, *arguments: str, phases: str, examples: int
) -> tuple[int, str]:
    """Exit code (0: nothing was found) and report."""
    (directory / "schemathesis.toml").write_text(CONFIG.format(vhost=vhost, exchange=exchange))
    out, errors, code = await getProcessOutputAndValue(
        str(PROGRAM),
        [
            "--no-color",
            f"--config-file={directory / 'schemathesis.toml'}",
            "run",
            f"{pubd.url}/openapi.json",
            f"--max-examples={examples}",
            f"--phases={phases}",
            "--generation-deterministic",
            "--continue-on-failure",
            "--request-timeout=20",
            # DELETE discards a message; that it was is remembered.
            "--exclude-checks=use_after_free",
            *arguments,
        ],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(directory),
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            "PYTHONPATH": str(Path(__file__).parent),
        },
        path=str(directory),
    )
    return code, (out + errors).decode()


@pytest.fixture
def exchange(shared_node: Node, vhost: str, unique: Callable[..., str]) -> str:
    """An exchange whose queue keeps the last hundred messages."""
    url, name = f"amqp://guest:guest@{shared_node.host}:{shared_node.port}/{vhost}", unique("exchange")
    declare(url, name, "topic")
    bind(url, name, unique("queue"), "#", **{"x-max-length": 100})
    return name


@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing,stateful"])
@pytest_twisted.ensureDeferred
async def test_it_finds_nothing(
    phases: str, shared_node: Node, vhost: str, exchange: str, tmp_path: Path, logged: Logged
) -> None:
    url = f"amqp://guest:guest@{shared_node.host}:{shared_node.port}/{vhost}"
    async with serving(url, vhosts={vhost}, max_wait=0.2) as pubd:
        code, report = await findings(pubd, tmp_path, vhost, exchange, phases=phases, examples=20)
        assert code == 0, report
        # All but the document itself.
        assert f"Tested: {pubd.operations - 1}" in report
        assert pubd.publisher.account().books.accepted > 50
        assert pubd.publisher.account().books.difference == 0
    assert not logged.alarming()


@pytest_twisted.ensureDeferred
async def test_it_finds_nothing_where_a_token_is_needed(
    shared_node: Node, vhost: str, exchange: str, tmp_path: Path, logged: Logged
) -> None:
    token = new_token()
    principal = Principal(name="shop", grants=(Grant(exchange=exchange),), operate=True, tokens=(hash_of(token),))
    url = f"amqp://guest:guest@{shared_node.host}:{shared_node.port}/{vhost}"
    async with serving(url, vhosts={vhost}, max_wait=0.2, access=Access([principal], anonymous=None)) as pubd:
        shown = f"--header=Authorization: Bearer {token}"
        code, report = await findings(pubd, tmp_path, vhost, exchange, shown, phases="examples,coverage", examples=5)
        assert code == 0, report
        nobody, report = await findings(pubd, tmp_path, vhost, exchange, phases="coverage", examples=1)
        assert nobody == 0, report
    assert not logged.alarming()
