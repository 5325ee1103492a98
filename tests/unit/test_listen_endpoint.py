"""Endpoint strings: what they mean, what is wrong with them, and which are refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.errors import InvalidOption
from pubd.intake.endpoint import Endpoint, Kind, TlsFiles, is_loopback
from pubd.intake.listen import refusal


@pytest.mark.parametrize(
    ("text", "port", "interface"),
    [
        ("tcp:8672", 8672, ""),
        ("tcp:8672:interface=127.0.0.1", 8672, "127.0.0.1"),
        ("tcp:0:interface=localhost", 0, "127.0.0.1"),
        (r"tcp:8672:interface=\:\:1:backlog=5", 8672, "::1"),
        ("tcp6:8672", 8672, "::"),
        (r"tcp6:8672:interface=\:\:1", 8672, "::1"),
        (r"tcp:1:interface=fe80\:\:1%eth0", 1, "fe80::1%eth0"),
    ],
)
def test_tcp(text: str, port: int, interface: str) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.kind, endpoint.port, endpoint.interface, endpoint.tls) == (Kind.TCP, port, interface, None)


def test_tls() -> None:
    text = r"tls:8673:interface=0.0.0.0:certificate=/etc/c\:1.pem:key=/k.pem:client_ca=/ca.pem"
    endpoint = Endpoint.parse(text)
    assert (endpoint.kind, endpoint.port, endpoint.interface) == (Kind.TCP, 8673, "0.0.0.0")
    assert endpoint.tls == TlsFiles(certificate="/etc/c:1.pem", key="/k.pem", client_ca="/ca.pem")


def test_one_file_may_have_certificate_and_key() -> None:
    assert Endpoint.parse("tls:1:certificate=a").tls == TlsFiles(certificate="a", key="a")
    assert Endpoint.parse("ssl:1:privateKey=a").tls == TlsFiles(certificate="a", key="a")


def test_ssl_is_written_as_twisted_has_it() -> None:
    endpoint = Endpoint.parse("ssl:443:privateKey=k:certKey=c:extraCertChain=x:interface=127.0.0.1")
    assert endpoint.tls == TlsFiles(certificate="c", key="k", chain="x")


def test_unix() -> None:
    endpoint = Endpoint.parse("unix:/run/pubd/lines.sock:mode=660:lockfile=0")
    assert (endpoint.kind, endpoint.path, endpoint.mode, endpoint.lockfile) == (
        Kind.UNIX,
        "/run/pubd/lines.sock",
        0o660,
        False,
    )
    assert Endpoint.parse("unix:/run/pubd/lines.sock").mode == 0o600
    assert Endpoint.parse("unix:/x:mode=0666").mode == 0o666


def test_systemd() -> None:
    assert Endpoint.parse("systemd:domain=UNIX:index=0").index == 0
    assert Endpoint.parse("systemd:name=lines").name == "lines"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begins with no kind"),
        ("8672", "begins with no kind"),
        ("udp:8672", "write one of tcp"),
        ("port=8672", "names no kind"),
        ("tcp", "needs a port"),
        ("tcp:", "the port as ''"),
        ("tcp:http", "the port as 'http'"),
        ("tcp:-1", "from 0 to 65535"),
        ("tcp:65536", "from 0 to 65535"),
        ("tcp:99999999999999999999", "from 0 to 65535"),
        ("tcp:²", "from 0 to 65535"),
        ("tcp:1:2", "nothing more but options"),
        ("tcp:1:interface=::1", "nothing more but options"),
        ("tcp:1:interface=example.com", "no IP address"),
        ("tcp:1:interfaces=127.0.0.1", "tcp takes interface, backlog"),
        ("tcp:1:interface=127.0.0.1:interface=0.0.0.0", "gives interface twice"),
        ("tcp:1:backlog=0", "from 1 to 65535"),
        ("tls:1", "names no certificate"),
        ("tls:1:key=k", "names no certificate"),
        ("tls:/etc/certificates:443", "nothing more but options"),
        ("ssl:1:sslmethod=SSLv3_METHOD", "ssl takes interface"),
        ("unix:", "needs the path"),
        ("unix:\0abstract", "no permissions"),
        ("unix:" + "x" * 108, "107 bytes"),
        ("unix:/x:mode=rw", "three octal digits"),
        ("unix:/x:mode=888", "three octal digits"),
        ("unix:/x:mode=4755", "three octal digits"),
        ("unix:/x:mode=6", "three octal digits"),
        ("systemd", "which socket"),
        ("systemd:domain=UNIX", "which socket"),
        ("systemd:index=0:name=x", "which socket"),
        ("systemd:UNIX:index=0", "which socket"),
        ("systemd:index=x", "from 0 to 1023"),
        ("systemd:domain=BLUETOOTH:index=0", "UNIX, INET or INET6"),
        ("systemd:index=0:key=k", "names no certificate"),
    ],
)
def test_mistakes_are_told_with_the_string(text: str, words: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Endpoint.parse(text)
    assert str(caught.value).startswith(repr(text))
    assert words in str(caught.value)
    assert refusal(text, authenticated=True) == str(caught.value)


@given(st.text(alphabet="tcplsunix:=\\/0127.\0é ", max_size=40))
def test_any_text_is_an_endpoint_or_a_sentence(text: str) -> None:
    with contextlib.suppress(InvalidOption):
        Endpoint.parse(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "::ffff:10.0.0.1", "::ffff:0.0.0.0", "localhost", "fe80::1%lo"],
)
def test_beyond(host: str) -> None:
    assert not is_loopback(host)


PRIVATE = [
    "tcp:8672:interface=127.0.0.1",
    "tcp:8672:interface=localhost",
    "tcp:8672:interface=127.1.2.3",
    r"tcp6:8672:interface=\:\:1",
    r"tcp:8672:interface=\:\:ffff\:127.0.0.1",
    "unix:/run/pubd/lines.sock:mode=666",
    "systemd:domain=INET:index=0",
    "tls:8673:interface=127.0.0.1:certificate=c:key=k",
]
PUBLIC = [
    "tcp:8672",
    "tcp:8672:interface=",
    "tcp:8672:interface=0.0.0.0",
    "tcp:8672:interface=192.168.0.5",
    r"tcp:8672:interface=\:\:",
    "tcp6:8672",
    r"tcp6:8672:interface=2001\:db8\:\:1",
    r"tcp6:8672:interface=\:\:ffff\:192.168.0.5",
]


@pytest.mark.parametrize("authenticated", [True, False])
@pytest.mark.parametrize("text", PRIVATE)
def test_this_machine_is_enough(text: str, authenticated: bool) -> None:
    assert refusal(text, authenticated=authenticated) is None


@pytest.mark.parametrize("authenticated", [True, False])
@pytest.mark.parametrize("text", PUBLIC)
def test_beyond_this_machine_takes_tls(text: str, authenticated: bool) -> None:
    why = refusal(text, authenticated=authenticated)
    assert why is not None
    assert repr(text) in why
    assert "without TLS: add interface=127.0.0.1, or write tls:8672:interface=" in why
    # What it proposes is right.
    proposed = why.partition("or write ")[2].partition(" ")[0]
    assert refusal(proposed, authenticated=True) is None


@pytest.mark.parametrize("text", ["tls:1:certificate=c:key=k", r"ssl:1:interface=10.0.0.1"])
def test_beyond_this_machine_takes_authentication_too(text: str) -> None:
    why = refusal(text, authenticated=False)
    assert why is not None
    assert "takes messages from anybody: add a [[principal]]" in why
    assert refusal(text, authenticated=True) is None
