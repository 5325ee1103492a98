"""Whether the spool's open files still have their names: what has none ends with the process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Names:
    """Those that ``paths`` have now. To be made when the files are open, so that nothing else gets their numbers."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._files = [_file(path) for path in paths]

    def lost(self) -> Path | None:
        """The first that was removed, or is the name of another file by now; a few microseconds."""
        for path, file in zip(self._paths, self._files, strict=True):
            try:
                if _file(path) != file:
                    return path
            except (FileNotFoundError, NotADirectoryError):
                return path
            except OSError:
                # A disk that fails is found by reading and writing.
                continue
        return None


def _file(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
