"""``POST /messages``: one JSON object, an array of them, or a stream of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pubd.intake.http.answer import Answer, Refusal, error_answer
from pubd.intake.http.batch import batch_answer
from pubd.intake.http.elements import element, keyed
from pubd.intake.http.ndjson import NDJSON, NdjsonStream
from pubd.intake.http.request import idempotency_key
from pubd.intake.http.results import settled_answer, stored_answer
from pubd.intake.wire import decode, loads
from pubd.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from twisted.internet.defer import Deferred

    from pubd.errors import PubdError
    from pubd.intake.door import Door
    from pubd.intake.http.request import Request
    from pubd.intake.http.route import Connection, Stream
    from pubd.intake.http.waits import Waits

#: What POST /messages takes.
MEDIA = ("application/json", NDJSON, "application/ndjson", "application/jsonl")


class Submit:
    """Takes messages as JSON. ``clock`` gives others their turns."""

    def __init__(self, *, door: Door, waits: Waits, clock: Any, max_line: int) -> None:
        self._door = door
        self._waits = waits
        self._clock = clock
        self.max_line = max_line

    def open(self, request: Request, connection: Connection) -> Stream | None:
        """A stream for lines; objects and arrays are read whole."""
        seconds = self._begin(request)
        if not _is_lines(request):
            return None
        return NdjsonStream(
            connection=connection,
            door=self._door,
            waits=self._waits,
            clock=self._clock,
            principal=request.principal,
            seconds=seconds,
            key=idempotency_key(request),
            max_line=self.max_line,
            carrier=request.headers,
        )

    def post(self, request: Request) -> Answer | Deferred[Answer] | Coroutine[Any, Any, Answer]:
        """Answers for what came as a whole."""
        seconds, key, body = self._begin(request), idempotency_key(request), request.body
        if not body and _is_lines(request):
            return Answer(200, b"", NDJSON.encode("ascii"))
        if not body:
            raise Refusal("malformed", "is empty; send one JSON object, or an array of them", field="body")
        if body[:1] != b"{" and body.lstrip()[:1] == b"[":
            return batch_answer(
                loads(body),
                element,
                request,
                door=self._door,
                waits=self._waits,
                clock=self._clock,
                seconds=seconds,
                key=key,
            )
        message = decode(body) if key is None else keyed(loads(body), key)
        submitted = self._door.submit(request.principal, (message,), request.headers)
        if seconds is None:
            return submitted.addCallback(stored_answer)
        return when_settled(submitted, self._waits, seconds)

    def _begin(self, request: Request) -> float | None:
        """Seconds to wait. Refuses what the head has wrong."""
        if request.headers.get("content-type", "").find(";") > 0 and request.charset not in (None, "utf-8", "us-ascii"):
            raise Refusal("unsupported-media-type", "must be utf-8: JSON is", field="charset")
        return self._waits.asked(request.arguments(("wait", "timeout"))) if request.query else None


async def when_settled(submitted: Deferred[list[Receipt | PubdError]], waits: Waits, seconds: float) -> Answer:
    """The answer to a single submission that is to be waited for."""
    (answer,) = await submitted
    if not isinstance(answer, Receipt):
        return error_answer(answer)
    return settled_answer(answer, await waits.outcome(answer, seconds))


def _is_lines(request: Request) -> bool:
    return request.media_type in MEDIA[1:]
