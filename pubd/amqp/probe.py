"""Asking a broker, once, whether pubd could publish there; nothing is declared that is not there, and no message sent.

Whether an exchange may be written to is found with a message that no RabbitMQ takes. basic.publish is checked in this
order (rabbit_channel, 3.x and 4.x): write permission, the exchange, topic permission, then ``user_id`` and
``expiration`` of the message. So 406 about the latter says that all of the former were well, and nothing was routed.
"""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Any

import attrs
from pika.spec import BasicProperties
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.protocol import Factory

from pubd.amqp.encode import thaw
from pubd.amqp.protocol import LinkProtocol
from pubd.amqp.reasons import Verdict, of_channel, of_exception
from pubd.amqp.tls import endpoint
from pubd.amqp.topology import Binding, Exchange, Queue
from pubd.errors import LinkLost
from pubd.outcome import Cause, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from twisted.internet.interfaces import IAddress

    from pubd.amqp.topology import Declaration, Topology
    from pubd.amqp.url import BrokerUrl

#: A key that nobody has a use for, where none is known; a user and an expiration that no RabbitMQ takes.
KEY, NOBODY, NEVER = "pubd.check", "pubd-check: nobody", "never"
_NOT_FOUND, _REFUSED, _LOCKED, _UNFIT = 404, 403, 405, 406
_PERMISSIONS = "rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ"


class Result(enum.Enum):
    """Of one check."""

    OK = "ok"
    FAIL = "fail"
    UNTESTED = "untested"


@attrs.frozen(kw_only=True)
class Finding:
    """``what`` was looked at, in what ``detail`` it is well or not, and the ``fix``, where there is one."""

    what: str
    result: Result
    detail: str = ""
    fix: str = ""


def ok(what: str, detail: str = "") -> Finding:
    """All is well."""
    return Finding(what=what, result=Result.OK, detail=detail)


def fail(what: str, detail: str, fix: str) -> Finding:
    """It is not."""
    return Finding(what=what, result=Result.FAIL, detail=detail, fix=fix)


def untested(what: str, detail: str) -> Finding:
    """Nobody knows, and why."""
    return Finding(what=what, result=Result.UNTESTED, detail=detail)


class _Attempt(Factory):
    """One connection, and what it tells: a Deferred for its opening."""

    noisy = False

    def __init__(self, reactor: Any, url: BrokerUrl, name: str, timeout: float) -> None:
        self.opened: Deferred[LinkProtocol] = Deferred()
        self._make = lambda: LinkProtocol(
            reactor=reactor,
            url=url,
            connection_name=name,
            events=self,
            handshake_timeout=timeout,
            close_grace=2.0,
        )

    def buildProtocol(self, addr: IAddress | None) -> LinkProtocol:
        """See Factory."""
        del addr
        return self._make()

    def connection_made(self, connection: LinkProtocol) -> None:
        """See ConnectionEvents, as the following."""

    def connection_opened(self, connection: LinkProtocol) -> None:
        connection.established()
        self.opened.callback(connection)

    def connection_blocked(self, connection: LinkProtocol, text: str) -> None: ...

    def connection_unblocked(self, connection: LinkProtocol) -> None: ...

    def connection_resumed(self, connection: LinkProtocol) -> None: ...

    def connection_flush(self, connection: LinkProtocol) -> None: ...

    def connection_ended(self, connection: LinkProtocol, verdict: Verdict) -> None:
        del connection
        if not self.opened.called:
            self.opened.errback(_Ended(verdict))


