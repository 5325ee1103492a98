"""The bad-input table of `pubd send`, against the real daemon: exit code, the sentence, and nothing stored or left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.lines import descriptors
from tests.service.bad_input import MAX_BODY, Daemon, endured, started
from tests.service.conftest import Run
from tests.service.test_send import called

REFUSED, USAGE, CONFIG = 1, 2, 78


@attrs.frozen
class Row:
    """``part`` of what is said on stderr. An argument that is a function makes a file in the directory it is given."""

    arguments: tuple[str | Callable[[Path], Path], ...]
    code: int
    part: str
    stdin: bytes = b""


def given(*arguments: str, code: int = REFUSED, part: str = "", stdin: bytes = b"") -> Row:
    """A message with nothing wrong, but for these options."""
    return Row(("-e", "x", "-r", "k", *arguments), code, part, stdin)


def object_of(text: bytes, part: str) -> Row:
    return Row(("--json",), REFUSED, part, text)


def line(text: bytes, part: str) -> Row:
    def made(directory: Path) -> Path:
        (directory / "lines").write_bytes(text)
        return directory / "lines"

    return Row(("--ndjson", made), REFUSED, part)


def changed(part: str, **more: Any) -> Row:
    return object_of(json.dumps({"exchange": "x"} | more).encode(), part)


def _empty(directory: Path) -> Path:
    (directory / "empty").write_text("\n")
    return directory / "empty"


def _loop(directory: Path) -> Path:
    path = directory / "loop"
    if not path.is_symlink():
        path.symlink_to("loop")
    return path


def _sparse(directory: Path) -> Path:
    """One line of 256 MiB that takes no room on the disk."""
    with (directory / "sparse").open("wb") as file:
        file.truncate(1 << 28)
    return directory / "sparse"


ROWS: dict[str, Row] = {
    "no route": Row(("-b", "x"), USAGE, "name an exchange"),
    "a header that is none": given("-b", "x", "-H", "nothing", code=USAGE, part="write NAME=TEXT"),
    "a header twice": given("-b", "x", "-H", "a=1", "-H", "a=2", code=USAGE, part="given twice"),
    "NaN in a header": given("-b", "x", "-H", "a:=NaN", code=USAGE, part="is no JSON"),
    "a header nested deep": given("-b", "x", "-H", "a:=" + "[" * 5000, code=USAGE, part="is no JSON"),
    "priority 256": given("-b", "x", "--priority", "256", code=USAGE, part="255"),
    "a timestamp below 0": given("-b", "x", "--timestamp", "-1", code=USAGE, part="x>=0"),
    "a timestamp of 2^64": given("-b", "x", "--timestamp", str(2**64), part="timestamp: is out of range"),
    "a header of 2^64": given("-b", "x", "-H", f"n:={2**64}", part="headers['n']: is out of range"),
    "a fraction in a header": given("-b", "x", "-H", "n:=1.5", part="$decimal"),
    "CC that is no list": given("-b", "x", "-H", "CC=a", part="headers['CC']: must be a list"),
    "CC with a number": given("-b", "x", "-H", "CC:=[1]", part="headers['CC'][0]: must be a string"),
    "headers larger than a frame": given("-b", "x", "-H", "a=" + "v" * 140_000, part="headers: "),
    "a routing key of 256 bytes": Row(("-e", "x", "-r", "k" * 256, "-b", "x"), REFUSED, "routing_key: is 256 bytes"),
    "an exchange of 256 bytes": Row(("-e", "x" * 256, "-b", "x"), REFUSED, "exchange: is 256 bytes"),
    "an expiration that is none": given("-b", "x", "--expiration", "soon", part="expiration: "),
    "a delay that is none": given("-b", "x", "--delay", "soon", part="delay: "),
    "a ttl below the delay": given("-b", "x", "--delay", "5m", "--ttl", "1m", part="ttl: is not longer than delay"),
    "direct reply-to": given("-b", "x", "-t", "amq.rabbitmq.reply-to", part="reply_to: "),
    "a key of 300 bytes": given("-b", "x", "--idempotency-key", "k" * 300, part="idempotency_key: is 300 bytes"),
    "an option that is no UTF-8": given("-b", "x", "-C", "a\udcff", part="surrogate"),
    "a body over the limit": given(part=f"limit of {MAX_BODY} bytes", stdin=b"x" * (MAX_BODY + 1)),
    "no object": object_of(b" \n", "there is no JSON object"),
    "half an object": object_of(b'{"exchange":"x"', "ends too early"),
    "two objects": object_of(b'{"exchange":"x"}{"exchange":"y"}', "trailing"),
    "an array": object_of(b"[]", "not an array"),
    "NaN": object_of(b'{"exchange":"x","priority":NaN}', "is no JSON"),
    "a key twice": object_of(b'{"exchange":"x","exchange":"y"}', "exchange: is given twice"),
    "a key twice, and none of its own": object_of(
        b'{"exchange":"x","exchange":"y","idempotency_key":null}', "exchange: is given twice"
    ),
    "NUL": object_of(b'{"exchange":"\0"}', "is no JSON"),
    "no UTF-8": object_of(b'{"exchange":"x","body":"\xff"}', "is not UTF-8"),
    "nested a thousand deep": object_of(b'{"exchange":"x","headers":{"a":' + b"[" * 1000 + b"]" * 1000 + b"}}", "nest"),
    "an unknown key": changed("exhange: is no key", exhange="y"),
    "an exchange that is a number": changed("exchange: must be a string", exchange=1),
    "a priority of 256": changed("priority: is out of range", priority=256),
    "two bodies": changed("body_base64: is given beside", body="x", body_base64="AA=="),
    "base64 that is none": changed("body_base64: ", body_base64="*"),
    "lines that are none": line(b"\xff\n\0\n[\n", "line 3: "),
    "a line with a key twice": line(b'{"exchange":"x","exchange":"y"}\n', "line 1: exchange: is given twice"),
    "a line without an exchange": line(b'\n\n{"body":"x"}', "line 3: exchange: is missing"),
    "a line over the limit": line(b'{"exchange":"x","body":"' + b"x" * MAX_BODY + b'"}\n', "line 1: the line is over"),
    "a file that is not there": Row(("--ndjson", "/nonexistent"), REFUSED, "No such file"),
    "a directory": Row(("--ndjson", "/tmp"), USAGE, "is a directory"),
    "a symbolic link to itself": Row(("--ndjson", _loop), REFUSED, "symbolic links"),
    "a file that cannot be read": Row(("--ndjson", "/proc/self/mem"), REFUSED, "cannot be read"),
    "a line without an end": Row(("--ndjson", _sparse), REFUSED, "line 1: the line is longer than"),
    "a token in a file with nothing in it": Row(("-e", "x", "-b", "x", "--token-file", _empty), CONFIG, "--token-file"),
    "a token that nobody has": given("-b", "x", "--token", "guess", part="--token-file"),
}


@pytest.fixture
def daemon(run: Run, tmp_path: Path, nowhere: str) -> Daemon:
    return started(run, tmp_path, nowhere)


def test_what_is_wrong_is_said_and_nothing_is_stored(daemon: Daemon, tmp_path: Path) -> None:
    assert len(ROWS) >= 25
    opened = descriptors()

    def each_round() -> None:
        for name, row in ROWS.items():
            arguments = [str(each(tmp_path)) if callable(each) else each for each in row.arguments]
            done = called("-s", f"http://127.0.0.1:{daemon.port}", *arguments, stdin=row.stdin)
            assert done.exit_code == row.code, f"{name}: {done.exit_code}, {done.stderr}"
            assert row.part in done.stderr, f"{name}: {done.stderr}"
            assert done.stdout == "", name
        assert descriptors() == opened

    endured(daemon, each_round, warm=1, rounds=2)


def test_an_object_cut_at_every_byte_is_none(daemon: Daemon) -> None:
    whole = b'{"exchange":"x","body":"text"}'
    for end in range(len(whole)):
        done = called("-s", f"http://127.0.0.1:{daemon.port}", "--json", stdin=whole[:end])
        assert (done.exit_code, done.stdout) == (REFUSED, ""), whole[:end]
    assert daemon.accepted == 0
