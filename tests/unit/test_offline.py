"""The spool of a stopped daemon: verify finds what is wrong with it, export gives what is open in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import attrs
import pytest

from pubd.errors import SpoolError, SpoolFailed, SpoolInUse
from pubd.outcome import Settlement, State
from pubd.spool import offline, schema
from tests.unit.test_sqlite_spool import Bench, confirmed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool with one confirmed, one parked, one deferred, two ready messages."""
    bench = Bench(tmp_path / "spool.db")
    bench.open()
    entries = bench.entries(5, b"body")
    entries[4] = attrs.evolve(entries[4], routing_key="k\0é")
    bench.do(lambda spool: spool.append(entries))
    one, two, three = bench.claim(3)
    others = [
        Settlement(entry=two, state=State.PARKED, attempts=1),
        Settlement(entry=three, state=State.DEFERRED, attempts=1, due=9.0),
    ]
    bench.do(lambda spool: spool.settle(confirmed([one]), others))
    bench.close()
    return bench.path


def changed(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def left_by_a_kill(path: Path, directory: Path) -> Path:
    """The files as they are while a daemon runs, with three messages more that are in the WAL only."""
    bench = Bench(path)
    bench.open()
    bench.append(3)
    copied(path, directory)
    bench.close()
    return directory / path.name


def copied(path: Path, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for suffix in ("", "-wal"):
        source = path.with_name(f"{path.name}{suffix}")
        if source.exists():
            shutil.copyfile(source, directory / source.name)


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A copy of the spool, for somebody who may read it and its directory, and no more; meanwhile this is they."""
    directory = Path(tempfile.mkdtemp(prefix="pubd-readable-"))
    user = os.geteuid()
    try:
        copied(path, directory)
        for each in directory.iterdir():
            each.chmod(0o444)
        directory.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        yield directory / path.name
    finally:
        os.seteuid(user)
        directory.chmod(0o700)
        shutil.rmtree(directory)


def test_a_whole_spool_has_no_problems_and_its_books_are_told(path: Path) -> None:
    report = offline.verify(path)
    assert report.problems == ()
    books = report.books
    assert (books.accepted, books.confirmed, books.ready, books.deferred, books.parked) == (5, 1, 2, 1, 1)
    assert report.schema == schema.steps()[-1][0]


def test_what_a_killed_daemon_left_in_its_wal_is_seen(path: Path, tmp_path: Path) -> None:
    report = offline.verify(left_by_a_kill(path, tmp_path / "copy"))
    assert (report.problems, report.books.accepted) == ((), 8)


def test_what_is_left_in_the_wal_stays_there(path: Path, tmp_path: Path) -> None:
    left = left_by_a_kill(path, tmp_path / "copy")
    before = {each.name: each.read_bytes() for each in left.parent.iterdir()}
    assert offline.verify(left).problems == ()
    assert len(list(offline.export(left))) == 7
    assert {each.name: each.read_bytes() for each in left.parent.iterdir() if each.suffix != ".lock"} == before


def test_it_may_be_somebody_else_s_as_long_as_nothing_is_left_in_the_wal(path: Path) -> None:
    """As another user, who may read file and directory."""
    with readable(path) as public:
        report = offline.verify(public)
        assert (report.problems, report.books.accepted, report.books.held) == ((), 5, 4)
        assert len(list(offline.export(public))) == 4
        assert [each.name for each in public.parent.iterdir()] == ["spool.db"]
    bench = Bench(path)
    bench.open()
    bench.append()
    with readable(path) as public, pytest.raises(SpoolError, match=r"may only be read, and spool\.db-wal"):
        offline.verify(public)
    bench.close()


def test_export_gives_everything_open_in_order(path: Path) -> None:
    exported = list(offline.export(path))
    assert [each.state for each in exported] == [State.PARKED, State.DEFERRED, State.READY, State.READY]
    assert [each.damaged for each in exported] == [False] * 4
    assert [each.entry.body for each in exported] == [b"body"] * 4
    assert [each.entry.attempts for each in exported] == [1, 1, 0, 0]
    assert exported[3].entry.routing_key == "k\0é"
    assert offline.verify(path).problems == ()


def test_export_may_be_left_half_way(path: Path) -> None:
    exporting = offline.export(path)
    next(exporting)
    exporting.close()  # type: ignore[attr-defined]  # it is a generator
    assert offline.verify(path).problems == ()


@pytest.mark.parametrize("damage", ["body = x'00'", "routing_key = CAST(x'ff' AS TEXT)"])
def test_damaged_messages_are_named_and_exported_as_such(path: Path, damage: str) -> None:
    changed(path, f"UPDATE message SET {damage} WHERE state = 2")
    bad = next(iter(offline.export(path)))
    assert bad.damaged
    assert any(bad.entry.id in problem and "checksum" in problem for problem in offline.verify(path).problems)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE books SET ready = 9", "the books say 9 ready, there are 2"),
        ("UPDATE books SET bytes = bytes + 1", "bytes are held"),
        ("UPDATE books SET accepted = 99", "the books do not balance"),
        ("DELETE FROM message WHERE state = 2", "the books say 1 parked, there are 0"),
        ("UPDATE message SET exchange = 77 WHERE state = 2", "belongs to an unknown exchange"),
    ],
)
def test_books_that_do_not_agree_with_the_messages_are_a_problem(path: Path, change: str, problem: str) -> None:
    changed(path, change)
    assert any(problem in each for each in offline.verify(path).problems)


def test_a_spool_in_use_is_left_alone(path: Path) -> None:
    bench = Bench(path)
    bench.open()
    with pytest.raises(SpoolInUse, match=f"process {os.getpid()}"):
        offline.verify(path)
    bench.close()


def test_what_is_no_spool_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with pytest.raises(SpoolError, match="there is no spool"):
        offline.verify(path)
    path.write_bytes(b"")
    with pytest.raises(SpoolError, match="schema 0"):
        offline.verify(path)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(SpoolFailed, match="damaged"):
        list(offline.export(path))


def test_a_spool_whose_making_was_cut_short_has_nothing_in_it(path: Path) -> None:
    changed(path, "DELETE FROM books")
    with pytest.raises(SpoolError, match="has no books"):
        offline.verify(path)
