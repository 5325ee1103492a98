"""Settlement as a pure function: outcome x policy x attempts x now -> what becomes of the message.

========= =========================================================================================================
outcome   settlement
========= =========================================================================================================
confirmed confirmed
returned  ``on_return``: parked (default), retried with backoff up to ``max_attempts``, or discarded
nacked    ``on_nack``: deferred with backoff up to ``max_attempts``, then parked; or parked; or confirmed
lost      none: the message is released to its old place, no attempt spent
poison    parked with RabbitMQ's words
========= =========================================================================================================

Whatever would be tried again is parked instead once its ``lifetime`` has passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pubd.outcome import Cause, Outcome, Reason, Settlement, State
from pubd.policy import OnNack, OnReturn, Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from pubd.ledger import Delivery


def settlement(delivery: Delivery, policy: Policy, now: float, random: Callable[[], float]) -> Settlement | None:
    """What ``delivery``'s outcome does to its message at ``now`` (epoch seconds); None: release it.

    Confirmed deliveries do not come here: they need no decision.
    """
    outcome = delivery.outcome
    if outcome is Outcome.LOST:
        return None
    if outcome is Outcome.POISON:
        return _ended(delivery, State.PARKED, delivery.reason)
    if outcome is Outcome.RETURNED:
        if policy.on_return is OnReturn.PARK:
            return _ended(delivery, State.PARKED, delivery.reason)
        if policy.on_return is OnReturn.DROP:
            return _ended(delivery, State.DISCARDED, delivery.reason)
    elif policy.on_nack is OnNack.DUPLICATE:
        return _ended(delivery, State.CONFIRMED, None)
    elif policy.on_nack is OnNack.PARK:
        return _ended(delivery, State.PARKED, Reason(cause=Cause.NACKED, text="basic.nack"))
    return _again(delivery, policy, now, random)


def _again(delivery: Delivery, policy: Policy, now: float, random: Callable[[], float]) -> Settlement:
    attempts = delivery.entry.attempts + 1
    answer = "nacked" if delivery.outcome is Outcome.NACKED else str(delivery.reason)
    if attempts >= policy.max_attempts:
        text = f"{attempts} of {policy.max_attempts}, the last one {answer}"
        return _ended(delivery, State.PARKED, Reason(cause=Cause.ATTEMPTS, text=text))
    due = now + policy.backoff.delay(attempts - 1, random)
    if policy.lifetime is not None and due > delivery.entry.accepted_at + policy.lifetime:
        text = f"{policy.lifetime:g} s from acceptance, after {attempts} attempts, the last one {answer}"
        return _ended(delivery, State.PARKED, Reason(cause=Cause.LIFETIME, text=text))
    return _ended(delivery, State.DEFERRED, delivery.reason, due)


def _ended(delivery: Delivery, state: State, reason: Reason | None, due: float | None = None) -> Settlement:
    return Settlement(
        entry=delivery.entry,
        state=state,
        attempts=delivery.entry.attempts + 1,
        reason=reason,
        due=due,
        outcome=delivery.outcome,
        via=delivery.via,
        tag=delivery.tag,
    )
