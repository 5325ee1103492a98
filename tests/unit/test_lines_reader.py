"""From chunks to lines: the same lines, however the bytes were cut."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pubd.intake.lines.reader import TOO_LONG, LineReader

LIMIT = 8
STREAMS = st.lists(st.sampled_from([b"\n", b"\r", b"a", b"\0", b"\xff", b"ab" * 3, b"x" * 9, b'{"a":1}']), max_size=30)


def read(chunks: Sequence[bytes], limit: int = LIMIT) -> tuple[list[bytes], int]:
    """All lines, and how much of another one there is."""
    reader = LineReader(limit)
    lines = [line for chunk in chunks for line in reader.feed(chunk)]
    return lines, reader.pending


def test_a_line_is_what_stands_before_a_newline() -> None:
    assert read([b"a\nb\n\nc"]) == ([b"a", b"b", b""], 1)


def test_a_carriage_return_ends_nothing() -> None:
    assert read([b"a\rb\r\nc\r"]) == ([b"a\rb\r"], 2)


def test_a_line_of_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert read([b"12345678\n123456789\nok\n"]) == ([b"12345678", TOO_LONG, b"ok"], 0)


def test_a_long_line_is_told_at_once_and_not_kept() -> None:
    reader = LineReader(LIMIT)
    assert reader.feed(b"x" * 9) == [TOO_LONG]
    for _ in range(100):
        assert reader.feed(b"x" * 1000) == []
        assert reader.pending == 0
    assert reader.feed(b"x\nok\n") == [b"ok"]


def test_a_line_byte_by_byte() -> None:
    assert read([bytes([byte]) for byte in b"hello\nyou"]) == ([b"hello"], 3)


@given(STREAMS, st.data())
def test_chunks_make_no_difference(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(chunks) == read([stream])


@given(st.binary(max_size=200), st.integers(1, 20))
def test_the_lines_are_those_of_the_stream(stream: bytes, size: int) -> None:
    lines, pending = read([stream[at : at + size] for at in range(0, len(stream), size)])
    *whole, rest = stream.split(b"\n")
    assert lines == [line if len(line) <= LIMIT else TOO_LONG for line in whole] + [TOO_LONG] * (len(rest) > LIMIT)
    assert pending == (len(rest) if len(rest) <= LIMIT else 0)
