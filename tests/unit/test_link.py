"""The link against a scripted peer, in memory and in the test's own time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pika.frame
import pika.spec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from pubd.amqp.lifecycle import LinkState
from pubd.amqp.link import Link
from pubd.amqp.protocol import LinkProtocol, _Valve
from pubd.amqp.url import BrokerUrl
from pubd.errors import LinkLost
from pubd.outcome import Reason
from tests.network import MemoryNetwork
from tests.peer import Broker, Peer
from tests.strictness import Logged

spec: Any = pika.spec
frames: Any = pika.frame

#: Twisted's HostnameEndpoint waits so long for a further address before it believes a refusal (s).
SETTLED = 0.3


class Owner:
    """Writes down what a link tells; ``on`` maps the name of an event to what is done then."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.reasons: list[Reason] = []
        self.flushes = 0
        self.on: dict[str, Callable[[], object]] = {}

    def _note(self, name: str, shown: str = "") -> None:
        self.seen.append(f"{name} {shown}".strip())
        self.on.get(name, lambda: None)()

    def link_ready(self, connection: LinkProtocol) -> None:
        assert connection.usable
        self._note("ready")

    def link_lost(self, reason: Reason) -> None:
        self.reasons.append(reason)
        self._note("lost", reason.text)

    def link_blocked(self, text: str) -> None:
        self._note("blocked", text)

    def link_unblocked(self) -> None:
        self._note("unblocked")

    def link_resumed(self) -> None:
        self._note("resumed")

    def link_flush(self) -> None:
        self.flushes += 1
        self.on.get("flush", lambda: None)()


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    network = MemoryNetwork(Broker(exchanges={"x": {"#"}}))
    yield network
    assert network.factory.violations == []


@pytest.fixture
def owner() -> Owner:
    return Owner()


Make = Callable[..., Link]


@pytest.fixture
def make(network: MemoryNetwork, owner: Owner) -> Iterator[Make]:
    links: list[Link] = []

    def make(*urls: str, share: float = 0.0) -> Link:
        link = Link(
            reactor=network,
            urls=[BrokerUrl.parse(url) for url in urls or ["amqp://localhost"]],
            events=owner,
            connection_name="pubd test@here:1",
            random=lambda: share,
        )
        links.append(link)
        return link

    yield make
    for link in links:
        stopped = link.stop()
        network.advance(3)
        assert stopped.called
        assert link.state is LinkState.STOPPED
    assert network.getDelayedCalls() == []


@pytest.fixture
def ready(make: Make, network: MemoryNetwork) -> Link:
    link = make()
    link.start()
    network.advance(0.1)
    assert link.state is LinkState.READY
    return link


def connection(link: Link) -> LinkProtocol:
    assert link.connection is not None
    return link.connection


def failure_of(deferred: Deferred[Any]) -> BaseException:
    seen: list[Any] = []
    deferred.addBoth(seen.append)
    assert isinstance(seen[0], Failure)
    assert seen[0].value is not None
    return seen[0].value


def no_traceback(logged: Logged) -> bool:
    shown = [text for event, text in zip(logged.events, logged.texts, strict=True) if not _debug(event)]
    return not any("Traceback" in text for text in shown)


def _debug(event: dict[str, Any]) -> bool:
    return event.get("log_level") is LogLevel.debug


# Getting there


def test_ready_comes_after_select_ok_only(make: Make, network: MemoryNetwork, owner: Owner) -> None:
    network.broker.ignore.add("Confirm.Select")
    link = make()
    assert (link.state, link.attempts) == (LinkState.IDLE, 0)
    link.start()
    assert link.state is LinkState.CONNECTING
    network.flush()
    assert (link.state, link.connection, owner.seen) == (LinkState.OPENING, None, [])
    network.peer.select_ok(1)
    network.flush()
    assert (link.state, owner.seen, link.attempts) == (LinkState.READY, ["ready"], 1)


def test_starting_twice_is_starting_once(ready: Link, network: MemoryNetwork) -> None:
    ready.start()
    network.advance(1)
    assert len(network.dialled) == 1


