"""What the processes of a life have in common: orders come by standard input, and standard output says what happens."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from pubd.spool import schema
from tests.crash.plan import Orders
from tests.rabbitmq import PR_SET_PDEATHSIG


def orders() -> Orders | None:
    """Wait for them, one line of JSON; None if this process is not needed any more. Upgrades are made up as ordered."""
    # Whatever becomes of the supervisor, nothing is left running.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    line = sys.stdin.readline()
    if not line:
        return None
    given = Orders.loads(line)
    _lengthen(given.steps)
    return given


def say(line: str, to: int = 1) -> None:
    """Written to the pipe when this returns, so that it outlives a kill."""
    data = f"{line}\n".encode()
    while data:
        data = data[os.write(to, data) :]


def _lengthen(steps: int) -> None:
    """Make the schema's newest step a later one, as a newer pubd would."""
    own = schema.steps()
    newest = own[-1][0]
    more = [(newest + n, f"CREATE TABLE later_{n} AS SELECT seq, state FROM message;") for n in range(1, steps + 1)]
    schema.steps = lambda: own + more
