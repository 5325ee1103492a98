"""What a real process logs, and where."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.service.conftest import Run
from tests.service.process import BIN, Program, until

CONFIG = """\
[broker]
urls = ["{url}"]
[spool]
url = "memory:"
[delivery]
drain_timeout = 0
[[schedule]]
name = "often"
every = "100ms"
exchange = "e"
body = "s3cret-body"
[log]
{log}
"""


def configured(directory: Path, url: str, log: str = "") -> None:
    (directory / "pubd.toml").write_text(CONFIG.format(url=url, log=log))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def ended(program: Program) -> str:
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    return program.output


def test_a_file_gets_json_and_nothing_for_each_message(run: Run, nowhere: str, tmp_path: Path) -> None:
    configured(tmp_path, nowhere)
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
    program.says("connection refused")
    time.sleep(1.0)
    output = ended(program)
    found = lines(output)
    assert {"time", "level", "namespace", "message"} <= set.intersection(*map(set, found))
    (refused, *_) = [line for line in found if "connection refused" in line["message"]]
    assert refused["level"] == "warn"
    assert refused["namespace"].startswith("pubd.amqp.link")
    assert "peer" in refused
    # Ten messages and more were made meanwhile.
    assert len(found) < 15
    assert "s3cret" not in output


def test_text_where_it_is_asked_for_and_levels_by_namespace(run: Run, nowhere: str, tmp_path: Path) -> None:
    log = 'format = "text"\nlevel = "error"\nlevels = { "pubd.amqp" = "debug" }'
    configured(tmp_path, nowhere, log)
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
    program.says("#debug] connecting to", "connection refused")
    output = ended(program)
    assert "[pubd.amqp.link.Link#warn]" in output
    assert "starting up" not in output
    assert "s3cret" not in output


def test_the_environment_goes_first(run: Run, nowhere: str, tmp_path: Path) -> None:
    configured(tmp_path, nowhere, 'format = "json"')
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml", PUBD_LOG_FORMAT="text")
    program.says("#warn] connection refused")
    ended(program)


def test_a_log_file_of_twistd_gets_json(run: Run, nowhere: str, tmp_path: Path) -> None:
    configured(tmp_path, nowhere)
    file = tmp_path / "pubd.log"
    program = run("twistd", "-n", "--pidfile=", "--logfile=pubd.log", "pubd", "--config", "pubd.toml")
    until(lambda: file.exists() and "connection refused" in file.read_text(), what=lambda: program.output)
    program.signal(signal.SIGUSR1)
    until(lambda: (tmp_path / "pubd.log.1").exists())
    assert ended(program) == ""
    assert lines((tmp_path / "pubd.log.1").read_text())
    assert lines(file.read_text())


def test_an_observer_of_twistds_own_goes_first(run: Run, nowhere: str, tmp_path: Path) -> None:
    configured(tmp_path, nowhere)
    (tmp_path / "mine.py").write_text(
        "import sys\nfrom twisted.logger import FileLogObserver\n"
        "def make():\n    return FileLogObserver(sys.__stdout__, lambda event: 'mine\\n')\n"
    )
    repository = Path(__file__).resolve().parents[2]
    program = run(
        "twistd",
        "-n",
        "--pidfile=",
        "--logger=mine.make",
        "pubd",
        "--config",
        "pubd.toml",
        PYTHONPATH=f"{tmp_path}:{repository}",
    )
    # By then it runs, and takes its signals.
    until(lambda: len(program.lines("mine")) > 8, what=lambda: program.output)
    assert set(ended(program).split()) == {"mine"}


def test_a_log_file_that_cannot_be_opened_ends_it_with_a_sentence(run: Run, nowhere: str, tmp_path: Path) -> None:
    configured(tmp_path, nowhere)
    program = run("twistd", "-n", "--pidfile=", "--logfile=no/pubd.log", "pubd", "--config", "pubd.toml")
    assert program.ends() == 1
    assert program.output == "pubd: the log file no/pubd.log cannot be opened: No such file or directory\n"


def test_the_journal_is_found_by_its_stream(run: Run, nowhere: str, tmp_path: Path) -> None:
    """Here nobody listens on the journal's socket: lines with their priority are what is left."""
    configured(tmp_path, nowhere)
    command = "JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr) exec twistd -n --pidfile= pubd --config pubd.toml"
    program = run("sh", "-c", command, PATH=f"{BIN}:{os.environ['PATH']}")
    program.says("<4>connection refused")
    assert "<6>" in ended(program)


def test_a_terminal_gets_lines_for_people(nowhere: str, tmp_path: Path) -> None:
    configured(tmp_path, nowhere)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, BIN / "twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml"],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        start_new_session=True,
    )
    os.close(follower)
    try:
        seen = b""
        deadline = time.monotonic() + 20
        while b"#warn] connection refused" not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(leader, 65536)
    finally:
        process.kill()
        process.wait(5)
        os.close(leader)
