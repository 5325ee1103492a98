"""The log file by itself; with logrotate: tests/service/test_logrotate.py."""

from __future__ import annotations

import os
from pathlib import Path

from pubd.operate.log_file import LogFile


def opened(path: Path, rotate_at: int = 1000) -> LogFile:
    return LogFile(path.name, str(path.parent), rotateLength=rotate_at)


def test_it_is_rotated_when_it_is_large_as_it_is(tmp_path: Path) -> None:
    log = opened(tmp_path / "log", 100)
    log.write("a" * 90)
    os.truncate(tmp_path / "log", 0)
    log.write("b" * 90)
    log.write("c" * 20)
    # 200 were written, 110 are there.
    assert (tmp_path / "log").read_text() == "b" * 90 + "c" * 20
    log.write("d")
    assert (tmp_path / "log.1").read_text() == "b" * 90 + "c" * 20
    assert (tmp_path / "log").read_text() == "d"
    log.close()


def test_a_signal_rotates_what_is_there_and_makes_anew_what_is_not(tmp_path: Path) -> None:
    log = opened(tmp_path / "log")
    log.write("one")
    log.signalled()
    log.write("two")
    assert (tmp_path / "log.1").read_text() == "one"
    os.rename(tmp_path / "log", tmp_path / "moved")
    log.write(" too")
    log.signalled()
    log.write("three")
    assert (tmp_path / "moved").read_text() == "two too"
    assert (tmp_path / "log").read_text() == "three"
    os.rename(tmp_path / "log", tmp_path / "moved again")
    (tmp_path / "log").write_text("by somebody else: ")
    log.signalled()
    log.write("four")
    assert (tmp_path / "log").read_text() == "by somebody else: four"
    assert not (tmp_path / "log.2").exists()
    log.close()
