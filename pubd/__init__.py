"""pubd: publishes to RabbitMQ and answers for every message. This is the public API and nothing else."""

from __future__ import annotations

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
from pubd.spool.base import Limits, Record
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
    "Policy",
    "PubdError",
    "Publisher",
    "PublisherStopped",
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
