"""pubd.toml: what is read, from file, environment and secrets, and its documentation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pubd.amqp.topology import Binding, Exchange, Queue
from pubd.config import Config, ConfigError, OnChannelClose
from pubd.config.keys import TABLES
from pubd.config.lines import places
from pubd.config.problems import Unfit
from pubd.config.reference import MARK, rst
from pubd.config.units import octets, seconds
from pubd.policy import OnNack, OnReturn
from pubd.schedule import Cron, Every, Missed
from tests.config_texts import FULL, PASSWORD, problem

if TYPE_CHECKING:
    from pubd.config.key import Key, Table

ROOT = Path(__file__).parents[2]

# What is read


def test_an_empty_file_is_a_configuration() -> None:
    config = Config.parse("", {})
    assert [str(url) for url in config.broker.urls] == ["amqp://guest:***@localhost:5672/%2F"]
    assert config.broker.urls[0].heartbeat == 30
    assert config.broker.on_channel_close is OnChannelClose.RECOVER
    assert (config.spool.url, config.spool.path, config.spool.retain) == ("sqlite:///pubd.db", Path("pubd.db"), 3600)
    limits = config.spool.limits
    assert (limits.max_bytes, limits.max_rows, limits.min_free) == (1 << 30, None, 256 << 20)
    delivery = config.delivery
    assert (delivery.lanes.window, delivery.lanes.window_bytes, delivery.lanes.confirm_timeout) == (1000, 16 << 20, 30)
    assert (delivery.mandatory, delivery.persistent, delivery.drain_timeout) == (True, True, 10)
    policy = delivery.policy
    assert (policy.on_return, policy.on_nack, policy.max_attempts) == (OnReturn.PARK, OnNack.RETRY, 10)
    assert (policy.backoff.first, policy.backoff.factor, policy.backoff.max, policy.backoff.jitter) == (1, 2, 300, 1)
    assert (policy.lifetime, policy.heal, policy.park_to) == (None, False, None)
    assert (config.policies, list(config.topology), config.schedules, config.hints) == ((), [], (), ())


def test_everything_that_stands_in_a_file_is_read() -> None:
    config = Config.parse(FULL, {})
    assert [url.heartbeat for url in config.broker.urls] == [60, 5]
    assert config.broker.on_channel_close is OnChannelClose.SHUTDOWN
    assert config.spool.path == Path("/var/lib/pubd/pubd.db")
    assert (config.spool.limits.max_bytes, config.spool.limits.max_rows, config.spool.retain) == (10**7, 1000, 5400)
    policy = config.delivery.policy
    assert (policy.on_return, policy.lifetime, policy.park_to, policy.heal) == (OnReturn.RETRY, 86400, "parked", True)
    assert (policy.backoff.first, policy.backoff.factor, policy.backoff.max) == (0.1, 2, 60)
    assert config.delivery.expiration_counts_spool_time
    (metrics,) = config.policies
    assert (metrics.exchange, metrics.routing_key, metrics.on_return) == ("metrics*", "#", OnReturn.DROP)
    assert (metrics.lifetime, metrics.park_to) == (None, None)
    assert (metrics.backoff.first, metrics.backoff.factor) == (0.1, 3)
    assert (metrics.on_nack, metrics.max_attempts, metrics.heal) == (OnNack.PARK, 3, True)
    assert config.topology.exchanges == (
        Exchange(name="message", type="topic"),
        Exchange(name="hash", type="x-consistent-hash", passive=True),
    )
    assert config.topology.queues == (Queue(name="text", arguments={"x-queue-type": "quorum"}),)
    assert config.topology.bindings == (Binding(exchange="message", queue="text", routing_key="example.text"),)
    heartbeat, night = config.schedules
    assert (heartbeat.when, heartbeat.missed, heartbeat.ttl) == (Every(1.0), Missed.SKIP, 10)
    assert (heartbeat.persistent, heartbeat.mandatory) == (None, None)
    assert (night.when, night.missed, night.persistent) == (Cron("30 2 * * *", "Europe/Berlin"), Missed.ONCE, True)


def test_a_configuration_shows_no_password() -> None:
    assert PASSWORD not in repr(Config.parse(FULL, {}))


def test_a_spool_in_memory_has_no_disk() -> None:
    config = Config.parse('[spool]\nurl = "memory:"', {})
    assert config.spool.path is None
    assert config.spool.limits.min_free is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("1D", 86400),
        ("2w", 1209600),
        ("30", 30),
        (30, 30),
        (0.5, 0.5),
    ],
)
def test_durations(value: object, expected: float) -> None:
    assert seconds(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1GiB", 1 << 30),
        ("64mib", 64 << 20),
        ("10MB", 10**7),
        ("1.5 KiB", 1536),
        ("7", 7),
        (7, 7),
        ("7B", 7),
    ],
)
def test_sizes(value: object, expected: int) -> None:
    assert octets(value) == expected


@pytest.mark.parametrize(
    "value",
    [True, "", "s", "30 parsecs", "-1s", -1, "1e9", "1h-3m", [], {}, None, 1e300, pytest.param(10**400, id="huge")],
)
def test_what_is_no_duration_and_no_size(value: object) -> None:
    for read in (seconds, octets):
        with pytest.raises(Unfit):
            read(value)
    with pytest.raises(Unfit):
        seconds(float("nan"))


# Where it stands


def test_every_key_has_its_line() -> None:
    text = """
