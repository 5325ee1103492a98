"""pubd: publishes to RabbitMQ and answers for every message. This is the public API and nothing else."""

from __future__ import annotations

from pubd.account import Account
from pubd.errors import (
    InvalidMessage,
    InvalidOption,
    LinkLost,
    MessageDiscarded,
    MessageExpired,
    MessageParked,
    PubdError,
    PublisherStopped,
    SpoolError,
    SpoolFull,
)
from pubd.message import Message
from pubd.options import Options
from pubd.outcome import Cause, Reason
from pubd.publisher import Publisher
from pubd.receipt import Confirmed, Receipt

__all__ = [
    "Account",
    "Cause",
    "Confirmed",
    "InvalidMessage",
    "InvalidOption",
    "LinkLost",
    "Message",
    "MessageDiscarded",
    "MessageExpired",
    "MessageParked",
    "Options",
    "PubdError",
    "Publisher",
    "PublisherStopped",
    "Reason",
    "Receipt",
    "SpoolError",
    "SpoolFull",
]
