"""What every spool does. The next store is one more row in ``SPOOLS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pubd.entry import Entry
from pubd.errors import SpoolFull
from pubd.outcome import Cause, Reason, Settlement, State
from pubd.spool.memory import MemorySpool
from tests.slow_spool import AtOnce, SlowSpool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.spool.base import Spool

SPOOLS: dict[str, Callable[[int], Spool]] = {
    "memory": lambda max_bytes: MemorySpool(max_bytes=max_bytes),
    "slow": lambda max_bytes: SlowSpool(AtOnce(), max_bytes=max_bytes),
}
LARGE = 1 << 30


@pytest.fixture(params=SPOOLS)
def make(request: pytest.FixtureRequest) -> Callable[[int], Spool]:
    """Makes a spool with a limit in bytes."""
    return SPOOLS[request.param]


def entry(name: str, exchange: str = "e", body: bytes = b"") -> Entry:
    return Entry(
        id=name, exchange=exchange, routing_key="k", message_id=name, mandatory=True, properties=b"", body=body
    )


def names(entries: Sequence[Entry]) -> list[str]:
    return [each.id for each in entries]


def change(one: Entry, state: State, due: float | None = None) -> Settlement:
    reason = Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE")
    return Settlement(entry=one, state=state, attempts=one.attempts + 1, reason=reason, due=due)


async def opened(make: Callable[[int], Spool], max_bytes: int = LARGE) -> Spool:
    spool = make(max_bytes)
    await spool.open()
    return spool


@pytest_twisted.ensureDeferred
async def test_messages_are_claimed_in_order_of_acceptance_for_each_exchange(make: Callable[[int], Spool]) -> None:
    spool = await opened(make)
    await spool.append([entry("a1", "a"), entry("b1", "b"), entry("a2", "a")])
    await spool.append([entry("a3", "a")])
    assert sorted(await spool.backlog()) == ["a", "b"]
    assert names(await spool.claim("a", 2, LARGE, 0.0)) == ["a1", "a2"]
    assert names(await spool.claim("a", 2, LARGE, 0.0)) == ["a3"]
    assert names(await spool.claim("a", 2, LARGE, 0.0)) == []
    assert names(await spool.claim("b", 2, LARGE, 0.0)) == ["b1"]
    assert names(await spool.claim("unknown", 2, LARGE, 0.0)) == []
    await spool.close()


@pytest_twisted.ensureDeferred
async def test_a_claim_stops_at_its_bytes_but_always_gives_one(make: Callable[[int], Spool]) -> None:
    spool = await opened(make)
    await spool.append([entry("a", body=b"x" * 1000), entry("b", body=b"x" * 1000)])
    assert names(await spool.claim("e", 10, 1, 0.0)) == ["a"]
    assert names(await spool.claim("e", 10, 5000, 0.0)) == ["b"]
    await spool.close()


@pytest_twisted.ensureDeferred
async def test_released_messages_come_again_in_their_old_place(make: Callable[[int], Spool]) -> None:
    spool = await opened(make)
    await spool.append([entry(name) for name in "abcdef"])
    first = await spool.claim("e", 2, LARGE, 0.0)
    second = await spool.claim("e", 2, LARGE, 0.0)
    spool.release(second)
    spool.release(first)
    assert names(await spool.claim("e", 3, LARGE, 0.0)) == ["a", "b", "c"]
    assert names(await spool.claim("e", 9, LARGE, 0.0)) == ["d", "e", "f"]
    assert all(each.attempts == 0 for each in first)
    await spool.close()


@pytest_twisted.ensureDeferred
async def test_a_deferred_message_comes_when_it_is_due_with_its_attempts(make: Callable[[int], Spool]) -> None:
    spool = await opened(make)
    await spool.append([entry("a"), entry("b"), entry("c")])
    a, b, _ = await spool.claim("e", 3, LARGE, 0.0)
    await spool.settle([], [change(a, State.DEFERRED, due=20.0), change(b, State.DEFERRED, due=10.0)])
    assert await spool.due("e", 0.0) == 10.0
    assert await spool.due("e", 10.0) == 20.0
    assert await spool.due("e", 20.0) is None
    assert await spool.due("unknown", 0.0) is None
    assert names(await spool.claim("e", 3, LARGE, 9.9)) == []
    (again,) = await spool.claim("e", 3, LARGE, 10.0)
    assert (again.id, again.attempts) == ("b", 1)
    assert names(await spool.claim("e", 3, LARGE, 20.0)) == ["a"]
    await spool.close()


@pytest_twisted.ensureDeferred
async def test_the_books_follow_every_message(make: Callable[[int], Spool]) -> None:
    spool = await opened(make)
    await spool.append([entry(name) for name in "abcdefgh"])
    assert spool.books().bytes == 8 * entry("a").size
    a, b, c, d, e, f, _ = await spool.claim("e", 7, LARGE, 0.0)
    await spool.settle(
        [a],
        [
            change(b, State.PARKED),
            change(c, State.DEFERRED, due=1.0),
            change(d, State.EXPIRED),
            change(e, State.DISCARDED),
            change(f, State.READY),
        ],
    )
    books = spool.books()
    assert (books.accepted, books.confirmed, books.expired, books.discarded) == (8, 1, 1, 1)
    assert (books.ready, books.deferred, books.parked, books.in_flight) == (2, 1, 1, 1)
    assert books.held == 5
    assert books.difference == 0
    assert books.bytes == 5 * entry("a").size
    await spool.close()


@pytest_twisted.ensureDeferred
async def test_a_full_spool_refuses_the_whole_batch_and_nothing_else_suffers(make: Callable[[int], Spool]) -> None:
    size = entry("a").size
    spool = await opened(make, 2 * size)
    await spool.append([entry("a")])
    with pytest.raises(SpoolFull, match="max_bytes") as refused:
        await spool.append([entry("b"), entry("c")])
    assert refused.value.limit == "max_bytes"
    assert spool.books().accepted == 1
    (a,) = await spool.claim("e", 9, LARGE, 0.0)
    await spool.settle([a], [])
    await spool.append([entry("b"), entry("c")])
    assert names(await spool.claim("e", 9, LARGE, 0.0)) == ["b", "c"]
    await spool.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "claim", "release", "settle", "time"]),
        st.integers(1, 4),
        st.lists(st.sampled_from(list(State)), min_size=4, max_size=4),
    ),
    max_size=12,
)


# Not parametrized: pytest-twisted wraps a test of Hypothesis once more for each parameter, and the second one fails.
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS)
@pytest_twisted.ensureDeferred
async def test_whatever_happens_nothing_is_lost_or_doubled(steps: list[tuple[str, int, list[State]]]) -> None:
    for make in SPOOLS.values():
        await _random_life(make, steps)


async def _random_life(make: Callable[[int], Spool], steps: list[tuple[str, int, list[State]]]) -> None:
    """Random life of a spool: order within what is ready, each message in one place, books balanced at every step."""
    spool = await opened(make)
    accepted = ended = 0
    now = 0.0
    claimed: list[Entry] = []
    for step, number, states in steps:
        if step == "append":
            await spool.append([entry(f"m{accepted + n}") for n in range(number)])
            accepted += number
        elif step == "claim":
            got = await spool.claim("e", number, LARGE, now)
            assert [each.seq for each in got] == sorted(each.seq for each in got)
            assert not {each.id for each in got} & {each.id for each in claimed}
            claimed += got
        elif step == "time":
            now += number
        elif step == "release":
            # The later half first, as two channels closing one after the other would.
            some, claimed = claimed[-number:], claimed[:-number]
            spool.release(some)
        else:
            some, claimed = claimed[:number], claimed[number:]
            pairs = list(zip(some, states, strict=False))
            await spool.settle(
                [one for one, state in pairs if state is State.CONFIRMED],
                [
                    change(one, state, due=now + 2 if state is State.DEFERRED else None)
                    for one, state in pairs
                    if state is not State.CONFIRMED
                ],
            )
            ended += sum(state in (State.CONFIRMED, State.EXPIRED, State.DISCARDED) for _, state in pairs)
        books = spool.books()
        assert books.accepted == accepted
        assert books.in_flight == len(claimed)
        assert books.held == accepted - ended
        assert books.difference == 0
    await spool.close()
