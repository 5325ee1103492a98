"""The intake of files: whatever is renamed into a directory is a submission."""

from pubd.intake.directory.service import DirectoryIntake
from pubd.intake.directory.work import Counts

__all__ = ["Counts", "DirectoryIntake"]
