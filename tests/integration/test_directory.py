"""The directory intake on a real file system: what is renamed into new/ is accepted once and removed, or rejected."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed

from pubd.errors import IdempotencyConflict, InvalidMessage, NotAllowed, PubdError, QuotaExceeded, SpoolFull
from pubd.intake.directory import DirectoryIntake
from tests.directories import Box, KeyedDoor, Known, Writer, comes, intake_of
from tests.integration.support import pause
from tests.strictness import Logged


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box").make()


@pytest.fixture
def door() -> KeyedDoor:
    return KeyedDoor()


@asynccontextmanager
async def running(box: Box, door: Any, **given: Any) -> AsyncIterator[DirectoryIntake]:
    """The intake; stopped at the end, with all of its budget given back."""
    intake = intake_of(box, door, **given)
    intake.startService()
    try:
        yield intake
    finally:
        await intake.stopService()
    assert getattr(door, "taken", 0) == 0


OBJECT = {"exchange": "x", "routing_key": "k", "body": "hello"}


# What is accepted


@pytest_twisted.ensureDeferred
async def test_a_json_file_is_one_message_and_removed(box: Box, door: KeyedDoor) -> None:
    async with running(box, door):
        box.put("a.json", json.dumps(OBJECT | {"headers": {"n": 1}, "priority": 3}))
        await comes(lambda: not box.waiting)
    (message,) = door.accepted
    assert (message.exchange, message.routing_key, message.body) == ("x", "k", b"hello")
    assert message.priority == 3
    assert door.principals == ["directory"]
    assert box.refused == []


@pytest_twisted.ensureDeferred
async def test_any_other_file_is_a_body_with_the_configured_route_and_properties(box: Box, door: KeyedDoor) -> None:
    properties = {"content_type": "image/png", "headers": {"from": "scanner"}}
    async with running(box, door, options={"properties": properties}):
        box.put("picture.png", b"\x89PNG\0\xff")
        await comes(lambda: not box.waiting)
    (message,) = door.accepted
    assert message.body == b"\x89PNG\0\xff"
    assert (message.exchange, message.routing_key, message.content_type) == ("x", "k", "image/png")
    assert dict(message.headers or {}) == {"from": "scanner"}


@pytest_twisted.ensureDeferred
async def test_a_meta_file_beside_it_says_route_and_properties_and_goes_with_it(box: Box, door: KeyedDoor) -> None:
    async with running(box, door, options={"exchange": None}):
        box.put("scan.pdf.meta.json", json.dumps({"exchange": "scans", "routing_key": "a.b", "type": "scan"}))
        await pause(0.1)
        assert box.waiting == ["scan.pdf.meta.json"]
        box.put("scan.pdf", b"%PDF")
        await comes(lambda: not box.waiting)
    (message,) = door.accepted
    assert (message.exchange, message.routing_key, message.type) == ("scans", "a.b", "scan")
    assert sorted(os.listdir(box.path / ".pubd")) == ["doubt", "id"]


@pytest_twisted.ensureDeferred
async def test_a_file_without_a_route_waits_for_its_meta_file_and_is_rejected_after_a_minute(
    box: Box, door: KeyedDoor
) -> None:
    wall = [0.0]
    path = box.put("late", b"body")
    wall[0] = path.stat().st_ctime
    async with running(box, door, options={"exchange": None}, wall=lambda: wall[0]):
        await pause(0.2)
        assert box.waiting == ["late"]
        box.put("late.meta.json", json.dumps({"exchange": "e"}))
        await comes(lambda: not box.waiting)
        box.put("never", b"body")
        wall[0] += 62
        await comes(lambda: box.refused)
    assert [message.exchange for message in door.accepted] == ["e"]
    assert json.loads(box.reason("never"))["field"] == "exchange"


@pytest_twisted.ensureDeferred
async def test_a_meta_file_whose_file_never_comes_is_rejected_after_an_hour(box: Box, door: KeyedDoor) -> None:
    path = box.put("lonely.meta.json", "{}")
    async with running(box, door, wall=lambda: path.stat().st_ctime + 3601 if path.exists() else 0.0):
        await comes(lambda: box.refused)
    assert box.refused == ["lonely.meta.json", "lonely.meta.json.reason"]


@pytest_twisted.ensureDeferred
async def test_an_ndjson_file_is_a_message_a_line_read_by_batches(box: Box, door: KeyedDoor) -> None:
    lines = [json.dumps(OBJECT | {"body": str(n)}) for n in range(1700)]
    async with running(box, door):
        box.put("many.ndjson", "\n".join([*lines[:10], "", "  ", *lines[10:]]) + "\n")
        await comes(lambda: not box.waiting)
    assert door.bodies == [str(n).encode() for n in range(1700)]
    assert max(door.batches) <= 500
    assert sorted(os.listdir(box.path / ".pubd")) == ["doubt", "id"]


@pytest_twisted.ensureDeferred
async def test_the_last_line_needs_no_line_break(box: Box, door: KeyedDoor) -> None:
    path = box.put("two.ndjson", json.dumps(OBJECT) + "\n" + json.dumps(OBJECT | {"body": "2"}))
    os.utime(path, (1, 1))
    async with running(box, door):
        await comes(lambda: not box.waiting)
    assert door.bodies == [b"hello", b"2"]


@pytest_twisted.ensureDeferred
async def test_bad_lines_fail_alone_and_the_reason_names_them(box: Box, door: KeyedDoor) -> None:
    good = json.dumps(OBJECT)
    text = "\n".join([good, "no json", json.dumps(OBJECT | {"priority": 256}), json.dumps(OBJECT | {"body": "2"}), ""])
    async with running(box, door):
        box.put("some.ndjson", text)
        await comes(lambda: not box.waiting)
    assert door.bodies == [b"hello", b"2"]
    assert box.refused == ["some.ndjson", "some.ndjson.reason"]
    assert (box.rejected / "some.ndjson").read_text() == text
    first, second, summary = map(json.loads, box.reason("some.ndjson").splitlines())
    assert (first["line"], first["type"]) == (2, "malformed")
    assert (second["line"], second["field"]) == (3, "priority")
    assert (summary["accepted"], summary["rejected"]) == (2, 2)


@pytest_twisted.ensureDeferred
async def test_a_line_over_the_limit_is_refused_and_its_neighbours_go_through(box: Box, door: KeyedDoor) -> None:
    good = json.dumps(OBJECT)
    long = json.dumps(OBJECT | {"body": "x" * 5000})
    async with running(box, door, options={"max_file": 1000}):
        box.put("long.ndjson", f"{good}\n{long}\n{good}\n")
        await comes(lambda: not box.waiting)
    assert len(door.accepted) == 2
    assert json.loads(box.reason("long.ndjson").splitlines()[0])["line"] == 2


@pytest_twisted.ensureDeferred
async def test_many_small_files_go_in_batches_in_order_of_their_names(box: Box, door: KeyedDoor) -> None:
    for n in range(1200):
        box.put(f"{n:06}", str(n))
    async with running(box, door):
        await comes(lambda: not box.waiting)
    assert door.bodies == [str(n).encode() for n in range(1200)]
    assert door.batches == [500, 500, 200]


@pytest_twisted.ensureDeferred
async def test_the_same_content_in_two_files_is_two_messages_even_with_inode_and_times_used_again(
    box: Box, door: KeyedDoor
) -> None:
    async with running(box, door):
        for turn in range(20):
            draft = box.tmp / "draft"
            draft.write_bytes(b"same")
            os.utime(draft, ns=(1, 1))
            os.rename(draft, box.new / "same")
            await comes(lambda turn=turn: len(door.accepted) == turn + 1 and not box.waiting)  # type: ignore[misc]
    assert door.bodies == [b"same"] * 20


@pytest_twisted.ensureDeferred
async def test_a_message_has_an_id_that_a_second_submission_of_the_file_would_have_too(
    box: Box, door: KeyedDoor
) -> None:
    other = KeyedDoor(lambda _: SpoolFull("max_bytes", "no room"))
    seen: list[str | None] = []
    other.answer = lambda message: seen.append(message.message_id) or SpoolFull("max_bytes", "")  # type: ignore[func-returns-value]
    box.put("a", b"1")
    async with running(box, other):
        await comes(lambda: seen)
    async with running(box, door):
        await comes(lambda: not box.waiting)
    assert [message.message_id for message in door.accepted] == seen
    assert seen[0] is not None
    assert seen[0][14] == "8"


# What is refused


def _symlink(box: Box) -> str:
    (box.path / "secret").write_text("secret")
    os.symlink(box.path / "secret", box.new / "link")
    return "link"


def _dangling(box: Box) -> str:
    os.symlink("/nonexistent", box.new / "dangling")
    return "dangling"


def _fifo(box: Box) -> str:
    os.mkfifo(box.new / "fifo")
    return "fifo"


def _socket(box: Box) -> str:
    with socket.socket(socket.AF_UNIX) as end:
        directory = os.open(box.new, os.O_PATH)
        try:
            end.bind(f"/proc/self/fd/{directory}/socket")
        finally:
            os.close(directory)
    return "socket"


def _device(box: Box) -> str:
    if os.geteuid() != 0:
        pytest.fail("this test needs to be root, to make a device")
    os.mknod(box.new / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return "null"


def _folder(box: Box) -> str:
    (box.new / "folder").mkdir()
    (box.new / "folder" / "inside.json").write_text(json.dumps(OBJECT))
    return "folder"


def _hard_link(box: Box) -> str:
    (box.path / "first").write_text("content")
    os.link(box.path / "first", box.new / "second")
    return "second"


def _named(name: str | bytes, content: bytes | str = b"x") -> Callable[[Box], str]:
    def put(box: Box) -> str:
        box.put(name, content)
        return os.fsdecode(name)

    return put


def _json(**changed: Any) -> Callable[[Box], str]:
    return _named("m.json", json.dumps(OBJECT | changed))


def _meta(meta: str | bytes) -> Callable[[Box], str]:
    def put(box: Box) -> str:
        box.put("body.bin.meta.json", meta)
        box.put("body.bin", b"x")
        return "body.bin"

    return put


def _meta_link(box: Box) -> str:
    (box.path / "meta").write_text(json.dumps({"exchange": "stolen"}))
    os.symlink(box.path / "meta", box.new / "body.bin.meta.json")
    box.put("body.bin", b"x")
    return "body.bin"


#: What is put there, the type of its problem, and a word of the detail.
BAD: dict[str, tuple[Callable[[Box], str], str, str]] = {
    "symbolic link": (_symlink, "malformed", "symbolic link"),
    "dangling link": (_dangling, "malformed", "symbolic link"),
    "named pipe": (_fifo, "malformed", "named pipe"),
    "socket": (_socket, "malformed", "socket"),
    "device": (_device, "malformed", "device"),
    "directory": (_folder, "malformed", "directory"),
    "hard link": (_hard_link, "not-allowed", "hard link"),
    "too large": (_named("big", b"x" * 2001), "too-large", "2001 bytes"),
    "too large json": (_named("big.json", b" " * 2001), "too-large", "max_file"),
    "line break in name": (_named("a\nb"), "malformed", "line break"),
    "escape in name": (_named("a\x1b[2Jb"), "malformed", "cannot be seen"),
    "del in name": (_named("a\x7fb"), "malformed", "cannot be seen"),
    "right-to-left override in name": (_named("txt\u202efdp.exe"), "malformed", "cannot be seen"),
    "name not utf-8": (_named(b"a\xff\xfe"), "malformed", "not UTF-8"),
    "nul-like in name": (_named(b"a\xc0\x80b"), "malformed", "not UTF-8"),
    "name too long": (_named("n" * 201), "malformed", "201 bytes"),
    "name as long as can be": (_named("n" * 255), "malformed", "255 bytes"),
    "odd name of meta": (_named("a\nb.meta.json"), "malformed", "line break"),
    "no json": (_named("m.json", "hello"), "malformed", ""),
    "empty json": (_named("m.json", ""), "malformed", ""),
    "json cut off": (_named("m.json", json.dumps(OBJECT)[:-1]), "malformed", ""),
    "two objects": (_named("m.json", json.dumps(OBJECT) * 2), "malformed", ""),
    "an array": (_named("m.json", json.dumps([OBJECT])), "malformed", "object"),
    "not utf-8 inside": (_named("m.json", b'{"exchange": "\xff"}'), "malformed", ""),
    "byte order mark": (_named("m.json", b"\xef\xbb\xbf" + json.dumps(OBJECT).encode()), "malformed", ""),
    "key twice": (_named("m.json", '{"exchange": "x", "exchange": "y", "body": ""}'), "invalid-message", "exchange"),
    "nested too deep": (_named("m.json", "[" * 900 + "]" * 900), "malformed", ""),
    "unknown key": (_json(colour="red"), "invalid-message", "colour"),
    "wait is no key of a file": (_json(wait="confirmed"), "invalid-message", "wait"),
    "priority 256": (_json(priority=256), "invalid-message", "priority"),
    "timestamp 2**64": (_json(timestamp=2**64), "invalid-message", "timestamp"),
    "wrong type": (_json(routing_key=1), "invalid-message", "routing_key"),
    "no exchange": (_named("m.json", '{"body": ""}'), "invalid-message", "exchange"),
    "bad base64": (_named("m.json", '{"exchange": "x", "body_base64": "*"}'), "invalid-message", "body_base64"),
    "empty ndjson": (_named("m.ndjson", ""), "malformed", "no message"),
    "ndjson of blank lines": (_named("m.ndjson", "\n\n \n"), "malformed", "no message"),
    "meta no json": (_meta("{"), "malformed", ".meta.json"),
    "meta no object": (_meta("[]"), "malformed", ".meta.json"),
    "meta with a body": (_meta('{"body": "x"}'), "invalid-message", "leave it out"),
    "meta with an unknown key": (_meta('{"colour": 1}'), "invalid-message", "colour"),
    "meta a symbolic link": (_meta_link, "malformed", ".meta.json: is a symbolic link"),
    "meta too large": (_meta(b" " * (1024 * 1024 + 1)), "too-large", ".meta.json"),
    "not allowed": (_json(exchange="forbidden"), "not-allowed", ""),
}


@pytest.mark.parametrize("bad", BAD)
@pytest_twisted.ensureDeferred
async def test_what_is_no_submission_goes_to_rejected_with_the_reason(box: Box, bad: str) -> None:
    put, type, word = BAD[bad]
    door = KeyedDoor(lambda message: NotAllowed("no") if message.exchange == "forbidden" else None)
    name = put(box)
    # What looks cut off may be still written, for two seconds.
    wall = (box.new / name).lstat().st_ctime + 20
    async with running(box, door, options={"max_file": 2000}, wall=lambda: wall):
        await comes(lambda: not box.waiting, lambda: box.waiting)
        (reason,) = [each for each in box.refused if each.endswith(".reason")]
        told = json.loads(box.reason(reason.removesuffix(".reason")).splitlines()[0])
        # Its neighbours go through.
        box.put("good", b"good")
        await comes(lambda: not box.waiting)
    assert door.bodies == [b"good"]
    assert told["type"] == type
    assert word in f"{told['detail']} {told.get('field')}"
    there = reason.removesuffix(".reason")
    assert os.path.lexists(box.rejected / there)
    assert there.isprintable()
    if len(os.fsencode(name)) < 200 and name.isprintable():
        assert there == name


@pytest_twisted.ensureDeferred
async def test_a_hidden_name_is_not_a_submission_and_is_left_alone(box: Box, door: KeyedDoor) -> None:
    box.put(".draft.Xy12", b"rsync writes it")
    async with running(box, door):
        box.put("good", b"good")
        await comes(lambda: door.accepted)
        await pause(0.1)
    assert box.waiting == [".draft.Xy12"]
    assert door.bodies == [b"good"]


@pytest_twisted.ensureDeferred
async def test_nothing_in_rejected_is_overwritten(box: Box, door: KeyedDoor) -> None:
    async with running(box, door):
        for n in range(3):
            box.put("same.json", f"bad {n}")
            os.utime(box.new / "same.json", (1, 1))
            await comes(lambda: not box.waiting)
    assert [(box.rejected / name).read_text() for name in ("same.json", "same.json.1", "same.json.2")] == [
        "bad 0",
        "bad 1",
        "bad 2",
    ]
    assert len(box.refused) == 6


@pytest_twisted.ensureDeferred
async def test_a_reason_that_somebody_planted_as_a_link_is_not_written_through(box: Box, door: KeyedDoor) -> None:
    victim = box.path / "victim"
    victim.write_text("untouched")
    os.symlink(victim, box.rejected / "bad.json.reason")
    path = box.put("bad.json", "bad")
    os.utime(path, (1, 1))
    async with running(box, door):
        await comes(lambda: not box.waiting)
    assert victim.read_text() == "untouched"
    assert json.loads(box.reason("bad.json"))["type"] == "malformed"


@pytest_twisted.ensureDeferred
async def test_a_conflict_about_an_own_key_rejects_and_about_the_files_key_means_accepted_before(box: Box) -> None:
    door = KeyedDoor(lambda message: IdempotencyConflict(str(message.idempotency_key)))
    async with running(box, door):
        box.put("own.json", json.dumps(OBJECT | {"idempotency_key": "order-1"}))
        box.put("left-over", b"of a kill")
        await comes(lambda: not box.waiting)
    assert box.refused == ["own.json", "own.json.reason"]
    assert json.loads(box.reason("own.json"))["type"] == "idempotency-conflict"


# What waits


@pytest_twisted.ensureDeferred
async def test_with_a_full_spool_files_stay_and_are_taken_when_there_is_room(
    box: Box, door: KeyedDoor, logged: Logged
) -> None:
    full = [True]
    door.answer = lambda _: SpoolFull("max_bytes", "no room") if full[0] else None
    box.put("a", b"1")
    box.put("b.ndjson", json.dumps(OBJECT) + "\n")
    async with running(box, door):
        await comes(lambda: any("files wait" in text for text in logged.texts))
        await pause(0.1)
        assert box.waiting == ["a", "b.ndjson"]
        full[0] = False
        await comes(lambda: not box.waiting)
    assert door.bodies == [b"1", b"hello"]
    assert len([text for text in logged.texts if "files wait" in text]) == 1


@pytest_twisted.ensureDeferred
async def test_a_stream_that_is_refused_in_the_middle_goes_on_there(box: Box, door: KeyedDoor) -> None:
    left = [700]

    def answer(_: Any) -> PubdError | None:
        left[0] -= 1
        return SpoolFull("max_rows", "") if left[0] < 0 else None

    door.answer = answer
    box.put("many.ndjson", "".join(json.dumps(OBJECT | {"body": str(n)}) + "\n" for n in range(1000)))
    async with running(box, door):
        await comes(lambda: left[0] < 0)
        await pause(0.05)
        left[0] = 10**6
        await comes(lambda: not box.waiting)
    assert door.bodies == [str(n).encode() for n in range(1000)]


@pytest_twisted.ensureDeferred
async def test_a_quota_holds_its_owner_up_and_nobody_else(box: Box) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test needs to be root, to give files to others")
    held = [True]
    door = KeyedDoor(lambda message: QuotaExceeded(0.2) if message.body == b"slow" and held[0] else None)
    access = Known({0: Writer("root"), 65534: Writer("nobody")})
    for name, body, uid in (("1", b"slow", 65534), ("2", b"quick", 0), ("3", b"slow", 65534)):
        os.chown(box.put(name, body), uid, -1)
    async with running(box, door, access=access, principal=None):
        await comes(lambda: door.accepted)
        assert door.bodies == [b"quick"]
        held[0] = False
        await comes(lambda: not box.waiting)
    assert door.principals == ["root", "nobody", "nobody"]


@pytest_twisted.ensureDeferred
async def test_a_quota_below_a_batch_lets_as_many_through_as_it_allows_in_order(box: Box) -> None:
    class Bucket(KeyedDoor):
        """Takes seven at once, and more than that never."""

        def submit(self, principal: Any, messages: Any) -> Any:
            if len(messages) > 7:
                self.batches.append(len(messages))
                return succeed([QuotaExceeded(60.0)] * len(messages))
            return super().submit(principal, messages)

    door = Bucket()
    for n in range(60):
        box.put(f"a{n:02}", str(n))
    box.put("b.ndjson", "".join(json.dumps(OBJECT | {"body": str(60 + n)}) + "\n" for n in range(60)))
    async with running(box, door):
        await comes(lambda: not box.waiting)
    assert door.bodies == [str(n).encode() for n in range(120)]


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_read_is_told_of_once_and_taken_when_it_can_be(
    box: Box, door: KeyedDoor, logged: Logged
) -> None:
    path = box.put("a", b"1")
    original = os.open

    refused = [True]

    def opening(name: Any, *given: Any, **named: Any) -> int:
        if name == "a" and refused[0]:
            raise PermissionError(13, "Permission denied")
        return original(name, *given, **named)

    os.open = opening  # type: ignore[assignment]  # root may read everything
    try:
        async with running(box, door) as intake:
            await comes(lambda: any("Permission denied" in text for text in logged.texts))
            box.put("b", b"2")
            await comes(lambda: door.accepted)
            assert path.exists()
            refused[0] = False
            await comes(lambda: not box.waiting)
            assert intake.counts.errors == 1
    finally:
        os.open = original
    assert door.bodies == [b"2", b"1"]


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_still_being_written_is_looked_at_again(box: Box, door: KeyedDoor) -> None:
    whole = json.dumps(OBJECT)
    with (box.new / "slow.json").open("w") as file:
        file.write(whole[:20])
        file.flush()
        async with running(box, door):
            await pause(0.2)
            assert not box.refused
            file.write(whole[20:])
            file.flush()
            await comes(lambda: not box.waiting)
    assert door.bodies == [b"hello"]


@pytest_twisted.ensureDeferred
async def test_an_ndjson_that_grows_meanwhile_keeps_the_keys_of_its_lines(box: Box, door: KeyedDoor) -> None:
    lines = [json.dumps(OBJECT | {"body": str(n)}) + "\n" for n in range(1500)]
    path = box.put("grows.ndjson", "".join(lines[:1000]))
    door.hold = Deferred()
    async with running(box, door):
        await comes(lambda: door.batches)
        with path.open("a") as file:
            file.write("".join(lines[1000:]))
        hold, door.hold = door.hold, None
        hold.callback(None)
        await comes(lambda: not box.waiting)
    assert door.bodies == [str(n).encode() for n in range(1500)]


@pytest_twisted.ensureDeferred
async def test_a_new_file_of_the_same_name_is_not_removed_with_the_old_one(box: Box, door: KeyedDoor) -> None:
    box.put("current", b"old")
    door.hold = Deferred()
    async with running(box, door):
        await comes(lambda: door.batches)
        box.put("current", b"new")
        hold, door.hold = door.hold, None
        hold.callback(None)
        await comes(lambda: not box.waiting)
    assert door.bodies == [b"old", b"new"]


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_removed_is_not_submitted_again(box: Box, door: KeyedDoor, logged: Logged) -> None:
    original, refused = os.unlink, [True]

    def unlinking(name: Any, *given: Any, **named: Any) -> Any:
        if name == "a" and refused[0]:
            raise OSError(30, "Read-only file system")
        original(name, *given, **named)

    os.unlink = unlinking  # type: ignore[assignment]  # a file system cannot be made read-only for one file
    try:
        box.put("a", b"1")
        async with running(box, door):
            await comes(lambda: any("cannot be removed" in text for text in logged.texts))
            await pause(0.3)
            assert box.waiting == ["a"]
            assert door.batches == [1]
            refused[0] = False
            await comes(lambda: not box.waiting)
    finally:
        os.unlink = original
    assert door.batches == [1]


# Looking


@pytest_twisted.ensureDeferred
async def test_inotify_tells_before_the_next_rescan(box: Box, door: KeyedDoor) -> None:
    async with running(box, door, options={"rescan": 600.0}):
        await pause(0.2)
        box.put("a", b"1")
        await comes(lambda: not box.waiting)


@pytest_twisted.ensureDeferred
async def test_without_inotify_the_rescan_finds_everything(box: Box, door: KeyedDoor) -> None:
    async with running(box, door, watch=lambda *_: lambda: None):
        await pause(0.1)
        for n in range(10):
            box.put(f"{n}", str(n))
            await pause(0.02)
        await comes(lambda: not box.waiting)
    assert len(door.accepted) == 10


@pytest_twisted.ensureDeferred
async def test_more_events_than_inotify_holds_lose_nothing(box: Box, door: KeyedDoor) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    door.hold = Deferred()
    async with running(box, door):
        box.put("first", b"")
        await comes(lambda: door.batches)
        # The reactor reads nothing of this meanwhile.
        for _ in range(limit + 100):
            os.rename(box.put("again", b""), box.tmp / "again")
        for n in range(50):
            box.put(f"{n}", str(n))
        hold, door.hold = door.hold, None
        hold.callback(None)
        await comes(lambda: not box.waiting)
    assert len(door.accepted) == 51


@pytest_twisted.ensureDeferred
async def test_missing_rooms_are_made_and_existing_ones_left_as_they_are(tmp_path: Path, door: KeyedDoor) -> None:
    box = Box(tmp_path / "box")
    box.path.mkdir()
    box.new.mkdir()
    box.new.chmod(0o733)
    async with running(box, door):
        await comes(lambda: (box.path / ".pubd" / "id").exists())
        box.put("a", b"1")
        await comes(lambda: door.accepted)
    modes = {name: stat.S_IMODE((box.path / name).stat().st_mode) for name in ("new", "tmp", "rejected", ".pubd")}
    assert modes == {"new": 0o733, "tmp": 0o2770, "rejected": 0o2770, ".pubd": 0o700}


@pytest_twisted.ensureDeferred
async def test_a_directory_that_cannot_be_used_is_told_of_and_taken_when_it_can_be(
    tmp_path: Path, door: KeyedDoor, logged: Logged
) -> None:
    box = Box(tmp_path / "not-mounted-yet" / "box")
    async with running(box, door) as intake:
        await comes(lambda: any("No such file" in text for text in logged.texts))
        box.path.parent.mkdir()
        await comes(lambda: box.new.exists())
        box.put("a", b"1")
        await comes(lambda: door.accepted)
        assert intake.counts.errors >= 1


@pytest_twisted.ensureDeferred
async def test_a_directory_that_was_replaced_is_found_again(box: Box, door: KeyedDoor) -> None:
    async with running(box, door):
        box.put("a", b"1")
        await comes(lambda: door.accepted)
        box.path.rename(box.path.parent / "old")
        box.make()
        box.put("a", b"2")
        await comes(lambda: len(door.accepted) == 2)


@pytest_twisted.ensureDeferred
async def test_a_linked_room_is_refused(box: Box, door: KeyedDoor, logged: Logged, tmp_path: Path) -> None:
    box.new.rmdir()
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", box.new)
    async with running(box, door):
        await comes(lambda: any("files wait" in text for text in logged.texts))
    assert any("new" in text for text in logged.texts)


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_the_answer_and_removes_what_was_accepted(box: Box, door: KeyedDoor) -> None:
    box.put("a", b"1")
    hold: Deferred[None] = Deferred()
    door.hold = hold
    intake = intake_of(box, door)
    intake.startService()
    await comes(lambda: door.batches)
    stopped = intake.stopService()
    assert not stopped.called
    hold.callback(None)
    await stopped
    assert box.waiting == []
    door.hold = None
    intake.startService()
    box.put("b", b"2")
    await comes(lambda: not box.waiting)
    await intake.stopService()
    assert door.bodies == [b"1", b"2"]


@pytest_twisted.ensureDeferred
async def test_no_descriptor_is_left_open(box: Box, door: KeyedDoor) -> None:
    async with running(box, door):
        await pause(0.1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for name, (put, _, _) in BAD.items():
            if not name.startswith(("device", "directory", "meta")):
                put(box)
        async with running(box, door, options={"max_file": 2000}, wall=lambda: time.time() + 20):
            await comes(lambda: not box.waiting, lambda: box.waiting)
        for path in box.rejected.iterdir():
            path.unlink()
    assert len(os.listdir("/proc/self/fd")) <= before


# What a kill leaves


@pytest_twisted.ensureDeferred
async def test_a_file_and_its_meta_file_killed_between_the_two_leave_the_next_meta_file_alone(
    box: Box, door: KeyedDoor
) -> None:
    async with running(box, door):
        await comes(lambda: (box.path / ".pubd" / "id").exists())
    old = box.put("a.meta.json", "{}").stat()
    # As it was when pubd was killed, with the file set aside.
    (box.path / ".pubd" / f"done.{old.st_ino:x}.{old.st_ctime_ns:x}.a").write_text("")
    box.put("b.meta.json", json.dumps({"type": "new"}))
    (box.path / ".pubd" / f"done.{old.st_ino:x}.{old.st_ctime_ns:x}.b").write_text("")
    async with running(box, door):
        await comes(lambda: "a.meta.json" not in box.waiting)
        await pause(0.1)
        assert box.waiting == ["b.meta.json"]
        box.put("b", b"2")
        await comes(lambda: not box.waiting)
    assert [message.type for message in door.accepted] == ["new"]


@pytest_twisted.ensureDeferred
async def test_what_was_about_to_be_submitted_comes_first_after_a_restart(box: Box, door: KeyedDoor) -> None:
    full = KeyedDoor(lambda _: SpoolFull("max_bytes", ""))
    for name in ("m1", "m2"):
        box.put(name, name)
    async with running(box, full):
        await comes(lambda: full.batches)
    box.put("a", b"a")
    async with running(box, door):
        await comes(lambda: not box.waiting)
    assert door.bodies == [b"m1", b"m2", b"a"]


@pytest_twisted.ensureDeferred
async def test_configured_properties_are_checked_at_once(box: Box, door: KeyedDoor) -> None:
    with pytest.raises(InvalidMessage, match="priority"):
        intake_of(box, door, options={"properties": {"priority": 256}})
    await pause()