# comment
[a]
x = 1
y.z = [
  1,
  2,
]
s = '''
[not a table]
'''
[[b]]
name = "one"
[b.arguments]
k = 1

[[b]]
name = "two"
t = { u = { v = 1 } }
"""
    found = places(text)
    assert found["a",] == 3
    assert (found["a", "x"], found["a", "y", "z"], found["a", "s"]) == (4, 5, 9)
    assert (found["b", 0], found["b", 0, "name"], found["b", 0, "arguments", "k"]) == (12, 13, 15)
    assert (found["b", 1], found["b", 1, "t", "u", "v"]) == (17, 19)
    assert places(text.replace("\n", "\r\n")) == found


# The environment


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("amqp://three\n")
    environ = {
        "PUBD_BROKER_URLS": f"amqp://u:{PASSWORD}@one amqp://two",
        "PUBD_BROKER_HEARTBEAT": "7",
        "PUBD_SPOOL_URL": "memory:",
        "PUBD_SPOOL_MAX_MESSAGES": "5",
        "PUBD_SPOOL_RETAIN": "2h",
        "PUBD_DELIVERY_MANDATORY": "False",
        "PUBD_DELIVERY_ON_RETURN": "drop",
        "PUBD_DELIVERY_WINDOW": "9",
        "PUBD_DELIVERY_BACKOFF_FIRST": "2s",
        "PUBD_DELIVERY_BACKOFF_FACTOR": "1.5",
        "PUBD_DELIVERY_NAME_OF_NOTHING": "",
        "PUBD_FAILPOINT": "other:1",
        "HOME": "/",
    }
    config = Config.parse(FULL, environ)
    assert [url.host for url in config.broker.urls] == ["one", "two"]
    assert config.broker.urls[0].heartbeat == 7
    assert (config.spool.path, config.spool.limits.max_rows, config.spool.retain) == (None, 5, 7200)
    assert (config.delivery.mandatory, config.delivery.policy.on_return) == (False, OnReturn.DROP)
    assert config.delivery.lanes.window == 9
    backoff = config.delivery.policy.backoff
    assert (backoff.first, backoff.factor, backoff.max) == (2, 1.5, 60)
    config = Config.parse("[[policy]]", {"PUBD_BROKER_URLS_FILE": str(tmp_path / "urls"), "PUBD_DELIVERY_HEAL": "true"})
    assert config.broker.urls[0].host == "three"
    assert config.policies[0].heal


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PUBD_DELIVERY_WINDO", "1", ["did you mean PUBD_DELIVERY_WINDOW?"]),
        ("PUBD_BROKER_URLZ", "amqp://h", ["did you mean PUBD_BROKER_URLS?"]),
        ("PUBD_DELIVERY_WINDOW", "many", ["whole number", "'many'"]),
        ("PUBD_DELIVERY_MANDATORY", "yes", ["true or false", "'yes'"]),
        ("PUBD_DELIVERY_BACKOFF_FACTOR", "two", ["number"]),
        ("PUBD_SPOOL_RETAIN", "1 hour", ["unknown unit 'hour'"]),
        ("PUBD_BROKER_URLS", f"amqp://u:{PASSWORD}@h:x", ["[0]", "port"]),
        ("PUBD_BROKER_URLS", "\udcff", ["UTF-8"]),
        ("PUBD_BROKER_URLS_FILE", "/nonexistent/urls", ["/nonexistent/urls", "cannot be read", "No such file"]),
        ("PUBD_BROKER_URLS_FILE", "/dev/zero", ["/dev/zero", "no regular file"]),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(variable: str, value: str, words: list[str]) -> None:
    text = problem("", {variable: value})
    assert text.startswith(f"{variable}: ")
    assert all(word in text for word in words), text
    assert PASSWORD not in text


def test_a_variable_for_a_table_that_takes_none_is_a_hint() -> None:
    (hint,) = Config.parse("", {"PUBD_QUEUE_NAME": "text"}).hints
    assert str(hint).startswith("PUBD_QUEUE_NAME: is ignored")


def test_urls_and_their_file_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("amqp://one")
    assert "PUBD_BROKER_URLS_FILE: is given together with PUBD_BROKER_URLS" in problem(
        "", {"PUBD_BROKER_URLS": "amqp://h", "PUBD_BROKER_URLS_FILE": str(tmp_path / "urls")}
    )
    assert "pubd.toml:3: [broker] urls_file: is given together with urls" in problem(
        '[broker]\nurls = ["amqp://h"]\nurls_file = "urls"'
    )


# Files


def test_a_secret_is_read_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text(f"amqp://u:{PASSWORD}@one\namqp://two\n\n")
    (tmp_path / "pubd.toml").write_text('\ufeff[broker]\nurls_file = "urls"\n', encoding="utf-8")
    config = Config.load(tmp_path / "pubd.toml", {})
    assert [(url.host, url.password) for url in config.broker.urls] == [("one", PASSWORD), ("two", "guest")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"\xff", ["not UTF-8"]),
        (b"x" * 70_000, ["65536 bytes"]),
        (f"amqp://u:{PASSWORD}@h:x".encode(), ["urls_file[0]", "port"]),
    ],
)
def test_a_mistake_in_a_secret_names_the_key_and_not_the_secret(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    (tmp_path / "urls").write_bytes(content)
    (tmp_path / "pubd.toml").write_text('[broker]\nurls_file = "urls"\n')
    with pytest.raises(ConfigError) as caught:
        Config.load(tmp_path / "pubd.toml", {})
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/pubd.toml:2: [broker] urls_file")
    assert all(word in text for word in words), text
    assert PASSWORD not in text


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "nul\0"):
        with pytest.raises(ConfigError):
            Config.load(path, {})
    (tmp_path / "latin.toml").write_bytes(b"[broker]\n# f\xfcr\n")
    with pytest.raises(ConfigError, match=r"latin.toml:2: is not UTF-8"):
        Config.load(tmp_path / "latin.toml", {})


# The documentation


@pytest.mark.parametrize(("table", "key"), [(table, key) for table in TABLES for key in table.keys])
def test_every_example_of_the_documentation_is_valid(table: Table, key: Key) -> None:
    content = tomllib.loads(key.example)
    assert list(content) == [key.name]
    for name, value in content[key.name].items() if key.keys else ():
        next(inner for inner in key.keys if inner.name == name).kind.read(value)
    if not key.keys:
        key.kind.read(content[key.name])
    assert not key.required or key.default is None
    if key.default is not None:
        key.kind.read(key.default)
    assert key.why.endswith((".", "..."))
    assert table.heading in rst()


def test_the_documentation_is_that_of_the_code() -> None:
    page = (ROOT / "docs/config.rst").read_text(encoding="utf-8")
    written = page.partition(MARK)[2]
    assert written == rst(), f"write it anew: {MARK}"


def test_the_examples_in_the_documentation_are_valid() -> None:
    for page in ("config.rst", "schedules.rst"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(MARK)[0]
        blocks = re.findall(r"\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", text)
        assert blocks
        for block in blocks:
            Config.parse(re.sub(r"^   ", "", block, flags=re.MULTILINE), {})


def test_the_variable_of_scripts_and_tests_is_no_error_but_a_hint() -> None:
    config = Config.parse("", {"PUBD_BROKER_URL": f"amqp://u:{PASSWORD}@h"})
    assert [str(hint) for hint in config.hints] == [
        "PUBD_BROKER_URL: is not read here, but by scripts and tests; the brokers' variable is PUBD_BROKER_URLS"
    ]
