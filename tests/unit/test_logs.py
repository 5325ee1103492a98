"""Logs: one line an event, with its fields, whatever the event is made of; and only what was asked for."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from pubd.config import Config, ConfigError
from pubd.entry import Entry
from pubd.errors import SpoolFull
from pubd.operate.journal import Journal, is_journal
from pubd.operate.log_event import LONGEST
from pubd.operate.log_options import Format, Level, LogOptions
from pubd.operate.logs import JsonLines, as_json, filtered, observer
from pubd.operate.twistd_log import give_observer
from pubd.outcome import Cause, Reason


def event(text: str = "{a} and {b}", level: LogLevel = LogLevel.info, /, **fields: Any) -> dict[str, Any]:
    """As a logger makes them."""
    return {
        "log_format": text,
        "log_level": level,
        "log_namespace": "pubd.some.Thing",
        "log_time": 1700000000.25,
        **fields,
    }


def failure(text: str = "gone wrong") -> Failure:
    try:
        raise RuntimeError(text)
    except RuntimeError:
        return Failure()


class Lines:
    """A logger that writes to a file in memory."""

    def __init__(self, options: LogOptions) -> None:
        self.file = io.StringIO()
        self.publisher = LogPublisher(observer(options, self.file, {}))

    def log(self, namespace: str) -> Logger:
        return Logger(namespace=namespace, observer=self.publisher)

    @property
    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in self.file.getvalue().splitlines()]


# JSON


def test_a_line_has_time_level_namespace_message_and_fields() -> None:
    assert json.loads(as_json(event(a=1, b="x", c=None))) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "namespace": "pubd.some.Thing",
        "message": "1 and x",
        "a": 1,
        "b": "x",
        "c": None,
    }


def test_a_failure_has_its_traceback_in_the_same_line() -> None:
    line = as_json(event("it failed", LogLevel.critical, log_failure=failure()))
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "it failed"
    assert "RuntimeError: gone wrong" in found["traceback"]


def test_a_field_does_not_take_the_place_of_what_every_line_has() -> None:
    found = json.loads(as_json(event("sentence", level="x", namespace="y", traceback="z")))
    assert (found["level"], found["namespace"], found["message"]) == ("info", "pubd.some.Thing", "sentence")
    assert (found["level_"], found["namespace_"], found["traceback_"]) == ("x", "y", "z")


def test_bodies_and_foreign_objects_are_never_written_out() -> None:
    entry = Entry(
        id="i", exchange="e", routing_key="k", message_id="m", mandatory=True, properties=b"", body=b"s3cret-body"
    )
    line = as_json(event("x", body=b"s3cret-body", entry=[entry], raw=memoryview(b"s3cret-body"), made={"k": "s3cret"}))
    assert "s3cret" not in line
    assert json.loads(line)["body"] == "<11 bytes>"


def test_values_of_our_own_are_sentences() -> None:
    found = json.loads(
        as_json(
            event(
                "x",
                reason=Reason(cause=Cause.RETURNED, code=312, text="NO_ROUTE"),
                error=SpoolFull("max_bytes", "full"),
                cause=Cause.NACKED,
                path=Path("/a"),
            )
        )
    )
    assert found["reason"] == "returned: 312 NO_ROUTE"
    assert found["error"].startswith("the spool is full (max_bytes)")
    assert (found["cause"], found["path"]) == ("nacked", "/a")


def test_a_long_field_is_cut() -> None:
    assert len(json.loads(as_json(event("x", text="x" * 100_000)))["text"]) < LONGEST + 10


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.binary(), st.builds(Broken)),
    )
)
def test_every_event_is_one_line_of_json(fields: dict[str, Any]) -> None:
    fields = {name: value for name, value in fields.items() if not name.startswith("log_")}
    line = as_json(event("{x} {y!r} \ud800 \n", **fields))
    assert line.isascii()
    assert "\n" not in line
    json.loads(line, parse_constant=pytest.fail)


def test_an_event_without_anything_is_a_line() -> None:
    assert json.loads(as_json({}))["level"] == "info"


# Levels


def test_levels_are_those_of_namespaces_and_what_is_below_them() -> None:
    lines = Lines(LogOptions(level=Level.WARN, levels={"pubd.amqp": Level.DEBUG, "pubd.amqp.link": Level.ERROR}))
    for namespace in ("pubd.spool", "pubd.amqp.lane.Lane", "pubd.amqp.link.Link"):
        log = lines.log(namespace)
        log.debug("debug " + namespace)
        log.info("info " + namespace)
        log.warn("warn " + namespace)
        log.error("error " + namespace)
    assert lines.messages == [
        "warn pubd.spool",
        "error pubd.spool",
        "debug pubd.amqp.lane.Lane",
        "info pubd.amqp.lane.Lane",
        "warn pubd.amqp.lane.Lane",
        "error pubd.amqp.lane.Lane",
        "error pubd.amqp.link.Link",
    ]


# Formats


def test_the_format_is_the_one_asked_for() -> None:
    for format, beginning in ((Format.JSON, "{"), (Format.TEXT, "2023-"), (Format.AUTO, "{")):
        file = io.StringIO()
        observer(LogOptions(format=format), file, {})(event("hello"))
        assert file.getvalue().startswith(beginning), format


def test_a_terminal_gets_lines_for_people() -> None:
    leader, follower = pty.openpty()
    try:
        with os.fdopen(follower, "w") as terminal:
            observer(LogOptions(), terminal, {})(event("hello"))
            terminal.flush()
            line = os.read(leader, 1000).decode()
    finally:
        os.close(leader)
    assert line.endswith("[pubd.some.Thing#info] hello\r\n")


def test_a_file_of_twisted_gets_json(tmp_path: Path) -> None:
    file = LogFile.fromFullPath(str(tmp_path / "log"))
    observer(LogOptions(), file, {})(event("hello"))
    file.close()
    assert json.loads((tmp_path / "log").read_text())["message"] == "hello"


# The journal


class TheJournal:
    """What systemd's journal does: a socket for events, and a stream for lines."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(5)

    def fields(self) -> dict[str, str]:
        """Of the next event, read as the journal does."""
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _, kind, content in ancillary:
            if kind == socket.SCM_RIGHTS:
                with os.fdopen(int.from_bytes(content[:4], "little"), "rb") as file:
                    file.seek(0)
                    data = file.read()
        found: dict[str, str] = {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                size = int.from_bytes(data[:8], "little")
                value, data = data[8 : 8 + size], data[8 + size + 1 :]
            found[name.decode()] = value.decode()
        return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[TheJournal]:
    journal = TheJournal(tmp_path)
    yield journal
    journal.socket.close()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def writer(journal: TheJournal, stream: io.StringIO) -> Iterator[Journal]:
    writer = Journal(stream, journal.path)
    yield writer
    writer.close()


def test_an_event_comes_with_its_fields(writer: Journal, journal: TheJournal) -> None:
    writer(event("{a} and {b}", LogLevel.warn, a=1, b="x=y", none=None))
    assert journal.fields() == {
        "MESSAGE": "1 and x=y",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "pubd",
        "PUBD_NAMESPACE": "pubd.some.Thing",
        "PUBD_A": "1",
        "PUBD_B": "x=y",
    }


def test_line_breaks_and_tracebacks_stay_one_event(writer: Journal, journal: TheJournal) -> None:
    writer(event("one\ntwo\nPRIORITY=0", LogLevel.critical, log_failure=failure()))
    found = journal.fields()
    assert (found["MESSAGE"], found["PRIORITY"]) == ("one\ntwo\nPRIORITY=0", "2")
    assert "RuntimeError: gone wrong" in found["PUBD_TRACEBACK"]


def test_an_event_too_large_for_a_datagram_arrives_whole(writer: Journal, journal: TheJournal) -> None:
    many: dict[str, Any] = {f"field_{n}": "x" * LONGEST for n in range(200)}
    writer(event("large", **many))
    assert len(journal.fields()) == 204


def test_every_level_has_its_priority(writer: Journal, journal: TheJournal) -> None:
    found = []
    for level in LogLevel.iterconstants():
        writer(event("x", level))
        found.append((level.name, journal.fields()["PRIORITY"]))
    assert dict(found) == {"debug": "7", "info": "6", "warn": "4", "error": "3", "critical": "2"}


def test_a_journal_that_takes_nothing_gets_lines_with_their_priority(
    writer: Journal, journal: TheJournal, stream: io.StringIO
) -> None:
    journal.socket.close()
    journal.path.unlink()
    writer(event("one\ntwo", LogLevel.error))
    assert stream.getvalue() == "<3>one\n<3>two\n"


def test_a_journal_that_hangs_does_not_stop_us(writer: Journal, stream: io.StringIO) -> None:
    for _ in range(10_000):
        writer(event("x", filling="x" * 1000))
        if stream.getvalue():
            break
    assert stream.getvalue() == "<6>x\n"


def test_the_journal_is_known_by_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "there").open("w") as stream:
        found = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        for text in ("", "nonsense", ":", "1:x"):
            assert not is_journal(stream, {"JOURNAL_STREAM": text})
        assert not is_journal(stream, {})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
    assert not is_journal(object(), {"JOURNAL_STREAM": "1:2"})


