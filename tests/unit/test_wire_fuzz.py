"""The codec against anything: a short run of tests/fuzz/wire.py, which goes on for as long as one likes."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings

from tests.fuzz import wire as fuzz


@settings(max_examples=400, deadline=None)
@given(fuzz.inputs)
@example(b'{"exchange":"x","exchange":"a\\u003a"}')
@example(b'{"exchange":"x","body":"a\\u003A","headers":{"a":1,"a":2}}')
@example(b'{"exchange":"x","body_json":' + b"[" * 40 + b"]" * 40 + b"}")
@example(b"[" * 100_000)
@example(b'{"":' * 100_000)
@example(b'{"exchange":"x","ttl":1e99999999999999999999}')
@example(b'{"exchange":"x","priority":' + b"9" * 5000 + b"}")
@example(b'{"exchange":"x","body_json":1e400}')
@example(b'{"exchange":"\\ud800"}')
@example(b'{"exchange":"' + b"x" * 300 + b'"}')
@example(b'{"' + b"x" * 300 + b'":1}')
def test_whatever_comes_is_a_message_or_an_invalid_message(raw: bytes) -> None:
    fuzz.check(raw)


@pytest.mark.parametrize("raw", [b'{"a":1,"a":1}', b"NaN", b'"\\ud800"', b"\xff", b"[" * 100_000, b""])
def test_what_decides_for_the_fuzzer_is_strict_itself(raw: bytes) -> None:
    assert not fuzz.strict(raw)


def test_the_seeds_of_the_fuzzer_are_messages_or_nearly() -> None:
    assert [fuzz.check(seed) for seed in fuzz._seeds()] == [True, True, True, True, True, False, False]
