"""What an application reads of its submissions: one JSON object for each message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pubd.intake.http.answer import Answer, as_json, error_answer, result_of
from pubd.receipt import Confirmed, Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pubd.errors import PubdError
    from pubd.intake.http.waits import Settled

# Ids are pubd's own, hexadecimal digits and dashes: nothing in them needs escaping.


def stored(receipt: Receipt) -> bytes:
    """The message is in the spool."""
    return b'{"id":"%b","state":"stored"}' % receipt.id.encode("ascii")


def stored_or_not(answer: Receipt | PubdError) -> bytes:
    """One result of a batch that is not waited for."""
    return stored(answer) if isinstance(answer, Receipt) else as_json(result_of(answer))


def settled_or_not(answer: Receipt | PubdError, settled: Settled) -> bytes:
    """One result of a batch that was waited for."""
    if settled is None and isinstance(answer, Receipt):
        return stored(answer)
    if isinstance(settled, Confirmed):
        return b'{"id":"%b","state":"confirmed"}' % settled.id.encode("ascii")
    assert not isinstance(settled, Confirmed | None)
    return as_json(result_of(settled))


def stored_answer(answers: Sequence[Receipt | PubdError]) -> Answer:
    """The answer to a single submission, once it is stored."""
    answer = answers[0]
    if isinstance(answer, Receipt):
        return Answer(202, b'{"id":"%b","state":"stored"}\n' % answer.id.encode("ascii"))
    return error_answer(answer)


def settled_answer(receipt: Receipt, settled: Settled) -> Answer:
    """The answer to a single submission that was waited for."""
    if settled is None:
        return Answer(202, stored(receipt) + b"\n")
    if isinstance(settled, Confirmed):
        return Answer(200, settled_or_not(receipt, settled) + b"\n")
    return error_answer(settled)