class _Ended(Exception):
    """The connection did not come to be."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict.reason))
        self.verdict = verdict


async def probe(
    reactor: Any,
    url: BrokerUrl,
    *,
    name: str,
    timeout: float,
    exchanges: Mapping[str, str],
    topology: Topology | None,
    tell: Callable[[Finding], None],
) -> bool:
    """Whether the broker could be reached; what was found is told as it is found.

    ``exchanges`` are those to be published to, each with a routing key (empty: none is known). ``topology`` None: look
    no further than the connection. ``timeout`` (seconds) is for each answer.
    """
    # What it logs is told as a finding.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
    what = f"broker {url}"
    attempt = _Attempt(reactor, url, name, timeout)
    try:
        await endpoint(reactor, url, timeout).connect(attempt)
        connection = await attempt.opened
    except _Ended as ended:
        tell(_not_connected(what, ended.verdict))
        return False
    except Exception as error:
        tell(_not_connected(what, of_exception(error, url, opened=False)))
        return False
    product = str(connection.server_properties.get("product", "an unknown broker"))
    version = str(connection.server_properties.get("version", ""))
    tell(ok(what, f"{product} {version}, {connection.node}, virtual host {url.vhost!r}".strip()))
    if topology is not None:
        asking = _Asking(connection, reactor, timeout)
        try:
            missing = await _declared(asking, topology, tell)
            await _published(asking, exchanges, missing, product, tell)
        except LinkLost as lost:
            tell(
                fail(
                    what,
                    f"the connection was lost in the middle: {_said(lost.reason)}",
                    "see RabbitMQ's log, and try again",
                )
            )
        except TimeoutError:
            tell(
                fail(
                    what,
                    f"no answer within {timeout:g} s",
                    "see whether RabbitMQ is well: 'rabbitmq-diagnostics status'",
                )
            )
    await connection.close_gracefully()
    return True


def _not_connected(what: str, verdict: Verdict) -> Finding:
    fix = verdict.refusal.value or "start RabbitMQ, or correct [broker] urls"
    return fail(what, _said(verdict.reason), fix)


class _Asking:
    """Questions that RabbitMQ answers, or closes the channel for; each has one of its own."""

    def __init__(self, connection: LinkProtocol, reactor: Any, timeout: float) -> None:
        self._connection = connection
        self._reactor = reactor
        self._timeout = timeout

    async def ask(self, question: Callable[[Any, Callable[[Any], None]], None]) -> Reason | None:
        """``question`` gets a channel and what to call with the answer; RabbitMQ's reason if it closed the channel.

        Raises LinkLost and TimeoutError.
        """
        channel = await self._within(self._connection.open_channel())
        answered: Deferred[Reason | None] = Deferred()

        def closed(_: Any, problem: Exception) -> None:
            if not answered.called:
                answered.callback(of_channel(problem))

        channel.add_on_close_callback(closed)
        question(channel, lambda _: None if answered.called else answered.callback(None))
        reason: Reason | None = await self._within(answered)
        if not self._connection.usable:
            raise LinkLost(self._connection.reason or reason or Reason(cause=Cause.LOST, text="the connection ended"))
        if reason is None:
            channel.close()
        return reason

    def _within(self, answer: Deferred[Any]) -> Awaitable[Any]:
        return answer.addTimeout(self._timeout, self._reactor)


def _declaring(declaration: Declaration, *, passive: bool) -> Callable[[Any, Callable[[Any], None]], None]:
    def ask(channel: Any, answered: Callable[[Any], None]) -> None:
        if isinstance(declaration, Exchange):
            channel.exchange_declare(
                exchange=declaration.name,
                exchange_type=declaration.type,
                passive=passive,
                durable=declaration.durable,
                auto_delete=declaration.auto_delete,
                internal=declaration.internal,
                arguments=thaw(declaration.arguments),
                callback=answered,
            )
        elif isinstance(declaration, Queue):
            channel.queue_declare(
                queue=declaration.name,
                passive=passive,
                durable=declaration.durable,
                exclusive=declaration.exclusive,
                auto_delete=declaration.auto_delete,
                arguments=thaw(declaration.arguments),
                callback=answered,
            )

    return ask


async def _declared(asking: _Asking, topology: Topology, tell: Callable[[Finding], None]) -> frozenset[str]:
    """Exchanges that are not there yet, and that pubd will declare."""
    missing = set()
    bindings = 0
    for declaration in topology:
        if isinstance(declaration, Binding):
            bindings += 1
            continue
        what = str(declaration)
        reason = await asking.ask(_declaring(declaration, passive=True))
        if reason is None and not declaration.passive:
            # It is there: to declare it again changes nothing, and tells whether it is the same.
            reason = await asking.ask(_declaring(declaration, passive=False))
        if reason is None:
            tell(ok(what, "it is there" + ("" if declaration.passive else ", as pubd.toml has it")))
        elif reason.code == _NOT_FOUND and not declaration.passive:
            if isinstance(declaration, Exchange):
                missing.add(declaration.name)
            tell(untested(what, "it is not there yet; pubd declares it, if it has the permission to configure it"))
        elif reason.code == _LOCKED:
            tell(untested(what, "it is there, and exclusive to another connection, which may be the running pubd's"))
        else:
            tell(fail(what, _said(reason), _for_declaration(reason)))
    if bindings:
        tell(untested(f"{bindings} binding(s)", "RabbitMQ has no way to look at one; pubd declares them"))
    return frozenset(missing)


def _said(reason: Reason) -> str:
    """RabbitMQ's words."""
    return reason.text if reason.code is None else f"{reason.code} {reason.text}"


def _for_declaration(reason: Reason) -> str:
    if reason.code == _UNFIT:
        return "make pubd.toml say what RabbitMQ has, or delete it there"
    if reason.code == _REFUSED:
        return f"give pubd's user the permission: '{_PERMISSIONS}'"
    if reason.code == _NOT_FOUND:
        return "make it on RabbitMQ, or leave out passive = true"
    return "look at what RabbitMQ says"


async def _published(
    asking: _Asking,
    exchanges: Mapping[str, str],
    missing: frozenset[str],
    product: str,
    tell: Callable[[Finding], None],
) -> None:
    if exchanges and product != "RabbitMQ":
        # Another broker may take the message.
        tell(
            untested("permission to publish", f"how to find out without a message is known of RabbitMQ, not {product}")
        )
        return
    for exchange, key in exchanges.items():
        what = f"publishing to {exchange or 'amq.default'}"
        if exchange in missing:
            tell(untested(what, "the exchange is not there yet"))
            continue
        tell(_found_of(what, key, await asking.ask(_publishing(exchange, key or KEY))))


def _publishing(exchange: str, key: str) -> Callable[[Any, Callable[[Any], None]], None]:
    def ask(channel: Any, answered: Callable[[Any], None]) -> None:
        properties = BasicProperties(user_id=NOBODY, expiration=NEVER)
        channel.basic_publish(exchange, key, b"", properties, mandatory=True)
        # Only if RabbitMQ took it: it answers in order.
        channel.basic_qos(prefetch_count=1, callback=answered)

    return ask


def _found_of(what: str, key: str, reason: Reason | None) -> Finding:
    if reason is not None and reason.code == _UNFIT:
        return ok(what, "permitted" + (f", with key {key!r}" if key else ""))
    if reason is None:
        return untested(what, "RabbitMQ took a message that it should not have taken (key pubd.check, no body)")
    if reason.code == _REFUSED and "topic" in reason.text and not key:
        return untested(what, f"there are topic permissions, and none for {KEY!r}: it depends on the routing key")
    if reason.code == _REFUSED:
        return fail(what, _said(reason), f"give pubd's user the permission to write: '{_PERMISSIONS}'")
    if reason.code == _NOT_FOUND:
        return fail(what, _said(reason), "declare the exchange, on RabbitMQ or as [[exchange]] in pubd.toml")
    return fail(what, _said(reason), "look at what RabbitMQ says")
