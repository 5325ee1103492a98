"""Lines and HTTP against any stream: short runs of tests/fuzz, which go on for as long as one likes."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings

from tests.fuzz import http, lines


@settings(max_examples=100, deadline=None)
@given(lines.inputs)
@example(b"\x00" + lines.GOOD + b"\r")
@example(b"\x3f" + b"x" * 1000)
def test_any_lines_are_answered_one_by_one_however_they_come(raw: bytes) -> None:
    lines.check(raw)


@settings(max_examples=100, deadline=None)
@given(http.inputs)
@example(b"\x00" + b"".join(http.WHOLE))
@example(b"\x3f" + http.WHOLE[2].replace(b"HTTP/1.1", b"HTTP/1.0", 1) + http.WHOLE[0])
@example(b"\x00" + http.WHOLE[10] + b"1\r\n\n\r\n" + http.WHOLE[0])
def test_any_requests_are_answered_however_they_come(raw: bytes) -> None:
    http.check(raw)


@pytest.mark.parametrize("seed", [lines.GOOD + b"\n", lines.FRAGMENTS[7], lines.FRAGMENTS[8]])
def test_the_fuzzer_of_lines_gets_something_stored(seed: bytes) -> None:
    assert lines.check(b"\x05" + seed)


@pytest.mark.parametrize("seed", http.WHOLE[:4])
def test_the_fuzzer_of_http_gets_something_stored(seed: bytes) -> None:
    assert http.check(b"\x05" + seed)
