"""What is the SQLite spool's own: its file, its schema, group commit, and every way in which a disk fails it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from pubd.amqp.probe import Result
from pubd.cli.probing import spool_findings
from pubd.config import SpoolConfig
from pubd.decision import Decision, Verb
from pubd.entry import Entry
from pubd.errors import SpoolError, SpoolFailed, SpoolFull, SpoolInUse
from pubd.ledger import Delivery
from pubd.outcome import Cause, Outcome, Settlement, State, Via
from pubd.spool import claims, offline, schema, settlements, sqlite
from pubd.spool.base import Decided, Limits, Query
from pubd.spool.ids import Ids
from pubd.spool.rows import row_of
from pubd.spool.sqlite import SqliteSpool, connect
from tests.crash.turns import Turns
from tests.crash.vfs import Disk, failed, mounted
from tests.small_disk import MIB, SmallDisk
from tests.small_disk import mounted as mounted_disk
from tests.strictness import Logged


class Bench:
    """A spool turned by hand; on a real disk, or on ``disk``."""

    def __init__(self, path: Path, disk: Disk | None = None, vfs: str | None = None, **given: Any) -> None:
        self.path, self.disk = path, disk or Disk()
        self.turns = Turns()
        self.failures: list[SpoolFailed] = []
        self.spool = SqliteSpool(path, reactor=self.turns, vfs=vfs, failed=self.failures.append, **given)

    def do(self, ask: Callable[[SqliteSpool], Any]) -> Any:
        return self.turns.result(ask(self.spool))

    def open(self) -> Any:
        return self.do(lambda spool: spool.open())

    def close(self) -> Any:
        return self.do(lambda spool: spool.close())

    def entries(self, count: int = 1, body: bytes = b"b") -> list[Entry]:
        ids = self.spool.ids
        assert ids is not None
        made = []
        for _ in range(count):
            seq = ids.next()
            id = ids.id_of(seq)
            made.append(
                Entry(
                    id=id,
                    exchange="e",
                    routing_key="k",
                    message_id=id,
                    mandatory=True,
                    properties=b"",
                    body=body,
                    seq=seq,
                )
            )
        return made

    def append(self, count: int = 1, body: bytes = b"b") -> Any:
        return self.do(lambda spool: spool.append(self.entries(count, body)))

    def claim(self, limit: int = 100) -> Any:
        return self.do(lambda spool: spool.claim("e", limit, 1 << 30, 0.0))

    def confirm(self, entries: list[Entry]) -> Any:
        return self.do(lambda spool: spool.settle(confirmed(entries), []))


def confirmed(entries: list[Entry]) -> list[Delivery]:
    return [Delivery(each, 1, 0.0, each.size, Outcome.CONFIRMED, None, Via("n", 1)) for each in entries]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def bench(path: Path) -> Iterator[Bench]:
    bench = Bench(path)
    yield bench
    bench.close()


@pytest.fixture
def on_disk(path: Path, logged: Logged) -> Iterator[Bench]:
    """Open, on a disk that can fail; then closed, whatever happened."""
    disk = Disk()
    with mounted(disk) as vfs:
        bench = Bench(path, disk, vfs)
        assert bench.open() is None
        yield bench
        disk.full = False
        bench.close()
    logged.events.clear()


def told(call: Callable[[], Any]) -> Any:
    """What it raises, or gives."""
    try:
        return call()
    except SpoolError as problem:
        return problem


def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come true")


def counted(path: Path) -> dict[int, int]:
    connection = apsw.Connection(str(path))
    found = dict(connection.execute("SELECT state, count(*) FROM message GROUP BY state"))
    connection.close()
    return found


# The file


def test_its_files_are_for_their_owner_only(bench: Bench) -> None:
    old = os.umask(0)
    try:
        bench.open()
        bench.append()
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in bench.path.parent.iterdir()}
    finally:
        os.umask(old)
    # No -shm: one process, one connection.
    assert modes == {f"spool.db{end}": 0o600 for end in ("", "-wal", ".lock", ".ballast")}


def test_a_second_process_is_refused_naming_the_first(bench: Bench) -> None:
    bench.open()
    code = (
        "import sys; from pubd.spool.sqlite import SqliteSpool; from tests.crash.turns import Turns\n"
        "turns = Turns(); print(turns.result(SqliteSpool(sys.argv[1], reactor=turns).open()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(bench.path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.startswith(f"the spool {bench.path} is in use by process {os.getpid()}: stop that one")


def test_a_second_spool_of_one_process_is_refused_until_the_first_is_closed(bench: Bench) -> None:
    bench.open()
    other = Bench(bench.path)
    assert isinstance(other.open(), SpoolInUse)
    assert bench.close() is None
    assert other.open() is None
    assert other.close() is None


def test_the_file_of_another_process_that_reads_it_is_refused_with_a_sentence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY", 50)
    bench.open()
    bench.append()
    bench.close()
    reader = apsw.Connection(str(bench.path))
    reader.execute("BEGIN; SELECT count(*) FROM message").fetchall()
    problem = Bench(bench.path).open()
    assert isinstance(problem, SpoolError)
    assert f"another process holds a lock on {bench.path}" in str(problem)
    reader.close()
    assert bench.open() is None
    other = apsw.Connection(str(bench.path))
    with pytest.raises(apsw.BusyError):
        other.execute("SELECT count(*) FROM message").fetchall()
    other.close()


@pytest.mark.parametrize("left", ["missing", "empty"])
def test_a_wal_whose_database_is_not_there_is_kept_and_the_start_refused(
    bench: Bench, tmp_path: Path, left: str
) -> None:
    bench.open()
    bench.append(3)
    killed = tmp_path / "killed" / "spool.db"
    killed.parent.mkdir()
    wal = killed.with_name("spool.db-wal")
    wal.write_bytes(bench.path.with_name("spool.db-wal").read_bytes())
    if left == "empty":
        killed.touch()
    before = wal.read_bytes()
    other = Bench(killed)
    for problem in (other.open(), told(partial(offline.verify, killed))):
        assert isinstance(problem, SpoolError)
        assert f"{killed} is {'empty' if left == 'empty' else 'not there'}, but {wal} is" in str(problem)
        assert "put the very file that was there back beside it" in str(problem)
        assert "move spool.db-wal away to start with a backup or with a new spool" in str(problem)
    (found, _) = spool_findings(SpoolConfig(url="", path=killed))
    assert found.result is Result.FAIL
    assert str(wal) in found.detail
    assert wal.read_bytes() == before
    # The advice is right.
    killed.write_bytes(bench.path.read_bytes())
    assert other.open() is None
    assert len(other.claim()) == 3
    other.close()
    killed.unlink()
    assert other.open() is None
    other.close()


def test_its_start_says_what_is_in_it(bench: Bench, logged: Logged) -> None:
    bench.open()
    bench.append(3)
    bench.confirm(bench.claim(1))
    bench.close()
    bench.open()
    bench.close()
    bench.path.unlink()
    bench.open()
    assert logged.texts == [
        f"spool {bench.path} is new and empty",
        f"spool {bench.path}: 2 messages held (2 ready, 0 deferred, 0 parked), 3 accepted so far",
        f"spool {bench.path} is new and empty, and {bench.path}.lock says that there was one before: if its messages "
        "are missed, stop pubd and put its file back",
    ]
    assert [event["log_level"].name for event in logged.events] == ["info", "info", "warn"]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    problem = Bench(tmp_path / "none" / "spool.db").open()
    assert isinstance(problem, SpoolFailed)
    assert "check that it and its directory are pubd's to write" in str(problem)


def test_what_is_asked_of_a_closed_spool_is_refused(bench: Bench) -> None:
    assert isinstance(bench.do(lambda spool: spool.append([])), SpoolError)
    assert bench.close() is None
    bench.open()
    assert isinstance(bench.open(), SpoolError)
    entries = bench.entries()
    waiting = bench.spool.append(entries)
    closed = [bench.spool.close(), bench.spool.close()]
    assert isinstance(bench.do(lambda spool: spool.append(entries)), SpoolError)
    assert bench.turns.result(waiting)[0].new
    assert [bench.turns.result(each) for each in closed] == [None, None]
    assert counted(bench.path) == {0: 1}


# The schema


def test_a_newer_schema_is_refused(bench: Bench) -> None:
    bench.open()
    bench.close()
    connection = apsw.Connection(str(bench.path))
    connection.pragma("user_version", 99)
    connection.close()
    problem = bench.open()
    assert isinstance(problem, SpoolError)
    assert "the spool's schema is 99, of a newer pubd" in str(problem)


def test_before_an_upgrade_a_copy_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.open()
    bench.append(3)
    bench.close()
    newest = schema.steps()[-1][0]
    steps = [*schema.steps(), (newest + 1, "CREATE TABLE later (a)")]
    monkeypatch.setattr(schema, "steps", lambda: steps)
    assert bench.open() is None
    assert len(bench.claim()) == 3
    bench.close()
    copy = bench.path.with_name(f"spool.db.schema-{newest}.bak")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert counted(copy) == {0: 3}
    connection = apsw.Connection(str(copy))
    assert connection.pragma("user_version") == newest
    connection.close()
    # And not again.
    copy.unlink()
    assert bench.open() is None
    assert not copy.exists()


def test_an_upgrade_that_fails_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.open()
    bench.append()
    bench.close()
    steps = schema.steps()
    with monkeypatch.context() as patched:
        patched.setattr(schema, "steps", lambda: [*steps, (99, "CREATE TABLE later (a); nonsense")])
        assert isinstance(bench.open(), SpoolFailed)
    assert bench.open() is None
    assert len(bench.claim()) == 1


def test_a_spool_of_the_first_schema_is_upgraded_with_what_is_in_it(bench: Bench, path: Path) -> None:
    connection = connect(path)
    connection.execute(schema.steps()[0][1])
    connection.pragma("user_version", 1)
    connection.execute("INSERT INTO books (tag) VALUES (7)")
    ids = Ids(7, 0, lambda: 1.0)
    entries = []
    for _ in range(2):
        seq = ids.next()
        id = ids.id_of(seq)
        entries.append(
            Entry(
                id=id, exchange="e", routing_key="k", message_id=id, mandatory=True, properties=b"", body=b"b", seq=seq
            )
        )
    connection.execute("INSERT INTO exchange (number, name) VALUES (1, 'e')")
    for entry in entries:
        connection.execute(
            "INSERT INTO message (seq, state, exchange, routing_key, message_id, mandatory, accepted_at, attempts, "
            "due, expires_at, ordering_key, principal, properties, body, checksum) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
            row_of(entry, 1),
        )
    connection.execute(
        "UPDATE message SET state = 2, cause = 'returned', code = 312, text = 'NO_ROUTE' WHERE seq = ?",
        (entries[1].seq,),
    )
    connection.execute("UPDATE books SET accepted = 2, ready = 1, parked = 1, last_seq = ?", (entries[1].seq,))
    connection.close()
    assert bench.open() is None
    assert path.with_name("spool.db.schema-1.bak").exists()
    page = bench.do(lambda spool: spool.find(Query(state=State.PARKED, reason="312")))
    assert [record.id for record in page.records] == [entries[1].id]
    hold = Decision(verb=Verb.HOLD, who="me", at=2.0)
    assert bench.do(lambda spool: spool.decide(hold, [entries[0].id])).ids == (entries[0].id,)
    retry = Decision(verb=Verb.RETRY, who="me", at=2.0)
    bench.do(lambda spool: spool.decide(retry, [entries[1].id]))
    assert [entry.id for entry in bench.claim()] == [entries[1].id]
    assert bench.spool.books().difference == 0


# Damage


@pytest.mark.parametrize(
    "damage",
    [
        "body = x'00'",
        "properties = x'00'",
        "routing_key = 'x'",
        "message_id = 'x'",
        "mandatory = 0",
        "ordering_key = 'x'",
        "routing_key = CAST(x'ff' AS TEXT)",
        "body = NULL",
    ],
)
def test_a_damaged_row_is_parked_and_never_published_and_its_neighbours_go_on(
    bench: Bench, logged: Logged, damage: str
) -> None:
    bench.open()
    first, bad, last = (each.id for each in bench.append(3))
    bench.close()
    connection = apsw.Connection(str(bench.path))
    connection.execute(f"UPDATE message SET {damage} WHERE seq = (SELECT seq FROM message ORDER BY seq LIMIT 1, 1)")
    connection.close()
    bench.open()
    assert [each.id for each in bench.claim()] == [first, last]
    books = bench.spool.books()
    assert (books.parked, books.in_flight, books.difference) == (1, 2, 0)
    record = bench.do(lambda spool: spool.record(bad))
    assert (record.state, record.reason.cause) == (State.PARKED, Cause.CORRUPT)
    assert any(bad in text and "not published" in text for text in logged.texts)
    bench.do(lambda spool: spool.retry([bad]))
    assert bench.claim() == []


def test_a_damaged_database_ends_the_spool_with_a_sentence_on_what_to_do(bench: Bench, logged: Logged) -> None:
    bench.open()
    bench.append(200, b"x" * 1000)
    bench.close()
    content = bytearray(bench.path.read_bytes())
    for page in range(4096 * 2, len(content), 4096):
        content[page : page + 4096] = b"\xa5" * 4096
    bench.path.write_bytes(content)
    opened = bench.open()
    problem = opened or bench.claim()
    assert isinstance(problem, SpoolFailed)
    assert f"'pubd verify {bench.path}'" in str(problem)
    assert f"'pubd export {bench.path}'" in str(problem)
    bench.close()
    assert bench.failures == ([] if opened else [problem])
    logged.events.clear()


@pytest.mark.parametrize("torn", [False, True])
def test_commits_that_a_flipped_bit_hides_are_told_and_the_wal_is_kept(
    bench: Bench, tmp_path: Path, logged: Logged, torn: bool
) -> None:
    bench.open()
    for _ in range(10):
        bench.append()
    killed = tmp_path / "killed" / "spool.db"
    killed.parent.mkdir()
    killed.write_bytes(bench.path.read_bytes())
    wal = bytearray(bench.path.with_name("spool.db-wal").read_bytes())
    frame = (len(wal) - 32) // (24 + 4096)
    if torn:
        wal[-1000:] = bytes(1000)
    else:
        frame -= 8
        wal[32 + (frame - 1) * (24 + 4096) + 2000] ^= 1
    beside = killed.with_name("spool.db-wal")
    beside.write_bytes(wal)
    problems = offline.verify(killed).problems
    other = Bench(killed)
    for _ in range(2):
        assert other.open() is None
        assert 0 < other.spool.books().accepted < 10
        other.close()
    said = [text for text in logged.texts if "may be damaged" in text]
    copy = killed.with_name("spool.db-wal.damaged")
    if torn:
        assert (problems, said, copy.exists()) == ((), [], False)
        return
    assert problems[0].startswith(f"spool.db-wal may be damaged at frame {frame} of ")
    assert len(said) == 1
    assert f"it is kept as {copy}" in said[0]
    assert copy.read_bytes() == wal
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


# Group commit


def test_while_a_commit_is_synced_whatever_arrives_waits_for_the_one_after_it(on_disk: Bench) -> None:
    on_disk.append()
    before = on_disk.disk.syncs
    asks = [lambda: on_disk.spool.append(on_disk.entries()) for _ in range(50)]
    answers = on_disk.turns.group(on_disk.disk, asks)
    assert all(answer[0].new for answer in answers)
    assert on_disk.disk.syncs == before + 2


def test_a_lone_submission_is_committed_at_once(on_disk: Bench) -> None:
    """The reactor of this bench has no timers: who wanted to wait for more would fail here."""
    assert not hasattr(on_disk.turns, "callLater")
    before = on_disk.disk.syncs
    for _ in range(20):
        on_disk.append()
    assert on_disk.disk.syncs == before + 20


def test_a_refused_submission_does_not_harm_its_group(path: Path) -> None:
    disk = Disk()
    with mounted(disk) as vfs:
        bench = Bench(path, disk, vfs, limits=Limits(max_rows=4))
        bench.open()
        counts = (1, 2, 5, 1)
        asks = [partial(bench.spool.append, bench.entries(count)) for count in counts]
        answers = bench.turns.group(bench.disk, asks)
        assert [isinstance(answer, SpoolFull) for answer in answers] == [False, False, True, False]
        assert bench.spool.books().accepted == 4
        bench.close()


def test_the_reserve_of_free_space_is_named(path: Path) -> None:
    bench = Bench(path, limits=Limits(min_free=1 << 60))
    bench.open()
    problem = bench.append()
    assert isinstance(problem, SpoolFull)
    assert problem.limit == "min_free"
    bench.close()


# A disk that fails


def test_on_a_full_disk_submissions_are_refused_settlements_kept_and_claims_go_on(
    on_disk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "RETRY", 0.05)
    on_disk.append(30)
    flying = on_disk.claim(10)
    on_disk.disk.full = True
    problem = on_disk.append()
    assert isinstance(problem, SpoolFull)
    assert "make room, pubd goes on by itself" in str(problem)
    settled: list[Any] = []
    on_disk.spool.settle(confirmed(flying), []).addBoth(settled.append)
    assert len(on_disk.claim(15)) == 5
    assert isinstance(on_disk.append(), SpoolFull)
    assert not settled
    books = on_disk.spool.books()
    assert (books.accepted, books.confirmed, books.in_flight, books.difference) == (30, 0, 15, 0)
    on_disk.disk.full = False
    while not settled:
        on_disk.turns.turn()
    assert settled == [{"e"}], "whoever waited for it is woken"
    assert on_disk.append()[0].new
    books = on_disk.spool.books()
    assert (books.accepted, books.confirmed, books.in_flight, books.difference) == (31, 10, 5, 0)
    assert not on_disk.failures


def test_what_a_full_disk_does_not_let_settle_counts_as_claimed_so_that_a_crash_repeats_a_window_at_most(
    on_disk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "RETRY", 0.05)
    on_disk.append(100)
    on_disk.disk.full = True
    answers, published = [], 0
    for _ in range(10):
        flying = on_disk.claim(20)
        published += len(flying)
        answers.append(on_disk.spool.settle(confirmed(flying), []))
    assert published == 20
    on_disk.disk.full = False
    assert [sorted(on_disk.turns.result(answer)) for answer in answers] == [["e"]] + [[]] * 9
    assert len(on_disk.claim(20)) == 20
    assert on_disk.spool.books().confirmed == 20


def test_copies_of_what_is_parked_wait_for_room_and_their_messages_count_as_claimed(
    on_disk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "RETRY", 0.05)
    on_disk.append(30)
    flying = on_disk.claim(10)
    on_disk.disk.full = True
    parked = [Settlement(entry=each, state=State.PARKED, attempts=1) for each in flying]
    copies = on_disk.entries(10)
    for each in copies:
        each.exchange = "copies"
    answer = on_disk.spool.copy(copies, parked)
    assert len(on_disk.claim(12)) == 2
    on_disk.disk.full = False
    assert sorted(on_disk.turns.result(answer)) == ["copies", "e"]
    assert on_disk.do(lambda spool: spool.settle([], parked)) == []
    books = on_disk.spool.books()
    assert (books.accepted, books.parked, books.in_flight, books.difference) == (40, 10, 2, 0)


def test_a_new_exchange_of_a_refused_submission_leaves_nothing_behind(on_disk: Bench) -> None:
    on_disk.disk.full = True
    assert isinstance(on_disk.append(), SpoolFull)
    on_disk.disk.full = False
    (other,) = on_disk.entries()
    other.exchange = "other"
    assert on_disk.do(lambda spool: spool.append([other]))[0].new
    assert on_disk.append()[0].new
    assert len(on_disk.claim()) == 1
    assert [each.id for each in on_disk.do(lambda spool: spool.claim("other", 9, 1 << 20, 0.0))] == [other.id]


def test_what_is_due_waits_on_a_full_disk_and_what_is_ready_does_not(on_disk: Bench) -> None:
    deferred, ready = on_disk.entries(2)
    deferred.due = 5.0
    on_disk.do(lambda spool: spool.append([deferred, ready]))
    for full, expected in ((True, ready), (True, None), (False, deferred)):
        on_disk.disk.full = full
        claimed = on_disk.do(lambda spool: spool.claim("e", 9, 1 << 20, 10.0))
        assert [each.id for each in claimed] == ([expected.id] if expected else [])
    assert on_disk.spool.books().in_flight == 2
    swept = on_disk.do(lambda spool: spool.sweep(10.0, 10.0))
    assert swept.wake == ("e",), "the lane that was given nothing asks again"
    assert on_disk.do(lambda spool: spool.sweep(10.0, 10.0)).wake == ()


def test_a_settlement_that_is_still_kept_when_the_spool_closes_is_answered_with_why(on_disk: Bench) -> None:
    on_disk.append(3)
    flying = on_disk.claim()
    on_disk.disk.full = True
    answer = on_disk.spool.settle(confirmed(flying), [])
    assert on_disk.close() is None
    assert isinstance(on_disk.turns.result(answer), SpoolFull)


@pytest.mark.parametrize("kind", ["sync", "write"])
def test_after_a_failed_sync_or_write_nothing_is_answered_with_a_receipt_and_the_spool_ends(
    on_disk: Bench, kind: str
) -> None:
    on_disk.append(3)
    disk = on_disk.disk
    disk.failing[kind, (disk.syncs if kind == "sync" else disk.writes) + 1] = failed
    waiting: list[Any] = [on_disk.spool.append(on_disk.entries()) for _ in range(3)]
    waiting.append(on_disk.spool.claim("e", 9, 1 << 20, 0.0))
    answers = [on_disk.turns.result(each) for each in waiting]
    assert isinstance(answers[0], SpoolFailed)
    assert "check it; start pubd again once it is well" in str(answers[0])
    assert [type(each) for each in answers[1:3]] == [SpoolFailed, SpoolFailed]
    assert isinstance(on_disk.append(0), SpoolFailed)
    assert on_disk.close() is None
    assert [str(each) for each in on_disk.failures] == [str(answers[0])]
    # The next start reads the file anew.
    assert on_disk.open() is None
    assert len(on_disk.claim()) >= 3
    assert on_disk.spool.books().difference == 0


def test_a_sync_that_fails_while_the_wal_is_moved_ends_the_spool_too(
    on_disk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT", 1)
    on_disk.close()
    on_disk.open()
    syncs = on_disk.disk.syncs
    # The first two are those of a new WAL: its header, and what is committed.
    on_disk.disk.failing["sync", syncs + 3] = failed
    assert on_disk.append()[0].new
    assert on_disk.close() is None
    assert len(on_disk.failures) == 1


# What it refuses


def test_a_full_disk_is_told_until_the_disk_takes_something_again_whoever_asks_for_it(
    on_disk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "RETRY", 0.05)
    assert on_disk.spool.refusal is None
    on_disk.disk.full = True
    problem = on_disk.append(1, b"x" * 10_000)
    on_disk.claim()
    assert isinstance(on_disk.spool.refusal, SpoolFull)
    assert str(on_disk.spool.refusal) == str(problem)
    on_disk.disk.full = False
    # Nobody submits anything, for it was said that nothing is accepted.
    until(lambda: on_disk.spool.refusal is None)
    assert on_disk.append()[0].new


def test_a_spool_that_failed_says_why(on_disk: Bench) -> None:
    on_disk.disk.failing["sync", on_disk.disk.syncs + 1] = failed
    problem = on_disk.append()
    assert isinstance(problem, SpoolFailed)
    assert on_disk.spool.refusal is problem


@pytest.mark.parametrize("end", ["", "-wal"])
def test_once_its_file_was_removed_nothing_is_accepted_and_what_it_holds_can_be_saved(
    bench: Bench, logged: Logged, end: str
) -> None:
    bench.open()
    bench.append(3)
    lost = bench.path.with_name(f"spool.db{end}")
    lost.unlink()
    problem = bench.append()
    assert isinstance(problem, SpoolError)
    assert f"{lost} was removed or replaced while pubd writes to it" in str(problem)
    assert "save it now with 'pubd backup FILE' (or 'pubd export -o FILE')" in str(problem)
    assert str(bench.spool.refusal) == str(problem)
    assert [text for text in logged.texts if "was removed" in text] == [str(problem)], "once"
    logged.events.clear()
    # What was accepted is published and settled.
    bench.confirm(bench.claim(1))
    snapshot = bench.do(lambda spool: spool.snapshot())
    while not bench.turns.result(snapshot.step()):
        pass
    copy = bench.path.with_name("copy.db")
    copy.write_bytes(Path(f"/proc/self/fd/{snapshot.fd}").read_bytes())
    snapshot.close()
    assert len(bench.do(lambda spool: spool.exported(None, 10, 1 << 20))) == 2
    bench.close()
    assert counted(copy)[0] == 2


def test_a_file_that_was_put_back_is_written_to_again(bench: Bench, logged: Logged) -> None:
    bench.open()
    bench.append()
    away = bench.path.with_name("away.db")
    bench.path.rename(away)
    away.with_name("other.db").touch()
    assert isinstance(bench.append(), SpoolError)
    away.with_name("other.db").rename(bench.path)
    assert isinstance(bench.append(), SpoolError), "another file of the same name"
    away.rename(bench.path)
    assert bench.append()[0].new
    assert bench.claim()
    assert bench.spool.refusal is None
    assert any("are back" in text for text in logged.texts)
    logged.events.clear()


DECISIONS: dict[str, Callable[[SqliteSpool, Sequence[str]], Any]] = {
    "hold": lambda spool, ids: spool.decide(Decision(verb=Verb.HOLD, who="me", at=1.0), ids),
    "release": lambda spool, ids: spool.decide(Decision(verb=Verb.RELEASE, who="me", at=1.0), ids),
    "pause": lambda spool, _: spool.pause(Decision(verb=Verb.PAUSE, who="me", at=1.0), None),
    "resume": lambda spool, _: spool.resume(Decision(verb=Verb.RESUME, who="me", at=1.0), None),
    "discard": lambda spool, ids: spool.discard(ids, "not wanted"),
}


@pytest.mark.parametrize("room", [4 * MIB, 0], ids=["with room kept", "without"])
def test_what_an_operator_decides_on_a_full_disk_uses_the_room_that_is_kept_and_is_answered_at_once_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(sqlite, "BALLAST", room)
    monkeypatch.setattr(sqlite, "RETRY", 0.05)
    directory = tmp_path / "disk"
    directory.mkdir()
    with mounted_disk(directory, 16 * MIB) as small:
        disk = SmallDisk(small)
        bench = Bench(small / "spool.db", limits=Limits(min_free=0))
        bench.open()
        ids = [each.id for each in bench.append(50)]
        disk.stuff()
        while not isinstance(bench.append(10), SpoolFull):
            pass
        answers = [bench.turns.result(decide(bench.spool, ids)) for decide in DECISIONS.values()]
        assert isinstance(bench.append(), SpoolFull)
        assert isinstance(bench.spool.refusal, SpoolFull)
        if room:
            assert answers == [Decided(tuple(ids), ()), Decided(tuple(ids), ("e",)), True, True, ids]
            assert bench.spool.books().discarded == 50
        else:
            assert [type(each) for each in answers] == [SpoolFull, Decided, SpoolFull, bool, SpoolFull]
            assert bench.spool.books().discarded == 0
        disk.clear()
        until(lambda: bench.spool.refusal is None)
        assert bench.append()[0].new
        assert bench.spool.books().discarded == (50 if room else 0), "what was refused is not done later"
        assert bench.spool.books().difference == 0
        bench.close()


# Size


def test_many_that_become_ready_at_once_are_read_in_order_not_remembered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RIPE_BATCH", 500)
    monkeypatch.setattr(claims, "RIPE_FEW", 10)
    bench.open()
    store: list[Any] = []
    bench.do(lambda spool: spool._ask(store.append, writes=False))
    entries = bench.entries(1200)
    for each in entries[::2]:
        each.due = -1.0
    bench.do(lambda spool: spool.append(entries))
    found: list[str] = []
    remembered = 0
    while batch := bench.claim(50):
        remembered = max(remembered, *(len(shelf.again) for shelf in store[0].base.shelves.values()))
        found += [each.id for each in batch]
        bench.confirm(batch)
    assert found == [each.id for each in entries]
    assert remembered < 20
    bench.close()


def test_what_was_confirmed_at_once_is_forgotten_bit_by_bit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "BATCH", 100)
    monkeypatch.setattr(sqlite, "PURGE_BATCH", 100)
    bench.open()
    bench.append(950)
    bench.confirm(bench.claim(1000))
    later = time.time() + 10
    purged = [bench.do(lambda spool: spool.sweep(later, 0.0)).purged for _ in range(11)]
    assert purged == [100] * 9 + [50, 0]
    bench.close()


def test_who_claims_behind_the_head_of_a_long_key_lets_others_have_their_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LOOKS", 100)
    bench.open()
    behind, free = bench.entries(2000), bench.entries()
    for each in behind:
        each.ordering_key = "o"
    bench.do(lambda spool: spool.append([*behind, *free]))
    (head,) = bench.claim(1)
    done: list[str] = []
    claimed = bench.spool.claim("e", 10, 1 << 30, 0.0)

    def note(result: Any, what: str) -> Any:
        done.append(what)
        return result

    claimed.addCallback(note, "claimed")
    for _ in range(5):
        bench.spool.append(bench.entries()).addCallback(note, "appended")
    found = bench.turns.result(claimed)
    assert found[0].id == free[0].id
    assert done.index("claimed") > 0
    bench.confirm([head])
    assert [each.id for each in bench.claim(5)][:1] == [behind[1].id]
    bench.close()


def test_one_claim_makes_a_bounded_number_of_deferred_messages_ready(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RIPE_BATCH", 3)
    bench.open()
    entries = bench.entries(7)
    for each in entries:
        each.due = 1.0
    bench.do(lambda spool: spool.append(entries))
    found = [bench.do(lambda spool: spool.claim("e", 9, 1 << 20, 2.0)) for _ in range(4)]
    assert [len(each) for each in found] == [3, 3, 1, 0]
    assert bench.spool.books().in_flight == 7


def test_memory_does_not_grow_with_the_backlog(path: Path) -> None:
    bench = Bench(path)
    bench.open()
    for _ in range(20):
        bench.append(10_000, b"x" * 20)
    bench.close()
    assert bench.open() is None
    tracemalloc.start()
    try:
        seen = 0
        for _ in range(10):
            entries = bench.claim(1000)
            seen += len(entries)
            bench.confirm(entries)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == 10_000
    assert peak < 8 << 20
    bench.close()
