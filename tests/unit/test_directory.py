"""The directory intake's decisions: names, keys, answers, patience, places."""

from __future__ import annotations

import os
import uuid
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.errors import (
    Busy,
    IdempotencyConflict,
    InvalidMessage,
    NotAllowed,
    PubdError,
    PublisherStopped,
    QuotaExceeded,
    SpoolFailed,
    SpoolFull,
)
from pubd.intake.directory.answers import Verdict, verdict_of
from pubd.intake.directory.contents import stamped
from pubd.intake.directory.found import Identity
from pubd.intake.directory.keys import file_key, idempotency_key, message_id, message_key
from pubd.intake.directory.names import MAX_NAME, META, Kind, kind_of, oddity, printable, rejected_name
from pubd.intake.directory.patience import Patience
from pubd.intake.directory.streaming import LISTED, Chunk, Line, Place, place_note
from pubd.intake.problem import problem
from pubd.message import Message
from pubd.receipt import Receipt
from pubd.retry import Backoff

any_name = st.binary(min_size=1, max_size=255).map(
    lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_"))
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.json", Kind.JSON),
        ("a.ndjson", Kind.NDJSON),
        ("a.meta.json", Kind.META),
        ("a.json.meta.json", Kind.META),
        (".meta.json", Kind.HIDDEN),
        (".a.json", Kind.HIDDEN),
        ("a.JSON", Kind.RAW),
        ("json", Kind.RAW),
        ("a.png", Kind.RAW),
        ("a b", Kind.RAW),
    ],
)
def test_the_ending_says_what_a_file_is(name: str, kind: Kind) -> None:
    assert kind_of(name) is kind


@given(any_name)
def test_a_name_in_rejected_is_printable_and_leaves_room_for_what_is_added(name: str) -> None:
    there = rejected_name(name, 9999)
    assert there.isprintable()
    assert len(there.encode()) + len(".reason") <= 255
    assert "\n" not in printable(name)
    assert printable(name).isprintable()
    if oddity(name) is None:
        assert rejected_name(name) == name


def test_odd_names_keep_apart_and_meta_files_may_be_longer() -> None:
    assert rejected_name("a\n") != rejected_name("b\n")
    assert oddity("n" * MAX_NAME) is None
    assert oddity("n" * MAX_NAME + META) is None
    assert oddity("n" * (MAX_NAME + 1)) is not None
    assert oddity("é" * 101) is not None


def test_every_part_of_a_file_counts_for_its_key() -> None:
    keys = [
        file_key("id", "name", Identity(ino=1, ctime=2)),
        file_key("other", "name", Identity(ino=1, ctime=2)),
        file_key("id", "other", Identity(ino=1, ctime=2)),
        file_key("id", "name", Identity(ino=2, ctime=2)),
        file_key("id", "name", Identity(ino=1, ctime=3)),
        file_key("idn", "ame", Identity(ino=1, ctime=2)),
    ]
    assert len(set(keys)) == len(keys)
    messages = [message_key(keys[0], b"a"), message_key(keys[0], b"b"), message_key(keys[0], b"a", 1)]
    assert len(set(messages)) == 3
    assert message_key(keys[0], b"a") == messages[0]
    assert idempotency_key(messages[0]).startswith("directory:")


@given(st.binary(min_size=16, max_size=16))
def test_a_message_id_is_a_uuid_of_version_8(key: bytes) -> None:
    made = uuid.UUID(message_id(key))
    assert str(made) == message_id(key)
    assert made.version == 8
    assert made.variant == uuid.RFC_4122


def test_a_message_keeps_what_it_brings() -> None:
    key = bytes(16)
    own = Message(exchange="x", idempotency_key="mine", message_id="id")
    assert stamped(own, key) == (own, False)
    given_, own_key = stamped(Message(exchange="x", body=b"old"), key, b"new")
    assert own_key
    assert given_.body == b"new"
    assert given_.idempotency_key == idempotency_key(key)


