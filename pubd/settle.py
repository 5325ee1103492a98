"""Settlement as a pure function: outcome x policy x attempts x now -> what becomes of the message.

======== ===================================================================================================
outcome  settlement
======== ===================================================================================================
confirmed  confirmed
returned   ``on_return``: parked (default), retried with backoff up to ``max_attempts``, or discarded
nacked     deferred with backoff, full jitter, up to ``max_attempts``; then parked
lost       none: the message is released to its old place, no attempt spent
poison     parked with RabbitMQ's words
======== ===================================================================================================
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from pubd.outcome import Cause, Outcome, Reason, Settlement, State
from pubd.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.ledger import Delivery


class OnReturn(enum.Enum):
    """What to do with a message that RabbitMQ returned as unroutable."""

    PARK = "park"
    RETRY = "retry"
    DROP = "drop"


@attrs.frozen(kw_only=True)
class Policy:
    """How outcomes are settled. ``max_attempts`` counts nacks and retried returns; outages cost nothing."""

    on_return: OnReturn = OnReturn.PARK
    max_attempts: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    backoff: Backoff = Backoff(first=1.0, max=300.0, jitter=1.0)


def settlement(delivery: Delivery, policy: Policy, now: float, random: Callable[[], float]) -> Settlement | None:
    """What ``delivery``'s outcome does to its message at ``now`` (epoch seconds); None: release it.

    Confirmed deliveries do not come here: they need no decision.
    """
    entry, reason = delivery.entry, delivery.reason
    attempts = entry.attempts
    if delivery.outcome is Outcome.LOST:
        return None
    if delivery.outcome is Outcome.POISON:
        return Settlement(entry=entry, state=State.PARKED, attempts=attempts + 1, reason=reason)
    if delivery.outcome is Outcome.RETURNED and policy.on_return is not OnReturn.RETRY:
        state = State.PARKED if policy.on_return is OnReturn.PARK else State.DISCARDED
        return Settlement(entry=entry, state=state, attempts=attempts + 1, reason=reason)
    return _again(delivery, policy, now, random)


def _again(delivery: Delivery, policy: Policy, now: float, random: Callable[[], float]) -> Settlement:
    entry = delivery.entry
    attempts = entry.attempts + 1
    answer = "nacked" if delivery.outcome is Outcome.NACKED else str(delivery.reason)
    if attempts >= policy.max_attempts:
        reason = Reason(cause=Cause.ATTEMPTS, text=f"{attempts} of {policy.max_attempts}, the last one {answer}")
        return Settlement(entry=entry, state=State.PARKED, attempts=attempts, reason=reason)
    return Settlement(
        entry=entry,
        state=State.DEFERRED,
        attempts=attempts,
        reason=delivery.reason,
        due=now + policy.backoff.delay(attempts - 1, random),
    )
