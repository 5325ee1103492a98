"""Content-Encoding in: whatever way it is cut into pieces, never more than asked for, and nothing half."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from pubd.errors import PubdError
from pubd.intake.http.answer import Refusal
from pubd.intake.http.coding import Decoder, Gzip, Zstandard, decoder
from pubd.intake.http.inflow import LEAST, TURN, Inflow

CODINGS: list[tuple[Callable[[], Decoder], Callable[[bytes], bytes]]] = [
    (Gzip, gzip.compress),
    (Zstandard, zstd.compress),
]


def decoded(coding: Decoder, pieces: list[bytes], size: int = 7) -> bytes:
    found = []
    for piece in pieces:
        coding.feed(piece)
        while (part := coding.read(size)) is not None:
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
    while (part := under_test.read(65536)) is not None:
        total += len(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 32 << 20
    assert peak < 1 << 20


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_a_member_of_nothing_is_a_step_as_any_other(
    coding: Callable[[], Decoder], compress: Callable[[bytes], bytes]
) -> None:
    under_test, steps = coding(), 0
    under_test.feed(compress(b"") * 5000)
    while (part := under_test.read(65536)) is not None:
        assert part == b""
        steps += 1
    under_test.end()
    assert steps >= 5000


class Room:
    """A budget that always has some."""

    def take(self, size: int, begun: object | None = None) -> bool:  # noqa: ARG002
        return True

    def done(self, begun: object) -> None:
        pass

    def give(self, size: int) -> None:
        pass

    def when_room(self, begun: object | None = None) -> Deferred[None]:
        raise AssertionError(begun)


class Turns(Clock):
    """Counts how often somebody let others have their turn."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        self.given += 1
        return super().callLater(delay, callable, *args, **kw)


class Took:
    """An inflow, and what it said."""

    def __init__(self, coding: Decoder, limit: int | None) -> None:
        self.clock = Turns()
        self.body = b""
        self.ended = False
        self.held: list[bool] = []
        self.failures: list[PubdError] = []
        self.inflow = Inflow(
            budget=Room(),
            clock=self.clock,
            decoder=coding,
            limit=limit,
            sink=self._more,
            ended=self._end,
            failed=self.failures.append,
            hold=self.held.append,
        )

    def go_on(self) -> None:
        """To its end."""
        while self.clock.getDelayedCalls():
            self.clock.advance(0)

    def _more(self, data: bytes) -> None:
        self.body += data

    def _end(self) -> None:
        self.ended = True


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_members_of_nothing_leave_others_their_turns(
    coding: Callable[[], Decoder], compress: Callable[[bytes], bytes]
) -> None:
    took = Took(coding(), None)
    at_a_time = TURN // LEAST
    took.inflow.data(compress(b"") * 40 * at_a_time + compress(b"last"))
    took.inflow.end()
    assert took.held == [True]
    took.go_on()
    assert took.clock.given >= 40
    assert (took.body, took.ended, took.failures) == (b"last", True, [])


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_coded_bytes_that_say_nothing_have_a_limit_too(
    coding: Callable[[], Decoder], compress: Callable[[bytes], bytes]
) -> None:
    took = Took(coding(), 1000)
    nothing = compress(b"")
    for _ in range(10_000):
        took.inflow.data(nothing)
        took.go_on()
        if took.failures:
            break
    (failure,) = took.failures
    assert isinstance(failure, Refusal)
    assert failure.problem.type == "too-large"
    assert not took.ended


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_what_was_whole_before_a_break_comes_through(
    coding: Callable[[], Decoder], compress: Callable[[bytes], bytes]
) -> None:
    took = Took(coding(), None)
    took.inflow.data(compress(b"one line\n") + b"nonsense")
    took.go_on()
    assert took.body == b"one line\n"
    assert len(took.failures) == 1


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
