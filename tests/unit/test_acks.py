"""Answers are read past pika: every octet arrives once, in order, at the one or at the other."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from pubd.amqp.acks import ANSWER, AnswerReader

LISTENED, OTHER = 2, 3


def ack(tag: int, multiple: bool = False, channel: int = LISTENED) -> bytes:
    return bytes(frame.Method(channel, spec.Basic.Ack(tag, multiple)).marshal())


def nack(tag: int, multiple: bool = False, channel: int = LISTENED) -> bytes:
    return bytes(frame.Method(channel, spec.Basic.Nack(tag, multiple)).marshal())


def returned(channel: int, body: bytes) -> list[bytes]:
    return [
        frame.Method(channel, spec.Basic.Return(312, "NO_ROUTE", "x", "k")).marshal(),
        frame.Header(channel, len(body), spec.BasicProperties(message_id="m")).marshal(),
        frame.Body(channel, body).marshal(),
    ]


class Heard:
    """What arrived where, in order: answers as tuples, other octets as bytes, neighbours joined."""

    def __init__(self) -> None:
        self.events: list[bytes | tuple[int, bool, bool]] = []
        self.pieces: list[bytes] = []
        self.reader = AnswerReader(self.rest)
        self.reader.listen(LISTENED, self.answer)

    def answer(self, tag: int, multiple: bool, acked: bool) -> None:
        self.events.append((tag, multiple, acked))

    def rest(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.events and isinstance(self.events[-1], bytes):
            data = self.events.pop() + data  # type: ignore[operator]  # it is bytes, which pop does not know
        self.events.append(data)


def heard(stream: bytes, cuts: Sequence[int] = ()) -> Heard:
    listening = Heard()
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        listening.reader.feed(stream[start:end])
    return listening


tags = st.integers(0, 2**64 - 1)
#: A body may hold whatever it likes, the very octets of an answer included.
bodies = st.one_of(st.binary(max_size=60), st.builds(ack, tags), st.builds(lambda tag: ack(tag)[3:] + ack(tag), tags))
answers = st.one_of(st.builds(ack, tags, st.booleans()), st.builds(nack, tags, st.booleans()))
others = st.one_of(
    st.just([frame.Heartbeat().marshal()]),
    st.builds(lambda tag, multiple: [ack(tag, multiple, OTHER)], tags, st.booleans()),
    st.builds(returned, st.sampled_from([LISTENED, OTHER]), bodies),
    st.just([frame.Method(OTHER, spec.Confirm.SelectOk()).marshal()]),
    st.just([frame.Method(LISTENED, spec.Channel.Close(404, "NOT_FOUND", 60, 40)).marshal()]),
    # Thirteen octets in a method frame, as an answer has, of another method, and with another end.
    st.just([struct.pack(">BHIHH9s", 1, LISTENED, 13, 60, 60, b"x" * 9) + b"\xce"]),
)
streams = st.lists(st.one_of(answers, others), max_size=12)


def expected(items: Sequence[bytes | list[bytes]]) -> list[bytes | tuple[int, bool, bool]]:
    events: list[bytes | tuple[int, bool, bool]] = []
    for item in items:
        if isinstance(item, bytes):
            method = frame.decode_frame(item)[1].method
            events.append((method.delivery_tag, method.multiple, method.NAME == "Basic.Ack"))
        elif events and isinstance(events[-1], bytes):
            events[-1] += b"".join(item)
        else:
            events.append(b"".join(item))
    return events


def wire(items: Sequence[bytes | list[bytes]]) -> bytes:
    return b"".join(item if isinstance(item, bytes) else b"".join(item) for item in items)


@given(streams, st.data())
def test_wherever_the_stream_is_cut_answers_and_the_rest_arrive_whole_and_in_order(
    items: list[bytes | list[bytes]], data: st.DataObject
) -> None:
    stream = wire(items)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    listening = heard(stream, cuts)
    assert listening.events == expected(items)
    assert listening.reader.answers == sum(isinstance(item, bytes) for item in items)


@given(streams)
def test_octet_by_octet_is_as_good_as_at_once(items: list[bytes | list[bytes]]) -> None:
    stream = wire(items)
    assert heard(stream, range(1, len(stream))).events == heard(stream).events


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_garbage_goes_to_the_rest_but_for_a_tail_too_short_to_tell(stream: bytes, cuts: list[int]) -> None:
    listening = Heard()
    listening.reader.forget(LISTENED)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        listening.reader.feed(stream[start:end])
    passed = b"".join(listening.pieces)
    assert stream.startswith(passed)
    assert len(stream) - len(passed) < ANSWER


def test_an_answer_with_a_wrong_end_is_left_for_pika_to_refuse() -> None:
    broken = ack(1)[:-1] + b"\x00"
    assert heard(broken).events == [broken]


def test_what_came_before_an_answer_is_told_before_it_and_may_end_the_listening() -> None:
    closing = frame.Method(LISTENED, spec.Channel.Close(404, "NOT_FOUND", 60, 40)).marshal()
    events: list[object] = []

    def rest(data: bytes) -> None:
        events.append(data)
        reader.forget(LISTENED)

    reader = AnswerReader(rest)
    reader.listen(LISTENED, lambda *answer: events.append(answer))
    reader.feed(ack(1) + closing + ack(2))
    assert events == [(1, False, True), closing, ack(2)]


def test_what_a_listener_raises_comes_through() -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    reader = AnswerReader(lambda _: None)
    reader.listen(LISTENED, fails)
    with pytest.raises(ZeroDivisionError):
        reader.feed(ack(1))


def test_a_long_body_passes_without_being_held() -> None:
    body = frame.Body(LISTENED, ack(1) * 1000).marshal()
    listening = heard(body, [100])
    assert listening.pieces == [body[:100], body[100:]]
