"""What every spool does for an export, and for a copy of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from pubd.errors import SpoolError, SpoolFull, SpoolWithoutFile
from pubd.outcome import State
from pubd.spool import offline
from pubd.spool.base import Accepted, Exported, Limits, Spool
from tests.contract.test_spool import SPOOLS, Bench, delivery, parked

LARGE = 1 << 30


@pytest.fixture(params=SPOOLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(SPOOLS[request.param], tmp_path / "spool.db")
    yield bench
    pytest_twisted.blockon(bench.spool.close())


async def pages(spool: Spool, limit: int, max_bytes: int = LARGE) -> list[list[Exported]]:
    """All of them, to the empty one, which is left out."""
    found: list[list[Exported]] = []
    after = None
    while page := await spool.exported(after, limit, max_bytes):
        found.append(list(page))
        after = page[-1].entry.id
    return found


@pytest_twisted.ensureDeferred
async def test_what_is_open_is_exported_in_order_of_acceptance_with_its_state(bench: Bench) -> None:
    spool = await bench.open()
    await spool.append(
        [
            bench.entry("a"),
            bench.entry("b", "f", idempotency_key="key-b", fingerprint=b"f"),
            bench.entry("c"),
            bench.entry("d", "f", due=bench.wall.now + 60),
            bench.entry("e"),
        ]
    )
    a, c, e = await spool.claim("e", 3, LARGE, bench.wall.now)
    await spool.settle([delivery(a, 1)], [parked(c)])
    spool.release([e])
    (page,) = await pages(spool, 10)
    found = [(bench.names[each.entry.id], each.state, each.entry.body, each.damaged) for each in page]
    assert found == [
        ("b", State.READY, b"b", False),
        ("c", State.PARKED, b"b", False),
        ("d", State.DEFERRED, b"b", False),
        ("e", State.READY, b"b", False),
    ]
    assert page[0].entry.idempotency_key == "key-b"
    assert page[2].entry.due == bench.wall.now + 60


@pytest_twisted.ensureDeferred
async def test_pages_are_bounded_in_messages_and_in_bytes_but_for_a_single_one(bench: Bench) -> None:
    spool = await bench.open()
    await spool.append([bench.entry(name, "ef"[n % 2], body=b"b" * 1000) for n, name in enumerate("abcdefg")])
    assert [len(page) for page in await pages(spool, 3)] == [3, 3, 1]
    assert [len(page) for page in await pages(spool, 10, 3000)] == [2, 2, 2, 1]
    assert [len(page) for page in await pages(spool, 10, 1)] == [1] * 7
    names = [bench.names[each.entry.id] for page in await pages(spool, 2) for each in page]
    assert names == list("abcdefg")


@pytest_twisted.ensureDeferred
async def test_it_goes_on_after_a_message_that_is_settled_meanwhile(bench: Bench) -> None:
    spool = await bench.open()
    await spool.append([bench.entry(name) for name in "abcd"])
    first = await spool.exported(None, 2, LARGE)
    claimed = await spool.claim("e", 3, LARGE, bench.wall.now)
    await spool.settle([delivery(entry, n) for n, entry in enumerate(claimed, 1)], [])
    rest = await spool.exported(first[-1].entry.id, 2, LARGE)
    assert [bench.names[each.entry.id] for each in rest] == ["d"]


@pytest_twisted.ensureDeferred
async def test_nothing_comes_after_an_id_of_another_spool(bench: Bench) -> None:
    spool = await bench.open()
    await spool.append([bench.entry("a")])
    assert list(await spool.exported("01a20a95-5333-7000-ab35-84120f97a391", 10, LARGE)) == []


@pytest_twisted.ensureDeferred
async def test_what_is_exported_is_nobody_elses_to_change(bench: Bench) -> None:
    spool = await bench.open()
    await spool.append([bench.entry("a", due=bench.wall.now - 1)])
    (page,) = await pages(spool, 1)
    page[0].entry.due = None
    assert await bench.claimed() == ["a"]


@pytest_twisted.ensureDeferred
async def test_what_comes_back_by_its_id_is_known_while_it_is_remembered(bench: Bench) -> None:
    spool = await bench.open()
    (a, b) = await bench.append("a", "b")
    known, new = await spool.append_each(
        [
            bench.entry("again", idempotency_key=a.id, fingerprint=b"whatever"),
            bench.entry("other", idempotency_key=a.id[:-1] + "x", fingerprint=b"whatever"),
        ]
    )
    assert isinstance(known, Accepted)
    assert isinstance(new, Accepted)
    assert (known.id, known.new, new.new) == (a.id, False, True)
    for entry in await spool.claim("e", 3, LARGE, bench.wall.now):
        await spool.settle([], [parked(entry)])
    await spool.discard([b.id], "why")
    (settled,) = await spool.append([bench.entry("again", idempotency_key=b.id, fingerprint=b"f")])
    assert (settled.new, settled.state) == (False, State.DISCARDED)
    await spool.sweep(bench.wall.now + 100, 1.0)
    (forgotten,) = await spool.append([bench.entry("again", idempotency_key=b.id, fingerprint=b"f")])
    assert forgotten.new


# The copy


async def snapshot(spool: Spool, path: Path) -> Path:
    copy = await spool.snapshot()
    while not await copy.step():
        pass
    path.write_bytes(os.pread(copy.fd, os.fstat(copy.fd).st_size, 0))
    copy.close()
    return path


def files(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}


@pytest_twisted.ensureDeferred
async def test_a_copy_has_what_was_committed_until_its_end_and_is_whole(tmp_path: Path) -> None:
    bench = Bench(SPOOLS["sqlite"], tmp_path / "spool.db")
    spool = await bench.open()
    for _ in range(30):
        await spool.append([bench.entry("m", body=os.urandom(50_000)) for _ in range(2)])
    before = files(tmp_path)
    copy = await spool.snapshot()
    assert files(tmp_path) == before, "it has no name, and ends with the process"
    assert os.fstat(copy.fd).st_mode & 0o777 == 0o600
    steps = 0
    while not await copy.step():
        steps += 1
        claimed = await spool.claim("e", 1, LARGE, bench.wall.now)
        await spool.append([bench.entry("new", body=b"n" * 10_000)])
        await spool.settle([delivery(entry, n) for n, entry in enumerate(claimed, 1)], [])
    assert steps >= 2
    backup = tmp_path / "backup.db"
    backup.write_bytes(os.pread(copy.fd, os.fstat(copy.fd).st_size, 0))
    copy.close()
    await spool.close()
    original, copied = offline.verify(tmp_path / "spool.db"), offline.verify(backup)
    assert copied.problems == ()
    assert copied.books == original.books
    assert [each.entry.id for each in offline.export(backup)] == [
        each.entry.id for each in offline.export(tmp_path / "spool.db")
    ]


@pytest_twisted.ensureDeferred
async def test_a_copy_is_a_spool_to_go_on_with(tmp_path: Path) -> None:
    bench = Bench(SPOOLS["sqlite"], tmp_path / "spool.db")
    spool = await bench.open()
    await spool.append([bench.entry(name) for name in "abc"])
    path = await snapshot(spool, tmp_path / "copy.db")
    await spool.close()
    other = Bench(SPOOLS["sqlite"], path)
    other.names = bench.names
    await other.open()
    await other.spool.append([other.entry("d")])
    assert await other.claimed() == list("abcd")
    await other.spool.close()


@pytest_twisted.ensureDeferred
async def test_a_copy_that_is_not_done_hinders_nobody_from_closing(tmp_path: Path) -> None:
    bench = Bench(SPOOLS["sqlite"], tmp_path / "spool.db")
    spool = await bench.open()
    await spool.append([bench.entry("m", body=os.urandom(4_000_000))])
    copy = await spool.snapshot()
    assert not await copy.step()
    await spool.close()
    with pytest.raises(SpoolError, match="not open"):
        await copy.step()
    copy.close()
    copy.close()
    spool = await bench.reopen()
    assert (await bench.books()).held == 1
    await spool.close()


@pytest_twisted.ensureDeferred
async def test_without_room_for_it_no_copy_is_begun(tmp_path: Path) -> None:
    bench = Bench(SPOOLS["sqlite"], tmp_path / "spool.db")
    spool = await bench.open(Limits(min_free=1 << 60))
    with pytest.raises(SpoolFull, match="a copy of the spool takes"):
        await spool.snapshot()
    assert (await bench.books()).accepted == 0
    await spool.close()


@pytest_twisted.ensureDeferred
async def test_there_is_no_file_of_what_is_in_memory(tmp_path: Path) -> None:
    spool = SPOOLS["memory"](tmp_path, None, Bench(SPOOLS["memory"], tmp_path).wall)
    with pytest.raises(SpoolWithoutFile, match="in memory"):
        await spool.snapshot()
