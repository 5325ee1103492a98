"""What a configuration holds: frozen values, ready for those who use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pubd.access import LOCAL, Principal
from pubd.amqp.lane import LaneOptions
from pubd.amqp.topology import Topology
from pubd.config.keys import OnChannelClose
from pubd.operate.log_options import LogOptions
from pubd.policy import Policy
from pubd.spool.base import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from pubd.amqp.url import BrokerUrl
    from pubd.intake.options import DirectoryOptions, HttpOptions, LinesOptions
    from pubd.operate.tracing_options import TracingOptions
    from pubd.schedule import Schedule


@attrs.frozen(kw_only=True)
class BrokerConfig:
    """[broker]. The URLs have their heartbeat."""

    urls: tuple[BrokerUrl, ...]
    on_channel_close: OnChannelClose = OnChannelClose.RECOVER
    name: str = "pubd"


@attrs.frozen(kw_only=True)
class SpoolConfig:
    """[spool]. ``path`` is None for ``memory:``; ``retain`` in seconds."""

    url: str
    path: Path | None
    limits: Limits = attrs.field(factory=Limits)
    retain: float = 3600.0


@attrs.frozen(kw_only=True)
class DeliveryConfig:
    """[delivery]. ``policy`` is for messages that no [[policy]] matches; ``drain_timeout`` in seconds."""

    lanes: LaneOptions = LaneOptions()
    mandatory: bool = True
    persistent: bool = True
    policy: Policy = Policy()
    drain_timeout: float = 10.0
    expiration_counts_spool_time: bool = False


@attrs.frozen(kw_only=True)
class AccessConfig:
    """[access] and [[principal]]: the arguments of :class:`pubd.access.Access`."""

    principals: tuple[Principal, ...] = ()
    anonymous: Principal | None = LOCAL


@attrs.frozen(kw_only=True)
class Values:
    """All tables; see :class:`pubd.config.Config`."""

    broker: BrokerConfig
    spool: SpoolConfig
    delivery: DeliveryConfig = DeliveryConfig()
    policies: tuple[Policy, ...] = ()
    topology: Topology = attrs.field(factory=Topology)
    schedules: tuple[Schedule, ...] = ()
    access: AccessConfig = AccessConfig()
    http: HttpOptions | None = None
    lines: LinesOptions | None = None
    directory: DirectoryOptions | None = None
    log: LogOptions = attrs.field(factory=LogOptions)
    tracing: TracingOptions | None = None
