"""The PubdError tree: errors are nouns, split by whose fault it is.

Each docstring says what the operator or the application can do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pubd.outcome import Reason


class PubdError(Exception):
    """Base of everything that pubd raises on purpose."""


class InvalidMessage(PubdError, ValueError):
    """The message breaks a rule of AMQP or RabbitMQ: change the named field and submit again.

    ``field`` is the attribute of :class:`pubd.Message`; nested header fields are written as ``headers['a']['b'][0]``.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidOption(PubdError, ValueError):
    """An option, URL or declaration cannot be used as given: the sentence names the part and the fix."""


class SpoolError(PubdError):
    """The spool could not store what it was given; nothing of it was accepted."""


class SpoolFull(SpoolError):
    """A limit of the spool is reached: wait until messages have been confirmed, or raise the named limit.

    ``limit`` is the name of the limit (``max_bytes``, ...).
    """

    def __init__(self, limit: str, detail: str) -> None:
        super().__init__(f"the spool is full ({limit}): {detail}")
        self.limit = limit


class SpoolWithoutFile(SpoolError):
    """The spool is in memory, and what was asked for is for those in a file."""


class SpoolInUse(SpoolError):
    """Another process has the spool: stop that one, or use another spool. ``hung`` says why it does not go on."""

    def __init__(self, path: object, pid: str, hung: str | None = None) -> None:
        holder = f"process {pid}" if pid else "another process"
        advice = f"which {hung}" if hung else "stop that one, or use another spool"
        super().__init__(f"the spool {path} is in use by {holder}{', ' if hung else ': '}{advice}")
        self.pid = pid


class SpoolFailed(SpoolError):
    """The spool's storage failed or is damaged; what to do stands in the message. The spool takes nothing more.

    Whether what was being stored at that moment is in the file shows only when it is opened again: submit it once more
    with the same idempotency key.
    """


class IdempotencyConflict(PubdError):
    """The idempotency key was used for another message within ``retain``: use a new key for new content."""

    def __init__(self, key: str) -> None:
        super().__init__(f"idempotency_key {key!r} belongs to another message already; use a new key for new content")
        self.key = key


class PublisherStopped(PubdError):
    """The publisher stopped before the message was settled; what became of it is not known to the caller.

    With a durable spool the message is published after the next start; with ``memory:`` submit it again.
    """


class PublisherDraining(PubdError):
    """The publisher takes nothing more until it is told to, or started anew: submit again later, or elsewhere."""


class ReloadRefused(PubdError):
    """The new configuration cannot be used, and the one before stays: correct every one of ``problems``, reload again.

    Each is a sentence with its place, as ``pubd check`` prints them.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class NotAuthenticated(PubdError):
    """Nobody knows who this is: show a token, or come over a socket whose peers are known (see docs/access.rst)."""


class NotAllowed(PubdError):
    """Whoever this is may not do that: the operator grants it in ``[[principal]]``. The log says what was wanted."""


class QuotaExceeded(PubdError):
    """More than the principal's rate: submit it again after ``retry_after`` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"more than your quota allows; submit it again after {max(retry_after, 0.1):.1f} s")
        self.retry_after = retry_after


class Busy(PubdError):
    """Too much was handed in and is not answered yet: submit it again after ``retry_after`` seconds."""

    def __init__(self, retry_after: float = 1.0) -> None:
        super().__init__(f"too much is not answered yet; submit it again after {retry_after:.1f} s")
        self.retry_after = retry_after


class MessageParked(PubdError):
    """The message waits for a person; ``reason`` says why, in RabbitMQ's words where it gave any."""

    def __init__(self, id: str, message_id: str, reason: Reason) -> None:
        super().__init__(f"message {message_id} is parked: {reason}")
        self.id = id
        self.message_id = message_id
        self.reason = reason


class MessageExpired(PubdError):
    """The message's own time to live passed before it could be published."""

    def __init__(self, id: str, message_id: str) -> None:
        super().__init__(f"message {message_id} expired before it could be published")
        self.id = id
        self.message_id = message_id


class MessageDiscarded(PubdError):
    """An operator, or the policy ``on_return = "drop"``, dropped the message; ``reason`` says why, if it is known."""

    def __init__(self, id: str, message_id: str, reason: Reason | None) -> None:
        super().__init__(f"message {message_id} was discarded" + (f": {reason}" if reason else ""))
        self.id = id
        self.message_id = message_id
        self.reason = reason


class LinkLost(PubdError):
    """The connection or channel is gone; ``reason`` is the peer's own. pubd reconnects by itself."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason
