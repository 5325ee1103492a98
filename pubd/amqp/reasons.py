"""Why a connection ended or never came to be: the peer's own words, and whether a retry can cure it."""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING

import attrs
import pika.exceptions
from OpenSSL import SSL
from twisted.internet import error as net
from twisted.internet.defer import CancelledError

from pubd.errors import InvalidOption, LinkLost
from pubd.outcome import Cause, Reason

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from pubd.amqp.url import BrokerUrl


class Refusal(enum.Enum):
    """What kind of refusal it was; the value says what would cure it."""

    NONE = ""
    SILENT = "look at what listens there"
    CREDENTIALS = "correct the user name, password or auth_mechanism in the URL, or the user's rights in RabbitMQ"
    VHOST = "correct the vhost in the URL, or create it and give the user permissions"
    CERTIFICATE = "correct the certificates, cacertfile, or the host name in the URL"
    PEER = "correct the scheme, host or port in the URL"
    OPTION = "correct the URL or the file it names"

    @property
    def slow(self) -> bool:
        """Whether the next attempts are made slowly."""
        return self is not Refusal.NONE

    @property
    def lasting(self) -> bool:
        """Whether no retry will cure it."""
        return self not in (Refusal.NONE, Refusal.SILENT)


@attrs.frozen(kw_only=True)
class Verdict:
    """An end, in the words of who caused it, and what to make of it."""

    reason: Reason
    refusal: Refusal = Refusal.NONE

    @classmethod
    def lost(cls, text: str, code: int | None = None) -> Verdict:
        """An end that a retry may cure."""
        return cls(reason=Reason(cause=Cause.LOST, text=text, code=code))

    @classmethod
    def refused(cls, refusal: Refusal, text: str, code: int | None = None) -> Verdict:
        """An end that comes again as long as nobody changes anything."""
        return cls(reason=Reason(cause=Cause.REFUSED, text=text, code=code), refusal=refusal)


class CertificateRefused(Exception):
    """The broker's certificate does not hold; the sentence is OpenSSL's, or says whose certificate it is."""


# https://www.rabbitmq.com/docs/amqp-0-9-1-reference#constants, as RabbitMQ uses them before Connection.OpenOk.
_REFUSED_CODES = {
    402: Refusal.VHOST,
    403: Refusal.CREDENTIALS,
    530: Refusal.VHOST,
    501: Refusal.PEER,
    503: Refusal.PEER,
    504: Refusal.PEER,
    505: Refusal.PEER,
}

_PLAINTEXT = ("wrong version number", "packet length too long", "http request", "unknown protocol", "bad record type")

_HEADER = b"AMQP"
_TLS_ALERT = b"\x15\x03"


def exception_of(failure: Failure) -> BaseException:
    """What failed; Twisted's types allow a Failure without one."""
    return failure.value if failure.value is not None else RuntimeError("no reason given")


def closed_by_broker(code: int, text: str, *, opened: bool) -> Verdict:
    """What a Connection.Close says; only before the connection was opened it is a refusal."""
    refusal = Refusal.NONE if opened else _REFUSED_CODES.get(code, Refusal.NONE)
    return Verdict.refused(refusal, text, code) if refusal.slow else Verdict.lost(text, code)


def foreign_greeting(head: bytes, peer: str, *, tls: bool) -> Verdict | None:
    """What to make of the first bytes (up to 8) of a peer: None while they may be the beginning of AMQP 0-9-1."""
    if head.startswith(_HEADER):
        if len(head) < 8:
            return None
        offered = "-".join(str(number) for number in head[4:8])
        return Verdict.refused(Refusal.PEER, f"{peer} does not speak AMQP 0-9-1: it answered with the header {offered}")
    if _HEADER.startswith(head):
        return None
    # Connection.Start: a method frame (1) on channel 0, of a size that nobody exceeds with server properties.
    start = head[:1] == b"\x01" and not any(head[1:3]) and not any(head[3:4])
    if start:
        return None
    if head.startswith(_TLS_ALERT) and not tls:
        return Verdict.refused(Refusal.PEER, f"{peer} speaks TLS: use amqps:// for this port")
    shown = head.decode("ascii", "backslashreplace")
    return Verdict.refused(Refusal.PEER, f"{peer} is not an AMQP broker: it answered {shown!r}")


def garbage(problem: BaseException, peer: str) -> Verdict:
    """What to make of bytes that are no AMQP frames."""
    return Verdict.lost(f"{peer} sent what is not AMQP: {_sentence(problem)}", 501)


def no_handshake(peer: str, seconds: float, *, protocol: str) -> Verdict:
    """The peer accepted the connection and then said nothing, or not enough."""
    return Verdict.refused(Refusal.SILENT, f"no {protocol} handshake from {peer} within {seconds:g} s")


