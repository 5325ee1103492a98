"""BrokerUrl."""

from __future__ import annotations

import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubd.amqp.url import Authentication, BrokerUrl
from pubd.errors import InvalidOption

PASSWORD = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "host", "port", "vhost"),
    [
        ("amqp://localhost", "localhost", 5672, "/"),
        ("amqp://localhost/", "localhost", 5672, "/"),
        ("amqps://broker.example", "broker.example", 5671, "/"),
        ("amqp://localhost:1234/%2F", "localhost", 1234, "/"),
        ("amqp://localhost/shop", "localhost", 5672, "shop"),
        ("amqp://localhost/a%2Fb%20c", "localhost", 5672, "a/b c"),
        ("amqp://[::1]:5673/x", "::1", 5673, "x"),
        ("AMQP://LOCALHOST", "localhost", 5672, "/"),
    ],
)
def test_where_the_broker_is(text: str, host: str, port: int, vhost: str) -> None:
    url = BrokerUrl.parse(text)
    assert (url.host, url.port, url.vhost) == (host, port, vhost)
    assert (url.username, url.password) == ("guest", "guest")


def test_user_and_password_are_percent_decoded() -> None:
    url = BrokerUrl.parse("amqp://us%40er:p%3A%2F%C3%BC@localhost")
    assert (url.username, url.password) == ("us@er", "p:/ü")


def test_every_parameter_of_the_query_is_read() -> None:
    url = BrokerUrl.parse(
        "amqps://h?cacertfile=%2Fca.pem&certfile=/c.pem&keyfile=/k.pem&verify=verify_none&server_name_indication=other"
        "&auth_mechanism=external&heartbeat=30&connection_timeout=2500&frame_max=8192&channel_max=100"
    )
    assert (url.cacertfile, url.certfile, url.keyfile) == ("/ca.pem", "/c.pem", "/k.pem")
    assert (url.verify, url.server_name, url.send_server_name) == (False, "other", True)
    assert url.authentication is Authentication.EXTERNAL
    assert (url.heartbeat, url.connection_timeout, url.frame_max, url.channel_max) == (30, 2.5, 8192, 100)


def test_verification_is_the_default_and_sni_can_be_left_out() -> None:
    assert BrokerUrl.parse("amqps://h").verify
    url = BrokerUrl.parse("amqps://h?server_name_indication=disable")
    assert (url.verify, url.send_server_name, url.server_name) == (True, False, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://localhost", ["scheme", "amqp://"]),
        ("localhost:5672", ["scheme", "amqp://"]),
        ("amqp:localhost", ["host"]),
        ("amqp:///vhost", ["host", "missing"]),
        ("amqp://[::1", ["host", "[::1]"]),
        ("amqp://a b", ["space"]),
        ("amqp://localhost\n", ["space"]),
        ("amqp://h:0", ["port"]),
        ("amqp://h:65536", ["port"]),
        ("amqp://h:http", ["port"]),
        ("amqp://h/a/b", ["vhost", "%2F"]),
        ("amqp://h/%ff", ["vhost", "UTF-8"]),
        ("amqp://h/" + "v" * 256, ["vhost", "255"]),
        ("amqp://h/100%", ["%25"]),
        ("amqp://h/%00", ["NUL"]),
        ("amqp://h#f", ["fragment", "%23"]),
        ("amqp://h?heartbaet=3", ["heartbaet", "did you mean heartbeat?"]),
        ("amqp://h?zzz=3", ["'zzz'", "cacertfile"]),
        ("amqp://h?heartbeat=3&heartbeat=4", ["heartbeat", "twice"]),
        ("amqp://h?heartbeat", ["heartbeat=..."]),
        ("amqp://h?heartbeat=-1", ["heartbeat", "0 to 65535"]),
        ("amqp://h?heartbeat=1.5", ["heartbeat", "whole number of seconds"]),
        ("amqp://h?connection_timeout=0", ["connection_timeout", "milliseconds"]),
        ("amqp://h?frame_max=100", ["frame_max", "4096"]),
        ("amqp://h?frame_max=200000", ["frame_max", "131072"]),
        ("amqp://h?channel_max=1", ["channel_max", "2"]),
        ("amqps://h?verify=verify_pear", ["verify", "did you mean verify_peer?"]),
        ("amqps://h?auth_mechanism=amqplain", ["auth_mechanism", "plain"]),
        ("amqps://h?cacertfile=", ["cacertfile", "empty"]),
        ("amqps://h?certfile=/c", ["keyfile", "missing"]),
        ("amqps://h?keyfile=/k", ["certfile", "missing"]),
        ("amqps://h?auth_mechanism=external", ["auth_mechanism", "certfile"]),
        ("amqps://h?server_name_indication=a/b", ["server_name_indication", "disable"]),
        ("amqp://h?cacertfile=/c", ["cacertfile", "amqps://"]),
        ("amqp://h?verify=verify_none", ["verify", "plaintext", "amqps://"]),
        ("amqp://a@b@c", ["host", "%40"]),
    ],
)
def test_a_mistake_is_named_with_its_fix(text: str, words: list[str]) -> None:
    with pytest.raises(InvalidOption) as caught:
        BrokerUrl.parse(text)
    assert all(word in str(caught.value) for word in ["broker URL", *words]), str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"amqp://user:{PASSWORD}@localhost:x",
        f"amqp://user:{PASSWORD}/more@localhost",
        f"amqp://user:{PASSWORD}#more@localhost",
        f"amqp://user:{PASSWORD}?more=1@localhost",
        f"amqp://user:{PASSWORD}@more@localhost",
        f"amqp://user:more?{PASSWORD}@localhost",
        f"amqp://user:more?heartbeat={PASSWORD}@localhost",
        f"amqp://user:more@{PASSWORD}?{PASSWORD}@localhost",
        f"amqp://user:1/{PASSWORD}@localhost",
        f"amqp://user:][{PASSWORD}@localhost",
        f"amqp://user:[{PASSWORD}]@localhost",
        f"amqp://user:{PASSWORD}@local\u2100host",
        f"amqp://user:{PASSWORD}%ff@localhost",
        f"amqp://user:{PASSWORD}%@localhost",
        f"amqp://user:{PASSWORD} @localhost",
        f"amqp://user:{PASSWORD}[@localhost",
        f"http://user:{PASSWORD}@localhost",
    ],
)
def test_no_mistake_shows_the_password(text: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        BrokerUrl.parse(text)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_neither_str_nor_repr_show_the_password() -> None:
    url = BrokerUrl.parse(f"amqps://us%40er:{PASSWORD}@[::1]:1/%2F?heartbeat=3")
    assert str(url) == "amqps://us%40er:***@[::1]:1/%2F"
    assert PASSWORD not in repr(url) + f"{url}" + repr([url])


@given(text=st.text(max_size=40))
def test_whatever_is_given_is_read_or_refused(text: str) -> None:
    for prefix in ("", "amqp://", "amqps://h?"):
        with contextlib.suppress(InvalidOption):
            BrokerUrl.parse(prefix + text)


@given(name=st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text))
def test_what_is_percent_encoded_comes_back(name: str) -> None:
    encoded = quote(name, safe="")
    url = BrokerUrl.parse(f"amqp://{encoded}:{encoded}@localhost/{encoded}")
    assert (url.username, url.password) == (name, name)
    assert url.vhost == name
