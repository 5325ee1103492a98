"""pubd: publishes to RabbitMQ and answers for every message. This is the public API and nothing else."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pubd.account import Account
    from pubd.amqp.lane import LaneOptions
    from pubd.amqp.topology import Binding, Exchange, Queue, Topology
    from pubd.errors import (
        IdempotencyConflict,
        InvalidMessage,
        InvalidOption,
        LinkLost,
        MessageDiscarded,
        MessageExpired,
        MessageParked,
        PubdError,
        PublisherDraining,
        PublisherStopped,
        SpoolError,
        SpoolFailed,
        SpoolFull,
        SpoolInUse,
    )
    from pubd.message import Message
    from pubd.options import Options
    from pubd.outcome import Cause, Reason, State
    from pubd.policy import OnNack, OnReturn, Policy
    from pubd.publisher import Publisher
    from pubd.receipt import Confirmed, Receipt
    from pubd.retry import Backoff
    from pubd.spool.base import Limits, Page, Query, Record
    from pubd.spool.memory import MemorySpool

__all__ = [
    "Account",
    "Backoff",
    "Binding",
    "Cause",
    "Confirmed",
    "Exchange",
    "IdempotencyConflict",
    "InvalidMessage",
    "InvalidOption",
    "LaneOptions",
    "Limits",
    "LinkLost",
    "MemorySpool",
    "Message",
    "MessageDiscarded",
    "MessageExpired",
    "MessageParked",
    "OnNack",
    "OnReturn",
    "Options",
    "Page",
    "Policy",
    "PubdError",
    "Publisher",
    "PublisherDraining",
    "PublisherStopped",
    "Query",
    "Queue",
    "Reason",
    "Receipt",
    "Record",
    "SpoolError",
    "SpoolFailed",
    "SpoolFull",
    "SpoolInUse",
    "State",
    "Topology",
]

#: Imported when it is asked for: a command that only sends a message needs neither Twisted nor pika nor a database.
_HOMES = {
    "Account": "pubd.account",
    "Backoff": "pubd.retry",
    "Binding": "pubd.amqp.topology",
    "Cause": "pubd.outcome",
    "Confirmed": "pubd.receipt",
    "Exchange": "pubd.amqp.topology",
    "IdempotencyConflict": "pubd.errors",
    "InvalidMessage": "pubd.errors",
    "InvalidOption": "pubd.errors",
    "LaneOptions": "pubd.amqp.lane",
    "Limits": "pubd.spool.base",
    "LinkLost": "pubd.errors",
    "MemorySpool": "pubd.spool.memory",
    "Message": "pubd.message",
    "MessageDiscarded": "pubd.errors",
    "MessageExpired": "pubd.errors",
    "MessageParked": "pubd.errors",
    "OnNack": "pubd.policy",
    "OnReturn": "pubd.policy",
    "Options": "pubd.options",
    "Page": "pubd.spool.base",
    "Policy": "pubd.policy",
    "PubdError": "pubd.errors",
    "Publisher": "pubd.publisher",
    "PublisherDraining": "pubd.errors",
    "PublisherStopped": "pubd.errors",
    "Query": "pubd.spool.base",
    "Queue": "pubd.amqp.topology",
    "Reason": "pubd.outcome",
    "Receipt": "pubd.receipt",
    "Record": "pubd.spool.base",
    "SpoolError": "pubd.errors",
    "SpoolFailed": "pubd.errors",
    "SpoolFull": "pubd.errors",
    "SpoolInUse": "pubd.errors",
    "State": "pubd.outcome",
    "Topology": "pubd.amqp.topology",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
