"""100,000 files that wait when pubd starts: each is taken once, in bounded memory, and others are served meanwhile."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.directories import Box, stored
from tests.lines import connect
from tests.service.bad_input import first_answer, started
from tests.service.conftest import Run
from tests.service.crowd import MIB, back_to, descriptors, peak, rss
from tests.service.process import until
from tests.web import GOOD, post

FILES = 100_000
#: Of memory beside that of a daemon with nothing to do: 20,000 names, and 500 files at a time.
ROOM = 60 * MIB


def filled(box: Box, count: int) -> None:
    """As fast as files can be made."""
    new = os.open(box.new, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(count):
            file = os.open(f"{number:06}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=new)
            os.write(file, b"%d" % number)
            os.close(file)
    finally:
        os.close(new)


def test_a_hundred_thousand_files_that_wait_at_the_start(run: Run, tmp_path: Path, nowhere: str) -> None:
    idle = started(run, tmp_path, nowhere)
    usual, opened = rss(idle.program.pid), descriptors(idle.program.pid)
    idle.program.signal(signal.SIGTERM)
    assert idle.program.ends() == 0
    box = Box(tmp_path / "box")
    filled(box, FILES)
    pubd = started(run, tmp_path, nowhere)
    served = 0
    with connect(pubd.port) as client:
        while pubd.accepted < FILES + served:
            assert first_answer(client, post(GOOD)).status == 202
            served += 1
            time.sleep(0.02)
    until(lambda: not os.listdir(box.new), what=lambda: pubd.program.output)
    back_to(pubd.program.pid, opened)
    highest = peak(pubd.program.pid)
    print(f"{served} requests served meanwhile; {usual / MIB:.0f} MiB idle, {highest / MIB:.0f} at most")
    assert served > 10
    assert highest - usual < ROOM
    assert not os.listdir(box.rejected)
    pubd.program.signal(signal.SIGTERM)
    assert pubd.program.ends() == 0
    bodies = [body for _, body in stored(tmp_path / "pubd.db") if body != b"hi"]
    assert bodies == [b"%d" % number for number in range(FILES)]
    assert "Traceback" not in pubd.program.output
