"""Named places at which a crash test can end the process: ``PUBD_FAILPOINT=name:count`` kills it at the count-th visit.

Costs one comparison when unset. Read once; not for production.
"""

from __future__ import annotations

import os
import signal

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
