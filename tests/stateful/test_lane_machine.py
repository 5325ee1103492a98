"""Publisher, lanes and ledgers against a broker that does whatever the protocol allows, in any order.

Each message's body is its number, so that the same ``message_id`` may be submitted twice. What the broker did is noted
on its side of the wire; nothing that the publisher says is taken as the truth about the broker.
"""

from __future__ import annotations

import os
from collections import Counter

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pubd.message import Message
from pubd.outcome import Cause
from pubd.policy import Policy
from pubd.publisher import Publisher
from pubd.spool.memory import MemorySpool
from tests.network import MemoryNetwork
from tests.peer import Acks, Broker, Peer, Published
from tests.peer import Phase as PeerPhase
from tests.rig import Rig, Sent
from tests.tampering import tamper

WINDOW = 4
WINDOW_BYTES = 3000
#: For a long look: PUBD_STATEFUL_EXAMPLES=2000.
EXAMPLES = int(os.environ.get("PUBD_STATEFUL_EXAMPLES", "60"))

exchanges = st.sampled_from(["x", "y"])
picks = st.integers(0, 1000)


class Lanes(RuleBasedStateMachine):
    """The machine; a rule is one thing that an application, the broker or time may do."""

    @initialize(acks=st.sampled_from([Acks.HELD, Acks.HELD, Acks.SINGLE, Acks.MULTIPLE]))
    def begin(self, acks: Acks) -> None:
        network = MemoryNetwork(Broker(exchanges={"x": {"k"}, "y": {"k"}}, acks=acks))
        self.rig = Rig(
            network,
            spool=MemorySpool(),
            policy=Policy(max_attempts=3),
            window=WINDOW,
            window_bytes=WINDOW_BYTES,
            confirm_timeout=20.0,
            idle_timeout=15.0,
        )
        self.acked: set[int] = set()
        self.nacks: Counter[int] = Counter()
        self.returned: set[int] = set()
        self.accused: set[int] = set()
        self.stalled: set[Peer] = set()
        self.blocked: Peer | None = None
        self._spy()
        self.rig.start()

    def _spy(self) -> None:
        """Note on the broker's side what it answers by itself, too."""

        def on_connect(peer: Peer) -> None:
            settle, returning = peer._settle, peer.return_

            def note(number: int, tag: int, multiple: bool) -> None:
                channel = peer._channels.get(number)
                if channel is not None:
                    for one in list(channel.unacked.values()):
                        if one.tag == tag or (multiple and (one.tag < tag or tag == 0)):
                            self._answered(peer, one)
                settle(number, tag, multiple)

            def note_return(channel: int, published: Published, code: int = 312, text: str = "NO_ROUTE") -> None:
                self.returned.add(number_of(published))
                returning(channel, published, code, text)

            peer._settle, peer.return_ = note, note_return  # type: ignore[method-assign]  # to look over its shoulder
            self.nacking = False

        self.nacking = False
        self.rig.broker.on_connect = on_connect

    def _answered(self, peer: Peer, published: Published) -> None:
        del peer
        if self.nacking:
            self.nacks[number_of(published)] += 1
        else:
            self.acked.add(number_of(published))

    @property
    def peer(self) -> Peer | None:
        """The connection that stands, if one does."""
        peers: list[Peer] = self.rig.network.factory.peers
        return peers[-1] if peers and peers[-1].phase is PeerPhase.OPEN and not peers[-1]._silent else None

    def pending(self) -> list[tuple[Peer, int, Published]]:
        """(peer, channel, delivery) of everything that waits for an answer."""
        peer = self.peer
        if peer is None:
            return []
        return [(peer, channel, one) for channel in peer.channels for one in peer.unacked(channel)]

    # The application

    @rule(exchange=exchanges, count=st.integers(1, 6), size=st.sampled_from([0, 10, 1500]), flush=st.booleans())
    def submit(self, exchange: str, count: int, size: int, flush: bool) -> None:
        for _ in range(count):
            self._submit(exchange, "k", size)
        if flush:
            self.rig.network.flush()

    @rule(exchange=exchanges)
    def submit_unroutable(self, exchange: str) -> None:
        self._submit(exchange, "nowhere")

    @rule(exchange=exchanges)
    def submit_poison(self, exchange: str) -> None:
        self._submit(exchange, "k", poison=True)

    @rule(exchange=exchanges, id=st.sampled_from(["one", "two"]))
    def submit_an_id_again(self, exchange: str, id: str) -> None:
        self._submit(exchange, "k", message_id=id)

    def _submit(
        self, exchange: str, key: str, size: int = 0, *, message_id: str | None = None, poison: bool = False
    ) -> None:
        body = f"{len(self.rig.sent)} ".encode() + b"x" * size
        message = Message(exchange=exchange, routing_key=key, body=body, message_id=message_id)
        if poison:
            tamper(message, "expiration", "soon")
        self.rig.submit_message(message)

    # The broker

    @precondition(lambda self: self.pending())
    @rule(pick=picks, multiple=st.booleans())
    def ack(self, pick: int, multiple: bool) -> None:
        self._answer(pick, multiple, nack=False)

    @precondition(lambda self: self.pending())
    @rule(pick=picks, multiple=st.booleans(), again=st.booleans())
    def nack(self, pick: int, multiple: bool, again: bool) -> None:
        self._answer(pick, multiple, nack=True)
        if again:
            # Long enough for it to come again.
            self.rig.network.advance(2.5)

    def _answer(self, pick: int, multiple: bool, *, nack: bool) -> None:
        pending = self.pending()
        peer, channel, published = pending[pick % len(pending)]
        tags = [one for _, number, one in pending if number == channel and one.tag <= published.tag]
        for one in tags if multiple else [published]:
            # As RabbitMQ does it: what cannot be routed is returned before its answer.
            if not one.routed:
                peer.return_(channel, one)
        self.nacking = nack
        (peer.nack if nack else peer.ack)(channel, published.tag, multiple)
        self.nacking = False

    @precondition(lambda self: self.pending())
    @rule(pick=picks)
    def return_(self, pick: int) -> None:
        pending = self.pending()
        peer, channel, published = pending[pick % len(pending)]
        peer.return_(channel, published)

    @precondition(lambda self: self.peer is not None)
    @rule(hold=st.booleans())
    def hold_or_release(self, hold: bool) -> None:
        assert self.peer is not None
        if hold:
            self.peer.hold()
        else:
            self.peer.release()

    @precondition(lambda self: self.peer is not None and len(self.peer.channels) > 1)
    @rule(pick=picks, code=st.sampled_from([403, 404, 406, 406]))
    def close_channel(self, pick: int, code: int) -> None:
        peer = self.peer
        assert peer is not None
        channel = peer.channels[1:][pick % len(peer.channels[1:])]
        if code == 406:
            self._accuse()
        peer.close_channel(channel, code, "BECAUSE - I can")
        # Read at once: what is submitted later is not what this is about.
        self.rig.network.flush()

    @precondition(lambda self: self.peer is not None)
    @rule(code=st.sampled_from([320, 320, 541]))
    def close_connection(self, code: int) -> None:
        peer = self.peer
        assert peer is not None
        if code == 541:
            self._accuse()
        peer.close_connection(code, "BECAUSE - I can")
        self.rig.network.flush()

    def _accuse(self) -> None:
        """Over no message in particular: whatever is open may be on its way, and rightly suspected."""
        self.accused |= {number for number, sent in enumerate(self.rig.sent) if sent.answer is None}

    @precondition(lambda self: self.peer is not None)
    @rule(abort=st.booleans())
    def drop(self, abort: bool) -> None:
        assert self.peer is not None
        self.peer.drop(abort)

    @precondition(lambda self: self.peer is not None)
    @rule()
    def block(self) -> None:
        self.blocked = self.peer
        assert self.peer is not None
        self.peer.block("low on memory")

    @precondition(lambda self: self.blocked is not None and self.blocked is self.peer)
    @rule()
    def unblock(self) -> None:
        assert self.blocked is not None
        self.blocked.unblock()
        self.blocked = None

    @precondition(lambda self: self.peer is not None)
    @rule()
    def stall(self) -> None:
        assert self.peer is not None
        self.stalled.add(self.peer)
        self.peer.half_open()

    @precondition(lambda self: self.stalled)
    @rule()
    def go_on(self) -> None:
        while self.stalled:
            self.stalled.pop().resume()

    # Time

    @rule()
    def flush(self) -> None:
        self.rig.network.flush()

    @rule(seconds=st.sampled_from([0.1, 0.6, 2.0, 10.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.rig.network.advance(seconds)

    # What holds at every moment

    @invariant()
    def every_message_is_in_exactly_one_place(self) -> None:
        spool, publisher = self.rig.spool, self.rig.publisher
        assert isinstance(spool, MemorySpool)
        books = spool.books()
        assert books.difference == 0
        assert books.accepted == len(self.rig.sent)
        assert books.confirmed == sum(one.confirmed for one in self.rig.sent)
        assert len(spool._held) == books.held
        assert not spool._claimed & spool._parked
        assert sorted(spool._held[seq].id for seq in spool._claimed) == sorted(claimed_by_lanes(publisher))

    @invariant()
    def nothing_is_confirmed_but_what_the_broker_acked(self) -> None:
        for number, sent in enumerate(self.rig.sent):
            if sent.confirmed:
                assert number in self.acked
                assert sent.message.routing_key == "k"
                assert sent.message.expiration is None

    @invariant()
    def the_window_is_kept(self) -> None:
        for lane in self.rig.publisher.status().lanes:
            assert lane.in_flight <= WINDOW
            assert lane.in_flight_bytes <= WINDOW_BYTES or lane.in_flight == 1
        if self.peer is not None:
            for channel in self.peer.channels:
                ids = [one.properties.message_id for one in self.peer.unacked(channel)]
                assert len(ids) <= WINDOW
                assert len(ids) == len(set(ids))

    @invariant()
    def the_protocol_is_kept(self) -> None:
        assert self.rig.network.factory.violations == []

    def teardown(self) -> None:
        """The broker heals: everything comes to its end."""
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        while self.stalled:
            self.stalled.pop().resume()
        rig.broker.acks = Acks.MULTIPLE
        if self.blocked is not None and self.blocked is self.peer:
            self.blocked.unblock()
        if self.peer is not None:
            self.peer.release()
        for _ in range(200):
            if all(sent.answer is not None for sent in rig.sent):
                break
            rig.network.advance(5)
        for number, sent in enumerate(rig.sent):
            assert sent.confirmed or sent.parked is not None, f"message {number} was never settled"
            self._ended_rightly(number, sent)
        for exchange in ("x", "y"):
            numbers = [number_of(one) for one in rig.broker.published if one.exchange == exchange]
            first = list(dict.fromkeys(numbers))
            assert first == sorted(first), "messages overtook each other"
        self.every_message_is_in_exactly_one_place()
        self.nothing_is_confirmed_but_what_the_broker_acked()
        rig.stop()

    def _ended_rightly(self, number: int, sent: Sent) -> None:
        reason = sent.parked
        if reason is None:
            return
        if reason.cause is Cause.RETURNED:
            assert reason.code == 312
            assert number in self.returned
        elif reason.cause is Cause.ATTEMPTS:
            assert self.nacks[number] >= 3
        else:
            assert reason.cause is Cause.POISON
            assert number in self.accused or sent.message.expiration is not None
            assert reason.code in (406, 541)


def number_of(published: Published) -> int:
    return int(published.body.split()[0])


def claimed_by_lanes(publisher: Publisher) -> list[str]:
    """Ids of what the lanes hold: queued, in flight, or answered and not handed up yet."""
    held = []
    lanes = publisher._broker._lanes  # type: ignore[attr-defined]  # an implementation detail, to prove that none leaks
    for lane in lanes.values():
        held += [entry.id for entry in lane._queue]
        held += [delivery.entry.id for delivery in lane._ledger._pending.values()]
        held += [delivery.entry.id for delivery in lane._answered]
    return held


def test_whatever_the_broker_does_every_message_ends_as_it_should() -> None:
    run_state_machine_as_test(
        Lanes,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
