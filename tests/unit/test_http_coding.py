"""Content-Encoding in: whatever way it is cut into pieces, never more than asked for, and nothing half."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from pubd.intake.http.answer import Refusal
from pubd.intake.http.coding import Decoder, Gzip, Zstandard, decoder

CODINGS: list[tuple[Callable[[], Decoder], Callable[[bytes], bytes]]] = [
    (Gzip, gzip.compress),
    (Zstandard, zstd.compress),
]


def decoded(coding: Decoder, pieces: list[bytes], size: int = 7) -> bytes:
    found = []
    for piece in pieces:
        coding.feed(piece)
        while part := coding.read(size):
            assert len(part) <= size
            found.append(part)
    coding.end()
    return b"".join(found)


@given(
    members=st.lists(st.binary(max_size=200), min_size=1, max_size=4), cuts=st.integers(1, 50), size=st.integers(1, 300)
)
def test_any_pieces_of_any_number_of_members(members: list[bytes], cuts: int, size: int) -> None:
    for coding, compress in CODINGS:
        whole = b"".join(map(compress, members))
        pieces = [whole[at : at + cuts] for at in range(0, len(whole), cuts)]
        assert decoded(coding(), pieces, size) == b"".join(members)


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_truncated_at_every_byte(coding: Callable[[], Decoder], compress: Callable[[bytes], bytes]) -> None:
    whole = compress(b"something, and something else") + compress(b"more")
    first = len(compress(b"something, and something else"))
    for end in range(len(whole)):
        if end == first:
            continue
        with pytest.raises(Refusal) as refused:
            decoded(coding(), [whole[:end]])
        assert refused.value.problem.type == "malformed"


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_what_follows_is_refused(coding: Callable[[], Decoder], compress: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Refusal):
        decoded(coding(), [compress(b"a"), b"behind it"])


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_a_bomb_takes_no_memory(coding: Callable[[], Decoder], compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b"\0" * (32 << 20))
    tracemalloc.start()
    under_test = coding()
    under_test.feed(bomb)
    total = 0
    while part := under_test.read(65536):
        total += len(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 32 << 20
    assert peak < 1 << 20


def test_a_window_beyond_that_of_http_is_refused() -> None:
    coding = Zstandard()
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 25})
    coding.feed(compressor.compress(b"a" * 100) + compressor.flush())
    with pytest.raises(Refusal):
        coding.read(10)


def test_names() -> None:
    assert decoder("") is None
    assert decoder("Identity") is None
    assert isinstance(decoder("GZIP"), Gzip)
    assert isinstance(decoder("x-gzip"), Gzip)
    assert isinstance(decoder(" zstd "), Zstandard)
    for other in ("deflate", "br", "gzip, zstd", "aws-chunked"):
        with pytest.raises(Refusal) as refused:
            decoder(other)
        assert refused.value.problem.status == 415
        assert refused.value.headers == ((b"Accept-Encoding", b"gzip, zstd"),)
