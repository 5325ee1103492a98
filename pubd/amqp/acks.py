"""RabbitMQ's answers, taken from the stream before pika sees them.

RabbitMQ answers transient messages one by one, and pika spends 7 µs on each such frame of 21 octets, more than all of
pubd does for a message. So the frames of ``basic.ack`` and ``basic.nack`` are read here, where somebody listens on
their channel. Every other octet goes on to pika unchanged and in its place between them.

Source of the layout: AMQP 0-9-1, 2.3.5 (frame: type, channel, size, payload, 0xCE) and 1.8.3.13 (``basic.ack``: class
60, method 80, delivery-tag, bits); ``basic.nack`` is RabbitMQ's method 120, its first bit is ``multiple`` as well.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Called with delivery tag, multiple, and whether it is an ack (or a nack).
    Listener: TypeAlias = Callable[[int, bool, bool], None]

_METHOD = 1
_BASIC = 60
_ACK, _NACK = 80, 120
_END = 0xCE
_HEAD = 7
_FRAMING = _HEAD + 1
_PAYLOAD = 13
#: Octets of an answer's frame.
ANSWER = _FRAMING + _PAYLOAD

_head = struct.Struct(">BHI").unpack_from
_answer = struct.Struct(">BHIHHQBB").unpack_from


class AnswerReader:
    """Reads a connection's octets from a frame boundary on; ``rest`` is given whatever is not an answer.

    What ``rest`` is given are whole frames, but for the first and last piece of a frame that comes in several. Up to
    20 octets that may become an answer are kept until more has come.
    """

    __slots__ = ("_kept", "_listeners", "_owed", "_rest", "answers")

    def __init__(self, rest: Callable[[bytes], None]) -> None:
        self._rest = rest
        self._listeners: dict[int, Listener] = {}
        self._kept = b""
        self._owed = 0
        """Octets still to come of a frame whose beginning has gone to ``rest``."""
        self.answers = 0
        """Frames that were read here, of ANSWER octets each."""

    def listen(self, channel: int, listener: Listener) -> None:
        """From the next frame on, answers on ``channel`` go to ``listener``."""
        self._listeners[channel] = listener

    def forget(self, channel: int) -> None:
        """Answers on ``channel`` go to ``rest`` again."""
        self._listeners.pop(channel, None)

    def feed(self, data: bytes) -> None:
        """Take in what was received. What ``rest`` or a listener raises comes through; then this reader is spent."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        # The octets from start to position are for rest, which must have them before the next answer is told.
        start, position, end = 0, min(self._owed, len(data)), len(data)
        self._owed -= position
        listeners = self._listeners
        while position < end:
            if end - position >= ANSWER:
                kind, channel, size, group, method, tag, bits, last = _answer(data, position)
                if (
                    size == _PAYLOAD
                    and kind == _METHOD
                    and group == _BASIC
                    and last == _END
                    and method in (_ACK, _NACK)
                ):
                    if start < position:
                        # It may change who listens.
                        self._rest(data[start:position])
                        start = position
                    listener = listeners.get(channel)
                    if listener is not None:
                        listener(tag, bool(bits & 1), method == _ACK)
                        self.answers += 1
                        position += ANSWER
                        start = position
                        continue
            elif end - position < _HEAD:
                break
            else:
                kind, channel, size = _head(data, position)
                if size == _PAYLOAD and kind == _METHOD:
                    break
            position += _FRAMING + size
        self._owed += max(0, position - end)
        self._kept = data[position:]
        if start < min(position, end):
            self._rest(data[start:position])
