"""What a publisher does where a message does not say, and how it treats outcomes."""

from __future__ import annotations

import attrs

from pubd.amqp.lane import LaneOptions
from pubd.policy import Policy


@attrs.frozen(kw_only=True)
class Options:
    """All times in seconds, sizes in bytes."""

    mandatory: bool = True
    persistent: bool = True
    max_body: int | None = None
    """Largest body; RabbitMQ's ``max_message_size`` where that is lower than ``pubd.message.MAX_BODY`` (128 MiB)."""
    lanes: LaneOptions = LaneOptions()
    policies: tuple[Policy, ...] = ()
    """Tried in this order, then ``policy``."""
    policy: Policy = Policy()
    expiration_counts_spool_time: bool = False
    """Lower a message's AMQP ``expiration`` by the time that it has spent in the spool."""
    retain: float = attrs.field(default=3600.0, validator=attrs.validators.ge(0))
    """How long settled messages stay known, without their bodies."""
    drain_timeout: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    """How long stopping waits for RabbitMQ's answers."""