@pytest.mark.parametrize(
    ("answer", "own_key", "verdict"),
    [
        (Receipt("id", "m"), True, Verdict.ACCEPTED),
        (IdempotencyConflict("k"), True, Verdict.ACCEPTED),
        (IdempotencyConflict("k"), False, Verdict.REFUSED),
        (InvalidMessage("body", "is too large"), True, Verdict.REFUSED),
        (NotAllowed(), True, Verdict.REFUSED),
        (SpoolFull("max_bytes", ""), True, Verdict.LATER),
        (SpoolFailed(), True, Verdict.LATER),
        (PublisherStopped(), True, Verdict.LATER),
        (QuotaExceeded(1.0), True, Verdict.LATER),
        (Busy(1.0), True, Verdict.LATER),
        (PubdError("a mistake"), True, Verdict.LATER),
    ],
)
def test_only_what_is_wrong_with_the_message_itself_rejects_its_file(
    answer: Any, own_key: bool, verdict: Verdict
) -> None:
    assert verdict_of(answer, own_key=own_key) is verdict


def test_patience_grows_and_ends() -> None:
    patience = Patience(Backoff(first=1.0, factor=2.0, max=4.0, jitter=0.0), remembered=2)
    assert patience.soonest(0.0) is None
    assert patience.postpone("a", 0.0)
    assert patience.waits("a", 0.9)
    assert not patience.waits("a", 1.0)
    assert not patience.postpone("a", 1.0)
    assert patience.waits("a", 2.9)
    assert patience.soonest(1.0) == 2.0
    patience.postpone("b", 1.0)
    patience.postpone("c", 1.0)
    assert len(patience) == 2
    assert not patience.waits("a", 1.0)
    patience.over("b")
    patience.over("unknown")
    patience.forget(5.9)
    assert len(patience) == 1
    patience.forget(6.1)
    assert len(patience) == 0


def place(**given: Any) -> Place:
    return attrs.evolve(Place(name="a.ndjson", identity=Identity(ino=1, ctime=2), key="00" * 16), **given)


def lines(count: int) -> tuple[Line, ...]:
    return tuple(Line(number=n, end=10 * n, message=Message(exchange="x")) for n in range(1, count + 1))


def chunk(of: Place, *read: Line) -> Chunk:
    nobody: Any = None
    return Chunk(place=of, principal=nobody, uid=0, lines=read, offset=100, line=10, last=False)


def test_a_place_goes_on_to_the_end_of_the_chunk_or_to_the_first_line_that_has_to_wait() -> None:
    bad = problem("malformed", "no JSON")
    read = lines(4)
    part = chunk(place(), *read).beyond(((read[0], None), (read[1], bad)), whole=False)
    assert (part.offset, part.line, part.accepted, part.refused, part.problems) == (20, 2, 1, 1, ((2, bad),))
    none = chunk(part, *read).beyond((), whole=False)
    assert none == part
    whole = chunk(part, *read).beyond(tuple((line, None) for line in read), whole=True)
    assert (whole.offset, whole.line, whole.accepted, whole.refused) == (100, 10, 5, 1)


def test_problems_beyond_what_is_listed_are_counted() -> None:
    bad = problem("malformed", "no JSON")
    read = lines(LISTED + 5)
    after = chunk(place(), *read).beyond(tuple((line, bad) for line in read), whole=True)
    assert len(after.problems) == LISTED
    assert after.refused == LISTED + 5


def test_a_place_is_read_as_it_was_noted() -> None:
    noted = place(offset=5, line=2, accepted=1, refused=1, problems=((2, problem("malformed", "é", field="body")),))
    assert Place.loads(noted.dumps()) == noted
    assert place_note("a") != place_note("b")
    assert place_note("\udcff").startswith("place.")


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"identity": 1}', "null"])
def test_a_note_that_is_none_is_no_place(text: str) -> None:
    assert Place.loads(text) is None