def of_exception(problem: BaseException, url: BrokerUrl, *, opened: bool) -> Verdict:
    """Translate whatever pika, Twisted or OpenSSL gave as the end of a connection or of an attempt."""
    peer = url.peer
    match problem:
        case LinkLost():
            return Verdict(reason=problem.reason)
        case InvalidOption():
            return Verdict.refused(Refusal.OPTION, str(problem))
        case CertificateRefused():
            return Verdict.refused(Refusal.CERTIFICATE, str(problem))
        case SSL.Error():
            return _of_tls(problem, peer, opened=opened)
        case pika.exceptions.AMQPError():
            return _of_pika(problem, url, opened=opened)
    return _of_transport(problem, url, opened=opened)


def of_channel(problem: BaseException) -> Reason:
    """Why a channel closed, from what pika gives to its close callbacks."""
    match problem:
        case LinkLost():
            return problem.reason
        case pika.exceptions.ChannelClosed():
            return Reason(cause=Cause.LOST, text=str(problem.reply_text), code=problem.reply_code)
        case pika.exceptions.ConnectionClosed():
            return Reason(cause=Cause.LOST, text=str(problem.reply_text), code=problem.reply_code)
    return Reason(cause=Cause.LOST, text=_sentence(problem))


def _of_pika(problem: pika.exceptions.AMQPError, url: BrokerUrl, *, opened: bool) -> Verdict:
    match problem:
        case pika.exceptions.ConnectionClosedByBroker():
            return closed_by_broker(problem.reply_code, str(problem.reply_text), opened=opened)
        case pika.exceptions.ConnectionClosedByClient():
            return Verdict.lost(f"closed by pubd: {problem.reply_text}", problem.reply_code)
        case pika.exceptions.AMQPHeartbeatTimeout() | pika.exceptions.ConnectionBlockedTimeout():
            return Verdict.lost(_sentence(problem))
        case pika.exceptions.AuthenticationError():
            name = url.authentication.value.upper()
            hint = " (plugin rabbitmq_auth_mechanism_ssl and auth_mechanisms)" if name == "EXTERNAL" else ""
            return Verdict.refused(
                Refusal.CREDENTIALS, f"{url.peer} does not offer {name} authentication: enable it in RabbitMQ{hint}"
            )
        case pika.exceptions.ProtocolVersionMismatch() | pika.exceptions.IncompatibleProtocolError():
            return Verdict.refused(Refusal.PEER, f"{url.peer} does not speak AMQP 0-9-1")
    return Verdict.lost(_sentence(problem))


def _of_tls(problem: SSL.Error, peer: str, *, opened: bool) -> Verdict:
    words = [str(entry[-1]) for entry in problem.args[0]] if problem.args and isinstance(problem.args[0], list) else []
    said = ", ".join(word for word in words if word) or _sentence(problem)
    if opened:
        return Verdict.lost(f"TLS: {said}")
    if any(sign in said for sign in _PLAINTEXT):
        return Verdict.refused(
            Refusal.PEER,
            f"{peer} does not speak TLS ({said}): use its TLS port, usually 5671, or amqp:// if plaintext will do",
        )
    if "alert" in said:
        hint = ""
        if any(sign in said for sign in ("certificate", "unknown ca")):
            hint = ": give it a certificate it trusts (certfile and keyfile)"
        return Verdict.refused(Refusal.CERTIFICATE, f"{peer} refused the TLS handshake ({said}){hint}")
    return Verdict.refused(Refusal.CERTIFICATE, f"TLS with {peer} failed: {said}")


def _of_transport(problem: BaseException, url: BrokerUrl, *, opened: bool) -> Verdict:
    peer = url.peer
    match problem:
        case net.DNSLookupError():
            return Verdict.lost(f"no address found for host {url.host!r}")
        case net.ConnectionRefusedError():
            return Verdict.lost(f"connection refused by {peer}")
        case net.TimeoutError():
            return Verdict.lost(f"no connection to {peer} in time")
        case net.ConnectionAborted() | CancelledError():
            return Verdict.lost(f"connection to {peer} aborted")
        case net.ConnectionDone() | net.ConnectionLost() if not opened:
            # A proxy without a backend does that too, so a retry may cure it; but not one retry after the other.
            during = "TLS or AMQP" if url.tls else "AMQP"
            return Verdict.refused(
                Refusal.SILENT, f"{peer} closed the connection during the {during} handshake without a reason"
            )
        case net.ConnectionDone():
            return Verdict.lost(f"{peer} closed the connection without a reason")
        case net.ConnectionLost():
            return Verdict.lost(f"connection to {peer} lost: {_system(problem) or 'not closed in a clean way'}")
        case net.ConnectError():
            return Verdict.lost(f"cannot connect to {peer}: {_system(problem) or _sentence(problem)}")
    return Verdict.lost(f"{peer}: {_sentence(problem)}")


def _system(problem: BaseException) -> str | None:
    """What the operating system said, if it was it."""
    number = getattr(problem, "osError", None)
    if isinstance(number, int):
        return os.strerror(number)
    text = " ".join(str(argument) for argument in problem.args)
    return text or None


def _sentence(problem: BaseException) -> str:
    """One line for an exception of somebody else: its text, or its name where it has none."""
    text = " ".join(str(argument) for argument in problem.args if isinstance(argument, str | int)).strip()
    name = type(problem).__name__
    return f"{name}: {text}" if text else name
