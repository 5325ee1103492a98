"""Writers that are other users: of the directory's group, of another one, and those whose files somebody else moved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted

from tests.directories import Box, KeyedDoor, Known, Writer, comes, intake_of, stored
from tests.integration.support import pause
from tests.service.process import until

WRITER, PUBD, STRANGER, GROUP = 64001, 64002, 64003, 64010


@pytest.fixture
def box() -> Iterator[Box]:
    """In a place that other users can reach, for the group."""
    if os.geteuid() != 0:
        pytest.fail("these tests need to be root, to be other users")
    with tempfile.TemporaryDirectory(prefix="pubd-owners-") as directory:
        os.chmod(directory, 0o755)
        box = Box(Path(directory) / "box").make()
        for path in (box.path, box.tmp, box.new, box.rejected):
            os.chown(path, PUBD, GROUP)
            path.chmod(0o2770)
        yield box


def as_user(uid: int, command: str, *groups: int) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell as somebody."""
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=groups,
        capture_output=True,
        text=True,
        check=False,
    )


def put(box: Box, name: str, umask: str) -> str:
    return f"umask {umask} && printf {name} > {box.tmp}/{name} && mv {box.tmp}/{name} {box.new}/"


@contextmanager
def pubd(box: Box) -> Iterator[subprocess.Popen[bytes]]:
    """The intake in a process of its own, as a user of its own, in the directory's group."""
    log = (box.path / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.directory", "serve", str(box.path), f"{PUBD}", f"{GROUP}"],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n", (box.path / "log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(20)
        process.stdin.close()
        process.stdout.close()
        log.close()


def test_a_writer_in_the_group_of_the_directory_and_a_pubd_of_another_user_work_together(box: Box) -> None:
    with pubd(box):
        assert as_user(WRITER, put(box, "for-the-group", "027"), GROUP).returncode == 0
        until(lambda: box.waiting == [], what=lambda: (box.path / "log").read_text())
        # Nobody but its owner can read this one: it stays.
        assert as_user(WRITER, put(box, "private", "077"), GROUP).returncode == 0
        assert as_user(WRITER, put(box, "second", "007"), GROUP).returncode == 0
        until(lambda: box.waiting == ["private"], what=lambda: (box.path / "log").read_text())
        (box.new / "private").chmod(0o640)
        until(lambda: box.waiting == [], what=lambda: (box.path / "log").read_text())
        # The reason can be read by whoever wrote the file.
        assert as_user(WRITER, put(box, "bad.json", "027"), GROUP).returncode == 0
        until(lambda: "bad.json.reason" in box.refused)
        read = as_user(WRITER, f"cat {box.rejected}/bad.json.reason", GROUP)
        assert json.loads(read.stdout)["type"] == "malformed"
        # Somebody outside of the group cannot put anything there at all.
        assert "Permission denied" in as_user(STRANGER, put(box, "no", "027")).stderr
    assert sorted(body for _, body in stored(box.path / "spool.db")) == [b"for-the-group", b"private", b"second"]


@pytest_twisted.ensureDeferred
async def test_a_file_whose_owner_could_not_have_put_it_there_is_refused(box: Box) -> None:
    door = KeyedDoor()
    intake = intake_of(box, door)
    intake.startService()
    stranger, member = box.tmp / "stolen", box.tmp / "given"
    for path, uid, gid in ((stranger, STRANGER, STRANGER), (member, WRITER, GROUP)):
        path.write_text(path.name)
        os.chown(path, uid, gid)
        os.rename(path, box.new / path.name)
    await comes(lambda: not box.waiting)
    assert door.bodies == [b"given"]
    assert box.refused == ["stolen", "stolen.reason"]
    assert "somebody else put it there" in json.loads(box.reason("stolen"))["detail"]
    # Where everybody may write, everybody may submit.
    box.new.chmod(0o2777)
    await pause(0.1)
    stranger.write_text("own")
    os.chown(stranger, STRANGER, STRANGER)
    os.rename(stranger, box.new / "own")
    await comes(lambda: not box.waiting)
    await intake.stopService()
    assert door.bodies == [b"given", b"own"]


@pytest_twisted.ensureDeferred
async def test_with_principals_the_uid_of_the_owner_decides(box: Box) -> None:
    door = KeyedDoor()
    intake = intake_of(box, door, access=Known({WRITER: Writer("shop")}), principal=None)
    intake.startService()
    for name, uid in (("1", WRITER), ("2", STRANGER), ("3", 0)):
        os.chown(box.put(name, name), uid, GROUP)
    await comes(lambda: not box.waiting)
    await intake.stopService()
    assert door.principals == ["shop"]
    assert [name for name in box.refused if not name.endswith(".reason")] == ["2", "3"]


@pytest_twisted.ensureDeferred
async def test_a_meta_file_of_somebody_else_does_not_route_my_file(box: Box) -> None:
    door = KeyedDoor()
    meta = box.put("mine.meta.json", json.dumps({"exchange": "theirs"}))
    os.chown(meta, STRANGER, GROUP)
    os.chown(box.put("mine", "mine"), WRITER, GROUP)
    intake = intake_of(box, door)
    intake.startService()
    await comes(lambda: not box.waiting)
    await intake.stopService()
    assert door.accepted == []
    assert json.loads(box.reason("mine"))["type"] == "not-allowed"