# What twistd is told


@pytest.mark.parametrize("options", [{"logger": object()}, {"syslog": True}, {"logfile": "-"}, None])
def test_the_options_of_twistd_go_first(options: dict[str, Any] | None) -> None:
    application = Application("pubd")
    give_observer(application, options, LogOptions(), {}, reactor)
    assert application.getComponent(ILogObserver, None) is None


def test_what_the_application_has_is_left_to_it(stream: io.StringIO) -> None:
    application: Any = Application("pubd")
    mine = textFileLogObserver(stream)
    application.setComponent(ILogObserver, mine)
    give_observer(application, {"nodaemon": True}, LogOptions(), {}, reactor)
    assert application.getComponent(ILogObserver) is mine


def test_in_the_foreground_it_is_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    application: Any = Application("pubd")
    give_observer(application, {"nodaemon": True, "logfile": None}, LogOptions(), {}, reactor)
    application.getComponent(ILogObserver)(event("hello"))
    assert json.loads(capsys.readouterr().out)["message"] == "hello"


def test_a_log_file_that_cannot_be_opened_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"the log file .* cannot be opened: No such file"):
        give_observer(Application("pubd"), {"logfile": str(tmp_path / "no" / "log")}, LogOptions(), {}, reactor)


# The table [log]


def test_the_table() -> None:
    text = '[log]\nformat = "json"\nlevel = "warn"\nlevels = { "pubd.amqp" = "debug", twisted = "error" }\n'
    assert Config.parse(text, {}).log == LogOptions(
        format=Format.JSON, level=Level.WARN, levels={"pubd.amqp": Level.DEBUG, "twisted": Level.ERROR}
    )
    assert Config.parse("", {}).log == LogOptions()


