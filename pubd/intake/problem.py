"""What is wrong with a submission, as every intake says it: one table from errors to answers.

Over HTTP a problem is ``application/problem+json`` (RFC 9457), over lines the value of ``error``. ``type`` is the same
word in both; it is stable, and what programs look at.
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from pubd.errors import (
    Busy,
    IdempotencyConflict,
    InvalidMessage,
    MessageDiscarded,
    MessageExpired,
    MessageParked,
    NotAllowed,
    NotAuthenticated,
    PubdError,
    PublisherDraining,
    PublisherStopped,
    QuotaExceeded,
    ReloadRefused,
    SpoolError,
    SpoolFull,
)
from pubd.outcome import Cause

#: type -> (HTTP status, title).
TYPES: dict[str, tuple[int, str]] = {
    "malformed": (400, "The request cannot be read"),
    "not-authenticated": (401, "Authentication is needed"),
    "not-allowed": (403, "Not allowed"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "request-timeout": (408, "The request took too long to arrive"),
    "idempotency-conflict": (409, "The idempotency key belongs to another message"),
    "wrong-state": (409, "The state of the message does not allow that"),
    "too-large": (413, "Too large"),
    "unsupported-media-type": (415, "The media type or encoding is not supported"),
    "expectation-failed": (417, "The expectation cannot be met"),
    "invalid-configuration": (422, "The configuration cannot be used"),
    "invalid-message": (422, "The message breaks a rule"),
    "returned": (422, "RabbitMQ found no queue for the message"),
    "parked": (422, "The message is parked"),
    "expired": (422, "The message expired before it could be published"),
    "discarded": (422, "The message was discarded"),
    "quota": (429, "More than the quota allows"),
    "internal": (500, "pubd made a mistake"),
    "busy": (503, "Too much is not answered yet"),
    "stopping": (503, "pubd is stopping"),
    "draining": (503, "pubd is draining"),
    "spool-failed": (503, "The spool failed"),
    "spool-full": (507, "The spool is full"),
}
#: Seconds after which to come back, where nothing better is known.
_LATER = {"busy": 1, "stopping": 5, "draining": 5, "spool-failed": 5, "spool-full": 5}


@attrs.frozen(kw_only=True)
class Problem:
    """``type`` is a key of :data:`TYPES`. ``retry_after`` in whole seconds; ``id`` is that of an accepted message.

    ``problems`` are several at once, each a sentence with its place.
    """

    type: str
    detail: str
    field: str | None = None
    id: str | None = None
    retry_after: int | None = None
    problems: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])

    @property
    def status(self) -> int:
        """The HTTP status."""
        return TYPES[self.type][0]

    @property
    def title(self) -> str:
        """The same for all problems of the type."""
        return TYPES[self.type][1]

    def as_json(self) -> dict[str, Any]:
        """The object of ``application/problem+json``."""
        return {"type": self.type, "title": self.title, "status": self.status, **self._rest()}

    def as_line(self) -> dict[str, Any]:
        """The answer to a line."""
        return {"error": {"type": self.type, **self._rest()}}

    def _rest(self) -> dict[str, Any]:
        rest: dict[str, Any] = {"detail": self.detail}
        for name in ("field", "id", "retry_after"):
            if (value := getattr(self, name)) is not None:
                rest[name] = value
        if self.problems:
            rest["problems"] = list(self.problems)
        return rest


def problem(type: str, detail: str, *, field: str | None = None, id: str | None = None) -> Problem:
    """A problem with the usual time to come back, where its type has one."""
    return Problem(type=type, detail=detail, field=field, id=id, retry_after=_LATER.get(type))


def problem_of(error: PubdError) -> Problem:
    """What to answer for ``error``."""
    detail = str(error)
    match error:
        case InvalidMessage():
            # Without a field it was not even a message.
            found = problem("invalid-message" if error.field else "malformed", error.problem, field=error.field or None)
        case IdempotencyConflict():
            found = problem("idempotency-conflict", detail, field="idempotency_key")
        case SpoolFull():
            found = problem("spool-full", detail)
        case SpoolError():
            # Paths and the storage's own words are for the log.
            found = problem("spool-failed", "the spool could not store it; nothing was accepted; pubd's log says why")
        case PublisherStopped():
            found = problem("stopping", detail)
        case PublisherDraining():
            found = problem("draining", detail)
        case MessageParked():
            kind = "returned" if error.reason.cause is Cause.RETURNED else "parked"
            found = problem(kind, detail, id=error.id)
        case MessageExpired():
            found = problem("expired", detail, id=error.id)
        case MessageDiscarded():
            found = problem("discarded", detail, id=error.id)
        case ReloadRefused():
            detail = "nothing was changed, the configuration before is in use; correct these problems, then reload"
            found = Problem(type="invalid-configuration", detail=detail, problems=error.problems)
        case NotAuthenticated():
            found = problem("not-authenticated", "show a token that pubd knows")
        case NotAllowed():
            found = problem("not-allowed", "you may not do that here")
        case QuotaExceeded():
            found = Problem(type="quota", detail=detail, retry_after=math.ceil(error.retry_after))
        case Busy():
            found = Problem(type="busy", detail=detail, retry_after=math.ceil(error.retry_after))
        case _:
            found = problem("internal", "pubd could not say what is wrong; its log does")
    return found