def test_the_handshake_timeout_ends_when_the_link_is_ready(ready: Link, network: MemoryNetwork) -> None:
    network.advance(30)
    assert (ready.state, ready.attempts) == (LinkState.READY, 1)


def test_client_properties_name_pubd(ready: Link, network: MemoryNetwork) -> None:
    del ready
    properties = network.peer.client_properties
    assert properties["product"] == "pubd"
    assert properties["connection_name"] == "pubd test@here:1"
    assert "pika" in properties["platform"]
    assert properties["capabilities"]["authentication_failure_close"] is True


def test_the_negotiated_frame_size_is_known(make: Make, network: MemoryNetwork) -> None:
    link = make("amqp://localhost?frame_max=8192&heartbeat=7")
    link.start()
    network.flush()
    assert connection(link).frame_max == 8192


# Refusals


REFUSALS: dict[str, tuple[Callable[[Broker], object], str, LinkState]] = {
    "password": (lambda b: b.users.update(guest="other"), "403 ACCESS_REFUSED", LinkState.REFUSED),
    "vhost": (lambda b: b.vhosts.clear(), "530 NOT_ALLOWED", LinkState.REFUSED),
    "mechanism": (
        lambda b: setattr(b, "mechanisms", "EXTERNAL"),
        "does not offer PLAIN authentication",
        LinkState.REFUSED,
    ),
    "silent": (
        lambda b: b.ignore.add("ProtocolHeader"),
        "no AMQP handshake from localhost:5672 within 10 s",
        LinkState.WAITING,
    ),
    "silent select": (
        lambda b: b.ignore.add("Confirm.Select"),
        "no AMQP handshake from localhost:5672 within 10 s",
        LinkState.WAITING,
    ),
    "no confirms": (
        lambda b: b.capabilities.update(publisher_confirms=False),
        "does not offer publisher confirms",
        LinkState.REFUSED,
    ),
    "http": (
        lambda b: setattr(b, "on_connect", lambda peer: peer.garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        "is not an AMQP broker: it answered 'HTTP/1.1 400 Bad Request",
        LinkState.REFUSED,
    ),
    "AMQP 1.0": (
        lambda b: setattr(b, "on_connect", lambda peer: peer.garbage(b"AMQP\x00\x01\x00\x00")),
        "it answered with the header 0-1-0-0",
        LinkState.REFUSED,
    ),
    "TLS": (
        lambda b: setattr(b, "on_connect", lambda peer: peer.garbage(b"\x15\x03\x01\x00\x02\x02\x46")),
        "speaks TLS: use amqps://",
        LinkState.REFUSED,
    ),
    "hangs up": (
        lambda b: setattr(b, "on_connect", lambda peer: peer.drop()),
        "closed the connection during the AMQP handshake",
        LinkState.WAITING,
    ),
}


@pytest.mark.parametrize("share", [0.0, 0.999])
@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_says_why_and_is_retried_slowly(
    kind: str, share: float, make: Make, network: MemoryNetwork, owner: Owner, logged: Logged
) -> None:
    arrange, words, state = REFUSALS[kind]
    arrange(network.broker)
    link = make("amqp://guest:guest@localhost", share=share)
    link.start()
    while link.reason is None:
        network.advance(0.5)
    first = network.rightNow
    assert words in f"{link.reason.code} {link.reason.text}"
    assert link.state is state
    assert owner.seen == []
    network.advance(60)
    assert 2 <= len([moment for moment, *_ in network.dialled if moment <= first + 60]) <= 6
    assert any(words in text for text in logged.texts)
    assert any("no retry will cure this" in text for text in logged.texts) == (state is LinkState.REFUSED)
    assert no_traceback(logged)


def test_a_closed_port_is_retried_with_growing_waits_up_to_half_a_minute(make: Make, network: MemoryNetwork) -> None:
    network.down = True
    link = make()
    link.start()
    network.advance(200)
    moments = [moment for moment, *_ in network.dialled]
    waits = [round(b - a, 6) for a, b in pairwise(moments)]
    assert waits[:8] == [SETTLED + wait for wait in (0.5, 1, 2, 4, 8, 16, 30, 30)]
    assert link.state is LinkState.WAITING
    assert link.reason is not None
    assert "connection refused by localhost:5672" in link.reason.text


def test_a_swallowed_attempt_ends_in_time(make: Make, network: MemoryNetwork) -> None:
    network.swallow_next()
    link = make("amqp://localhost?connection_timeout=3000")
    link.start()
    states = []
    for seconds in (2.9, 0.2, 0.5):
        network.advance(seconds)
        states.append(link.state)
    assert states == [LinkState.CONNECTING, LinkState.WAITING, LinkState.READY]


def test_only_select_ok_resets_the_backoff(make: Make, network: MemoryNetwork) -> None:
    network.refuse_next(4)
    link = make()
    link.start()
    network.advance(7.6 + 4 * SETTLED)
    assert link.state is LinkState.READY
    network.peer.drop()
    network.advance(0.6)
    assert (link.state, link.attempts) == (LinkState.READY, 6)


def test_a_bad_password_is_not_hammered_because_the_transport_stood(make: Make, network: MemoryNetwork) -> None:
    network.broker.users.clear()
    make().start()
    network.advance(4)
    assert len(network.dialled) == 1


def test_the_next_broker_is_tried_at_once(make: Make, network: MemoryNetwork) -> None:
    network.refuse_next(1)
    link = make("amqp://one", "amqp://two")
    link.start()
    network.advance(SETTLED + 0.01)
    assert (link.state, link.url.host) == (LinkState.READY, "two")


def test_a_broker_that_refuses_does_not_stop_the_other(make: Make, network: MemoryNetwork) -> None:
    link = make("amqp://guest:wrong@one", "amqp://two")
    link.start()
    network.advance(0.01)
    assert (link.state, link.url.host) == (LinkState.READY, "two")


def test_the_log_never_shows_a_password(make: Make, network: MemoryNetwork, logged: Logged) -> None:
    link = make("amqp://guest:s3cr3t@one", "amqp://guest:s3cr3t@two")
    link.start()
    network.advance(100)
    assert link.state is LinkState.REFUSED
    assert "s3cr3t" not in " ".join(logged.texts) + repr(logged.events)


# Losing it


def test_a_forced_close_keeps_the_broker_s_words(ready: Link, network: MemoryNetwork, owner: Owner) -> None:
    peer = network.peer
    peer.close_connection(320, "CONNECTION_FORCED - the test")
    network.advance(0.01)
    assert owner.seen == ["ready", "lost CONNECTION_FORCED - the test"]
    assert owner.reasons[0].code == 320
    assert ready.state is LinkState.WAITING
    assert peer.phase.name == "CLOSED"
    network.advance(1)
    assert owner.seen[-1] == "ready"


def test_channels_are_told_before_the_owner(ready: Link, network: MemoryNetwork, owner: Owner) -> None:
    opened: list[Any] = []
    connection(ready).open_channel().addCallback(opened.append)
    network.flush()
    opened[0].add_on_close_callback(lambda *_: owner.seen.append("channel closed"))
    network.peer.drop()
    network.advance(0.01)
    assert owner.seen == ["ready", "channel closed", "lost localhost:5672 closed the connection without a reason"]


def test_a_mistake_in_a_channel_s_callback_does_not_stop_the_link(
    ready: Link, network: MemoryNetwork, logged: Logged
) -> None:
    opened: list[Any] = []
    connection(ready).open_channel().addCallback(opened.append)
    network.flush()
    opened[0].add_on_close_callback(lambda *_: 1 / 0)
    network.peer.drop()
    network.advance(1)
    assert ready.state is LinkState.READY
    assert any("ZeroDivisionError" in text and "please report" in text for text in logged.texts)
    assert no_traceback(logged)


@pytest.mark.parametrize("event", ["ready", "blocked", "unblocked", "flush", "lost"])
def test_a_mistake_of_the_owner_does_not_stop_the_link(
    event: str, make: Make, network: MemoryNetwork, owner: Owner, logged: Logged
) -> None:
    owner.on[event] = lambda: 1 / 0
    link = make()
    link.start()
    network.advance(0.1)
    network.peer.block("memory")
    network.peer.unblock()
    network.peer.drop()
    network.advance(1)
    assert (link.state, link.attempts) == (LinkState.READY, 2)
    assert any("ZeroDivisionError" in text for text in logged.texts)
    assert no_traceback(logged)


@pytest.mark.parametrize(
    "data",
    [
        b"garbage that is no frame, long enough",
        b"\x01\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff\xce",
        b"\x01\x00\x00\x00\x00\x00\x01\x00\xce",
        b"\x01\x00\x00\x00\x00\x00\x01\x00\x00",
        b"\x02\x00\x01\x00\x00\x00\x0e" + bytes(14) + b"\xce",
        b"\x01\x7f\xff\xff\xff\xff\xff" + bytes(300_000),
    ],
    ids=["text", "unknown method", "short method", "no frame end", "unknown class", "endless frame"],
)
def test_garbage_ends_the_connection_with_a_sentence(
    data: bytes, ready: Link, network: MemoryNetwork, owner: Owner, logged: Logged
) -> None:
    network.peer.garbage(data)
    network.advance(0.01)
    if ready.state is LinkState.READY:
        # The text reads as the head of a frame of a gigabyte; what follows shows that it is none.
        network.peer.garbage(bytes(300_000))
        network.advance(0.01)
    assert "localhost:5672 sent what is not AMQP" in owner.seen[1]
    assert no_traceback(logged)
    network.advance(1)
    assert ready.state is LinkState.READY


def test_a_missed_heartbeat_ends_the_connection_even_with_unsent_data(
    make: Make, network: MemoryNetwork, owner: Owner
) -> None:
    link = make("amqp://localhost?heartbeat=10")
    link.start()
    network.advance(0.1)
    network.peer.silence()
    network.peer.half_open()
    connection(link).write_frames(bytes(10_000_000))
    assert connection(link).paused
    network.advance(40)
    assert "heartbeat" in owner.seen[1].lower()
    assert link.attempts == 2
    network.factory.peers[0].violations.clear()


def test_giving_up_drops_the_connection_and_connects_again(ready: Link, network: MemoryNetwork, owner: Owner) -> None:
    ready.abort("no confirm for 30 s")
    assert (ready.state, ready.connection) == (LinkState.LEAVING, None)
    network.advance(0.01)
    assert owner.seen == ["ready", "lost no confirm for 30 s"]
    network.advance(1)
    assert ready.state is LinkState.READY


def test_giving_up_without_a_connection_is_harmless(make: Make, network: MemoryNetwork) -> None:
    link = make()
    link.abort("nothing")
    states = [link.state]
    network.down = True
    link.start()
    network.advance(SETTLED)
    link.abort("nothing")
    assert [*states, link.state] == [LinkState.IDLE, LinkState.WAITING]


# Blocked


def test_blocked_and_unblocked_are_states(ready: Link, network: MemoryNetwork, owner: Owner) -> None:
    network.peer.block("low on memory")
    network.flush()
    assert (ready.state, ready.blocked) == (LinkState.BLOCKED, "low on memory")
    assert ready.connection is not None
    network.peer.unblock()
    network.flush()
    assert (ready.state, ready.blocked) == (LinkState.READY, None)
    assert owner.seen == ["ready", "blocked low on memory", "unblocked"]


def test_a_connection_that_ends_is_blocked_no_longer(ready: Link, network: MemoryNetwork) -> None:
    network.peer.block("low on disk")
    network.flush()
    network.peer.drop()
    network.advance(1)
    assert (ready.state, ready.blocked) == (LinkState.READY, None)


# Channels, frames, back-pressure


def test_a_channel_is_pika_s_own(ready: Link, network: MemoryNetwork) -> None:
    opened: list[Any] = []
    connection(ready).open_channel().addCallback(opened.append)
    assert opened == []
    network.flush()
    assert opened[0].is_open
    assert network.peer.channels == [1, 2]


def test_a_channel_of_a_connection_that_ends_before_fails_with_the_reason(ready: Link, network: MemoryNetwork) -> None:
    network.peer.ignore.add("Channel.Open")
    opening = connection(ready).open_channel()
    network.flush()
    network.peer.close_connection(320, "CONNECTION_FORCED - x")
    network.advance(0.01)
    problem = failure_of(opening)
    assert isinstance(problem, LinkLost)
    assert (problem.reason.code, problem.reason.text) == (320, "CONNECTION_FORCED - x")


def test_after_the_end_there_are_no_channels_and_no_frames(ready: Link, network: MemoryNetwork) -> None:
    old = connection(ready)
    network.peer.drop()
    network.flush()
    assert isinstance(failure_of(old.open_channel()), LinkLost)
    with pytest.raises(LinkLost, match="closed the connection"):
        old.write_frames(b"x")


def test_more_channels_than_allowed_fail_in_words(make: Make, network: MemoryNetwork) -> None:
    link = make("amqp://localhost?channel_max=2")
    link.start()
    network.flush()
    assert connection(link).open_channel().called is False
    assert "channel_max of 2" in str(failure_of(connection(link).open_channel()))
    network.flush()


def test_a_cancelled_channel_is_closed_once_it_opens(ready: Link, network: MemoryNetwork) -> None:
    opening = connection(ready).open_channel()
    opening.cancel()
    failure_of(opening)
    network.flush()
    assert network.peer.channels == [1]


def test_frames_go_out_as_they_are_and_are_counted(ready: Link, network: MemoryNetwork) -> None:
    it = connection(ready)
    sent, before = it._impl.bytes_sent, network.peer.heartbeats
    it.write_frames(frames.Heartbeat().marshal() * 3)
    network.flush()
    assert it._impl.bytes_sent - sent == 24
    assert network.peer.heartbeats - before == 3


def test_nothing_is_written_once_the_broker_has_closed(make: Make, network: MemoryNetwork, owner: Owner) -> None:
    link = make()
    link.start()
    network.flush()
    it, caught = connection(link), []

    def write() -> None:
        try:
            it.write_frames(frames.Heartbeat().marshal())
        except LinkLost as problem:
            caught.append(problem.reason.code)

    network.peer.close_connection(320, "CONNECTION_FORCED - x")
    owner.on["flush"] = write
    network.flush()
    assert caught[0] == 320


def test_back_pressure_is_told_once_however_often_the_transport_repeats_it(
    ready: Link, network: MemoryNetwork, owner: Owner
) -> None:
    it = connection(ready)
    network.peer.half_open()
    beats = frames.Heartbeat().marshal() * 50_000
    for _ in range(5):
        it.write_frames(beats)
    assert it.paused
    network.peer.resume()
    network.flush()
    assert not it.paused
    assert owner.seen == ["ready", "resumed"]


def test_the_valve_is_a_push_producer_and_idempotent(ready: Link, owner: Owner) -> None:
    it = connection(ready)
    valve = _Valve(it)
    assert verifyObject(IPushProducer, valve)
    valve.resumeProducing()
    valve.pauseProducing()
    valve.pauseProducing()
    assert it.paused
    valve.resumeProducing()
    valve.resumeProducing()
    valve.stopProducing()
    assert owner.seen == ["ready", "resumed"]


def test_one_read_is_one_batch(ready: Link, network: MemoryNetwork, owner: Owner) -> None:
    del ready
    before = owner.flushes
    network.peer.garbage(frames.Heartbeat().marshal() * 2000)
    network.flush()
    assert owner.flushes - before == 1


# Stopping


def bring(name: str, link: Link, network: MemoryNetwork) -> None:
    """Bring a new link into a state."""
    match name:
        case "idle":
            return
        case "connecting":
            network.swallow_next()
        case "handshake":
            network.broker.ignore.add("ProtocolHeader")
        case "opening":
            network.broker.ignore.add("Confirm.Select")
        case "waiting":
            network.down = True
        case "refused":
            network.broker.users.clear()
    link.start()
    network.flush()
    match name:
        case "waiting":
            network.advance(SETTLED)
        case "blocked":
            network.peer.block("memory")
        case "leaving":
            link.abort("the test")
            assert link.state is LinkState.LEAVING
            return
        case "frozen":
            network.peer.half_open()
            network.peer.silence()
            connection(link).write_frames(bytes(1_000_000))
        case "unanswered":
            network.peer.silence()
        case "closing":
            network.peer.silence()
            link.stop()
        case "stopped":
            link.stop()
    network.flush()
    if name in {state.value for state in LinkState}:
        assert link.state.value == name


STATES = [state.value for state in LinkState] + ["frozen", "unanswered"]


@pytest.mark.parametrize("name", STATES)
def test_stop_always_ends_within_the_grace_from_every_state(
    name: str, make: Make, network: MemoryNetwork, owner: Owner
) -> None:
    link = make()
    bring(name, link, network)
    first, second = link.stop(), link.stop()
    network.advance(2.01)
    assert first.called
    assert second.called
    assert (link.state, link.connection) == (LinkState.STOPPED, None)
    dialled = len(network.dialled)
    network.advance(300)
    assert len(network.dialled) == dialled, "a stopped link connects no more"
    assert owner.seen.count("ready") == len(owner.reasons)
    assert network.getDelayedCalls() == []
    for peer in network.factory.peers:
        peer.violations.clear()


@pytest.mark.parametrize("name", [name for name in STATES if name != "closing"])
def test_start_leads_to_ready_from_every_state_it_is_taken_in(name: str, make: Make, network: MemoryNetwork) -> None:
    link = make()
    bring(name, link, network)
    link.start()
    network.down = False
    network.broker.ignore.clear()
    network.broker.users["guest"] = "guest"
    network.advance(60)
    assert link.state in (LinkState.READY, LinkState.BLOCKED)
    network.advance(200)
    for peer in network.factory.peers:
        peer.violations.clear()


@pytest.mark.parametrize("name", STATES)
def test_giving_up_is_taken_in_every_state(name: str, make: Make, network: MemoryNetwork) -> None:
    link = make()
    bring(name, link, network)
    link.abort("the test")
    network.advance(1)
    for peer in network.factory.peers:
        peer.violations.clear()


def test_a_close_is_graceful_where_the_broker_answers(ready: Link, network: MemoryNetwork) -> None:
    stopped = ready.stop()
    network.flush()
    assert stopped.called
    assert network.peer.closed_by.reply_code == 200
    assert network.getDelayedCalls() == []


def test_a_late_ready_does_not_revive_a_stopped_link(make: Make, network: MemoryNetwork, owner: Owner) -> None:
    link = make()
    bring("opening", link, network)
    stopped = link.stop()
    network.peer.select_ok(1) if network.peer.channels else None
    network.advance(3)
    assert stopped.called
    assert (owner.seen, link.attempts) == ([], 1)


def test_the_owner_may_stop_the_link_from_any_event(make: Make, network: MemoryNetwork, owner: Owner) -> None:
    link = make()
    owner.on["lost"] = link.stop
    link.start()
    network.flush()
    network.peer.drop()
    network.advance(10)
    assert (link.state, link.attempts) == (LinkState.STOPPED, 1)


def test_a_close_fires_for_everybody_and_also_after_the_end(ready: Link, network: MemoryNetwork) -> None:
    it = connection(ready)
    closes = [it.close_gracefully(0.5), it.close_gracefully(0.5)]
    cancelled = it.close_gracefully()
    cancelled.cancel()
    failure_of(cancelled)
    network.advance(0.6)
    assert all(close.called for close in [*closes, it.close_gracefully()])


def test_pika_s_own_words_stay_off_stderr(
    make: Make, network: MemoryNetwork, capfd: pytest.CaptureFixture[str]
) -> None:
    network.broker.mechanisms = "EXTERNAL"
    make().start()
    network.advance(1)
    assert capfd.readouterr().err == ""


def test_peers_are_what_the_tests_think(network: MemoryNetwork) -> None:
    assert isinstance(network.factory.buildProtocol(None), Peer)
