"""An exchange is deleted, or forbidden, under load: only its lane stops, and it resumes by itself.

RabbitMQ makes and unmakes an exchange and its bindings one after another: for a moment the exchange is there and routes
nowhere. A message that comes in just then is returned (312) and parked, as it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import pytest_twisted

from pubd.outcome import Cause
from pubd.publisher import Publisher
from tests.integration.support import (
    Load,
    channel_of,
    duplicates,
    furthest_back,
    in_thread,
    is_refused,
    lane,
    loaded,
    operators_log,
    publishing,
    route,
    take,
    until,
    vhost_url,
)
from tests.rabbitmq import Node
from tests.strictness import Logged

WINDOW = 1000
LEVEL = 2 * WINDOW
ENDLESS = 1 << 40
PROGRESS = 5000
"""Messages that have to get through elsewhere while one lane is refused."""


async def stays_refused_while_others_flow(publisher: Publisher, refused: Load, flowing: Load, code: int) -> None:
    await until(lambda: is_refused(publisher, refused.exchange, code), lambda: publisher.status())
    answered, goal = refused.answered, flowing.answered + PROGRESS

    def flowed() -> bool:
        reason = lane(publisher, refused.exchange).reason
        assert reason is not None
        assert reason.code == code
        return flowing.answered >= goal

    await until(flowed, "the other lane stands still", lambda: flowing.answered)
    assert refused.answered == answered
    assert refused.open == LEVEL


def closed_channels(logged: Logged) -> list[str]:
    return [line for line in operators_log(logged) if "closed the channel" in line]


@pytest_twisted.ensureDeferred
async def test_a_deleted_exchange_stops_its_own_lane_which_resumes_when_it_is_declared_again(
    shared_node: Node, vhost: str, unique: Callable[..., str], logged: Logged
) -> None:
    url = vhost_url(shared_node, vhost)
    gone_exchange, other_exchange = unique("gone"), unique("other")
    gone_queue, other_queue = unique("queue"), unique("queue")
    await in_thread(route, url, gone_exchange, gone_queue)
    await in_thread(route, url, other_exchange, other_queue)

    def delete() -> None:
        with channel_of(url) as channel:
            channel.exchange_delete(gone_exchange)

    async with publishing(url, window=WINDOW) as publisher:
        gone, other = Load(publisher, gone_exchange, gone_queue), Load(publisher, other_exchange, other_queue)
        async with loaded(gone, other, level=LEVEL, at_most=ENDLESS):
            await until(lambda: gone.answered > WINDOW and other.answered > WINDOW, "the loads do not flow")
            await in_thread(delete)
            await stays_refused_while_others_flow(publisher, gone, other, 404)
            reason = lane(publisher, gone_exchange).reason
            assert reason is not None
            assert reason.cause is Cause.REFUSED
            assert reason.text == f"NOT_FOUND - no exchange '{gone_exchange}' in vhost '{vhost}'"
            held = gone.answered
            await in_thread(route, url, gone_exchange, gone_queue)
            await until(lambda: gone.answered > held + LEVEL, lambda: publisher.status(), lambda: gone.answered)
        await gone.settled()
        await other.settled()
        account = publisher.account()
        assert lane(publisher, gone_exchange).reason is None

    # Nothing of it touched the other lane: no loss, no repetition.
    assert other.confirmed == list(range(len(other.messages)))
    taken = await in_thread(take, url, other_queue)
    assert [one.number for one in taken] == other.confirmed
    # Of its own messages each is confirmed, or was returned in the moment without bindings.
    assert gone.is_answered_once()
    assert {(reason.cause, reason.code) for reason in gone.parked.values()} <= {(Cause.RETURNED, 312)}
    assert sorted([*gone.confirmed, *gone.parked]) == list(range(len(gone.messages)))
    taken = await in_thread(take, url, gone_queue)
    numbers = {one.number for one in taken}
    assert set(gone.confirmed) <= numbers <= {*gone.confirmed, *gone.parked}
    assert furthest_back(taken) <= WINDOW
    assert duplicates(taken) <= account.lost
    gone.check_ids(taken)
    assert all(repr(gone_exchange) in line for line in closed_channels(logged))
    assert len(operators_log(logged)) < 50


@pytest.fixture
def user(shared_node: Node, vhost: str, unique: Callable[..., str]) -> Iterator[str]:
    """A user who may do everything in the test's virtual host; the password is the name."""
    name = unique("user")
    shared_node.add_user(name, name)
    shared_node.set_permissions(name, vhost)
    yield name
    shared_node.eval_erl(f'rabbit_auth_backend_internal:delete_user(<<"{name}">>, <<>>)')


@pytest_twisted.ensureDeferred
async def test_a_withdrawn_permission_stops_its_own_lane_which_resumes_when_it_is_given_again(
    shared_node: Node, vhost: str, user: str, unique: Callable[..., str], logged: Logged
) -> None:
    url = vhost_url(shared_node, vhost)
    closed_exchange, other_exchange = unique("closed"), unique("other")
    closed_queue, other_queue = unique("queue"), unique("queue")
    await in_thread(route, url, closed_exchange, closed_queue)
    await in_thread(route, url, other_exchange, other_queue)

    def withdraw() -> None:
        shared_node.set_permissions(user, vhost, write=f"^{other_exchange}$")
        # RabbitMQ remembers for each channel what it has allowed once: only a new channel is refused.
        shared_node.close_all_connections()

    async with publishing(vhost_url(shared_node, vhost, user, user), window=WINDOW) as publisher:
        closed, other = Load(publisher, closed_exchange, closed_queue), Load(publisher, other_exchange, other_queue)
        async with loaded(closed, other, level=LEVEL, at_most=ENDLESS):
            await until(lambda: closed.answered > WINDOW and other.answered > WINDOW, "the loads do not flow")
            await in_thread(withdraw)
            await stays_refused_while_others_flow(publisher, closed, other, 403)
            reason = lane(publisher, closed_exchange).reason
            assert reason is not None
            assert "ACCESS_REFUSED" in reason.text
            assert closed_exchange in reason.text
            held = closed.answered
            await in_thread(shared_node.set_permissions, user, vhost)
            await until(lambda: closed.answered > held + LEVEL, lambda: publisher.status(), lambda: closed.answered)
        await closed.settled()
        await other.settled()

    for load, queue in ((closed, closed_queue), (other, other_queue)):
        assert load.is_answered_once()
        assert load.confirmed == list(range(len(load.messages)))
        taken = await in_thread(take, url, queue)
        assert {one.number for one in taken} == set(load.confirmed)
        assert furthest_back(taken) <= WINDOW
        load.check_ids(taken)
    assert all(repr(closed_exchange) in line for line in closed_channels(logged))
    assert len(operators_log(logged)) < 50
