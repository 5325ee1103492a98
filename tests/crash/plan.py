"""What is submitted in a crash test: message number n is a function of n and the seed, for whoever asks."""

from __future__ import annotations

import json
from binascii import crc32
from random import Random

import attrs

from pubd.message import Message

EXCHANGES = ("a", "b", "c")
#: Ways of handing messages in, and how many sessions each has: what is handed in within one keeps its order.
SESSIONS = {"python": 1, "http": 16, "lines": 4}
ROUTED, UNROUTED = "here", "nowhere"
LARGE = 20_000


@attrs.frozen(kw_only=True)
class Plan:
    """``prefix`` makes exchanges, queues and keys this run's own; ``window`` is that of each lane, times in seconds.

    One in 50 messages is unroutable; three in ten have one of 30 ordering keys; four in five have an idempotency key,
    unless ``keyed`` is False (settled messages, and the keys with them, may be forgotten before they are needed).
    ``through`` is the way in, one of :data:`SESSIONS`.
    """

    prefix: str
    seed: int
    window: int = 500
    keyed: bool = True
    retain: float = 3600.0
    through: str = "python"

    def exchange(self, letter: str) -> str:
        return f"{self.prefix}.{letter}"

    @property
    def queues(self) -> tuple[str, ...]:
        """Each exchange has one queue, of the same name."""
        return tuple(map(self.exchange, EXCHANGES))

    @property
    def sessions(self) -> int:
        return SESSIONS[self.through]

    def session(self, number: int, ordering_key: str | None) -> int:
        """By which session the message goes: all of an ordering key by the same."""
        return crc32((ordering_key or str(number)).encode()) % self.sessions

    def message(self, number: int) -> Message:
        random = Random(f"{self.seed}:{number}")
        routed = random.randrange(50) > 0
        ordered = routed and random.random() < 0.3
        size = LARGE if random.randrange(200) == 0 else random.randrange(200)
        return Message(
            exchange=self.exchange(random.choice(EXCHANGES)),
            routing_key=ROUTED if routed else UNROUTED,
            body=f"{number} ".encode() + random.randbytes(size // 2).hex().encode(),
            delivery_mode=random.choice((None, None, 1, 2)),
            content_type="text/plain",
            ordering_key=f"key-{random.randrange(10)}" if ordered else None,
            idempotency_key=f"{self.prefix}-{number}" if self.keyed and random.randrange(5) else None,
        )


@attrs.frozen(kw_only=True)
class Orders:
    """What one life of the worker is to do: submit ``again``, then the numbers from ``first`` up to ``until``.

    ``again`` is what was in doubt, was passed over, or was answered and is submitted once more; in order. ``rate`` is
    in messages a second. With ``finish`` the worker ends when everything is settled. ``steps`` are steps of the schema
    beyond pubd's own, for upgrades.
    """

    plan: Plan
    url: str
    spool: str
    life: int
    again: tuple[int, ...] = ()
    first: int = 0
    until: int = 0
    rate: float = 4000.0
    finish: bool = False
    steps: int = 0

    def dumps(self) -> str:
        return json.dumps(attrs.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Orders:
        given = json.loads(text)
        return cls(**given | {"plan": Plan(**given["plan"]), "again": tuple(given["again"])})
