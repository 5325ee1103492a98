"""The lines intake: one JSON message a line, one JSON answer a line, in order, over any stream socket.

The protocol is described in docs/lines.rst.
"""

from __future__ import annotations

from pubd.intake.lines.intake import LinesIntake

__all__ = ["LinesIntake"]
