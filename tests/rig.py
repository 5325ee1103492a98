"""A publisher on a scripted broker in memory, in time of the test's own, and what became of each message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from pubd.amqp.broker import LaneStatus
from pubd.amqp.lane import LaneOptions
from pubd.amqp.topology import Topology
from pubd.errors import MessageParked, PubdError
from pubd.message import Message
from pubd.observer import Traces
from pubd.options import Options
from pubd.outcome import Reason
from pubd.policy import Policy
from pubd.publisher import Publisher
from pubd.receipt import Confirmed, Receipt
from pubd.spool.base import Spool
from pubd.spool.memory import MemorySpool
from tests.network import MemoryNetwork
from tests.peer import Broker, Peer, Published
from tests.tampering import tamper

#: The control channel of the link comes first, lanes after it.
FIRST_LANE = 2


@attrs.define(eq=False)
class Sent:
    """A submission and the answers to it."""

    message: Message
    receipt: Receipt | None = None
    refused: BaseException | None = None
    answer: Confirmed | BaseException | None = None

    @property
    def confirmed(self) -> bool:
        return isinstance(self.answer, Confirmed)

    @property
    def parked(self) -> Reason | None:
        return self.answer.reason if isinstance(self.answer, MessageParked) else None


class Rig:
    """``lanes`` are LaneOptions; the exchanges ``x`` and ``y`` route the key ``k``."""

    def __init__(
        self,
        network: MemoryNetwork | None = None,
        *,
        url: str = "amqp://guest:guest@localhost/%2F",
        spool: Spool | None = None,
        topology: Topology | None = None,
        policy: Policy | None = None,
        drain_timeout: float = 10.0,
        random: Callable[[], float] = lambda: 0.0,
        events: Any = None,
        traces: Traces | None = None,
        **lanes: Any,
    ) -> None:
        self.network = network or MemoryNetwork(Broker(exchanges={"x": {"k"}, "y": {"k"}}))
        self.spool = spool or MemorySpool()
        self.sent: list[Sent] = []
        self.ahead = 0.0
        """What the time of day was set by, in seconds."""
        self.publisher = Publisher.from_url(
            url,
            spool=self.spool,
            reactor=self.network,
            topology=topology,
            options=Options(
                drain_timeout=drain_timeout, policy=policy or Policy(max_attempts=3), lanes=LaneOptions(**lanes)
            ),
            events=events,
            random=random,
            wall=lambda: self.network.seconds() + self.ahead,
            traces=traces,
        )

    @property
    def broker(self) -> Broker:
        return self.network.broker

    @property
    def peer(self) -> Peer:
        return self.network.peer

    def start(self) -> Rig:
        self.publisher.startService()
        self.network.advance(0.5)
        return self

    def submit(
        self, message_id: str | None = None, *, exchange: str = "x", key: str = "k", poison: bool = False, **given: Any
    ) -> Sent:
        """Submit one message; ``poison`` is an expiration that no Message would take."""
        message = Message(exchange=exchange, routing_key=key, message_id=message_id, **given)
        if poison:
            tamper(message, "expiration", "soon")
        return self.submit_message(message)

    def submit_message(self, message: Message) -> Sent:
        sent = Sent(message)
        self.sent.append(sent)

        def accepted(receipt: Receipt) -> None:
            sent.receipt = receipt
            receipt.settled().addCallbacks(answered, failed)

        def answered(confirmed: Confirmed) -> None:
            sent.answer = confirmed

        def failed(failure: Any) -> None:
            failure.trap(PubdError)
            sent.answer = failure.value

        def refused(failure: Any) -> None:
            failure.trap(PubdError)
            sent.refused = failure.value

        self.publisher.submit(message).addCallbacks(accepted, refused)
        return sent

    def send(self, *message_ids: str, **given: Any) -> list[Sent]:
        """Submit these and let them flow."""
        sent = [self.submit(message_id, **given) for message_id in message_ids]
        self.network.flush()
        return sent

    def lane(self, exchange: str = "x") -> LaneStatus:
        (lane,) = (lane for lane in self.publisher.status().lanes if lane.exchange == exchange)
        return lane

    @property
    def lanes(self) -> list[str]:
        return [lane.exchange for lane in self.publisher.status().lanes]

    def channel(self, exchange: str = "x") -> int:
        """The channel of this lane at the peer, known by what came on it last."""
        return [published.channel for published in self.peer.published if published.exchange == exchange][-1]

    def arrived(self, exchange: str | None = None, peer: Peer | None = None) -> list[str]:
        """message_ids in the order in which the broker (or one connection of it) got them."""
        published: Sequence[Published] = (peer or self.broker).published
        return [one.properties.message_id for one in published if exchange in (None, one.exchange)]

    def stop(self, seconds: float = 60.0) -> None:
        """Stop the publisher; nothing may be left, and the peer may have seen no breach of the protocol."""
        stopped = self.publisher.stopService()
        self.network.advance(seconds)
        assert stopped.called
        assert self.publisher.account().books.difference == 0
        assert [str(call) for call in self.network.getDelayedCalls()] == []
        assert self.network.factory.violations == []
