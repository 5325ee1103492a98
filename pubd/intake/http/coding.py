"""Undoing the Content-Encoding of a request, never more than asked for at a time: a bomb costs no memory."""

from __future__ import annotations

import sys
import zlib
from typing import Protocol

from pubd.intake.http.answer import Refusal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: zlib's: 15 bits of window, and a gzip header.
_GZIP = 31
#: RFC 9659: what a zstd frame over HTTP may make its reader keep, as a power of two: 8 MiB.
_WINDOW_LOG = 23
#: Coded bytes in a step. What follows a member is copied at its end, and a kilobyte has a hundred of nothing.
_STEP = 4096
#: What :func:`decoder` knows, for Accept-Encoding.
CODINGS = "gzip, zstd"


class Decoder(Protocol):
    """Takes coded bytes, gives decoded ones. Raises :class:`Refusal` (400) for what is not of its coding."""

    def feed(self, data: bytes) -> None:
        """Some more coded bytes; only once :meth:`read` has given None."""

    def read(self, size: int) -> bytes | None:
        """A step: up to ``size`` decoded bytes, which may be none although there is more; None: feed more."""

    def end(self) -> None:
        """There is no more to feed."""


def decoder(coding: str) -> Decoder | None:
    """The decoder for a Content-Encoding; None for ``identity`` and none at all. Refuses (415) others, and several."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding in ("gzip", "x-gzip"):
        return Gzip()
    if coding == "zstd":
        return Zstandard()
    raise Refusal(
        "unsupported-media-type",
        f"Content-Encoding must be one of {CODINGS}, or be left out",
        headers=((b"Accept-Encoding", CODINGS.encode()),),
    )


class Gzip:
    """RFC 1952, any number of members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._fed = memoryview(b"")
        self._began = False
        """Something of the current member has come."""
        self._members = 0

    def feed(self, data: bytes) -> None:
        """See :class:`Decoder`."""
        self._fed = memoryview(data)

    def read(self, size: int) -> bytes | None:
        """See :class:`Decoder`."""
        if self._member.eof:
            self._members += 1
            self._member = zlib.decompressobj(_GZIP)
            self._began = False
        given, decoded = self._fed[:_STEP], b""
        if not given and not self._began:
            return None
        self._began = True
        try:
            decoded = self._member.decompress(given, size)
        except zlib.error:
            raise _broken("gzip") from None
        left = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        self._fed = self._fed[len(given) - len(left) :]
        # Some of what was given before may be inside still.
        return decoded if decoded or given or self._member.eof else None

    def end(self) -> None:
        """See :class:`Decoder`."""
        if (self._began and not self._member.eof) or not (self._members or self._member.eof):
            raise _truncated("gzip")


class Zstandard:
    """RFC 8878, any number of frames, within the window that RFC 9659 sets."""

    def __init__(self) -> None:
        self._frame = self._new()
        self._behind = b""
        """What was given to the frame before, and came behind it."""
        self._fed = memoryview(b"")
        self._began = False
        self._frames = 0

    def feed(self, data: bytes) -> None:
        """See :class:`Decoder`."""
        self._fed = memoryview(data)

    def read(self, size: int) -> bytes | None:
        """See :class:`Decoder`."""
        if self._frame.eof:
            self._frames += 1
            self._behind = self._frame.unused_data
            self._frame = self._new()
            self._began = False
        given: bytes | memoryview = b""
        # Otherwise it keeps what it was given and could not decode yet.
        if self._frame.needs_input:
            given, self._behind = self._behind, b""
            if not given:
                given, self._fed = self._fed[:_STEP], self._fed[_STEP:]
            if not given:
                return None
        self._began = True
        try:
            return self._frame.decompress(given, size)
        except zstd.ZstdError:
            raise _broken("zstd") from None

    def end(self) -> None:
        """See :class:`Decoder`."""
        if (self._began and not self._frame.eof) or not (self._frames or self._frame.eof):
            raise _truncated("zstd")

    def _new(self) -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})


def _broken(coding: str) -> Refusal:
    return Refusal("malformed", f"the body is not {coding}, as Content-Encoding says", close=True)


def _truncated(coding: str) -> Refusal:
    return Refusal("malformed", f"the body ends before its {coding} data does")
