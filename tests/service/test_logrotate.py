"""Debian's logrotate and a log file of pubd's: no line is lost and none is half, whichever way it goes.

How it fails: a file that begins with as many NUL bytes as it had before it was truncated; a daemon that goes on in the
file that was moved away, or that rotates the new file which logrotate made.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.service.conftest import Run
from tests.service.process import Program, until

CONFIG = """\
[broker]
urls = ["{url}"]
[spool]
url = "memory:"
[log]
levels = {{ "pubd.amqp" = "debug" }}
"""
WAYS = {
    "moved away, and made anew by pubd": "nocreate\npostrotate\nkill -USR1 {pid}\nendscript",
    "moved away, and made anew by logrotate": "create 0640\npostrotate\nkill -USR1 {pid}\nendscript",
    "copied and truncated": "copytruncate",
}


def rotate(directory: Path, way: str, pid: int) -> None:
    """As its timer does, but now."""
    program = shutil.which("logrotate", path="/usr/sbin:/sbin:/usr/bin")
    assert program is not None, "logrotate is missing: apt-get install logrotate (script/test does)"
    rules = directory / "rules"
    rules.write_text(f"su root root\n{directory}/logs/pubd.log {{\nrotate 9\n{way.format(pid=pid)}\n}}\n")
    rules.chmod(0o644)
    subprocess.run(
        [program, "--force", "--state", directory / "state", rules], check=True, timeout=60, capture_output=True
    )


def lines(path: Path) -> list[str]:
    """Its messages; every line has to be whole."""
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_it_goes_on_in_the_new_file(run: Run, nowhere: str, tmp_path: Path, way: str) -> None:
    (tmp_path / "logs").mkdir(mode=0o755)
    (tmp_path / "pubd.toml").write_text(CONFIG.format(url=nowhere))
    log = tmp_path / "logs/pubd.log"
    program: Program = run("twistd", "-n", "--pidfile=", "--logfile=logs/pubd.log", "pubd", "--config", "pubd.toml")
    for number in (1, 2):
        until(lambda: log.exists() and "connection refused" in log.read_text(), what=lambda: program.output)
        before = len(lines(log))
        rotate(tmp_path, way, program.pid)
        old = tmp_path / f"logs/pubd.log.{number}"
        # What was there is in the older file, and more comes to the new one.
        until(lambda: log.exists() and "connecting to" in log.read_text(), what=lambda: program.output)
        assert len(lines(tmp_path / "logs/pubd.log.1")) >= before
        assert old.exists()
        assert b"\0" not in log.read_bytes()
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    assert "Server Shut Down." in lines(log)[-1]
    assert sorted(each.name for each in (tmp_path / "logs").iterdir()) == ["pubd.log", "pubd.log.1", "pubd.log.2"]
