"""From chunks of bytes to lines, with a limit; pure."""

from __future__ import annotations

#: Stands for a line over the limit; no line can be this.
TOO_LONG = b"\n"


class LineReader:
    """Lines of at most ``limit`` bytes, without their newline; a longer one is :data:`TOO_LONG` and not kept.

    The lines do not depend on how the bytes were cut into chunks.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # A bytearray: a line that comes byte by byte must not take an object for each.
        self._partial = bytearray()
        self._skipping = False

    @property
    def pending(self) -> int:
        """Bytes of a line whose newline has not come."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, in order, :data:`TOO_LONG` as soon as that is known."""
        if self._skipping:
            end = data.find(b"\n")
            if end < 0:
                return []
            self._skipping = False
            data = data[end + 1 :]
        end = data.rfind(b"\n")
        if end < 0:
            self._partial += data
            return self._check_partial([])
        head = data[:end]
        if self._partial:
            head = bytes(self._partial) + head
        lines = head.split(b"\n")
        if len(head) > self.limit:
            lines = [line if len(line) <= self.limit else TOO_LONG for line in lines]
        self._partial = bytearray(data[end + 1 :])
        return self._check_partial(lines)

    def clear(self) -> None:
        """Forget the line that has not ended."""
        self._partial = bytearray()

    def _check_partial(self, lines: list[bytes]) -> list[bytes]:
        if len(self._partial) > self.limit:
            self._partial = bytearray()
            self._skipping = True
            lines.append(TOO_LONG)
        return lines
