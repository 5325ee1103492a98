"""Named places at which a crash test can end the process: ``PUBD_FAILPOINT=name:count`` kills it at the count-th visit.

Not for production. The environment is read once; unset, a visit costs one comparison, and there is one visit for a
batch, never for a message:

================ ===================================================================================================
after-append     messages are inserted, their transaction is not committed
before-commit    a transaction of the spool, whatever is in it, is about to be committed
after-commit     it is committed and synced, and nobody has been told
after-write      RabbitMQ has taken in what was written to it, and what it answers is here, but not read
after-ack        its answers are known, and nothing is settled
during-migration the spool has been copied for an upgrade, or a step of the upgrade is done and not committed
during-purge     settled messages are deleted, the transaction is not committed
================ ===================================================================================================
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "after-append",
    "before-commit",
    "after-commit",
    "after-write",
    "after-ack",
    "during-migration",
    "during-purge",
)

_name, _, _count = os.environ.get("PUBD_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def reach(name: str) -> None:
    """Die here, as by kill -9, if this is the place and the time."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
