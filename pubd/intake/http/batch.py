"""Arrays: their elements are handed in by slices and answered one by one, in one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater

from pubd.errors import PubdError
from pubd.intake.http.answer import Answer, Refusal, problem_answer
from pubd.intake.http.elements import submit_good
from pubd.intake.http.ndjson import NDJSON
from pubd.intake.http.results import settled_or_not, stored_or_not
from pubd.intake.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pubd.errors import InvalidMessage
    from pubd.intake.door import Door
    from pubd.intake.http.request import Request
    from pubd.intake.http.waits import Waits
    from pubd.message import Message
    from pubd.receipt import Receipt

#: Messages in an array; they are all in memory at a time. A stream of lines may have any number.
MAX_ARRAY = 10_000
#: So many are decoded and handed in before others have a turn.
SLICE = 500


async def batch_answer(
    values: Sequence[Any],
    element: Callable[[Any, str | None], Message | InvalidMessage],
    request: Request,
    *,
    door: Door,
    waits: Waits,
    clock: Any,
    seconds: float | None,
    key: str | None,
) -> Answer:
    """200 with an array of results in the order of ``values``; each is a message on its own.

    ``element`` makes the message of a value and its idempotency key, which is ``key:INDEX`` where there is a ``key``.
    ``seconds``: wait so long for settlements. Refuses (413) what is too long; where nothing at all was accepted for a
    reason that will pass, that is the answer.
    """
    if len(values) > MAX_ARRAY:
        raise Refusal(
            "too-large", f"has more than {MAX_ARRAY:,} elements; send several arrays, or messages as {NDJSON}"
        )
    answers: list[Receipt | PubdError] = []
    for start in range(0, len(values), SLICE):
        if start:
            await deferLater(clock, 0)
        some = [
            element(value, None if key is None else f"{key}:{start + place}")
            for place, value in enumerate(values[start : start + SLICE])
        ]
        answers += await submit_good(door, request, some)
    if (whole := _refused_as_a_whole(answers)) is not None:
        return whole
    if seconds is None:
        results = list(map(stored_or_not, answers))
    else:
        results = list(map(settled_or_not, answers, await waits.outcomes(answers, seconds)))
    return Answer(200, b"[" + b",\n".join(results) + b"]")


def _refused_as_a_whole(answers: Sequence[Receipt | PubdError]) -> Answer | None:
    """One problem (429, 503, 507) if that is why nothing at all was accepted."""
    first = answers[0] if answers else None
    if not isinstance(first, PubdError) or any(type(each) is not type(first) for each in answers):
        return None
    found = problem_of(first)
    return problem_answer(found) if found.retry_after is not None else None
