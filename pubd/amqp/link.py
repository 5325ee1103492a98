"""The link: one connection to one of several brokers, made again whenever it ends, until it is stopped."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from pika.exceptions import AMQPError
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from pubd.amqp import tls
from pubd.amqp.factory import EndpointConnector, LinkFactory
from pubd.amqp.lifecycle import LinkAction, LinkInput, LinkState, step
from pubd.amqp.protocol import LinkProtocol
from pubd.amqp.reasons import Refusal, Verdict, of_channel
from pubd.amqp.rota import Rota
from pubd.errors import LinkLost
from pubd.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pika.channel import Channel
    from twisted.internet.interfaces import IStreamClientEndpoint

    from pubd.amqp.url import BrokerUrl
    from pubd.outcome import Reason

    Connect = Callable[[Any, BrokerUrl, float], IStreamClientEndpoint]

#: Both keep to six attempts in the first minute.
BACKOFF = Backoff(first=0.5, factor=2, max=30, jitter=0.1)
REFUSAL_BACKOFF = Backoff(first=5, factor=2, max=30, jitter=0.1)


class LinkEvents(Protocol):
    """What a link tells its owner. An exception in one of these is logged and goes no further."""

    def link_ready(self, connection: LinkProtocol) -> None:
        """Publishing with confirms is possible on ``connection`` from now on."""

    def link_lost(self, reason: Reason) -> None:
        """The connection of the last ``link_ready`` is gone; its channels have been told by pika before."""

    def link_blocked(self, text: str) -> None:
        """RabbitMQ takes no messages for now, for the reason in ``text``."""

    def link_unblocked(self) -> None:
        """RabbitMQ takes messages again."""

    def link_resumed(self) -> None:
        """The transport, which was ``paused``, has sent all it had: write again."""

    def link_flush(self) -> None:
        """Everything that one read brought has been told: end of a batch."""


class Link:
    """Keeps a connection to one of ``urls``, tried in turn.

    ``random`` returns numbers in [0, 1). ``handshake_timeout`` (seconds, from TCP to SelectOk) is superseded by a
    URL's ``connection_timeout``. Raises :class:`pubd.errors.InvalidOption` if a file named in a URL cannot be used.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        urls: Sequence[BrokerUrl],
        events: LinkEvents,
        connection_name: str,
        random: Callable[[], float],
        backoff: Backoff = BACKOFF,
        refusal_backoff: Backoff = REFUSAL_BACKOFF,
        handshake_timeout: float = 10.0,
        close_grace: float = 2.0,
        connect: Connect = tls.endpoint,
    ) -> None:
        for url in urls:
            tls.check_files(url)
        self.connection_name = connection_name
        self.attempts = 0
        """Attempts to connect so far, the one that succeeded included."""
        self.reason: Reason | None = None
        """Why the last connection ended or the last attempt failed; kept while the link is ready."""
        self.blocked: str | None = None
        """Why RabbitMQ blocks the connection, if it does."""
        self._reactor = reactor
        self._events = events
        self._rota = Rota(urls, backoff=backoff, refusal_backoff=refusal_backoff, random=random)
        self._handshake_timeout = handshake_timeout
        self._close_grace = close_grace
        self._connect = connect
        self._state = LinkState.IDLE
        self._connection: LinkProtocol | None = None
        self._told_ready = False
        self._delay = 0.0
        self._why = ""
        self._inputs: deque[LinkInput] = deque()
        self._stepping = False
        self._stop_waiters: list[Deferred[None]] = []
        self._factory = LinkFactory(self, reactor)
        self._connector = EndpointConnector(self._factory, self._endpoint)
        self._actions: dict[LinkAction, Callable[[], None]] = {
            LinkAction.CONNECT: self._start_attempt,
            LinkAction.OPEN_CONTROL: self._open_control,
            LinkAction.RESET_BACKOFF: self._reset_backoff,
            LinkAction.TELL_READY: self._tell_ready,
            LinkAction.TELL_BLOCKED: self._tell_blocked,
            LinkAction.TELL_UNBLOCKED: self._tell_unblocked,
            LinkAction.TELL_LOST: self._tell_lost,
            LinkAction.SCHEDULE_RETRY: lambda: self._factory.retry(self._connector),
            LinkAction.CANCEL_RETRY: self._factory.stopTrying,
            LinkAction.CANCEL_CONNECT: self._factory.stopTrying,
            LinkAction.ABORT: self._abort_connection,
            LinkAction.CLOSE: self._close_connection,
            LinkAction.TELL_STOPPED: self._tell_stopped,
        }

    @property
    def state(self) -> LinkState:
        """Where the link stands in its life cycle."""
        return self._state

    @property
    def url(self) -> BrokerUrl:
        """The broker in use, or the one tried next."""
        return self._rota.url

    @property
    def connection(self) -> LinkProtocol | None:
        """The connection to publish on, if there is one: while READY or BLOCKED, and not ending."""
        ready = self._state in (LinkState.READY, LinkState.BLOCKED)
        return self._connection if ready and self._connection is not None and self._connection.usable else None

    def start(self) -> None:
        """Begin to connect; harmless when it has begun."""
        self.step(LinkInput.START)

    def stop(self) -> Deferred[None]:
        """Close the connection, gracefully if it lets itself, and stay away; always fires, within the grace."""
        if self._state is LinkState.STOPPED:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._forget_waiter)
        self._stop_waiters.append(waiter)
        self.step(LinkInput.STOP)
        return waiter

    def abort(self, why: str) -> None:
        """Give the connection up now, because of ``why``, and connect again; nothing where there is none."""
        self._why = why
        self.step(LinkInput.GIVE_UP)

    def retry_now(self) -> None:
        """Connect at once, if the next attempt is being waited for."""
        self._factory.retry_now()

    def step(self, event: LinkInput) -> None:
        """Take one input of the life cycle; for the factory and the connection, owners have start, stop and abort.

        An input that comes up during an action waits until the actions of its predecessor are done.
        """
        self._inputs.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._inputs:
                self._state, actions = step(self._state, self._inputs.popleft())
                for action in actions:
                    self._actions[action]()
        finally:
            self._stepping = False

    # What the factory and its connections tell

    def build(self) -> LinkProtocol:
        """A connection to the broker whose turn it is."""
        return LinkProtocol(
            reactor=self._reactor,
            url=self.url,
            connection_name=self.connection_name,
            events=self._factory,
            handshake_timeout=self._timeout,
            close_grace=self._close_grace,
        )

    def made(self, connection: LinkProtocol) -> None:
        """The transport stands."""
        self._connection = connection
        self.step(LinkInput.CONNECTED)

    def heard(self, connection: LinkProtocol, event: LinkInput, text: str | None = None) -> None:
        """The broker opened, blocked or unblocked the connection."""
        if connection is self._connection:
            self.blocked = text
            self.step(event)

    def ended(self, verdict: Verdict) -> None:
        """The attempt failed, or the connection is gone."""
        self._connection, self.blocked = None, None
        self.reason = verdict.reason
        if self._state in (LinkState.CLOSING, LinkState.STOPPED):
            self.step(LinkInput.FAILED)
            return
        peer, refusal = self.url.peer, verdict.refusal
        self._delay = self._rota.failed(self._reactor.seconds(), slow=refusal.slow, lasting=refusal.lasting)
        self._log_end(peer, verdict)
        self.step(LinkInput.REFUSED if self._rota.all_refused else LinkInput.FAILED)

    def tell(self, event: Callable[..., None], *arguments: Any) -> None:
        """Call the owner, whose mistakes must not cost the connection."""
        try:
            event(*arguments)
        except Exception as problem:
            name = getattr(event, "__name__", "callback")
            self._log.error("mistake in {name}: {problem!r}; please report it", name=name, problem=problem)
            self._log.debug("{traceback}", traceback=Failure().getTraceback())

    @property
    def told_ready(self) -> bool:
        """Whether the owner knows of the present connection."""
        return self._told_ready

    @property
    def events(self) -> LinkEvents:
        """The owner."""
        return self._events

    def hand_over(self, events: LinkEvents) -> None:
        """Somebody else is the owner from now on."""
        self._events = events

    @property
    def next_delay(self) -> float:
        """Seconds until the next attempt, as decided when the last one failed."""
        return self._delay

    # Actions

    @property
    def _timeout(self) -> float:
        return self.url.connection_timeout or self._handshake_timeout

    def _endpoint(self) -> IStreamClientEndpoint:
        return self._connect(self._reactor, self.url, self._timeout)

    def _start_attempt(self) -> None:
        self.attempts += 1
        self._factory.continueTrying = 1
        self._log.debug("connecting to {url}", url=str(self.url))
        self._connector.connect()

    def _open_control(self) -> None:
        connection = self._connection
        if connection is None:
            return

        def select(channel: Channel) -> None:
            channel.add_on_close_callback(closed)
            channel.confirm_delivery(lambda _: None, callback=lambda _: self.heard(connection, LinkInput.SELECTED))

        def closed(_: Channel, problem: Exception) -> None:
            if self._state is LinkState.OPENING:
                connection.abort(f"control channel closed: {of_channel(problem).text}")

        def failed(failure: Failure) -> None:
            if failure.check(LinkLost):
                connection.abort(f"control channel not opened: {failure.value}")
            elif failure.check(AMQPError):
                text = f"{connection.url.peer} does not offer publisher confirms"
                connection.give_up(Verdict.refused(Refusal.PEER, text))
            else:
                connection.abort(f"control channel not opened: {failure.value!r}")

        connection.open_channel().addCallback(select).addErrback(failed)

    def _reset_backoff(self) -> None:
        if self._connection is not None:
            self._connection.established()
        self._rota.succeeded(self._reactor.seconds())
        self._factory.resetDelay()

    def _tell_ready(self) -> None:
        connection = self._connection
        if connection is None:
            return
        about = connection.server_properties
        self._log.info(
            "connected to {peer} ({product} {version}, {cluster}), vhost {vhost}",
            peer=connection.url.peer,
            product=_text(about.get("product", "AMQP broker")),
            version=_text(about.get("version", "of unknown version")),
            cluster=_text(about.get("cluster_name", "no cluster name")),
            vhost=connection.url.vhost,
        )
        self._told_ready = True
        self.tell(self._events.link_ready, connection)

    def _tell_blocked(self) -> None:
        self._log.warn("{peer} blocked the connection: {text}", peer=self.url.peer, text=self.blocked)
        self.tell(self._events.link_blocked, self.blocked or "")

    def _tell_unblocked(self) -> None:
        self._log.info("{peer} unblocked the connection", peer=self.url.peer)
        self.tell(self._events.link_unblocked)

    def _tell_lost(self) -> None:
        if self._told_ready and self.reason is not None:
            self._told_ready = False
            self.tell(self._events.link_lost, self.reason)

    def _abort_connection(self) -> None:
        if self._connection is not None:
            self._connection.abort(self._why)

    def _close_connection(self) -> None:
        self._factory.stopTrying()
        if self._connection is not None:
            self._connection.close_gracefully()

    def _tell_stopped(self) -> None:
        self._log.debug("link stopped")
        waiters, self._stop_waiters = self._stop_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _forget_waiter(self, waiter: Deferred[None]) -> None:
        if waiter in self._stop_waiters:
            self._stop_waiters.remove(waiter)

    def _log_end(self, peer: str, verdict: Verdict) -> None:
        again = f"retrying in {self._delay:.1f} s" if self.url.peer == peer else f"trying {self.url.peer}"
        if self.url.peer != peer and self._delay > 0:
            again += f" in {self._delay:.1f} s"
        if verdict.refusal.lasting:
            self._log.error(
                "{peer}: {reason}; no retry will cure this: {cure}; {again}",
                peer=peer,
                reason=str(verdict.reason),
                cure=verdict.refusal.value,
                again=again,
            )
            return
        text = _said(verdict.reason)
        about = "connection to {peer} lost: " if self._told_ready else "{peer}: "
        self._log.emit(
            LogLevel.warn,
            # A text of our own names the peer, RabbitMQ's words do not.
            ("" if peer in text else about) + "{text}; {again}",
            peer=peer,
            text=text,
            again=again,
        )


def _said(reason: Reason) -> str:
    return reason.text if reason.code is None else f"{reason.code} {reason.text}"


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
