"""The version of pubd, written here and nowhere else (setup.cfg reads it without importing pubd)."""

__version__ = "0.1.0"
