"""Where the daemon is, as users write it."""

from __future__ import annotations

import pytest

from pubd.cli.server import InvalidServer, Server


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unix:/run/pubd/http.sock", "unix:/run/pubd/http.sock"),
        ("unix:///run/pubd/http.sock", "unix:/run/pubd/http.sock"),
        ("unix:http.sock", "unix:http.sock"),
        ("/run/pubd/http.sock", "unix:/run/pubd/http.sock"),
        ("http://localhost", "http://localhost:8672"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("https://pubd.example", "https://pubd.example:443"),
        ("HTTPS://pubd.example:8672/behind/a/proxy/", "https://pubd.example:8672/behind/a/proxy"),
    ],
)
def test_an_address_is_read_and_shown(text: str, shown: str) -> None:
    assert str(Server.parse(text)) == shown
    assert Server.parse(str(Server.parse(text))) == Server.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "unix:", "unix:a\0b", "localhost", "localhost:8672", "http://", "http://:80", "http://x:port"),
        *("http://x:70000", "http://[::1", "ftp://x", "http://u:s3cret@x", "http://x?a=b", "http://x#y", "tcp:8672"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidServer) as refused:
        Server.parse(text)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("unix:/x", True),
        ("https://example.org", True),
        ("http://localhost", True),
        ("http://127.0.0.1", True),
        ("http://[::1]", True),
        ("http://example.org", False),
        ("http://localhost.example.org", False),
    ],
)
def test_only_what_nobody_can_read_along_is_private(text: str, private: bool) -> None:
    assert Server.parse(text).is_private is private


def test_the_default_is_the_socket_or_else_loopback() -> None:
    assert str(Server.default(with_token=False, is_socket=lambda _: True)) == "unix:/run/pubd/http.sock"
    assert str(Server.default(with_token=False, is_socket=lambda _: False)) == "http://127.0.0.1:8672"


def test_a_token_is_never_shown_to_a_server_that_nobody_named() -> None:
    assert str(Server.default(with_token=True, is_socket=lambda _: False)) == "unix:/run/pubd/http.sock"