def test_the_environment() -> None:
    environ = {"PUBD_LOG_FORMAT": "text", "PUBD_LOG_LEVEL": "error", "PUBD_LOG_LEVELS": "pubd.amqp=debug,pubd=info"}
    assert Config.parse("", environ).log == LogOptions(
        format=Format.TEXT, level=Level.ERROR, levels={"pubd.amqp": Level.DEBUG, "pubd": Level.INFO}
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('format = "jsn"', "did you mean json?"),
        ('level = "loud"', "'loud' is not known"),
        ('level = "warning"', "did you mean warn?"),
        ('levels = "debug"', 'must be a table such as { "pubd.amqp" = "debug" }'),
        ('levels = { "pubd.amqp" = 7 }', "levels['pubd.amqp']"),
        ('levels = { "pubd amqp" = "debug" }', "is no namespace"),
        ('levels = { pubd.amqp = "debug" }', 'write "pubd.amqp"'),
    ],
)
def test_mistakes_in_the_table(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.parse(f"[log]\n{line}\n", {})
    assert said in str(caught.value)
    assert ":2: [log]" in str(caught.value)


def test_pika_says_nothing_by_itself() -> None:
    # What it logs has tracebacks, and says in many lines what the link says in one.
    assert logging.getLogger("pika").level in (logging.NOTSET, logging.CRITICAL + 1)


def test_the_filter_passes_what_it_is_given(stream: io.StringIO) -> None:
    one = filtered(JsonLines(stream), LogOptions(level=Level.ERROR))
    one(event("no"))
    one(event("yes", LogLevel.error))
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["yes"]
