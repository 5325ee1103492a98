"""Lines in batches, in bounded memory."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.cli.feed import Feed, Line, digest, is_file


@contextmanager
def opened(path: Path, content: bytes) -> Iterator[int]:
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def pipe() -> Iterator[tuple[int, RawIOBase]]:
    reader, writer = os.pipe()
    with open(reader, "rb", 0), open(writer, "wb", 0) as end:
        yield reader, end


def all_of(feed: Feed) -> list[Line]:
    lines: list[Line] = []
    while batch := feed.take():
        lines += batch
    return lines


def test_lines_are_numbered_and_empty_ones_count(tmp_path: Path) -> None:
    with opened(tmp_path / "f", b"a\n\n  \r\n b \r\nc") as fd:
        feed = Feed(fd)
        assert all_of(feed) == [(1, b"a"), (4, b"b"), (5, b"c")]
        assert feed.take() == []


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n \n"])
def test_nothing_is_no_line(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path / "f", content) as fd:
        assert all_of(Feed(fd)) == []


def test_a_batch_is_bounded_in_lines_and_bytes(tmp_path: Path) -> None:
    with opened(tmp_path / "f", b"xxxx\n" * 25) as fd:
        feed = Feed(fd, batch_lines=10)
        assert [len(feed.take()) for _ in range(4)] == [10, 10, 5, 0]
    with opened(tmp_path / "f", b"xxxx\n" * 5 + b"y" * 100 + b"\nz\n") as fd:
        feed = Feed(fd, batch_bytes=9)
        assert [[len(one.content or b"") for one in feed.take()] for _ in range(6)] == [
            [4, 4],
            [4, 4],
            [4],
            [100],
            [1],
            [],
        ]


def test_it_begins_at_a_line_and_stops_at_an_offset(tmp_path: Path) -> None:
    with opened(tmp_path / "f", b"1\n2\n3\n4\n5\n") as fd:
        feed = Feed(fd, first=3, end=8)
        assert all_of(feed) == [(3, b"3"), (4, b"4")]
        assert feed.taken == 8


def test_a_line_that_is_too_long_is_left_out_and_the_next_is_read(tmp_path: Path) -> None:
    with opened(tmp_path / "f", b"a\n" + b"x" * 1_000_000 + b"\nb\n" + b"y" * 300_001) as fd:
        assert all_of(Feed(fd, max_line=300_000)) == [(1, b"a"), (2, None), (3, b"b"), (4, None)]


def test_a_line_longer_than_a_read_is_whole(tmp_path: Path) -> None:
    with opened(tmp_path / "f", b"x" * 1_000_000 + b"\nb") as fd:
        assert all_of(Feed(fd)) == [(1, b"x" * 1_000_000), (2, b"b")]


def test_what_a_pipe_has_is_taken_without_waiting_for_more() -> None:
    with pipe() as (reader, writer):
        feed = Feed(reader)
        assert feed.take_ready() is None
        writer.write(b"a\nb\nhalf")
        assert feed.take_ready() == [(1, b"a"), (2, b"b")]
        assert feed.take_ready() is None
        writer.write(b" and half\n")
        assert feed.take() == [(3, b"half and half")]
        writer.close()
        assert feed.take_ready() == []


@given(
    lines=st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=60),
    batch_lines=st.integers(1, 7),
    batch_bytes=st.integers(1, 60),
    last_break=st.booleans(),
)
def test_every_line_comes_once_in_order(
    lines: list[bytes], batch_lines: int, batch_bytes: int, last_break: bool
) -> None:
    with pipe() as (reader, writer):
        writer.write(b"\n".join(lines) + (b"\n" if last_break else b""))
        writer.close()
        feed = Feed(reader, batch_lines=batch_lines, batch_bytes=batch_bytes)
        assert all_of(feed) == [(at, line.strip()) for at, line in enumerate(lines, 1) if line.strip()]


def test_memory_is_bounded_for_any_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        for _ in range(12):
            file.write(b'{"exchange": "a", "body": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}\n' * 16_000)
    fd = os.open(path, os.O_RDONLY)
    tracemalloc.start()
    try:
        feed = Feed(fd)
        while feed.take():
            pass
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
        os.close(fd)


def test_a_digest_is_of_what_is_left_of_the_file(tmp_path: Path) -> None:
    with opened(tmp_path / "f", b"a\nb\n") as fd:
        name, size = digest(fd, b"options")
        assert size == 4
        assert len(name) == 32
        assert digest(fd, b"options") == (name, 4)
        assert digest(fd, b"others")[0] != name
        assert is_file(fd)
        os.lseek(fd, 2, os.SEEK_SET)
        assert digest(fd, b"options") != (name, 4)
        assert all_of(Feed(fd)) == [(1, b"b")]


def test_a_pipe_is_no_file() -> None:
    with pipe() as (reader, _):
        assert not is_file(reader)
