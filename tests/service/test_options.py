"""The command line: what is taken, what is refused, and in which words."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.python.usage import UsageError

from pubd.arguments import DEFAULT_URL, Options
from pubd.service import makeService


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


def refused(*arguments: str) -> str:
    with pytest.raises(UsageError) as error:
        parsed(*arguments)
    return str(error.value)


def test_without_options_it_is_pikas_example() -> None:
    options = parsed()
    topology, message = options.topology(), options.make_message(1700000000.9)()
    assert options.urls == [DEFAULT_URL]
    assert [(each.name, each.type, each.durable) for each in topology.exchanges] == [("message", "topic", True)]
    assert [(each.name, each.arguments) for each in topology.queues] == [("text", {})]
    assert [(each.exchange, each.queue, each.routing_key) for each in topology.bindings] == [
        ("message", "text", "example.text")
    ]
    assert (message.exchange, message.routing_key) == ("message", "example.text")
    assert message.body == b"The current epoch value is 1700000000"
    assert (message.content_type, message.app_id, message.headers) == ("text/plain", "pubd", None)
    assert options["interval"] == 1.0
    assert options["count"] is None
    assert (options["on-channel-close"], options["drain-timeout"], options["confirm-timeout"]) == (
        "recover",
        10.0,
        30.0,
    )


def test_every_option_is_taken() -> None:
    options = parsed(
        *("--url", "amqp://a:b@one/", "--url", "amqp://a:b@two/"),
        *("--exchange", "orders", "--exchange-type", "x-delayed-message", "--queue", "q", "--queue-type", "quorum"),
        *("--routing-key", "k", "--interval", "0.25", "--count", "7", "--message", "at {epoch} {else}"),
        *("--content-type", "text/csv", "--app-id", "shop", "--header", "a=1=2", "--header", "b="),
        *("--no-mandatory", "--transient", "--spool", "memory:", "--spool-max-bytes", "1.5KiB"),
        *("--window", "10", "--window-bytes", "2mib", "--confirm-timeout", "2.5", "--drain-timeout", "0"),
        *("--on-channel-close", "shutdown", "--name", "mine"),
    )
    message = options.make_message(5.0)()
    assert options.urls == ["amqp://a:b@one/", "amqp://a:b@two/"]
    assert options.topology().exchanges[0].type == "x-delayed-message"
    assert options.topology().queues[0].arguments == {"x-queue-type": "quorum"}
    assert (options["interval"], options["count"], options["window"]) == (0.25, 7, 10)
    assert (options["spool-max-bytes"], options["window-bytes"]) == (1536, 2 << 20)
    assert (options["confirm-timeout"], options["drain-timeout"]) == (2.5, 0.0)
    assert message.body == b"at 5 {else}"
    assert message.headers == {"a": "1=2", "b": ""}
    assert (message.content_type, message.app_id) == ("text/csv", "shop")


def test_the_letters_are_those_of_amqp_publish_where_it_has_them() -> None:
    options = parsed("-u", "amqp://a:b@one/", "-e", "x", "-r", "k", "-C", "text/csv", "-H", "a=1", "-q", "q", "-n", "2")
    assert options.urls == ["amqp://a:b@one/"]
    assert (options["exchange"], options["routing-key"], options["queue"], options["count"]) == ("x", "k", "q", 2)
    assert options.headers == {"a": "1"}


def test_the_default_exchange_and_no_queue_declare_nothing() -> None:
    topology = parsed("--exchange", "", "--queue", "").topology()
    assert [*topology.exchanges, *topology.queues, *topology.bindings] == []


def test_passive_checks_and_binds_nothing() -> None:
    topology = parsed("--passive").topology()
    assert (topology.exchanges[0].passive, topology.queues[0].passive) == (True, True)
    assert not topology.bindings


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", ""])
@pytest.mark.parametrize("option", ["--interval", "--confirm-timeout"])
def test_times_that_are_none_are_refused(option: str, value: str) -> None:
    error = refused(option, value)
    assert error.startswith(f"{option} {value!r}: give ")
    assert "seconds" in error


@pytest.mark.parametrize("value", ["-1", "nan", "x"])
def test_the_time_to_drain_may_be_0_but_must_be_one(value: str) -> None:
    assert refused("--drain-timeout", value).startswith(f"--drain-timeout {value!r}: give a number of seconds")


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "x", ""])
@pytest.mark.parametrize("option", ["--count", "--window"])
def test_counts_are_whole_and_positive(option: str, value: str) -> None:
    assert refused(option, value) == f"{option} {value!r}: give a whole number, 1 or more"


@pytest.mark.parametrize("value", ["0", "-3", "nan", "1xB", "KiB", "1e3", "0.1", ""])
@pytest.mark.parametrize("option", ["--window-bytes", "--spool-max-bytes"])
def test_sizes_are_positive_and_of_known_units(option: str, value: str) -> None:
    assert refused(option, value) == f"{option} {value!r}: give a size such as 1048576, 64MiB or 1GiB"


@pytest.mark.parametrize(
    "url",
    [
        "amqp://bob:s3cret@host:notaport/",
        "http://bob:s3cret@host/",
        "amqp://bob:s3cret@/vhost/more",
        "amqp://bob:s3cret@host/?heartbeat=never",
        "amqp://bob:s3cret@host/?unknown=1",
        "amqp://bob:s3c@ret@host/",
        "bob:s3cret@host",
        "amqp://bob:s3cret\udcff@host/",
    ],
)
def test_a_bad_url_is_refused_without_showing_its_password(url: str) -> None:
    error = refused("--url", url)
    assert error.startswith("--url: ")
    assert "s3c" not in error


@pytest.mark.parametrize("header", ["novalue", "=value", ""])
def test_a_header_without_name_or_value_is_refused(header: str) -> None:
    assert refused("--header", header) == f"--header {header!r}: give it as NAME=VALUE"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--mandatory", "--no-mandatory"], ["--mandatory", "--no-mandatory"]),
        (["--persistent", "--transient"], ["--persistent", "--transient"]),
        (["--no-publish", "--count", "3"], ["--no-publish", "--count"]),
        (["--passive", "--queue-type", "quorum"], ["--passive", "--queue-type"]),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: list[str], named: list[str]) -> None:
    error = refused(*arguments)
    assert all(name in error for name in named)


@pytest.mark.parametrize(
    ("option", "choices"),
    [("--on-channel-close", ["recover", "shutdown"]), ("--queue-type", ["classic", "quorum", "stream"])],
)
def test_what_is_not_a_choice_is_refused_with_the_choices(option: str, choices: list[str]) -> None:
    assert refused(option, "nonsense") == f"{option} 'nonsense': give one of {', '.join(choices)}"


def test_an_unknown_exchange_type_is_refused_with_the_known_ones() -> None:
    error = refused("--exchange-type", "nonsense")
    assert "unknown type 'nonsense'" in error
    assert "direct, fanout, topic, headers" in error


@pytest.mark.parametrize("option", ["--routing-key", "--exchange", "--content-type", "--app-id", "--name", "--queue"])
def test_what_is_not_utf_8_is_refused(option: str) -> None:
    error = refused(option, os.fsdecode(b"\xff\xfe"))
    assert option.removeprefix("--") in error
    assert "UTF-8" in error


@pytest.mark.parametrize("header", [b"a=\xff", b"\xff=a"])
def test_a_header_that_is_not_utf_8_is_refused(header: bytes) -> None:
    assert refused("--header", os.fsdecode(header)).startswith("--header: ")


def test_a_message_is_any_bytes() -> None:
    assert parsed("--message", os.fsdecode(b"\xff\xfe {epoch}")).make_message(3)().body == b"\xff\xfe 3"


@pytest.mark.parametrize("option", ["--routing-key", "--exchange", "--queue", "--content-type", "--app-id"])
def test_what_is_longer_than_amqp_takes_is_refused(option: str) -> None:
    error = refused(option, "x" * 256)
    assert option.removeprefix("--") in error
    assert "255" in error


def test_an_unknown_spool_is_refused() -> None:
    assert "spool" in refused("--spool", "floppy:///a")


@pytest.mark.parametrize("extra", [["extra"], ["--nonsense"], ["--interval"]])
def test_what_is_no_option_is_refused(extra: list[str]) -> None:
    assert refused(*extra)


def test_the_help_names_every_option_and_fits_a_terminal() -> None:
    options: Any = Options()
    text = options.getUsage(width=80)
    assert max(map(len, text.splitlines())) <= 80
    for name in options.longOpt:
        line = next(line for line in text.splitlines() if f"--{name}" in line)
        assert line.split(f"--{name}", 1)[1].strip(), f"--{name} is not explained"
    assert "several times for several brokers" in " ".join(text.split())


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parsed("--version")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("pubd ")


def test_the_service_is_made_without_touching_the_network() -> None:
    service: Any = makeService(parsed())
    assert service.getServiceNamed("publisher").running == 0
    assert len(list(service)) == 4
    assert len(list(makeService(parsed("--no-publish")))) == 3  # type: ignore[call-overload]  # IService has no __iter__
