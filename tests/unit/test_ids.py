"""Ids: UUIDv7 in the order of acceptance, and back."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.spool.ids import TAG_BITS, Ids


def test_each_seq_is_higher_than_the_last_whatever_the_clock_does() -> None:
    times = iter([100.0, 100.0, 99.0, 200.0, 100.0])
    ids = Ids(5, 0, lambda: next(times))
    seqs = [ids.next() for _ in range(5)]
    assert seqs == sorted(set(seqs))
    assert seqs[3] == 200_000 << 12


def test_numbering_goes_on_after_the_last_seq_of_a_former_life() -> None:
    ids = Ids(5, 7 << 60, lambda: 1.0)
    assert ids.next() == (7 << 60) + 1


def test_more_than_a_millisecond_holds_runs_ahead_of_the_clock() -> None:
    ids = Ids(5, 0, lambda: 100.0)
    seqs = [ids.next() for _ in range(5000)]
    assert len(set(seqs)) == 5000
    assert [ids.seq_of(ids.id_of(seq)) for seq in seqs] == seqs


@given(seq=st.integers(0, (1 << 60) - 1), tag=st.integers(0, (1 << TAG_BITS) - 1))
def test_an_id_is_a_uuid_of_version_7_and_leads_back(seq: int, tag: int) -> None:
    ids = Ids(tag, 0, lambda: 0.0)
    id = ids.id_of(seq)
    assert (UUID(id).version, str(UUID(id))) == (7, id)
    assert UUID(id).variant == "specified in RFC 4122"
    assert ids.seq_of(id) == seq


@given(one=st.integers(0, (1 << 60) - 1), other=st.integers(0, (1 << 60) - 1))
def test_ids_sort_as_their_messages_were_accepted(one: int, other: int) -> None:
    ids = Ids(77, 0, lambda: 0.0)
    assert (ids.id_of(one) < ids.id_of(other)) == (one < other)


@pytest.mark.parametrize("id", ["", "x", "00000000-0000-4000-8000-000000000005", "é" * 36, "{}"])
def test_what_is_no_id_of_this_spool_has_no_seq(id: str) -> None:
    assert Ids(5, 0, lambda: 0.0).seq_of(id) is None


def test_ids_of_another_spool_have_no_seq_here() -> None:
    assert Ids(5, 0, lambda: 0.0).seq_of(Ids(6, 0, lambda: 0.0).id_of(9)) is None


@given(counts=st.lists(st.integers(0, 10_000), max_size=5))
def test_seqs_that_are_taken_together_follow_one_another(counts: list[int]) -> None:
    ids = Ids(5, 0, lambda: 100.0)
    seqs = [seq for count in counts for seq in ids.take(count)]
    assert seqs == sorted(set(seqs))
    assert len(seqs) == sum(counts)
    assert ids.next() > max(seqs, default=0)
