"""Whether a process of this machine was stopped, and the command that helps; from /proc, in one read."""

from __future__ import annotations

from pathlib import Path


def hung(pid: int | str, proc: Path = Path("/proc")) -> str | None:
    """``is stopped: ...``, of a process that a signal or a debugger holds; None: it goes on, or nothing is known."""
    try:
        # The name, in brackets, may have anything in it.
        state = Path(proc, str(int(pid)), "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    if state not in ("T", "t"):
        return None
    return (
        f"is stopped and does nothing: 'kill -CONT {pid}' lets it go on, 'kill -KILL {pid}' ends it; "
        "what it accepted is on disk"
    )
