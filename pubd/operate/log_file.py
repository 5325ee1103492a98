"""LogFile: twistd's, which others may rotate as well."""

from __future__ import annotations

import fcntl
import os

from twisted.python.logfile import LogFile as TwistdLogFile


class LogFile(TwistdLogFile):
    """Rotated when it is large, as twistd has it, and when it is told to; goes on whatever logrotate does to it."""

    # Set by _openFile; Twisted's is annotated in part.
    size: int

    def _openFile(self) -> None:
        super()._openFile()
        # At the end as it is then: one who truncates the file does not leave a hole of as many NUL bytes as it had.
        descriptor = self._file.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)

    def shouldRotate(self) -> bool:
        """Whether it is large; not by what was written, which may have been truncated."""
        if not super().shouldRotate():
            return False
        self.size = os.fstat(self._file.fileno()).st_size
        return bool(super().shouldRotate())

    def signalled(self) -> None:
        """Begin anew: in a file of this name if somebody moved the old one away, else with a rotation."""
        if self._is_there():
            self.rotate()
        else:
            self.reopen()

    def reopen_if_moved(self) -> None:
        """The same without a rotation."""
        if not self._is_there():
            self.reopen()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except OSError:
            return False
