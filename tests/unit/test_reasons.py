"""Ends of connections in words, and what a retry can do about them."""

from __future__ import annotations

import pika.exceptions
import pytest
from OpenSSL import SSL
from twisted.internet import error as net
from twisted.internet.defer import CancelledError

from pubd.amqp.reasons import (
    CertificateRefused,
    Refusal,
    closed_by_broker,
    foreign_greeting,
    garbage,
    no_handshake,
    of_channel,
    of_exception,
)
from pubd.amqp.url import BrokerUrl
from pubd.errors import InvalidOption, LinkLost
from pubd.outcome import Cause, Reason

URL = BrokerUrl.parse("amqp://user:s3cr3t@broker.example:1234")
EXTERNAL = BrokerUrl.parse("amqps://broker.example:1234?auth_mechanism=external&certfile=/c&keyfile=/k")


def tls(*words: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", word) for word in words])


@pytest.mark.parametrize(
    ("problem", "text", "refusal"),
    [
        (net.ConnectionRefusedError(), "connection refused by broker.example:1234", Refusal.NONE),
        (net.DNSLookupError("x"), "no address found for host 'broker.example'", Refusal.NONE),
        (net.TimeoutError(), "no connection to broker.example:1234 in time", Refusal.NONE),
        (net.ConnectError(113, "x"), "cannot connect to broker.example:1234: No route to host", Refusal.NONE),
        (net.ConnectionDone(), "closed the connection during the AMQP handshake", Refusal.SILENT),
        (net.ConnectionLost(), "closed the connection during the AMQP handshake", Refusal.SILENT),
        (net.ConnectionAborted(), "aborted", Refusal.NONE),
        (CancelledError(), "aborted", Refusal.NONE),
        (InvalidOption("keyfile: no"), "keyfile: no", Refusal.OPTION),
        (CertificateRefused("certificate verify failed: x"), "certificate verify failed: x", Refusal.CERTIFICATE),
        (tls("wrong version number"), "does not speak TLS (wrong version number): use", Refusal.PEER),
        (tls("tlsv13 alert certificate required"), "(tlsv13 alert certificate required): give it", Refusal.CERTIFICATE),
        (tls("tlsv1 alert protocol version"), "refused the TLS handshake (tlsv1 alert prot", Refusal.CERTIFICATE),
        (tls("no ciphers available"), "TLS with broker.example:1234 failed: no ciphers", Refusal.CERTIFICATE),
        (SSL.Error(), "TLS with broker.example:1234 failed: Error", Refusal.CERTIFICATE),
        (pika.exceptions.AuthenticationError("PLAIN"), "does not offer PLAIN authentication", Refusal.CREDENTIALS),
        (pika.exceptions.ProtocolVersionMismatch(1, 2), "does not speak AMQP 0-9-1", Refusal.PEER),
        (pika.exceptions.AMQPHeartbeatTimeout("No activity"), "AMQPHeartbeatTimeout: No activity", Refusal.NONE),
        (pika.exceptions.NoFreeChannels(), "NoFreeChannels", Refusal.NONE),
        (RuntimeError("boom", 3, object()), "RuntimeError: boom 3", Refusal.NONE),
        (LinkLost(Reason(cause=Cause.LOST, text="gone")), "gone", Refusal.NONE),
    ],
)
def test_an_end_during_the_handshake(problem: BaseException, text: str, refusal: Refusal) -> None:
    verdict = of_exception(problem, URL, opened=False)
    assert text in verdict.reason.text
    assert "<" not in verdict.reason.text
    assert verdict.refusal is refusal
    assert verdict.reason.cause is (Cause.REFUSED if refusal.slow else Cause.LOST)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (net.ConnectionDone(), "broker.example:1234 closed the connection without a reason"),
        (net.ConnectionLost(), "connection to broker.example:1234 lost: not closed in a clean way"),
        (tls("tlsv1 alert internal error"), "TLS: tlsv1 alert internal error"),
        (pika.exceptions.ConnectionClosedByClient(200, "Normal shutdown"), "closed by pubd: Normal shutdown"),
        (pika.exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED - x"), "CONNECTION_FORCED - x"),
        (pika.exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED - x"), "NOT_ALLOWED - x"),
    ],
)
def test_an_end_of_an_open_connection_is_never_a_refusal(problem: BaseException, text: str) -> None:
    verdict = of_exception(problem, URL, opened=True)
    assert verdict.reason.text == text
    assert verdict.refusal is Refusal.NONE


@pytest.mark.parametrize(
    ("code", "refusal"),
    [(403, Refusal.CREDENTIALS), (530, Refusal.VHOST), (501, Refusal.PEER), (320, Refusal.NONE), (541, Refusal.NONE)],
)
def test_a_close_before_open_is_kept_with_its_code_and_text(code: int, refusal: Refusal) -> None:
    verdict = closed_by_broker(code, "WORDS - of RabbitMQ", opened=False)
    assert (verdict.reason.code, verdict.reason.text, verdict.refusal) == (code, "WORDS - of RabbitMQ", refusal)


def test_external_that_is_not_offered_names_the_plugin() -> None:
    verdict = of_exception(pika.exceptions.AuthenticationError("EXTERNAL"), EXTERNAL, opened=False)
    assert "does not offer EXTERNAL" in verdict.reason.text
    assert "rabbitmq_auth_mechanism_ssl" in verdict.reason.text


@pytest.mark.parametrize("head", [b"", b"A", b"AMQP", b"AMQP\0\0\x09", b"\x01", b"\x01\0\0\0\0\x02\0\0"])
def test_what_may_become_amqp_is_waited_for(head: bytes) -> None:
    assert foreign_greeting(head, "h:1", tls=False) is None


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"AMQP\0\0\x09\x01", "h:1 does not speak AMQP 0-9-1: it answered with the header 0-0-9-1"),
        (b"AMQP\3\1\0\0", "h:1 does not speak AMQP 0-9-1: it answered with the header 3-1-0-0"),
        (b"HTTP/1.1 400 Bad Request", "h:1 is not an AMQP broker: it answered 'HTTP/1.1 400 Bad Request'"),
        (b"\x15\x03\x03\0\2\2\x16", "h:1 speaks TLS: use amqps:// for this port"),
        (b"\xff\r\n", "h:1 is not an AMQP broker: it answered '\\\\xff\\r\\n'"),
        (b"\x01\0\1\0\0\0\0\0", "is not an AMQP broker"),
        (b"\x01\0\0\x7f\0\0\0\0", "is not an AMQP broker"),
    ],
)
def test_who_greets_in_another_language_is_named(head: bytes, text: str) -> None:
    verdict = foreign_greeting(head, "h:1", tls=False)
    assert verdict is not None
    assert text in verdict.reason.text
    assert verdict.refusal is Refusal.PEER


def test_silence_is_retried_slowly_but_no_refusal() -> None:
    verdict = no_handshake("h:1", 10.0, protocol="AMQP")
    assert verdict.reason.text == "no AMQP handshake from h:1 within 10 s"
    assert (verdict.refusal.slow, verdict.refusal.lasting) == (True, False)


def test_garbage_is_told_with_what_was_wrong_with_it() -> None:
    verdict = garbage(pika.exceptions.InvalidFrameError("Invalid FRAME_END marker"), "h:1")
    assert verdict.reason.text == "h:1 sent what is not AMQP: InvalidFrameError: Invalid FRAME_END marker"


def test_a_channel_s_end_keeps_the_broker_s_words() -> None:
    closed = pika.exceptions.ChannelClosedByBroker(404, "NOT_FOUND - no exchange 'x'")
    assert of_channel(closed) == Reason(cause=Cause.LOST, code=404, text="NOT_FOUND - no exchange 'x'")
    forced = pika.exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED - x")
    assert of_channel(forced).code == 320
    lost = LinkLost(Reason(cause=Cause.LOST, text="gone"))
    assert of_channel(lost) is lost.reason
    assert of_channel(net.ConnectionDone()).text == "ConnectionDone"
