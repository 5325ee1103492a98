"""`pubd backup`, `export`, `import` and `verify` with the running daemon, a real RabbitMQ and real files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.service.conftest import Run
from tests.service.process import BIN, until
from tests.service.running import Running, Unique, running

FAR: dict[str, Any] = {"delay": "1h"}


@pytest.fixture
def daemon(run: Run, url: str, unique: Unique, tmp_path: Path) -> Iterator[Running]:
    with running(run, url, unique("exchange"), tmp_path) as found:
        yield found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def left_over(directory: Path) -> list[str]:
    """Files that only a command in the middle of its work has."""
    return [each.name for each in directory.iterdir() if each.name.endswith((".part", ".part.lock"))]


# backup


def test_a_backup_is_whole_and_its_owners_while_publishing_goes_on(daemon: Running, tmp_path: Path) -> None:
    daemon.fill(2000, size=5000, **FAR)
    sender = daemon.start("send", "--ndjson", "lines.ndjson", "-o", "none")
    assert sender.ends() == 1, "there is no such file yet"
    line = json.dumps({"exchange": daemon.exchange, "routing_key": "good.x", "body": "b"})
    (tmp_path / "lines.ndjson").write_text(f"{line}\n" * 20_000)
    sender = daemon.start("send", "--ndjson", "lines.ndjson", "-o", "none")
    until(lambda: daemon.books()["confirmed"] > 100, what=lambda: sender.output)
    made = tmp_path / "backup.db"
    done = daemon.ok("backup", made)
    assert "whole, and its books balance" in done.stdout
    assert made.stat().st_mode & 0o777 == 0o600
    assert left_over(tmp_path) == []
    assert sender.ends() == 0, sender.output
    shown = daemon.ok("verify", made).stdout
    assert "2000 deferred" in shown
    with sqlite3.connect(made) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert "takes a copy of the spool" in daemon.program.output


def test_a_file_that_is_there_is_kept_unless_it_is_forced(daemon: Running, tmp_path: Path) -> None:
    made = tmp_path / "backup.db"
    made.write_text("mine")
    refused = daemon.pubd("backup", made)
    assert (refused.exit_code, made.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    (found,) = daemon.json("backup", "--force", made)
    assert (found["problems"], found["books"]["difference"], found["bytes"]) == ([], 0, made.stat().st_size)


def test_a_copy_never_takes_the_place_of_the_running_spool(daemon: Running) -> None:
    daemon.fill(3, key="later", delay="1h")
    refused = daemon.pubd("backup", "--force", daemon.spool)
    assert (refused.exit_code, "is the spool of a pubd" in refused.stderr) == (2, True)
    assert "3 deferred" in daemon.ok("verify").stdout


def test_a_restored_backup_goes_on_and_duplicates_what_was_confirmed_since(daemon: Running, tmp_path: Path) -> None:
    queue = daemon.bind("later")
    daemon.fill(3, key="later", delay="1s")
    made = tmp_path / "backup.db"
    daemon.ok("backup", made)
    until(lambda: daemon.books()["confirmed"] == 3, what=lambda: str(daemon.books()))
    daemon.program.interrupt()
    assert daemon.program.ends() in (0, -2)
    for suffix in ("", "-wal", "-shm"):
        daemon.spool.with_name(daemon.spool.name + suffix).unlink(missing_ok=True)
    shutil.copy(made, daemon.spool)
    daemon.begin()
    until(lambda: daemon.books()["confirmed"] == 3, what=lambda: str(daemon.books()))
    with pika.BlockingConnection(pika.URLParameters(daemon.url)) as connection:
        channel = connection.channel()
        ids = [channel.basic_get(queue, auto_ack=True)[1].message_id for _ in range(6)]
    assert sorted(ids[:3]) == sorted(ids[3:]), "a duplicate has the message_id of the first one"


def test_a_backup_to_standard_output_is_the_file(daemon: Running, tmp_path: Path) -> None:
    daemon.fill(10, **FAR)
    with (tmp_path / "piped.db").open("wb") as file:
        subprocess.run([BIN / "pubd", "backup", "-", "-s", daemon.server], stdout=file, check=True, timeout=60)
    assert "10 deferred" in daemon.ok("verify", tmp_path / "piped.db").stdout


@pytest.mark.parametrize("where", ["directory", "nowhere"])
def test_a_backup_that_cannot_be_written_says_so(daemon: Running, tmp_path: Path, where: str) -> None:
    (tmp_path / "directory").mkdir()
    target = tmp_path / "directory" if where == "directory" else tmp_path / "nowhere" / "backup.db"
    refused = daemon.pubd("backup", target)
    assert refused.exit_code in (1, 2)
    assert "name a" in refused.stderr


def test_when_pubd_is_killed_in_the_middle_a_backup_is_no_success(daemon: Running, tmp_path: Path) -> None:
    daemon.fill(500, size=40_000, **FAR)
    command: list[str | Path] = [BIN / "pubd", "backup", "-", "-s", daemon.server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as backup:
        # What is not read here is not written there, and so it is not done.
        assert backup.stdout is not None
        assert backup.stdout.read(15) == b"SQLite format 3"
        daemon.program.signal(signal.SIGKILL)
        _, errors = backup.communicate(timeout=60)
    assert backup.returncode == 3, errors
    assert b"nothing is kept of it" in errors
    assert [each.name for each in tmp_path.iterdir() if ".copy-" in each.name] == [], "nor of pubd's own copy"
    daemon.program.ends()
    daemon.begin()


@pytest.mark.parametrize("ends", ["daemon", "command"])
def test_whoever_ends_in_the_middle_no_file_is_left(daemon: Running, tmp_path: Path, ends: str) -> None:
    daemon.fill(10, **FAR)
    # It accepts a connection, and says nothing.
    daemon.program.signal(signal.SIGSTOP)
    backup = daemon.start("backup", "backup.db")
    until(lambda: left_over(tmp_path), what=lambda: backup.output)
    if ends == "command":
        backup.interrupt()
        assert backup.ends() == 130, backup.output
        daemon.program.signal(signal.SIGCONT)
    else:
        daemon.program.signal(signal.SIGKILL)
        assert backup.ends() == 3, backup.output
        daemon.program.ends()
        daemon.begin()
    assert left_over(tmp_path) == []
    assert not (tmp_path / "backup.db").exists()
    until(lambda: daemon.pubd("backup", tmp_path / "backup.db").exit_code == 0, what=lambda: daemon.program.output)


def test_one_copy_is_made_at_a_time(daemon: Running, tmp_path: Path) -> None:
    daemon.fill(500, size=40_000, **FAR)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(daemon.server.removeprefix("unix:"))
        first.sendall(b"POST /backup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        # More than the head of the answer is not taken, and so it is not done.
        assert first.recv(15) == b"HTTP/1.1 200 OK"
        second = daemon.pubd("backup", tmp_path / "second.db")
        assert second.exit_code == 75, second.output
        assert "a copy is being made already" in second.stderr
    until(lambda: daemon.pubd("backup", tmp_path / "second.db").exit_code == 0, what=lambda: daemon.program.output)


# verify


def test_the_running_spool_is_verified(daemon: Running, tmp_path: Path) -> None:
    daemon.send("good.one", "hello", "--wait")
    daemon.fill(5, **FAR)
    done = daemon.ok("verify")
    assert "6 accepted = 1 confirmed + 0 expired + 0 discarded + 5 held" in done.stdout
    assert "the spool is whole and its books balance" in done.stdout
    (found,) = daemon.json("verify")
    assert (found["books"]["deferred"], found["problems"]) == (5, [])
    refused = daemon.pubd("verify", daemon.spool)
    assert refused.exit_code == 1
    assert "leave SPOOL out" in refused.stderr
    assert left_over(Path(os.environ.get("TMPDIR", "/tmp"))) == [] or left_over(tmp_path) == []


def test_damage_of_the_running_spool_is_found(daemon: Running) -> None:
    daemon.fill(5, **FAR)
    daemon.program.interrupt()
    daemon.program.ends()
    connection = sqlite3.connect(daemon.spool)
    connection.execute("UPDATE message SET body = x'00' WHERE seq = (SELECT max(seq) FROM message)")
    connection.commit()
    connection.close()
    daemon.begin()
    done = daemon.pubd("verify")
    assert done.exit_code == 1
    assert "is damaged: its checksum does not match" in done.stderr
    assert f"save what is open with 'pubd export {daemon.spool} -o FILE'" in done.stderr


# export and import


def test_an_export_of_the_running_pubd_is_imported_elsewhere_once_and_in_order(
    daemon: Running, run: Run, url: str, tmp_path: Path
) -> None:
    queue = daemon.bind("later.#")
    daemon.fill(1200, key="later.x", **FAR)
    parked = daemon.send("bad.key", "Grüße")
    until(lambda: daemon.books()["parked"] == 1, what=lambda: str(daemon.books()))
    exported = tmp_path / "open.ndjson"
    done = daemon.ok("export", "-o", exported)
    assert "1201 messages exported, 0 of them damaged" in done.stderr
    assert exported.stat().st_mode & 0o777 == 0o600
    found = lines(exported)
    assert [each["state"] for each in found] == ["deferred"] * 1200 + ["parked"]
    assert (found[-1]["message_id"], found[-1]["body"]) == (parked, "Grüße")
    assert [int(each["body"]) for each in found[:-1]] == list(range(1200))
    for each in found:
        each.pop("not_before", None)
    exported.write_text("".join(json.dumps(each) + "\n" for each in found))
    other = tmp_path / "other"
    other.mkdir()
    with running(run, url, daemon.exchange, other) as second:
        assert "1201 sent, 1201 stored, 0 refused" in second.ok("import", exported).stderr
        assert second.ok("import", exported).exit_code == 0, "and once more"
        second.settled()
        assert second.books()["accepted"] == 1201
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            bodies = [int(channel.basic_get(queue, auto_ack=True)[2]) for _ in range(1200)]
        assert bodies == list(range(1200))
        second.ok("discard", "--state", "parked", "--reason", "test", "--yes")


def test_what_is_refused_of_an_import_is_told_with_its_line(daemon: Running, tmp_path: Path) -> None:
    daemon.fill(2, **FAR)
    exported = tmp_path / "open.ndjson"
    daemon.ok("export", "-o", exported)
    good = [json.dumps(each | {"idempotency_key": f"k-{n}"}) for n, each in enumerate(lines(exported))]
    damaged = json.dumps(json.loads(good[0]) | {"damaged": True, "idempotency_key": "other"})
    exported.write_text("\n".join([good[0], damaged, good[1]]) + "\n")
    done = daemon.pubd("import", exported)
    assert done.exit_code == 1
    assert "line 2: " in done.stderr
    assert "3 sent, 2 stored, 1 refused" in done.stderr
    assert "correct the lines that were refused, and run the same command again" in done.stderr
    assert "--resume" not in done.stderr
    assert daemon.books()["accepted"] == 4


def test_what_an_export_took_from_a_pubd_is_not_accepted_by_it_again(daemon: Running, tmp_path: Path) -> None:
    line = json.dumps({"exchange": daemon.exchange, "routing_key": "good.x", "body": "b", **FAR})
    done = subprocess.run(
        [
            *("curl", "-sS", "--unix-socket", daemon.server.removeprefix("unix:"), "http://localhost/messages"),
            *("-H", "Content-Type: application/x-ndjson", "--data-binary", f"{line}\n{line}"),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.count('"stored"') == 2
    daemon.ok("export", "-o", tmp_path / "open.ndjson")
    assert "2 sent, 2 stored, 0 refused" in daemon.ok("import", tmp_path / "open.ndjson").stderr
    assert daemon.books()["accepted"] == 2, "they are known"


def test_who_exports_while_messages_come_and_go_gets_each_open_one_once(daemon: Running, tmp_path: Path) -> None:
    daemon.fill(3000, size=500, **FAR)
    line = json.dumps({"exchange": daemon.exchange, "routing_key": "good.x", "body": "b"})
    (tmp_path / "lines.ndjson").write_text(f"{line}\n" * 20_000)
    sender = daemon.start("send", "--ndjson", "lines.ndjson", "-o", "none")
    until(lambda: daemon.books()["confirmed"] > 100, what=lambda: sender.output)
    daemon.ok("export", "-o", tmp_path / "open.ndjson")
    found = lines(tmp_path / "open.ndjson")
    assert len([each for each in found if each["state"] == "deferred"]) == 3000
    assert len({each["idempotency_key"] for each in found}) == len(found)
    assert sender.ends() == 0, sender.output


def test_an_export_that_breaks_off_is_no_success(daemon: Running) -> None:
    daemon.fill(1000, size=40_000, **FAR)
    command: list[str | Path] = [BIN / "pubd", "export", "-s", daemon.server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as export:
        # What is not read here is not written there, and so it is not done.
        assert export.stdout is not None
        assert export.stdout.read(2) == b'{"'
        daemon.program.signal(signal.SIGKILL)
        _, errors = export.communicate(timeout=60)
    assert export.returncode == 3, errors
    assert b"what is written is not all of it" in errors
    daemon.program.ends()
    daemon.begin()


def test_a_spool_in_memory_has_no_file_but_what_is_open(run: Run, url: str, unique: Unique, tmp_path: Path) -> None:
    with running(run, url, unique("exchange"), tmp_path) as daemon:
        daemon.program.interrupt()
        daemon.program.ends()
        text = daemon.config.read_text()
        daemon.config.write_text(text.replace(f"sqlite:///{tmp_path}/pubd.db", "memory:"))
        daemon.begin()
        daemon.fill(3, **FAR)
        refused = daemon.pubd("backup", tmp_path / "backup.db")
        assert refused.exit_code == 1
        assert "in memory" in refused.stderr
        assert "'pubd export'" in refused.stderr
        assert len(daemon.ok("export").stdout.splitlines()) == 3
        daemon.ok("discard", "--state", "deferred", "--reason", "test", "--yes")
