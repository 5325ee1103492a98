"""`pubd check`, `verify` and `export` as their users run them: exit codes, output, and never a traceback."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import apsw
import pytest
import pytest_twisted
from click.testing import CliRunner
from twisted.internet import reactor

from pubd.cli import main
from pubd.message import Message
from pubd.options import Options
from pubd.outcome import Settlement, State
from pubd.spool.sqlite import SqliteSpool
from pubd.submission import entry_of
from tests.service.process import BIN

GOOD = '[spool]\nurl = "sqlite:///pubd.db"\n'
MESSAGES = [
    Message(
        exchange="orders",
        routing_key="order.neu.ä",
        body="Grüße".encode(),
        content_type="text/plain",
        headers={
            "binary": b"\x00\xff",
            "moment": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "price": Decimal("1.50"),
            "nested": {"a": [1, None, True, {"b": b"x"}], "$binary": "not what it seems"},
            "big": 2**40,
        },
        priority=7,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        timestamp=1700000000,
        type="t",
        user_id="guest",
        app_id="app",
        cluster_id="cl",
        content_encoding="utf-8",
        message_id="mine",
        idempotency_key="once",
        ordering_key="o1",
    ),
    Message(exchange="orders", routing_key="k", body=b"\xff\x00 no text", delivery_mode=1, mandatory=False),
    Message(exchange="", routing_key="parked", body=b"parked"),
    Message(exchange="orders", routing_key="k", body=b"confirmed"),
]


def pubd(
    *arguments: str | bytes | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run it; whatever it says, it is no traceback."""
    done = subprocess.run(
        [BIN / "pubd", *arguments],
        capture_output=True,
        timeout=30,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **environment},
        text=True,
        errors="surrogateescape",
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def called(*arguments: str | bytes) -> tuple[int, list[str]]:
    """The same in this process, quicker; the exit code and the lines on stderr. Nothing is on stdout."""
    result = CliRunner().invoke(main, [os.fsdecode(each) for each in arguments], prog_name="pubd")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    return result.exit_code, result.stderr.splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the spool is."""
    return tmp_path / "spool.db"


async def filled(path: Path) -> list[str]:
    """A spool with two ready messages, a parked and a confirmed one; their ids."""
    spool = SqliteSpool(path, reactor=reactor)
    await spool.open()
    assert spool.ids is not None
    entries = [entry_of(message, spool.ids, Options(), 1_700_000_000.5) for message in MESSAGES]
    await spool.append(entries)
    (parked,) = await spool.claim("", 10, 1 << 20, 2e9)
    await spool.settle([], [Settlement(entry=parked, state=State.PARKED, attempts=1)])
    claimed = await spool.claim("orders", 10, 1 << 20, 2e9)
    await spool.settle([], [Settlement(entry=claimed[2], state=State.CONFIRMED, attempts=0)])
    await spool.close()
    return [entry.id for entry in entries]


def exported(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# check


def test_check_says_that_a_file_is_right(tmp_path: Path) -> None:
    (tmp_path / "pubd.toml").write_text(GOOD)
    done = pubd("check", "pubd.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "pubd.toml is right\n", "")
    assert list(tmp_path.iterdir()) == [tmp_path / "pubd.toml"], "it looks, and makes nothing"


def test_check_says_everything_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "pubd.toml").write_text('[spool]\nurll = "x"\n[delivery]\nwindow = "wide"\n')
    done = pubd("check", "pubd.toml", cwd=tmp_path, PUBD_DELIVERY_MAX_ATTEMPTS="0")
    assert (done.returncode, done.stdout) == (78, "")
    for part in ("urll", "url", "window", "PUBD_DELIVERY_MAX_ATTEMPTS"):
        assert part in done.stderr
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.parametrize(
    "name", ["missing.toml", ".", "a" * 300, b"\xff.toml"], ids=["missing", "directory", "too long", "not UTF-8"]
)
def test_check_of_what_cannot_be_read_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    code, lines = called("check", name)
    assert code == 78
    assert len(lines) == 1


# verify


@pytest_twisted.ensureDeferred
async def test_verify_tells_the_books_of_a_whole_spool(path: Path) -> None:
    await filled(path)
    for spool in (str(path), f"sqlite:///{path}"):
        done = pubd("verify", spool)
        assert (done.returncode, done.stderr) == (0, "")
        first, second = done.stdout.splitlines()
        assert first.startswith(
            "4 accepted = 1 confirmed + 0 expired + 0 discarded + 3 held (2 ready, 0 deferred, 1 pa"
        )
        assert second == "the spool is whole and its books balance"


@pytest_twisted.ensureDeferred
async def test_verify_and_export_name_a_damaged_row_and_the_rest_is_saved(path: Path) -> None:
    ids = await filled(path)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("UPDATE message SET body = CAST('changed' AS BLOB) WHERE routing_key = 'parked'")
    done = pubd("verify", path)
    assert done.returncode == 1
    assert f"message {ids[2]} for '' is damaged: its checksum does not match" in done.stderr
    assert f"pubd export {path}" in done.stderr
    saved = pubd("export", path)
    assert saved.returncode == 0
    assert "3 messages exported, 1 of them damaged" in saved.stderr
    messages = exported(saved.stdout)
    assert [message.get("damaged", False) for message in messages] == [False, False, True]
    assert base64.b64decode(str(messages[2]["body_base64"])) == b"changed"


@pytest_twisted.ensureDeferred
async def test_a_damaged_file_is_a_sentence_with_exit_code_1(path: Path) -> None:
    await filled(path)
    octets = bytearray(path.read_bytes())
    octets[4096 : len(octets) : 2] = b"\xa5" * len(octets[4096 : len(octets) : 2])
    path.write_bytes(octets)
    for command in ("verify", "export"):
        done = pubd(command, path)
        assert done.returncode == 1
        assert "pubd: " in done.stderr
    path.write_bytes(b"no database" * 1000)
    for command in ("verify", "export"):
        code, (line,) = called(command, str(path))
        assert code == 1
        assert "is damaged" in line


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_read_does_not_keep_the_rest_from_being_saved(path: Path, tmp_path: Path) -> None:
    spool = SqliteSpool(path, reactor=reactor)
    await spool.open()
    assert spool.ids is not None
    message = Message(exchange="orders", routing_key="k", body=b"x" * 1500)
    for _ in range(20):
        await spool.append([entry_of(message, spool.ids, Options(), 1.0)])
    await spool.close()
    broken_page(path, b"x" * 1500)
    verified = pubd("verify", path)
    assert verified.returncode == 1
    assert "a part of the messages cannot be read\n" in verified.stderr
    assert "pubd: the books say 20 ready, there are 18\n" in verified.stderr
    assert f"save what is open with 'pubd export {path} -o FILE'\n" in verified.stderr
    target = tmp_path / "open.ndjson"
    done = pubd("export", path, "-o", target)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "18 messages exported, 0 of them damaged, 2 could not be read"
    assert second.startswith(f"pubd: {path} is damaged, and some of it cannot be read: ")
    assert f"'sqlite3 {path} .recover'" in second
    assert "pubd export" not in done.stderr
    assert len(exported(target.read_text())) == 18


def broken_page(path: Path, body: bytes) -> None:
    """Where two whole bodies stand, in the middle of the file."""
    octets = bytearray(path.read_bytes())
    pages = [at for at in range(4096, len(octets), 4096) if octets[at : at + 4096].count(body) == 2]
    at = pages[len(pages) // 2]
    octets[at : at + 4096] = b"\xa5" * 4096
    path.write_bytes(octets)


@pytest_twisted.ensureDeferred
async def test_the_spool_of_a_running_daemon_is_left_alone(path: Path) -> None:
    spool = SqliteSpool(path, reactor=reactor)
    await spool.open()
    sentence = (
        f"pubd: the spool {path} is in use by process {os.getpid()}: stop that one, or use another spool; "
        "or leave SPOOL out: the running pubd is asked then"
    )
    for command in ("verify", "export"):
        done = pubd(command, path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence + "\n")
    await spool.close()
    assert pubd("verify", path).returncode == 0


@pytest.mark.parametrize("command", ["verify", "export"])
@pytest.mark.parametrize(
    "spool",
    ["missing.db", ".", "/proc/version", "a" * 300, b"\xff.db", "empty.db"],
    ids=["missing", "directory", "no lock", "too long", "not UTF-8", "empty"],
)
def test_what_is_no_spool_is_a_sentence_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, spool: str | bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.db").touch()
    code, (line,) = called(command, spool)
    assert code == 1
    assert line.startswith("pubd: ")


# export


@pytest_twisted.ensureDeferred
async def test_export_writes_every_open_message_whole_and_in_order(path: Path, tmp_path: Path) -> None:
    ids = await filled(path)
    done = pubd("export", path)
    assert (done.returncode, done.stderr) == (0, "3 messages exported, 0 of them damaged\n")
    first, second, third = exported(done.stdout)
    assert first == {
        "exchange": "orders",
        "routing_key": "order.neu.ä",
        "body": "Grüße",
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {
            "binary": {"$binary": "AP8="},
            "moment": {"$timestamp": 1767323045},
            "price": {"$decimal": "1.5"},
            "nested": {"$table": {"a": [1, None, True, {"b": {"$binary": "eA=="}}], "$binary": "not what it seems"}},
            "big": 2**40,
        },
        "delivery_mode": 2,
        "priority": 7,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "60000",
        "message_id": "mine",
        "timestamp": 1700000000,
        "type": "t",
        "user_id": "guest",
        "app_id": "app",
        "cluster_id": "cl",
        "mandatory": True,
        "idempotency_key": "once",
        "ordering_key": "o1",
        "state": "ready",
    }
    assert base64.b64decode(str(second["body_base64"])) == b"\xff\x00 no text"
    assert "body" not in second
    assert (second["delivery_mode"], second["mandatory"]) == (1, False)
    assert second["idempotency_key"] == second["message_id"] == ids[1]
    assert (third["state"], third["body"], third["exchange"]) == ("parked", "parked", "")

    # The same into a file, and from another time zone.
    target = tmp_path / "open.ndjson"
    assert pubd("export", "--output", target, path, TZ="Asia/Tokyo", PYTHONIOENCODING="ascii").returncode == 0
    assert target.read_text() == done.stdout
    # Nothing of the spool was changed by all that.
    assert pubd("verify", path).returncode == 0


@pytest_twisted.ensureDeferred
async def test_an_export_is_utf8_in_any_locale(path: Path) -> None:
    await filled(path)
    whole = pubd("export", path)
    ascii_only = pubd("export", path, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (ascii_only.returncode, ascii_only.stdout) == (0, whole.stdout)


@pytest_twisted.ensureDeferred
async def test_properties_that_nobody_can_read_count_as_damaged(path: Path) -> None:
    spool = SqliteSpool(path, reactor=reactor)
    await spool.open()
    assert spool.ids is not None
    entry = entry_of(MESSAGES[3], spool.ids, Options(), 1.0)
    entry.properties = b"\xff"
    await spool.append([entry])
    await spool.close()
    done = pubd("export", path)
    assert (done.returncode, done.stderr) == (0, "1 messages exported, 1 of them damaged\n")
    (message,) = exported(done.stdout)
    assert (message["damaged"], message["state"], message["properties_base64"]) == (True, "ready", "/w==")


@pytest_twisted.ensureDeferred
async def test_an_output_that_cannot_be_written_is_a_sentence(path: Path, tmp_path: Path) -> None:
    await filled(path)
    for target in ("/dev/full", str(tmp_path / "missing" / "x")):
        code, (line,) = called("export", str(path), "-o", target)
        assert code == 1
        assert f"{target} cannot be written" in line
    code, (line,) = called("export", str(path), "-o", str(tmp_path))
    assert (code, line) == (2, f"pubd: {tmp_path} is a directory; name a file in it")
    piped = subprocess.run(
        ["sh", "-c", f"'{BIN / 'pubd'}' export '{path}' > /dev/full"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert piped.returncode == 1
    assert "Traceback" not in piped.stderr
    assert piped.stderr == "pubd: stdout cannot be written: No space left on device\n"


@pytest_twisted.ensureDeferred
async def test_an_export_takes_the_place_of_another_only_when_all_is_in_it(path: Path, tmp_path: Path) -> None:
    await filled(path)
    target = tmp_path / "open.ndjson"
    target.write_text("an earlier export\n")
    code, (line,) = called("export", str(path), "-o", str(target))
    assert (code, line) == (2, f"pubd: {target} is there already; name another file, or say --force")
    code, _ = called("export", str(tmp_path / "missing.db"), "-o", str(target), "--force")
    assert code == 1
    assert target.read_text() == "an earlier export\n"
    code, _ = called("export", str(path), "-o", str(target), "--force")
    assert code == 0
    assert (len(exported(target.read_text())), target.stat().st_mode & 0o777) == (3, 0o600)
    assert not [each for each in tmp_path.iterdir() if each.name.endswith(".part")]
    assert pubd("export", path, "-o", "-").stdout == target.read_text()


@pytest_twisted.ensureDeferred
async def test_an_export_never_takes_the_place_of_a_spool(path: Path, tmp_path: Path) -> None:
    await filled(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    before = path.read_bytes()
    beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", ".ballast", ".lock", ".schedules")]
    for target in (path, link, copy, *beside):
        there = os.path.lexists(target)
        for source in ([str(path)], ["-s", f"unix:{tmp_path}/nobody"]):
            code, (line,) = called("export", *source, "-o", str(target), "--force")
            assert (code, "spool" in line, str(target) in line) == (2, True, True), line
        assert os.path.lexists(target) == there
    assert path.read_bytes() == copy.read_bytes() == before
    # Also where nothing says any more that it is one.
    path.write_bytes(bytes(4096) + before[4096:])
    code, (line,) = called("export", str(path), "-o", str(path), "--force")
    assert (code, "is a spool" in line) == (2, True)


# The command itself


def test_it_helps_and_takes_nothing_it_does_not_know() -> None:
    done = pubd("--help")
    assert done.returncode == 0
    for command in ("check", "verify", "export"):
        assert command in done.stdout
    assert pubd("nonsense").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["export", "a", "b"],
        ["verify", "--fast", "x"],
        ["verify", "sqlite:relative"],
        ["export", "sqlite://host/x"],
        ["verify", "sqlite:///"],
    ],
    ids=" ".join,
)
def test_a_usage_error_is_2(arguments: list[str]) -> None:
    code, lines = called(*arguments)
    assert code == 2
    assert lines
